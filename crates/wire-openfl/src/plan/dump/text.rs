//! How a scalar is written: plain where it would be read as the same text, else quoted, and broken at spaces beyond column 80.
//!
//! Source: PyYAML 6.0, `analyze_scalar`, `choose_scalar_style` and the writers of its emitter.

use crate::plan::scalar;

/// Lines are broken at the first place beyond this column.
const WIDTH: usize = 80;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Single,
    Double,
}

fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_blank(c: char) -> bool {
    is_break(c) || matches!(c, '\0' | ' ' | '\t' | '\r')
}

impl Style {
    /// The style of a text in block context.
    pub(super) fn of(text: &str) -> Style {
        if text.is_empty() {
            return Style::Single;
        }
        let chars: Vec<char> = text.chars().collect();
        let is_special = chars.iter().any(|c| !(*c == '\n' || (' '..='~').contains(c)));
        let breaks = chars.windows(2).any(|two| matches!(two, [a, b] if is_break(*a) && *b == ' '));
        let spaces = chars.windows(2).any(|two| matches!(two, [a, b] if *a == ' ' && is_break(*b)));
        if is_special || breaks || spaces {
            return Style::Double;
        }
        let at_ends = |c: Option<&char>| c.is_some_and(|c| *c == ' ' || is_break(*c));
        let is_plain = scalar::is_plain_text(text)
            && !at_ends(chars.first())
            && !at_ends(chars.last())
            && !chars.contains(&'\n')
            && !has_indicator(text, &chars);
        if is_plain { Style::Plain } else { Style::Single }
    }
}

fn has_indicator(text: &str, chars: &[char]) -> bool {
    if text.starts_with("---") || text.starts_with("...") {
        return true;
    }
    chars.iter().enumerate().any(|(at, c)| {
        let is_followed = chars.get(at + 1).is_none_or(|next| is_blank(*next));
        let is_preceded = at == 0 || chars.get(at - 1).is_some_and(|before| is_blank(*before));
        match c {
            '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@'
            | '`'
                if at == 0 =>
            {
                true
            }
            '?' | '-' if at == 0 => is_followed,
            ':' => is_followed,
            '#' => is_preceded,
            _ => false,
        }
    })
}

/// A text in its style from `column` on, continued at `indent`; and the column where it ends. The largest indent breaks no line.
pub(super) fn write(text: &str, style: Style, column: usize, indent: usize) -> (String, usize) {
    let mut writer = Writer { out: String::new(), column, indent };
    let chars: Vec<char> = text.chars().collect();
    match style {
        Style::Plain => writer.folded(&chars, false),
        Style::Single => {
            writer.put("'");
            writer.folded(&chars, true);
            writer.put("'");
        }
        Style::Double => {
            writer.put("\"");
            writer.escaped(&chars);
            writer.put("\"");
        }
    }
    (writer.out, writer.column)
}

struct Writer {
    out: String,
    column: usize,
    indent: usize,
}

impl Writer {
    fn put(&mut self, text: &str) {
        self.out.push_str(text);
        self.column += text.chars().count();
    }

    fn can_split(&self) -> bool {
        self.indent != usize::MAX
    }

    fn new_line(&mut self) {
        self.out.push('\n');
        self.column = 0;
    }

    fn indented(&mut self) {
        self.out.push_str(&" ".repeat(self.indent));
        self.column = self.indent;
    }

    /// Plain and single-quoted: broken at single spaces, a line's end written twice.
    fn folded(&mut self, chars: &[char], is_quoted: bool) {
        let mut at = 0;
        while let Some(c) = chars.get(at) {
            let run = chars.iter().skip(at).take_while(|other| *other == c).count();
            match c {
                ' ' => {
                    let is_inner = !is_quoted || (at != 0 && at + run != chars.len());
                    if run == 1 && self.column > WIDTH && self.can_split() && is_inner {
                        self.new_line();
                        self.indented();
                    } else {
                        self.put(&" ".repeat(run));
                    }
                }
                '\n' => {
                    (0..=run).for_each(|_| self.new_line());
                    self.indented();
                }
                '\'' if is_quoted => self.put(&"''".repeat(run)),
                _ => {
                    let word = chars.iter().skip(at);
                    let word: String =
                        word.take_while(|c| !(matches!(c, ' ' | '\n') || is_quoted && **c == '\'')).collect();
                    self.put(&word);
                    at += word.chars().count();
                    continue;
                }
            }
            at += run;
        }
    }

    fn escaped(&mut self, chars: &[char]) {
        let (mut start, mut end) = (0, 0);
        while end <= chars.len() {
            let c = chars.get(end).copied();
            if c.is_none_or(|c| matches!(c, '"' | '\\') || !(' '..='~').contains(&c)) {
                self.slice(chars, start, end);
                start = start.max(end);
                if let Some(c) = c {
                    self.put(&escape(c));
                    start = end + 1;
                }
            }
            let is_inner = 0 < end && end + 1 < chars.len();
            let is_beyond = self.column + end > WIDTH + start;
            if is_inner && (c == Some(' ') || start >= end) && is_beyond && self.can_split() {
                self.slice(chars, start, end);
                start = start.max(end);
                self.put("\\");
                self.new_line();
                self.indented();
                if chars.get(start) == Some(&' ') {
                    self.put("\\");
                }
            }
            end += 1;
        }
    }

    fn slice(&mut self, chars: &[char], start: usize, end: usize) {
        let text: String = chars.get(start..end).unwrap_or_default().iter().collect();
        self.put(&text);
    }
}

fn escape(c: char) -> String {
    let short = match c {
        '\0' => '0',
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\u{b}' => 'v',
        '\u{c}' => 'f',
        '\r' => 'r',
        '\u{1b}' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{a0}' => '_',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        _ => {
            let code = u32::from(c);
            return match code {
                0..=0xff => format!("\\x{code:02X}"),
                0x100..=0xffff => format!("\\u{code:04X}"),
                _ => format!("\\U{code:08X}"),
            };
        }
    };
    format!("\\{short}")
}

/// A float as upstream writes it: the shortest digits that give it back, with a point.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return ".nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { ".inf" } else { "-.inf" }.to_owned();
    }
    let shortest = format!("{value:e}");
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..16).contains(&exponent) {
        let text = value.to_string();
        return if text.contains('.') { text } else { format!("{text}.0") };
    }
    // YAML 1.1 has no float without a point.
    let point = if digits.contains('.') { "" } else { ".0" };
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}{point}e{sign}{:02}", exponent.unsigned_abs())
}

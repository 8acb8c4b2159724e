//! Splits Rust source into what the compiler acts on, what is said in comments, and what stands in strings.
//!
//! Not a parser: it only knows where literals and comments begin and end, which is enough to search code without
//! finding words in prose. Every line keeps its number. Source: the Rust reference, "Lexical structure".

/// The source with everything but one sort of text replaced by spaces; line breaks stay.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Layers {
    /// Code outside literals and comments. Quotes stay, so that a literal's place is still seen.
    pub(crate) code: String,
    /// The text of comments.
    pub(crate) comments: String,
    /// The text inside string literals.
    pub(crate) strings: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Layer {
    Code,
    Comment,
    Text,
}

/// Splits `source`; text that does not lex is taken as code.
pub(crate) fn layers(source: &str) -> Layers {
    let chars: Vec<char> = source.chars().collect();
    let mut split = Layers { code: String::new(), comments: String::new(), strings: String::new() };
    let mut at = 0;
    while at < chars.len() {
        let rest = chars.get(at..).unwrap_or_default();
        let (layer, len) = next(rest, at.checked_sub(1).and_then(|before| chars.get(before)).copied());
        for (idx, char) in rest.iter().take(len).enumerate() {
            // The quotes around a literal belong to the code.
            let edge = layer == Layer::Text && (idx == 0 || idx + 1 == len);
            split.push(if edge { Layer::Code } else { layer }, *char);
        }
        at += len.max(1);
    }
    split
}

impl Layers {
    fn push(&mut self, layer: Layer, char: char) {
        let into = |this: Layer| if char == '\n' || this == layer { char } else { ' ' };
        self.code.push(into(Layer::Code));
        self.comments.push(into(Layer::Comment));
        self.strings.push(into(Layer::Text));
    }
}

/// The layer of what begins here and its length in characters, at least 1.
fn next(rest: &[char], before: Option<char>) -> (Layer, usize) {
    let in_word = before.is_some_and(|char| char.is_alphanumeric() || char == '_');
    match rest {
        ['/', '/', ..] => (Layer::Comment, rest.iter().take_while(|char| **char != '\n').count()),
        ['/', '*', ..] => (Layer::Comment, block_comment_len(rest)),
        ['"', ..] => (Layer::Text, quoted_len(rest, '"')),
        ['\'', ..] => char_len(rest).map_or((Layer::Code, 1), |len| (Layer::Text, len)),
        ['r', '"' | '#', ..] if !in_word => raw_len(rest).map_or((Layer::Code, 1), |len| (Layer::Text, len)),
        _ => (Layer::Code, 1),
    }
}

fn block_comment_len(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(pair) = rest.get(at..at + 2) {
        match pair {
            ['/', '*'] => (depth, at) = (depth + 1, at + 2),
            ['*', '/'] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn quoted_len(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while let Some(char) = rest.get(at) {
        match char {
            '\\' => at += 2,
            char if *char == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a character literal, or nothing if the quote opens a lifetime.
fn char_len(rest: &[char]) -> Option<usize> {
    match rest {
        ['\'', '\\', ..] => Some(quoted_len(rest, '\'')),
        ['\'', _, '\'', ..] => Some(3),
        _ => None,
    }
}

/// The length of a raw string `r#"…"#`, or nothing if it is a raw identifier.
fn raw_len(rest: &[char]) -> Option<usize> {
    let hashes = rest.iter().skip(1).take_while(|char| **char == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return None;
    }
    let closes = |at: usize| {
        rest.get(at) == Some(&'"')
            && rest.iter().skip(at + 1).take(hashes).filter(|char| **char == '#').count() == hashes
    };
    let end = (hashes + 2..rest.len()).find(|at| closes(*at));
    Some(end.map_or(rest.len(), |at| at + 1 + hashes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squeezed(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn words_in_strings_and_comments_are_not_code() {
        let split = layers("let a = \"one \\\" two\"; // three\n/* four /* five */ six */ let b = 'x';");
        assert_eq!(squeezed(&split.code), "let a = \" \"; let b = ' ';");
        assert_eq!(squeezed(&split.comments), "// three /* four /* five */ six */");
        assert_eq!(squeezed(&split.strings), "one \\\" two x");
    }

    #[test]
    fn raw_strings_end_at_their_own_hashes() {
        let split = layers("call(r#\"say \"this\" \"#, br\"x\", r#fn);");
        assert_eq!(squeezed(&split.strings), "#\"say \"this\" \" x");
        assert!(split.code.contains("r#fn"), "{}", split.code);
    }

    #[test]
    fn lifetimes_are_code() {
        let split = layers("fn of<'a>(text: &'a str) -> Option<&'static str> { None }");
        assert!(split.code.contains("<'a>") && split.code.contains("&'static str"), "{}", split.code);
        assert!(split.strings.trim().is_empty());
    }

    #[test]
    fn lines_keep_their_numbers_and_open_ends_do_no_harm() {
        for source in ["a\n\"b\nc", "a\n/* b\nc", "a\nr#\"b\nc", "a\n'\nc", "\\", "'\\", "r", "/"] {
            let split = layers(source);
            for layer in [&split.code, &split.comments, &split.strings] {
                assert_eq!(layer.matches('\n').count(), source.matches('\n').count(), "{source:?}");
                assert_eq!(layer.chars().count(), source.chars().count(), "{source:?}");
            }
        }
    }
}

//! CSV of numbers: no quoting but around names of a header, no other separators, every line of equal length.

use super::{Dataset, Error, ReadOptions, assemble, label_of};

pub(super) fn read(text: &str, options: &ReadOptions) -> Result<Dataset, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end();
    let mut lines = text.lines().enumerate().map(|(idx, line)| (idx + 1, line)).peekable();
    let (_, first) = lines.peek().copied().ok_or(Error::Empty)?;
    let header = first.split(',').any(|field| field.trim().parse::<f64>().is_err()).then_some(first);
    let num_columns = first.split(',').count();
    if num_columns < 2 {
        return Err(Error::Line {
            line: 1,
            reason: "it has one column; features and a label make two".to_owned(),
        });
    }
    let label_at = label_column(options, header, num_columns)?;
    if header.is_some() {
        lines.next();
    }
    let (mut features, mut labels) = (Vec::new(), Vec::new());
    for (line, content) in lines {
        let bad = |reason: String| Error::Line { line, reason };
        let got = content.split(',').count();
        if got != num_columns {
            return Err(bad(format!("it has {got} columns where the first line has {num_columns}")));
        }
        for (column, field) in content.split(',').enumerate() {
            let value =
                field.trim().parse::<f64>().ok().filter(|value| value.is_finite()).ok_or_else(|| {
                    bad(format!("column {}: {:?} is not a finite number", column + 1, shown(field)))
                })?;
            if column == label_at {
                labels.push(label_of(value).ok_or_else(|| {
                    bad(format!(
                        "column {}: {:?} is not the whole number of a class",
                        column + 1,
                        shown(field)
                    ))
                })?);
            } else {
                features.push(value);
            }
        }
    }
    assemble(features, labels, num_columns - 1, options)
}

fn label_column(options: &ReadOptions, header: Option<&str>, num_columns: usize) -> Result<usize, Error> {
    let Some(label) = &options.label else { return Ok(num_columns - 1) };
    let bad = |reason: String| Error::Line { line: 1, reason };
    let header = header
        .ok_or_else(|| bad(format!("the label {label:?} is looked for by name, but there is no header")))?;
    let names = header.split(',').map(|name| name.trim().trim_matches('"'));
    let mut found = names.enumerate().filter(|(_, name)| name == label);
    match (found.next(), found.next()) {
        (Some((column, _)), None) => Ok(column),
        (None, _) => Err(bad(format!("no column is named {label:?}"))),
        (Some(_), Some(_)) => Err(bad(format!("several columns are named {label:?}"))),
    }
}

fn shown(field: &str) -> String {
    field.trim().chars().take(32).collect()
}

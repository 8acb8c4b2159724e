//! Logs: one line per event on standard error, as JSON for machines or text for people.
//!
//! Standard output is never written to. The filter is checked before anything is installed; a second call in the
//! same process changes nothing and returns the options in force.

use std::{
    io::{self, IsTerminal},
    str::FromStr,
    sync::{Mutex, PoisonError},
};

use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::Error;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// One plain line per event, in colour on a terminal.
    Text,
}

impl FromStr for LogFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<LogFormat, Error> {
        match text {
            "json" => Ok(LogFormat::Json),
            "text" => Ok(LogFormat::Text),
            other => Err(Error::BadFormat(head_of(other))),
        }
    }
}

/// What to log and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// How a line looks.
    pub format: LogFormat,
    /// Directives such as `info` or `info,sheaf_server=debug`.
    pub filter: String,
}

impl Default for LogOptions {
    /// Text, from level `info` up.
    fn default() -> LogOptions {
        LogOptions { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

/// Sends the events of this process to standard error; returns the options in force, which are those of the first
/// successful call.
///
/// # Errors
/// [`Error::BadFilter`] if the filter does not parse; [`Error::Taken`] if another subscriber was installed in this
/// process.
pub fn init(options: &LogOptions) -> Result<LogOptions, Error> {
    static IN_FORCE: Mutex<Option<LogOptions>> = Mutex::new(None);
    let mut in_force = IN_FORCE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(first) = in_force.as_ref() {
        return Ok(first.clone());
    }
    let subscriber = subscriber(options, io::stderr, io::stderr().is_terminal())?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::Taken("logs"))?;
    *in_force = Some(options.clone());
    Ok(options.clone())
}

fn subscriber<W>(
    options: &LogOptions,
    writer: W,
    colour: bool,
) -> Result<Box<dyn Subscriber + Send + Sync>, Error>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .parse(&options.filter)
        .map_err(|error| Error::BadFilter { filter: head_of(&options.filter), message: error.to_string() })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    Ok(match options.format {
        LogFormat::Json => Box::new(lines.json().flatten_event(true).with_current_span(true).finish()),
        LogFormat::Text => Box::new(lines.with_ansi(colour).finish()),
    })
}

/// The first characters of a text that is not ours, for a message.
fn head_of(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str, events: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let options = LogOptions { format, filter: filter.to_owned() };
        let subscriber = subscriber(&options, move || writer.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, events);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_lines_carry_the_fields_at_the_top() {
        let text = logged(LogFormat::Json, "info", || {
            tracing::info!(site = "north", round = 3, "round closed");
            tracing::debug!("below the filter");
        });
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(line["message"], "round closed");
        assert_eq!(
            (&line["level"], &line["site"], &line["round"]),
            (&"INFO".into(), &"north".into(), &3.into())
        );
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn a_line_break_in_a_field_does_not_start_a_new_json_line() {
        let text = logged(LogFormat::Json, "info", || tracing::warn!(reason = "a\nb", "refused"));
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn text_lines_are_plain_where_there_is_no_terminal() {
        let text = logged(LogFormat::Text, "warn", || tracing::warn!(site = "north", "late"));
        assert!(text.contains("WARN") && text.contains("late") && text.contains("site=\"north\""), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn a_filter_that_does_not_parse_is_named() {
        let options = LogOptions { filter: "sheaf=loud".to_owned(), ..LogOptions::default() };
        let error = init(&options).unwrap_err();
        assert!(matches!(&error, Error::BadFilter { filter, .. } if filter == "sheaf=loud"), "{error}");
    }

    #[test]
    fn a_second_call_returns_the_options_in_force() {
        let first = init(&LogOptions { filter: "off".to_owned(), ..LogOptions::default() }).unwrap();
        let second = init(&LogOptions { filter: "trace".to_owned(), ..LogOptions::default() }).unwrap();
        assert_eq!((first.filter.as_str(), &second), ("off", &first));
    }

    #[test]
    fn formats_have_one_spelling() {
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert_eq!("text".parse(), Ok(LogFormat::Text));
        assert_eq!("XML".parse::<LogFormat>(), Err(Error::BadFormat("XML".to_owned())));
    }
}

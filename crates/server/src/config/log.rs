//! `[log]`: how the server speaks of itself, on standard error.

use serde::{Deserialize, Serialize};

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// `text` or `json`.
    pub format: LogFormat,
    /// Which records, such as `info` or `info,sheaf_coordinator=debug`.
    pub filter: String,
}

impl Default for LogSection {
    fn default() -> LogSection {
        LogSection { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogSection {
    /// In the telemetry's own terms.
    pub fn options(&self) -> sheaf_telemetry::LogOptions {
        let format = match self.format {
            LogFormat::Text => sheaf_telemetry::LogFormat::Text,
            LogFormat::Json => sheaf_telemetry::LogFormat::Json,
        };
        sheaf_telemetry::LogOptions { format, filter: self.filter.clone() }
    }
}

//! Exit codes and how an error is told.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed |
//! | 2 | the request is wrong: usage, plan, setting, argument |
//! | 3 | what was named does not exist |
//! | 4 | not allowed, or not proven who is asking |
//! | 5 | not possible now; the same command may succeed later |
//! | 6 | it contradicts the present state |
//! | 130 | ended by a second signal |

use std::process::ExitCode;

use sheaf_domain::ErrorKind;

/// A failure whose sort is known.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into() }
    }

    /// The request itself is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(ErrorKind::InvalidArgument, message)
    }
}

/// Tells an error on standard error and gives its exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    // One line: what was tried, then why, outermost first.
    let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
    eprintln!("sheaf: {}", chain.join(": "));
    ExitCode::from(code_of(error))
}

/// A file that was named and is not there.
fn kind_of_io(error: &std::io::Error) -> Option<ErrorKind> {
    (error.kind() == std::io::ErrorKind::NotFound).then_some(ErrorKind::NotFound)
}

fn code_of(error: &anyhow::Error) -> u8 {
    let kind = error.chain().find_map(|cause| {
        cause
            .downcast_ref::<Failure>()
            .map(|failure| failure.kind)
            .or_else(|| cause.downcast_ref::<sheaf_server::Error>().map(sheaf_server::Error::kind))
            .or_else(|| cause.downcast_ref::<sheaf_client::Error>().map(sheaf_client::Error::kind))
            .or_else(|| cause.downcast_ref::<sheaf_bench::Error>().map(sheaf_bench::Error::kind))
            .or_else(|| cause.downcast_ref::<sheaf_domain::Error>().map(sheaf_domain::Error::kind))
            .or_else(|| cause.downcast_ref::<sheaf_pki::Error>().map(sheaf_pki::Error::kind))
            .or_else(|| cause.downcast_ref::<std::io::Error>().and_then(kind_of_io))
    });
    match kind {
        None | Some(ErrorKind::Internal) => 1,
        Some(ErrorKind::InvalidArgument) => 2,
        Some(ErrorKind::NotFound) => 3,
        Some(ErrorKind::Unauthenticated | ErrorKind::PermissionDenied) => 4,
        Some(ErrorKind::Exhausted | ErrorKind::Unavailable | ErrorKind::Timeout) => 5,
        Some(ErrorKind::Conflict) => 6,
    }
}

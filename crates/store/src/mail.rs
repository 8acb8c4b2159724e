//! Mailboxes: their bounds, and the text a principal is kept under.
//!
//! Acknowledged mail is kept until it expires, so that posting it again is still the same mail; of a recipient's
//! acknowledged mail only the newest is kept, as [`MailLimits`] says.

use sheaf_domain::{MailDraft, MailId, Principal, RunId, SiteName, Timestamp};

use crate::Error;
use crate::journal::check_time;

/// The most kinds one request for mail may name.
pub const MAIL_KINDS_MAX: usize = 64;
/// The most mails one page holds, whatever was asked for.
pub const MAIL_LIMIT_MAX: u32 = 1024;
/// The most mails acknowledged at once.
pub const MAIL_ACK_MAX: usize = 4096;

/// How much mail one recipient may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailLimits {
    /// How many mails may wait for it; one more is refused.
    pub waiting_max: u32,
    /// How many acknowledged mails are remembered; the oldest beyond it are forgotten, and posting one of those again
    /// is a new mail.
    pub acknowledged_max: u32,
}

impl Default for MailLimits {
    fn default() -> MailLimits {
        MailLimits { waiting_max: 1024, acknowledged_max: 4096 }
    }
}

/// Checks what can be checked of a mail without the store.
pub(crate) fn check(draft: &MailDraft, now: Timestamp) -> Result<(), Error> {
    draft.check()?;
    check_time("mail", now)?;
    check_time("mail's end", draft.expires_at)?;
    if draft.expires_at <= now {
        return Err(Error::InvalidArgument("the mail has expired before it is posted".to_owned()));
    }
    Ok(())
}

pub(crate) fn check_kinds(kinds: &[String]) -> Result<(), Error> {
    if kinds.len() > MAIL_KINDS_MAX {
        return Err(Error::InvalidArgument(format!(
            "{} kinds of mail exceed the limit of {MAIL_KINDS_MAX}",
            kinds.len()
        )));
    }
    Ok(())
}

pub(crate) fn check_ack(mails: &[MailId]) -> Result<(), Error> {
    if mails.len() > MAIL_ACK_MAX {
        return Err(Error::InvalidArgument(format!(
            "{} mails to acknowledge exceed the limit of {MAIL_ACK_MAX}",
            mails.len()
        )));
    }
    Ok(())
}

/// Reads the text of [`Principal`]'s `Display` back.
pub(crate) fn principal(text: &str) -> Result<Principal, Error> {
    let damaged = |reason: String| Error::damaged("principal", reason);
    let (sort, name) = text.split_once(':').ok_or_else(|| damaged(format!("{text:?} has no sort")))?;
    let site = || SiteName::new(name).map_err(|error| damaged(error.to_string()));
    match sort {
        "participant" => site().map(Principal::Participant),
        "operator" => site().map(Principal::Operator),
        "server-app" => {
            name.parse::<RunId>().map(Principal::ServerApp).map_err(|error| damaged(error.to_string()))
        }
        _ => Err(damaged(format!("{sort:?} is no sort of principal"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_reads_back_from_its_text() {
        let site = SiteName::new("site-1").unwrap();
        let run = RunId::new(7).unwrap();
        for end in
            [Principal::Participant(site.clone()), Principal::Operator(site), Principal::ServerApp(run)]
        {
            assert_eq!(principal(&end.to_string()).unwrap(), end);
        }
        for text in ["", "site-1", "participant:", "server-app:0", "nobody:site-1"] {
            assert!(principal(text).is_err(), "{text:?} was taken");
        }
    }
}

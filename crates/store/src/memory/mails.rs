//! Mail in memory.

use std::collections::BTreeMap;

use sheaf_domain::{Mail, MailDraft, MailId, Principal, Timestamp};

use crate::mail::{MAIL_LIMIT_MAX, check, check_ack, check_kinds};
use crate::{Error, MailLimits};

#[derive(Debug, Default)]
pub(super) struct Mails {
    limits: MailLimits,
    last_id: u64,
    mails: BTreeMap<MailId, Kept>,
}

#[derive(Debug)]
struct Kept {
    mail: Mail,
    acknowledged: bool,
}

impl Mails {
    pub(super) fn new(limits: MailLimits) -> Mails {
        Mails { limits, ..Mails::default() }
    }

    pub(super) fn post(&mut self, draft: MailDraft, now: Timestamp) -> Result<(Mail, bool), Error> {
        check(&draft, now)?;
        let same =
            self.mails.values().find(|kept| is_same(&kept.mail.draft, &draft)).map(|kept| kept.mail.clone());
        match same {
            Some(mail) if mail.draft.expires_at > now => return Ok((mail, false)),
            Some(expired) => drop(self.mails.remove(&expired.id)),
            None => {}
        }
        let waiting = self.mails.values().filter(|kept| kept.waits_for(&draft.to, now)).count();
        if waiting >= usize::try_from(self.limits.waiting_max).unwrap_or(usize::MAX) {
            return Err(Error::MailboxFull { recipient: draft.to, limit: self.limits.waiting_max });
        }
        self.last_id += 1;
        let mail = Mail { id: MailId(self.last_id), draft, posted_at: now };
        self.mails.insert(mail.id, Kept { mail: mail.clone(), acknowledged: false });
        Ok((mail, true))
    }

    pub(super) fn waiting(
        &self,
        to: &Principal,
        kinds: &[String],
        after: Option<MailId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Mail>, Error> {
        check_kinds(kinds)?;
        let waiting = self
            .mails
            .values()
            .filter(|kept| kept.waits_for(to, now))
            .map(|kept| &kept.mail)
            .filter(|mail| after.is_none_or(|after| mail.id > after))
            .filter(|mail| kinds.is_empty() || kinds.contains(&mail.draft.kind));
        Ok(waiting.take(usize::try_from(limit.min(MAIL_LIMIT_MAX)).unwrap_or(usize::MAX)).cloned().collect())
    }

    pub(super) fn ack(&mut self, to: &Principal, mails: &[MailId]) -> Result<u64, Error> {
        check_ack(mails)?;
        let mut ended = 0;
        for id in mails {
            let mine = self.mails.get_mut(id).filter(|kept| kept.mail.draft.to == *to && !kept.acknowledged);
            if let Some(kept) = mine {
                kept.acknowledged = true;
                ended += 1;
            }
        }
        self.forget_oldest_acknowledged(to);
        Ok(ended)
    }

    pub(super) fn expire(&mut self, now: Timestamp) -> u64 {
        let num_before = self.mails.len();
        self.mails.retain(|_, kept| kept.mail.draft.expires_at > now);
        (num_before - self.mails.len()) as u64
    }

    fn forget_oldest_acknowledged(&mut self, to: &Principal) {
        let keep = usize::try_from(self.limits.acknowledged_max).unwrap_or(usize::MAX);
        let of_recipient = |kept: &&Kept| kept.acknowledged && kept.mail.draft.to == *to;
        let beyond: Vec<MailId> =
            self.mails.values().rev().filter(of_recipient).skip(keep).map(|kept| kept.mail.id).collect();
        for id in beyond {
            self.mails.remove(&id);
        }
    }
}

impl Kept {
    fn waits_for(&self, to: &Principal, now: Timestamp) -> bool {
        !self.acknowledged && self.mail.draft.to == *to && self.mail.draft.expires_at > now
    }
}

fn is_same(one: &MailDraft, other: &MailDraft) -> bool {
    let key = |draft: &MailDraft| {
        (draft.run, draft.from.clone(), draft.to.clone(), draft.kind.clone(), draft.correlation.clone())
    };
    key(one) == key(other)
}

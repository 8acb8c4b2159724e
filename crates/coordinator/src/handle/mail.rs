//! Mail between principals: posted once, waiting until it is acknowledged or expires; its body is a stored object.
//!
//! A participant posts as itself and reads its own mailbox; an operator likewise. A body is uploaded first, under a name of the
//! sender's, and kept by a hold that says when the mail expires, so that nothing needs to be remembered to free it. The hold is
//! there before the mail is: no mail that can be read lacks its body.

use bytes::Bytes;
use sheaf_blob::Hold;
use sheaf_domain::{
    ByteSpan, Digest, ErrorKind, Hasher, Identity, Mail, MailDraft, MailId, Principal, Role, Span, Timestamp,
};
use sheaf_store::SiteState;

use super::uploads::Source;
use crate::outbox::lock;
use crate::shared::hold;
use crate::{Error, Handle, READ_LEN_MAX};

/// The most mails one call returns or acknowledges.
const MAILS_MAX: usize = 256;
/// The most bytes that may wait under one upload of bodies.
const BODIES_LEN_MAX: u64 = 64 * 1024 * 1024;
/// The most uploads of bodies one sender may have open.
const BODY_UPLOADS_MAX: usize = 16;
/// The longest a mail may wait.
const TTL_MAX: Span = Span::from_secs(30 * 24 * 3600);

impl Handle {
    /// Reserves room for the body of a mail; `upload` names it until the mail is posted. An upload that rests for an hour is
    /// given up.
    ///
    /// # Errors
    /// As [`Handle::upload`].
    /// # Cancel safety
    /// Safe: a dropped call keeps nothing.
    pub async fn upload_body(&self, who: &Identity, upload: &str, len: u64) -> Result<crate::Upload, Error> {
        self.authorise(who, who.role)?;
        let of = match who.role {
            Role::Participant => Source::Mail { site: who.name.clone() },
            _ => Source::Operator,
        };
        let hold = body_hold(who, upload)?;
        self.open_body_upload(who, &hold)?;
        self.reserve(hold, len, BODIES_LEN_MAX, of, None).await
    }

    /// Bounds how many uploads of bodies a sender has open.
    fn open_body_upload(&self, who: &Identity, hold: &Hold) -> Result<(), Error> {
        let mut uploads = lock(&self.shared.uploads);
        let own = format!("post/{}/{}/", who.role.name(), who.name);
        let open = uploads.keys().filter(|other| *other != hold && other.as_str().starts_with(&own)).count();
        if open >= BODY_UPLOADS_MAX {
            let message =
                format!("{open} uploads of mail bodies are open, which is the limit; post their mails first");
            return Err(Error::new(ErrorKind::Exhausted, message));
        }
        uploads.insert(hold.clone(), self.shared.clock.monotonic());
        Ok(())
    }

    /// Posts a mail; the same (run, from, to, kind, correlation) again is the same mail, and comes back with `false`.
    /// `upload` names the upload its body came under.
    ///
    /// # Errors
    /// Permission denied for another sender than the caller; not found for a run or recipient that does not exist; invalid
    /// argument for a body that was not uploaded and for texts or times out of bounds; exhausted when the mailbox is full.
    /// # Cancel safety
    /// A dropped call is carried out nevertheless; posting again is the same mail.
    pub async fn post_mail(
        &self,
        who: &Identity,
        draft: MailDraft,
        upload: Option<&str>,
    ) -> Result<(Mail, bool), Error> {
        self.authorise(who, who.role)?;
        if draft.from != principal_of(who)? {
            return Err(Error::denied(format!("{} cannot post as {}", who.name, draft.from)));
        }
        draft.check()?;
        let now = self.shared.clock.now();
        if draft.expires_at <= now || draft.expires_at > now.after(TTL_MAX) {
            return Err(Error::invalid(format!("a mail waits for up to {TTL_MAX}, from now on")));
        }
        self.shared.run(draft.run)?;
        self.check_recipient(&draft.to)?;
        let from = match (draft.body, upload) {
            (None, _) => None,
            (Some(body), Some(upload)) => Some((body, body_hold(who, upload)?)),
            (Some(_), None) => return Err(Error::invalid("a body needs the name of its upload")),
        };
        let handle = self.clone();
        self.to_the_end(async move { handle.post(draft, from).await }).await
    }

    async fn post(&self, draft: MailDraft, body: Option<(Digest, Hold)>) -> Result<(Mail, bool), Error> {
        let now = self.shared.clock.now();
        let kept_by = mail_hold(&draft)?;
        if let Some((body, upload)) = &body {
            let held = self.shared.blob.held(upload).await?;
            if !held.iter().any(|(object, _)| object == body)
                || !self.shared.blob.hold(body, &kept_by).await?
            {
                return Err(Error::invalid(format!("the body {} was not uploaded", body.short())));
            }
        }
        let posted = self.shared.store.post_mail(draft, now).await;
        let (mail, new) = match posted {
            Ok(posted) => posted,
            Err(error) => {
                // After a fault of the store the mail may yet come to light; the hold then ends when the mail expires.
                let fault = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout);
                if body.is_some() && !fault {
                    self.shared.release(&kept_by).await;
                }
                return Err(error.into());
            }
        };
        if let Some((_, upload)) = body {
            if !new && mail_hold(&mail.draft)? != kept_by {
                self.shared.release(&kept_by).await;
            }
            lock(&self.shared.uploads).remove(&upload);
            self.shared.release(&upload).await;
        }
        self.shared.mail_posted.send_modify(|posted| *posted += 1);
        Ok((mail, new))
    }

    fn check_recipient(&self, to: &Principal) -> Result<(), Error> {
        match to {
            Principal::Participant(site) => match self.shared.registry.site(site) {
                Some(record) if record.state == SiteState::Active => Ok(()),
                _ => Err(Error::not_found(format!("no site {site} is enrolled"))),
            },
            Principal::ServerApp(run) => self.shared.run(*run).map(drop),
            _ => Ok(()),
        }
    }

    /// The caller's mail of these kinds (all, if none is named) after the mail `after`, oldest first; holds the request while
    /// there is none. A mail is handed out again until it is acknowledged.
    ///
    /// # Errors
    /// Permission denied; when the store cannot be read.
    /// # Cancel safety
    /// Safe: handing out takes nothing away.
    pub async fn mail(
        &self,
        who: &Identity,
        kinds: &[String],
        after: Option<MailId>,
        limit: usize,
        hold: Span,
    ) -> Result<Vec<Mail>, Error> {
        self.authorise(who, who.role)?;
        let to = principal_of(who)?;
        let limit = u32::try_from(limit.clamp(1, MAILS_MAX)).unwrap_or(1);
        let mut posted = self.shared.mail_posted.subscribe();
        let deadline = tokio::time::Instant::now() + hold.min(self.shared.settings.hold_max).as_duration();
        loop {
            posted.mark_unchanged();
            let mails = self.shared.store.mail(&to, kinds, after, limit, self.shared.clock.now()).await?;
            if !mails.is_empty() {
                return Ok(mails);
            }
            tokio::select! {
                biased;
                () = self.shared.scope.cancelled() => return Ok(Vec::new()),
                refused = self.shared.registry.shut_out(who) => return Err(refused),
                _ = posted.changed() => {}
                () = tokio::time::sleep_until(deadline) => return Ok(Vec::new()),
            }
        }
    }

    /// Reads a stretch of the body of a mail that waits for the caller.
    ///
    /// # Errors
    /// Not found when no such mail with a body waits for the caller; invalid argument above [`READ_LEN_MAX`] or beyond its end.
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn read_body(&self, who: &Identity, mail: MailId, span: ByteSpan) -> Result<Bytes, Error> {
        self.authorise(who, who.role)?;
        if span.len > READ_LEN_MAX {
            return Err(Error::invalid(format!(
                "a read of {} bytes exceeds the limit of {READ_LEN_MAX}",
                span.len
            )));
        }
        let found = self.waiting(&principal_of(who)?, mail).await?;
        let body = found.and_then(|mail| mail.draft.body);
        let body = body.ok_or_else(|| Error::not_found("no such mail with a body waits for you"))?;
        Ok(self.shared.blob.read(&body, span.offset, span.len).await?)
    }

    /// Ends the waiting of the caller's mails and frees their bodies; those of others, or unknown, are passed over. Tells how
    /// many ended.
    ///
    /// # Errors
    /// Permission denied; invalid argument for too many mails; when it cannot be made durable.
    /// # Cancel safety
    /// A dropped call is carried out nevertheless.
    pub async fn ack_mail(&self, who: &Identity, mails: &[MailId]) -> Result<u64, Error> {
        self.authorise(who, who.role)?;
        if mails.len() > MAILS_MAX {
            return Err(Error::invalid(format!("{} mails exceed the limit of {MAILS_MAX}", mails.len())));
        }
        let (handle, to, mails) = (self.clone(), principal_of(who)?, mails.to_vec());
        self.to_the_end(async move {
            let mut holds = Vec::new();
            for id in &mails {
                if let Some(mail) = handle.waiting(&to, *id).await?.filter(|mail| mail.draft.body.is_some()) {
                    holds.push(mail_hold(&mail.draft)?);
                }
            }
            let ended = handle.shared.store.ack_mail(&to, &mails).await?;
            for hold in holds {
                handle.shared.release(&hold).await;
            }
            Ok(ended)
        })
        .await
    }

    async fn waiting(&self, to: &Principal, mail: MailId) -> Result<Option<Mail>, Error> {
        let after = mail.0.checked_sub(1).map(MailId);
        let found = self.shared.store.mail(to, &[], after, 1, self.shared.clock.now()).await?;
        Ok(found.into_iter().find(|found| found.id == mail))
    }
}

fn principal_of(who: &Identity) -> Result<Principal, Error> {
    match who.role {
        Role::Participant => Ok(Principal::Participant(who.name.clone())),
        Role::Operator => Ok(Principal::Operator(who.name.clone())),
        _ => Err(Error::denied(format!("{} has no mailbox", who.name))),
    }
}

/// The hold on a body that waits for its mail.
fn body_hold(who: &Identity, upload: &str) -> Result<Hold, Error> {
    let well_formed = !upload.is_empty()
        && upload.len() <= 64
        && upload.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !well_formed {
        return Err(Error::invalid("an upload's name is 1 to 64 ASCII letters, digits and '-'"));
    }
    hold(format!("post/{}/{}/{upload}", who.role.name(), who.name))
}

/// The hold on the body of a mail: when it expires, and what makes it the same mail.
fn mail_hold(draft: &MailDraft) -> Result<Hold, Error> {
    let mut hasher = Hasher::new();
    let (run, from, to) = (draft.run.to_string(), draft.from.to_string(), draft.to.to_string());
    for part in [&run, &from, &to, &draft.kind, &draft.correlation] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hold(format!("{MAIL_HOLDS}{}/{}", draft.expires_at.as_millis(), hasher.finish()))
}

/// How the holds on bodies of mails begin.
const MAIL_HOLDS: &str = "mail/";

fn expiry(hold: &Hold) -> Option<Timestamp> {
    let rest = hold.as_str().strip_prefix(MAIL_HOLDS)?;
    rest.split('/').next()?.parse().ok().map(Timestamp::from_millis)
}

/// Whether a hold keeps the body of a mail that has expired.
pub(crate) fn expired_mail(hold: &Hold, now: Timestamp) -> bool {
    expiry(hold).is_some_and(|expires_at| expires_at <= now)
}

/// Whether a hold keeps the body of a mail that may still wait.
pub(crate) fn waiting_mail(hold: &Hold, now: Timestamp) -> bool {
    expiry(hold).is_some_and(|expires_at| expires_at > now)
}

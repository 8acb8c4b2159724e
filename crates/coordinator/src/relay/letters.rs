//! Letters: posted, handed out, answered, confirmed.

use std::time::Duration;

use bytes::Bytes;
use sheaf_domain::{Digest, Principal, RunId, SiteName};
use sheaf_relay::{Answer, Event, LetterDraft, Loss, ObjectDraft, Rejected, Standing};

use super::Relays;
use super::slot::Slot;
use super::transaction::Transaction;
use super::writer::fits;
use crate::Error;
use crate::outbox::lock;

/// What became of letters that were posted.
#[derive(Debug, Clone)]
pub struct Posted {
    /// What the objects' upload is named by; empty when nothing is missing.
    pub session: String,
    /// The objects still to be brought, children before parents.
    pub missing: Vec<Digest>,
    /// Letters that were not taken, with the reason.
    pub refused: Vec<(Digest, String)>,
}

/// A letter that is handed to its recipient.
#[derive(Debug, Clone)]
pub struct Handed {
    /// The run it belongs to.
    pub run: RunId,
    /// The letter.
    pub letter: Digest,
    /// What its sender's front-end keeps with it.
    pub header: String,
    /// Every object at and below it with those it names, children before parents.
    pub objects: Vec<ObjectDraft>,
}

/// What is known of the answer to a letter.
#[derive(Debug, Clone)]
pub enum Answered {
    /// Here it is.
    Ready(Handed),
    /// It may still come.
    Awaited,
    /// It will not come; the header of the question is given where there is one. The front-end says so with [`Relays::notify`].
    Never {
        /// Why; nothing when there is no such letter.
        why: Option<Loss>,
        /// The header of the question.
        header: Option<String>,
    },
}

impl Relays {
    /// Posts letters of one sender. They travel once everything below them was brought. Posting the same letters again is the
    /// same letters, and tells what is still missing.
    ///
    /// # Errors
    /// Not found; conflict when the run is over; what one letter is refused for is told in [`Posted::refused`].
    /// # Cancel safety
    /// A dropped call may still post; posting again is safe.
    pub async fn post(
        &self,
        from: &Principal,
        run: RunId,
        letters: Vec<LetterDraft>,
        objects: Vec<ObjectDraft>,
    ) -> Result<Posted, Error> {
        let mut refused = Vec::new();
        let mut taken = Vec::new();
        for letter in letters {
            match self.check_recipient(from, &letter.to) {
                Ok(()) => taken.push(letter),
                Err(error) => refused.push((letter.id, error.to_string())),
            }
        }
        let name = self.session_name()?;
        let (slot, from) = (self.slot(run)?, from.clone());
        let (posted, begun) = self
            .transact(run, move |transaction| {
                let begun = post_in(transaction, &from, &name, &taken, &objects, &mut refused)?;
                let relay = transaction.relay();
                let ids: Vec<Digest> = taken.iter().map(|letter| letter.id).collect();
                let session = relay.session_of(&ids).unwrap_or_default().to_owned();
                let missing = relay.missing(&from, &ids);
                Ok((Posted { session, missing, refused }, begun))
            })
            .await?;
        let until = self.shared.clock.monotonic() + self.settings().upload_ttl.as_duration();
        let mut pulse = lock(&slot.pulse);
        for session in begun {
            pulse.uploads.insert(session, until);
        }
        Ok(posted)
    }

    /// Whether a letter may go to this recipient: a participant that is in.
    fn check_recipient(&self, from: &Principal, to: &Principal) -> Result<(), Error> {
        match (from, to) {
            (Principal::ServerApp(_), Principal::Participant(site))
                if !self.shared.registry.is_active(site) =>
            {
                Err(Error::not_found(format!("there is no participant {site}")))
            }
            _ => Ok(()),
        }
    }

    fn session_name(&self) -> Result<String, Error> {
        let mut bytes = [0; 16];
        self.shared.entropy.fill(&mut bytes).map_err(|error| Error::internal(error.to_string()))?;
        Ok(hex::encode(bytes))
    }

    /// The oldest letter that a participant has neither confirmed nor answered, in any run; holds the request for `hold` while
    /// there is none. That it was handed out is durable when this returns.
    ///
    /// # Errors
    /// Unavailable when that cannot be made durable.
    /// # Cancel safety
    /// A dropped call may have handed the letter out; it is handed out again.
    pub async fn next_letter(&self, site: &SiteName, hold: Duration) -> Result<Option<Handed>, Error> {
        let mut letters = self.core.online.watch(site);
        let deadline = tokio::time::Instant::now() + self.hold(hold);
        loop {
            letters.mark_unchanged();
            if let Some(handed) = self.hand_out(site).await? {
                return Ok(Some(handed));
            }
            tokio::select! {
                biased;
                () = self.shared.scope.cancelled() => return Err(Error::shutting_down()),
                changed = letters.changed() => if changed.is_err() { return Ok(None) },
                () = tokio::time::sleep_until(deadline) => return Ok(None),
            }
        }
    }

    async fn hand_out(&self, site: &SiteName) -> Result<Option<Handed>, Error> {
        let now = self.shared.clock.now();
        let mut oldest: Option<(sheaf_domain::Timestamp, RunId)> = None;
        for slot in self.runs() {
            // A run that is being rebuilt hands out later.
            let Ok(Some(posted)) =
                slot.read(|state| state.next_for(site, now).map(|(_, letter)| letter.posted_at))
            else {
                continue;
            };
            if oldest.is_none_or(|(before, _)| posted < before) {
                oldest = Some((posted, slot.run));
            }
        }
        let Some((_, run)) = oldest else { return Ok(None) };
        let site = site.clone();
        self.transact(run, move |transaction| {
            let now = transaction.at();
            let Some((letter, _)) = transaction.relay().next_for(&site, now) else { return Ok(None) };
            transaction.apply(Event::HandedOut { letter })?;
            Ok(handed(transaction.relay(), letter))
        })
        .await
    }

    /// What is known of the answers to letters of the application. Holds the request for `hold` while none is known, and for
    /// `more` from then on while some are awaited.
    ///
    /// # Errors
    /// Not found; unavailable when what was found out cannot be made durable.
    /// # Cancel safety
    /// Safe: answers are handed out until they are confirmed.
    pub async fn answers(
        &self,
        run: RunId,
        questions: &[Digest],
        hold: Duration,
        more: Duration,
    ) -> Result<Vec<(Digest, Answered)>, Error> {
        let slot = self.slot(run)?;
        let mut changed = slot.changed.subscribe();
        let started = tokio::time::Instant::now();
        let mut deadline = started + self.hold(hold);
        let mut known_before = false;
        loop {
            changed.mark_unchanged();
            self.give_up(&slot, questions).await?;
            let known = Known::of(&slot, questions)?;
            if known.awaited == 0 || known.lost || known.over {
                return self.look_up(&slot, questions);
            }
            if known.awaited < questions.len() && !known_before {
                known_before = true;
                deadline = deadline.min(tokio::time::Instant::now() + more);
            }
            let check = tokio::time::Instant::now() + LOSS_CHECK_EVERY;
            tokio::select! {
                biased;
                () = self.shared.scope.cancelled() => return Err(Error::shutting_down()),
                changed = changed.changed() => changed.map_err(|_| Error::shutting_down())?,
                () = tokio::time::sleep_until(deadline) => return self.look_up(&slot, questions),
                () = tokio::time::sleep_until(check) => {}
            }
        }
    }

    /// Gives up questions whose time is up or whose recipient is gone.
    async fn give_up(&self, slot: &Slot, questions: &[Digest]) -> Result<(), Error> {
        let (now, monotonic) = (self.shared.clock.now(), self.shared.clock.monotonic());
        let lost = slot.read(|state| {
            let lost = |question: &Digest| {
                let letter = state.letter(question)?;
                let Principal::Participant(site) = &letter.to else { return None };
                let open =
                    matches!(letter.standing, Standing::Waiting | Standing::HandedOut | Standing::Confirmed);
                if !open {
                    return None;
                }
                let gone = self.core.online.is_gone(site, monotonic);
                let why = if letter.expires_at <= now {
                    Some(Loss::Expired)
                } else {
                    gone.then_some(Loss::RecipientGone)
                };
                why.map(|why| (*question, why))
            };
            questions.iter().filter_map(lost).collect::<Vec<_>>()
        })?;
        if lost.is_empty() {
            return Ok(());
        }
        self.transact(slot.run, move |transaction| {
            for (letter, why) in lost {
                // One that was answered meanwhile is not lost.
                let _ = transaction.apply(Event::Lost { letter, why });
            }
            Ok(())
        })
        .await
    }

    fn look_up(&self, slot: &Slot, questions: &[Digest]) -> Result<Vec<(Digest, Answered)>, Error> {
        slot.read(|state| {
            let look = |question: &Digest| {
                let header = || state.letter(question).map(|letter| letter.header.clone());
                let answer = match state.answer(question) {
                    Answer::Ready(letter) => handed(state, letter).map_or(Answered::Awaited, Answered::Ready),
                    Answer::Awaited => Answered::Awaited,
                    Answer::Lost(why) => Answered::Never { why: Some(why), header: header() },
                    Answer::Unknown => Answered::Never { why: None, header: None },
                };
                (*question, answer)
            };
            questions.iter().map(look).collect()
        })
    }

    /// Tells the application, in a letter of the server's, what became of one of its letters.
    ///
    /// # Errors
    /// As [`Relays::post`]; conflict when the letter was answered meanwhile.
    /// # Cancel safety
    /// A dropped call may have told a part; telling again is safe.
    pub async fn notify(
        &self,
        run: RunId,
        question: Digest,
        header: String,
        letter: Bytes,
        expires_at: sheaf_domain::Timestamp,
    ) -> Result<Handed, Error> {
        let application = Principal::ServerApp(run);
        let id = Digest::of(&letter);
        let draft = LetterDraft { id, to: application.clone(), answers: Some(question), header, expires_at };
        let objects = vec![ObjectDraft { id, children: Vec::new() }];
        let posted = self.post(&application, run, vec![draft], objects).await?;
        if let Some((_, reason)) = posted.refused.into_iter().next() {
            return Err(Error::conflict(reason));
        }
        if !posted.missing.is_empty() {
            self.keep(&application, run, id, letter).await?;
        }
        let handed = self.slot(run)?.read(|state| handed(state, id))?;
        handed.ok_or_else(|| Error::conflict("the notice was read meanwhile"))
    }

    /// Says that the recipient has everything of a letter. Saying it again, or of a letter that is gone, changes nothing.
    ///
    /// # Errors
    /// Unavailable when it cannot be made durable.
    /// # Cancel safety
    /// A dropped call may still be carried out.
    pub async fn confirm(&self, who: &Principal, run: RunId, letter: Digest) -> Result<(), Error> {
        let who = who.clone();
        self.transact(run, move |transaction| {
            let has_it =
                |letter: &sheaf_relay::Letter| letter.to == who && letter.standing != Standing::Incoming;
            let of_theirs = transaction.relay().letter(&letter).is_some_and(has_it);
            if of_theirs {
                match transaction.apply(Event::Confirmed { letter }) {
                    Ok(()) | Err(Rejected::NoLetter(_)) => {}
                    Err(rejected) => return Err(rejected.into()),
                }
            }
            Ok(())
        })
        .await
    }
}

/// How many answers are known, without what they are.
struct Known {
    awaited: usize,
    lost: bool,
    over: bool,
}

impl Known {
    fn of(slot: &Slot, questions: &[Digest]) -> Result<Known, Error> {
        slot.read(|state| {
            let mut known = Known { awaited: 0, lost: false, over: state.application().phase.is_over() };
            for question in questions {
                match state.answer(question) {
                    Answer::Awaited => known.awaited += 1,
                    Answer::Lost(_) | Answer::Unknown => known.lost = true,
                    Answer::Ready(_) => {}
                }
            }
            known
        })
    }
}

/// How often it is looked whether an answer can still come.
const LOSS_CHECK_EVERY: Duration = Duration::from_secs(1);

/// Posts what is new: all at once, or, where something of it is refused, letter by letter.
fn post_in(
    transaction: &mut Transaction<'_>,
    from: &Principal,
    name: &str,
    letters: &[LetterDraft],
    objects: &[ObjectDraft],
    refused: &mut Vec<(Digest, String)>,
) -> Result<Vec<String>, Error> {
    let relay = transaction.relay();
    if relay.application().phase.is_over() {
        return Err(Error::conflict("the run is over"));
    }
    let new = relay.new_letters(from, letters)?;
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let post = |session: String, letters: Vec<LetterDraft>, objects: Vec<ObjectDraft>| Event::Posted {
        session,
        from: from.clone(),
        letters,
        objects,
    };
    let all = post(name.to_owned(), new.clone(), relay.new_objects(objects));
    fits(&all)?;
    if transaction.apply(all).is_ok() {
        return Ok(vec![name.to_owned()]);
    }
    let mut begun = Vec::new();
    for (letter_idx, letter) in new.into_iter().enumerate() {
        let below = below(&letter.id, objects);
        let new_objects = transaction.relay().new_objects(&below);
        let (id, session) = (letter.id, format!("{name}-{letter_idx}"));
        match transaction.apply(post(session.clone(), vec![letter], new_objects)) {
            Ok(()) => begun.push(session),
            Err(rejected) => refused.push((id, rejected.to_string())),
        }
    }
    Ok(begun)
}

/// Of `objects`, those at and below `root`, in their order.
fn below(root: &Digest, objects: &[ObjectDraft]) -> Vec<ObjectDraft> {
    let mut wanted = std::collections::HashSet::from([*root]);
    // Children stand before parents: backwards, every parent is met before its children.
    let mut found: Vec<ObjectDraft> = Vec::new();
    for object in objects.iter().rev() {
        if wanted.contains(&object.id) {
            wanted.extend(object.children.iter().copied());
            found.push(object.clone());
        }
    }
    found.reverse();
    found
}

pub(super) fn handed(relay: &sheaf_relay::Relay, letter: Digest) -> Option<Handed> {
    let header = relay.letter(&letter)?.header.clone();
    let below = relay.below(&letter).into_iter();
    let objects = below
        .map(|id| ObjectDraft {
            id,
            children: relay.children(&id).map(<[Digest]>::to_vec).unwrap_or_default(),
        })
        .collect();
    Some(Handed { run: relay.run(), letter, header, objects })
}

//! How letters come in: what they may be, which objects are still to come, and when they begin to wait.

use std::collections::HashSet;

use sheaf_domain::{Digest, Principal, SiteName, Timestamp};

use crate::event::{LetterDraft, ObjectDraft};
use crate::letter::{Letter, Standing};
use crate::state::{Answer, Effects, Relay, Session, check_len};
use crate::{HEADER_LEN_MAX, LETTERS_MAX, OBJECTS_MAX, Rejected, SESSIONS_MAX, TEXT_LEN_MAX};

impl Relay {
    /// Of these letters, those that are not there yet; the others are the same letters again.
    ///
    /// # Errors
    /// [`Rejected::Taken`] when a letter of that name is from another sender, for another recipient or has another header.
    pub fn new_letters(
        &self,
        from: &Principal,
        drafts: &[LetterDraft],
    ) -> Result<Vec<LetterDraft>, Rejected> {
        let mut new: Vec<LetterDraft> = Vec::new();
        for draft in drafts {
            match self.letters.get(&draft.id) {
                None if new.iter().any(|other| other.id == draft.id) => {}
                None => new.push(draft.clone()),
                Some(known) if same(known, from, draft) => {}
                Some(_) => return Err(Rejected::Taken(draft.id)),
            }
        }
        Ok(new)
    }

    /// Of these objects, those that the run does not know yet.
    pub fn new_objects(&self, drafts: &[ObjectDraft]) -> Vec<ObjectDraft> {
        drafts.iter().filter(|draft| !self.objects.knows(&draft.id)).cloned().collect()
    }

    /// What `from` has still to bring for these letters, children before parents.
    pub fn missing(&self, from: &Principal, letters: &[Digest]) -> Vec<Digest> {
        let mut wanted = Vec::new();
        let mut seen = HashSet::new();
        let of_theirs = |session: &&Session| {
            session.from == *from && session.letters.iter().any(|letter| letters.contains(letter))
        };
        for session in self.sessions.values().filter(of_theirs) {
            for letter in &session.letters {
                for object in self.objects.below(letter) {
                    if session.missing.contains(&object) && seen.insert(object) {
                        wanted.push(object);
                    }
                }
            }
        }
        wanted
    }

    /// Whether `from` is to bring the object, or has brought it.
    pub fn is_wanted(&self, from: &Principal, object: &Digest) -> Wanted {
        let pending = |session: &Session| session.from == *from && session.missing.contains(object);
        if self.sessions.values().any(pending) {
            Wanted::Yes
        } else if self.objects.is_brought_by(object, from) {
            Wanted::Brought
        } else {
            Wanted::No
        }
    }

    /// The objects an object names, as it was announced.
    pub fn children(&self, object: &Digest) -> Option<&[Digest]> {
        self.objects.children(object)
    }

    /// Everything at and below a letter, children before parents.
    pub fn below(&self, letter: &Digest) -> Vec<Digest> {
        self.objects.below(letter)
    }

    /// The uploads under way.
    pub fn sessions(&self) -> impl Iterator<Item = (&str, &[Digest])> {
        self.sessions.iter().map(|(name, session)| (name.as_str(), session.letters.as_slice()))
    }

    /// The upload under way to which one of these letters belongs.
    pub fn session_of(&self, letters: &[Digest]) -> Option<&str> {
        let of_theirs = |session: &Session| session.letters.iter().any(|letter| letters.contains(letter));
        self.sessions.iter().find(|(_, session)| of_theirs(session)).map(|(name, _)| name.as_str())
    }

    /// Whether an upload of this name is under way for `from`; the parts of one that was split bear its name with a number.
    pub fn is_session(&self, from: &Principal, name: &str) -> bool {
        let base = |name: &str| name.split('-').next().map(str::to_owned);
        self.sessions.iter().any(|(known, session)| session.from == *from && base(known) == base(name))
    }

    /// The upload under way in which `from` is to bring the object.
    pub fn session_for(&self, from: &Principal, object: &Digest) -> Option<&str> {
        let wants = |session: &Session| session.from == *from && session.missing.contains(object);
        self.sessions.iter().find(|(_, session)| wants(session)).map(|(name, _)| name.as_str())
    }

    /// Whether `who` may read the object. The application may read whatever the run holds; a participant what it brought and what is
    /// below a letter that it was handed.
    pub fn may_read(&self, who: &Principal, object: &Digest) -> bool {
        match who {
            Principal::ServerApp(run) => *run == self.run && self.objects.knows(object),
            _ => self.objects.is_brought_by(object, who) || self.handed_to(who).contains(object),
        }
    }

    /// Whether the bytes of an object are there.
    pub fn is_there(&self, object: &Digest) -> bool {
        self.objects.is_there(object)
    }

    /// Says that `who` brought an object's bytes. `None` when nobody needs them; else for whom letters wait now.
    pub fn bring(&mut self, who: &Principal, object: &Digest) -> Option<Effects> {
        let mut effects = Effects::default();
        if !self.objects.bring(object, who) {
            return None;
        }
        let mut full = Vec::new();
        for (name, session) in self.sessions.iter_mut().filter(|(_, session)| session.from == *who) {
            session.missing.remove(object);
            if session.missing.is_empty() {
                full.push(name.clone());
            }
        }
        for name in full {
            self.arrive(&name, &mut effects);
        }
        Some(effects)
    }

    /// After everything that is there was told again: looks anew at what uploads lack. While the journal was replayed nobody could say
    /// that a sender need not bring what it had been handed.
    pub fn settle(&mut self) -> Effects {
        let mut effects = Effects::default();
        let mut full = Vec::new();
        for (name, session) in &self.sessions {
            let lacking = self.lacking(&session.from, &session.letters);
            if session.missing.is_disjoint(&lacking) {
                full.push(name.clone());
            }
        }
        for name in full {
            self.arrive(&name, &mut effects);
        }
        let names: Vec<String> = self.sessions.keys().cloned().collect();
        for name in names {
            let Some(session) = self.sessions.get(&name) else { continue };
            let lacking = self.lacking(&session.from, &session.letters);
            if let Some(session) = self.sessions.get_mut(&name) {
                session.missing.retain(|object| lacking.contains(object));
            }
        }
        effects
    }

    /// What `from` has to bring for these letters: whatever is not there, or is and was neither brought by it nor handed to it.
    fn lacking(&self, from: &Principal, letters: &[Digest]) -> HashSet<Digest> {
        let own = self.handed_to(from);
        let reads_all = *from == Principal::ServerApp(self.run);
        let below = letters.iter().flat_map(|letter| self.objects.below(letter));
        below
            .filter(|object| {
                let has = reads_all || self.objects.is_brought_by(object, from) || own.contains(object);
                !(has && self.objects.is_there(object))
            })
            .collect()
    }

    /// The letter to hand to a participant: the oldest it has not confirmed, if its time is not up.
    pub fn next_for(&self, site: &SiteName, now: Timestamp) -> Option<(Digest, &Letter)> {
        let queue = self.queues.get(site)?;
        queue.values().find_map(|id| {
            let letter = self.letters.get(id)?;
            (letter.expires_at > now).then_some((*id, letter))
        })
    }

    /// What is known of the answer to one of the application's letters.
    pub fn answer(&self, letter: &Digest) -> Answer {
        if let Some(found) = self.letters.get(letter) {
            return match found.standing {
                Standing::Answered { by } => Answer::Ready(by),
                Standing::Lost { why, .. } => Answer::Lost(why),
                _ => Answer::Awaited,
            };
        }
        // What the server says about a letter that it does not know answers it as well.
        let notice = self
            .letters
            .iter()
            .find(|(_, other)| other.answers == Some(*letter) && other.standing == Standing::Waiting);
        notice.map_or(Answer::Unknown, |(id, _)| Answer::Ready(*id))
    }

    /// Letters to one participant, whatever became of them.
    pub fn letters_to(&self, site: &SiteName) -> impl Iterator<Item = (Digest, &Letter)> {
        let inbox = self.inboxes.get(site).into_iter().flatten();
        inbox.filter_map(|id| self.letters.get(id).map(|letter| (*id, letter)))
    }

    /// Letters to participants that are still to be answered.
    pub fn unanswered(&self) -> impl Iterator<Item = (Digest, &Letter)> {
        let open = |letter: &Letter| {
            matches!(letter.standing, Standing::Waiting | Standing::HandedOut | Standing::Confirmed)
        };
        let letters = self.inboxes.values().flatten();
        letters.filter_map(move |id| {
            self.letters.get(id).filter(|letter| open(letter)).map(|letter| (*id, letter))
        })
    }

    pub(crate) fn post(
        &mut self,
        at: Timestamp,
        session: &str,
        from: &Principal,
        letters: &[LetterDraft],
        objects: &[ObjectDraft],
        effects: &mut Effects,
    ) -> Result<(), Rejected> {
        self.check_post(at, session, from, letters, objects)?;
        let questions = letters.iter().filter_map(|letter| letter.answers);
        let replaced: Vec<Digest> =
            questions.flat_map(|question| self.answers_under_way(&question)).collect();
        self.objects.announce(objects);
        for draft in letters {
            self.objects.name(&draft.id);
            self.letters.insert(draft.id, letter(at, from, draft, self.next_number));
            if let Principal::Participant(site) = &draft.to {
                self.inboxes.entry(site.clone()).or_default().insert(draft.id);
            }
            self.next_number += 1;
        }
        let ids: Vec<Digest> = letters.iter().map(|letter| letter.id).collect();
        let missing = self.lacking(from, &ids);
        // Only now: the newer ones may need what the older ones brought.
        for older in &replaced {
            self.remove(older, effects);
        }
        self.sessions.insert(session.to_owned(), Session { from: from.clone(), letters: ids, missing });
        if self.sessions.get(session).is_some_and(|session| session.missing.is_empty()) {
            self.arrive(session, effects);
        }
        Ok(())
    }

    fn check_post(
        &self,
        at: Timestamp,
        session: &str,
        from: &Principal,
        letters: &[LetterDraft],
        objects: &[ObjectDraft],
    ) -> Result<(), Rejected> {
        let too_many = |what, max| Err(Rejected::TooMany { what, max });
        if self.letters.len() + letters.len() > LETTERS_MAX {
            return too_many("letters", LETTERS_MAX);
        }
        if self.objects.len() + objects.len() > OBJECTS_MAX {
            return too_many("objects", OBJECTS_MAX);
        }
        if self.sessions.len() >= SESSIONS_MAX {
            return too_many("uploads", SESSIONS_MAX);
        }
        check_len("session", session, TEXT_LEN_MAX)?;
        self.objects.check(objects)?;
        let announced: HashSet<&Digest> = objects.iter().map(|object| &object.id).collect();
        let mut seen = HashSet::new();
        for draft in letters {
            if self.letters.contains_key(&draft.id) || !seen.insert(draft.id) {
                return Err(Rejected::Taken(draft.id));
            }
            if !announced.contains(&draft.id) && !self.objects.knows(&draft.id) {
                return Err(Rejected::Dangling { parent: draft.id, child: draft.id });
            }
            if draft.expires_at <= at {
                return Err(Rejected::Expired(draft.id));
            }
            check_len("header", &draft.header, HEADER_LEN_MAX)?;
            self.check_way(from, draft)?;
        }
        Ok(())
    }

    /// The application writes to participants, a participant answers what it was handed, and the server tells the application,
    /// in the application's own name, what became of a letter.
    fn check_way(&self, from: &Principal, draft: &LetterDraft) -> Result<(), Rejected> {
        let application = Principal::ServerApp(self.run);
        match (from, &draft.to) {
            (Principal::ServerApp(_), Principal::Participant(_)) if *from == application => {
                if draft.answers.is_none() { Ok(()) } else { Err(Rejected::WrongRecipient) }
            }
            (Principal::ServerApp(_), Principal::ServerApp(_))
                if *from == application && draft.to == application =>
            {
                let question = draft.answers.ok_or(Rejected::NotAsked)?;
                match self.answer(&question) {
                    Answer::Ready(_) => Err(Rejected::Answered(question)),
                    Answer::Awaited => Err(Rejected::NotAsked),
                    Answer::Lost(_) | Answer::Unknown => Ok(()),
                }
            }
            (Principal::Participant(_), Principal::ServerApp(_)) if draft.to == application => {
                let question = draft.answers.ok_or(Rejected::NotAsked)?;
                let asked = self.letters.get(&question).ok_or(Rejected::NoLetter(question))?;
                if asked.to != *from {
                    return Err(Rejected::NoLetter(question));
                }
                match asked.standing {
                    Standing::HandedOut | Standing::Confirmed => Ok(()),
                    Standing::Answered { .. } => Err(Rejected::Answered(question)),
                    _ => Err(Rejected::NotAsked),
                }
            }
            _ => Err(Rejected::WrongRecipient),
        }
    }

    /// Answers to a question that never became complete; a newer one replaces them.
    fn answers_under_way(&self, question: &Digest) -> Vec<Digest> {
        let under_way =
            |letter: &Letter| letter.answers == Some(*question) && letter.standing == Standing::Incoming;
        self.letters.iter().filter(|(_, letter)| under_way(letter)).map(|(id, _)| *id).collect()
    }

    pub(crate) fn drop_answers_under_way(&mut self, question: &Digest, effects: &mut Effects) {
        for id in self.answers_under_way(question) {
            self.remove(&id, effects);
        }
    }

    /// Everything of an upload is there: its letters begin to wait.
    pub(crate) fn arrive(&mut self, session: &str, effects: &mut Effects) {
        let Some(session) = self.sessions.remove(session) else { return };
        for id in session.letters {
            let Some(letter) = self.letters.get_mut(&id) else { continue };
            letter.standing = Standing::Waiting;
            effects.wake.insert(letter.to.clone());
            match (&letter.to, letter.answers) {
                (Principal::Participant(site), _) => {
                    self.queues.entry(site.clone()).or_default().insert(letter.number, id);
                }
                (_, Some(question)) => self.close(&question, id, effects),
                _ => {}
            }
        }
    }

    /// A question has its answer.
    fn close(&mut self, question: &Digest, by: Digest, effects: &mut Effects) {
        let Some(asked) = self.letters.get_mut(question) else { return };
        asked.standing = Standing::Answered { by };
        let (to, number) = (asked.to.clone(), asked.number);
        if let Principal::Participant(site) = &to {
            self.unqueue(site, number);
        }
        self.let_go(question, effects);
    }

    /// Everything below letters that a participant was handed and has not answered.
    fn handed_to(&self, who: &Principal) -> HashSet<Digest> {
        let Principal::Participant(site) = who else { return HashSet::new() };
        let inbox = self.inboxes.get(site).into_iter().flatten();
        let open = inbox.filter(|id| self.letters.get(id).is_some_and(Letter::is_with_recipient));
        open.flat_map(|id| self.objects.below(id)).collect()
    }
}

/// Whether an object is to be brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// It is still to come.
    Yes,
    /// This sender brought it before.
    Brought,
    /// Nobody asked this sender for it.
    No,
}

fn same(known: &Letter, from: &Principal, draft: &LetterDraft) -> bool {
    known.from == *from
        && known.to == draft.to
        && known.answers == draft.answers
        && known.header == draft.header
}

fn letter(at: Timestamp, from: &Principal, draft: &LetterDraft, number: u64) -> Letter {
    Letter {
        from: from.clone(),
        to: draft.to.clone(),
        answers: draft.answers,
        header: draft.header.clone(),
        posted_at: at,
        expires_at: draft.expires_at,
        standing: Standing::Incoming,
        number,
        holds_objects: true,
    }
}

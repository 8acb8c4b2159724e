//! A relayed run as its journal tells it, and how events change it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sheaf_domain::{Digest, Principal, RunId, SiteName, Timestamp};

use crate::application::{Application, Phase};
use crate::event::{Event, Loss, Outcome};
use crate::letter::{Letter, Standing};
use crate::objects::{Freed, Objects};
use crate::{HEADER_LEN_MAX, Rejected, TEXT_LEN_MAX};

/// What came of an event besides the new state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// For whom a letter waits now.
    pub wake: BTreeSet<Principal>,
    /// Objects that nobody needs any more.
    pub freed: Vec<Freed>,
}

/// What is known of the answer to a letter of the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// This letter answers it.
    Ready(Digest),
    /// It may still be answered.
    Awaited,
    /// It will not be answered; nobody has said so to the application yet.
    Lost(Loss),
    /// There is no such letter.
    Unknown,
}

/// A relayed run.
#[derive(Debug, Clone)]
pub struct Relay {
    pub(crate) run: RunId,
    by: SiteName,
    bundle: Digest,
    header: String,
    coordinated: bool,
    application: Application,
    pub(crate) letters: HashMap<Digest, Letter>,
    /// Every letter for a participant, until it is forgotten.
    pub(crate) inboxes: BTreeMap<SiteName, BTreeSet<Digest>>,
    /// Letters for a participant that it has not confirmed, in the order of posting.
    pub(crate) queues: BTreeMap<SiteName, BTreeMap<u64, Digest>>,
    pub(crate) sessions: BTreeMap<String, Session>,
    pub(crate) objects: Objects,
    pub(crate) next_number: u64,
}

/// An upload under way.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) from: Principal,
    pub(crate) letters: Vec<Digest>,
    pub(crate) missing: HashSet<Digest>,
}

impl Relay {
    /// A run from the first event of its journal.
    ///
    /// # Errors
    /// [`Rejected::NotFirst`] for another event; [`Rejected::TooLong`].
    pub fn create(at: Timestamp, event: &Event) -> Result<Relay, Rejected> {
        let Event::Created { run, by, bundle, header, coordinated } = event else {
            return Err(Rejected::NotFirst);
        };
        check_len("header", header, HEADER_LEN_MAX)?;
        Ok(Relay {
            run: *run,
            by: by.clone(),
            bundle: *bundle,
            header: header.clone(),
            application: if *coordinated { Application::at_work(at) } else { Application::new(at) },
            coordinated: *coordinated,
            letters: HashMap::new(),
            inboxes: BTreeMap::new(),
            queues: BTreeMap::new(),
            sessions: BTreeMap::new(),
            objects: Objects::default(),
            next_number: 0,
        })
    }

    /// The run.
    pub fn run(&self) -> RunId {
        self.run
    }
    /// The operator who asked for it.
    pub fn by(&self) -> &SiteName {
        &self.by
    }
    /// The bundle that holds its application.
    pub fn bundle(&self) -> Digest {
        self.bundle
    }
    /// What the front-end keeps with it.
    pub fn header(&self) -> &str {
        &self.header
    }
    /// Whether the server itself is its application.
    pub fn is_coordinated(&self) -> bool {
        self.coordinated
    }
    /// Its application.
    pub fn application(&self) -> &Application {
        &self.application
    }
    /// A letter.
    pub fn letter(&self, id: &Digest) -> Option<&Letter> {
        self.letters.get(id)
    }
    /// How many letters it holds.
    pub fn letters_len(&self) -> usize {
        self.letters.len()
    }

    /// Takes an event.
    ///
    /// # Errors
    /// [`Rejected`]; the state is as before.
    pub fn apply(&mut self, at: Timestamp, event: &Event) -> Result<Effects, Rejected> {
        if self.application.phase.is_over() {
            return Err(Rejected::Over);
        }
        let mut effects = Effects::default();
        match event {
            Event::Created { .. } => return Err(Rejected::NotFirst),
            Event::Claimed { token } => {
                self.expect(&Phase::Pending)?;
                self.application.phase = Phase::Starting;
                self.application.token = Some(*token);
                self.application.process = None;
                self.application.starting_at = Some(at);
            }
            Event::Launched { process } => {
                check_len("process", process, TEXT_LEN_MAX)?;
                if self.application.phase == Phase::Pending {
                    return Err(self.not_there("starting or running"));
                }
                self.application.process = Some(process.clone());
            }
            Event::Begun => {
                self.expect(&Phase::Starting)?;
                self.application.phase = Phase::Running;
                self.application.running_at = Some(at);
            }
            Event::Returned { .. } => {
                self.expect(&Phase::Starting)?;
                self.application.phase = Phase::Pending;
                self.application.token = None;
                self.application.process = None;
            }
            Event::Ended { outcome, details } => self.end(at, *outcome, details, &mut effects)?,
            Event::Posted { session, from, letters, objects } => {
                self.post(at, session, from, letters, objects, &mut effects)?;
            }
            Event::Abandoned { letters, .. } => self.abandon(letters, &mut effects)?,
            Event::HandedOut { letter } => {
                let found = self.letters.get(letter).ok_or(Rejected::NoLetter(*letter))?;
                if !matches!(found.standing, Standing::Incoming | Standing::Waiting | Standing::HandedOut) {
                    return Err(Rejected::NoLetter(*letter));
                }
                self.imply_arrival(letter, &mut effects);
                if let Some(found) = self.letters.get_mut(letter) {
                    found.standing = Standing::HandedOut;
                }
            }
            Event::Confirmed { letter } => self.confirm(letter, &mut effects)?,
            Event::Reopened { site } => self.reopen(site, &mut effects),
            Event::Lost { letter, why } => self.lose(at, letter, *why, &mut effects)?,
        }
        Ok(effects)
    }

    fn expect(&self, wanted: &Phase) -> Result<(), Rejected> {
        if self.application.phase == *wanted { Ok(()) } else { Err(self.not_there(wanted.name())) }
    }

    fn not_there(&self, wanted: &'static str) -> Rejected {
        Rejected::NotThere { is: self.application.phase.name(), wanted }
    }

    fn end(
        &mut self,
        at: Timestamp,
        outcome: Outcome,
        details: &str,
        effects: &mut Effects,
    ) -> Result<(), Rejected> {
        check_len("details", details, TEXT_LEN_MAX)?;
        if outcome == Outcome::Completed {
            self.expect(&Phase::Running)?;
        }
        self.application.phase = Phase::Ended { outcome, details: details.to_owned() };
        self.application.token = None;
        self.application.ended_at = Some(at);
        effects.wake.extend(self.queues.keys().cloned().map(Principal::Participant));
        effects.wake.insert(Principal::ServerApp(self.run));
        self.letters.clear();
        self.inboxes.clear();
        self.queues.clear();
        self.sessions.clear();
        self.objects.clear(&mut effects.freed);
        Ok(())
    }

    fn abandon(&mut self, letters: &[Digest], effects: &mut Effects) -> Result<(), Rejected> {
        let incoming =
            |id: &&Digest| self.letters.get(*id).is_some_and(|letter| letter.standing == Standing::Incoming);
        if let Some(other) = letters.iter().find(|id| !incoming(id)) {
            return Err(Rejected::NoLetter(*other));
        }
        for id in letters {
            self.remove(id, effects);
        }
        Ok(())
    }

    /// What happens to a letter that arrived says that it had: that everything is there is not in the journal, and while it is replayed
    /// nobody has said yet which bytes are.
    fn imply_arrival(&mut self, id: &Digest, effects: &mut Effects) {
        if self.letters.get(id).is_some_and(|letter| letter.standing == Standing::Incoming)
            && let Some(session) = self.session_of(std::slice::from_ref(id)).map(str::to_owned)
        {
            self.arrive(&session, effects);
        }
    }

    /// A participant's confirmation leaves the objects until it answers; the application's ends question and answer.
    fn confirm(&mut self, id: &Digest, effects: &mut Effects) -> Result<(), Rejected> {
        let letter = self.letters.get_mut(id).ok_or(Rejected::NoLetter(*id))?;
        match &letter.to {
            Principal::Participant(site) => {
                if !letter.is_with_recipient() {
                    return Err(Rejected::NoLetter(*id));
                }
                letter.standing = Standing::Confirmed;
                let (site, number) = (site.clone(), letter.number);
                self.unqueue(&site, number);
            }
            _ => {
                let question = letter.answers;
                self.imply_arrival(id, effects);
                self.remove(id, effects);
                if let Some(question) = question {
                    self.remove(&question, effects);
                }
            }
        }
        Ok(())
    }

    fn reopen(&mut self, site: &SiteName, effects: &mut Effects) {
        let to = Principal::Participant(site.clone());
        let queue = self.queues.entry(site.clone()).or_default();
        for id in self.inboxes.get(site).into_iter().flatten() {
            let Some(letter) = self.letters.get_mut(id) else { continue };
            if letter.is_with_recipient() {
                letter.standing = Standing::Waiting;
                queue.insert(letter.number, *id);
            }
        }
        if queue.is_empty() {
            self.queues.remove(site);
        } else {
            effects.wake.insert(to);
        }
    }

    fn lose(&mut self, at: Timestamp, id: &Digest, why: Loss, effects: &mut Effects) -> Result<(), Rejected> {
        let letter = self.letters.get(id).ok_or(Rejected::NoLetter(*id))?;
        let Principal::Participant(site) = letter.to.clone() else { return Err(Rejected::NoLetter(*id)) };
        if matches!(letter.standing, Standing::Answered { .. } | Standing::Lost { .. }) {
            return Err(Rejected::NoLetter(*id));
        }
        if why == Loss::Withdrawn {
            self.drop_answers_under_way(id, effects);
            self.remove(id, effects);
            return Ok(());
        }
        self.imply_arrival(id, effects);
        let letter = self.letters.get_mut(id).ok_or(Rejected::NoLetter(*id))?;
        letter.standing = Standing::Lost { why, at };
        let number = letter.number;
        self.unqueue(&site, number);
        self.let_go(id, effects);
        self.drop_answers_under_way(id, effects);
        effects.wake.insert(Principal::ServerApp(self.run));
        Ok(())
    }

    pub(crate) fn unqueue(&mut self, site: &SiteName, number: u64) {
        if let Some(queue) = self.queues.get_mut(site) {
            queue.remove(&number);
            if queue.is_empty() {
                self.queues.remove(site);
            }
        }
    }

    /// The letter needs its objects no longer.
    pub(crate) fn let_go(&mut self, id: &Digest, effects: &mut Effects) {
        let Some(letter) = self.letters.get_mut(id) else { return };
        if std::mem::take(&mut letter.holds_objects) {
            self.objects.unname(id, &mut effects.freed);
        }
    }

    pub(crate) fn remove(&mut self, id: &Digest, effects: &mut Effects) {
        self.let_go(id, effects);
        let Some(letter) = self.letters.remove(id) else { return };
        if let Principal::Participant(site) = &letter.to {
            self.unqueue(site, letter.number);
            if let Some(inbox) = self.inboxes.get_mut(site) {
                inbox.remove(id);
                if inbox.is_empty() {
                    self.inboxes.remove(site);
                }
            }
        }
        if letter.standing == Standing::Incoming {
            self.sessions.retain(|_, session| {
                session.letters.retain(|other| other != id);
                !session.letters.is_empty()
            });
        }
    }
}

pub(crate) fn check_len(what: &'static str, text: &str, max: usize) -> Result<(), Rejected> {
    if text.len() <= max { Ok(()) } else { Err(Rejected::TooLong { what, len: text.len(), max }) }
}

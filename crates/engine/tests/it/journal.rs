//! The JSON form of events: a file format, kept and re-read; and what a strange journal may not do.

use sheaf_domain::{Digest, LineageName, Refusal, RunId, SlotName, StageName, TaskId, Timestamp};
use sheaf_engine::{Event, RunState, Start, StartVersion};

use crate::plans::*;
use crate::world::submitted;

/// A list of events, each on a line of its own: the bytes of a journal entry's body.
const STORED: &str = include_str!("../../testdata/events-1.json");

/// One event of every kind, with every sort of refusal.
fn every_kind() -> Vec<Event> {
    let plan = plan_with(|plan| {
        plan.evaluate = evaluating(2);
        plan.stop = patience(3, 0.25);
        plan.cohort.deadline = deadline();
        plan.train_config.insert("epochs".to_owned(), sheaf_domain::ConfigValue::Int(5));
        plan.train_config.insert("rate".to_owned(), sheaf_domain::ConfigValue::Float(1.0));
    });
    let (round, stage) = (1, StageName::new("train").unwrap());
    let (name, slot) = (site("berlin"), SlotName::new("model").unwrap());
    let task = TaskId::derive(run_id(), 1, &stage, &name, 1);
    let reason = "why".to_owned();
    let warm =
        StartVersion { lineage: LineageName::global(), manifest: manifest("w"), digest: Digest::of(b"w") };
    let mut events = vec![
        created(&plan, Start::Versions { from: RunId::new(9), versions: vec![warm] }),
        created(&plan, Start::Trainer),
        Event::SitePresent { site: name.clone() },
        Event::SitesPresent { sites: vec![name.clone()] },
        Event::SiteLost { site: name.clone(), reason: reason.clone() },
        Event::SiteRevoked { site: name.clone(), reason: reason.clone() },
        submitted(task, name.clone(), 128.0, accuracy(0.1 + 0.2)),
        Event::Failed { task, site: name.clone(), reason: reason.clone() },
        Event::DeadlinePassed { round, stage: stage.clone() },
        Event::Folded {
            round,
            stage: stage.clone(),
            versions: vec![new_version(LineageName::global(), 1, "v")],
        },
        Event::FoldFailed { round, stage, reason: reason.clone(), permanent: true },
        Event::StopRequested { reason },
        Event::Extended { rounds: 3 },
    ];
    let message = "what is wrong".to_owned();
    let refusals = [
        Refusal::Slots { message: message.clone() },
        Refusal::Schema { slot: slot.clone(), message: message.clone() },
        Refusal::NotFinite { slot: slot.clone(), tensor: "w".to_owned(), index: 3 },
        Refusal::Weight { value: "NaN".to_owned(), min: "1".to_owned(), max: "10".to_owned() },
        Refusal::Metric { name: "loss".to_owned(), message: message.clone() },
        Refusal::Bytes { slot, message: message.clone() },
        Refusal::Malformed { message },
    ];
    events.extend(refusals.map(|refusal| Event::Refused { task, site: name.clone(), refusal }));
    events
}

#[test]
fn stored_events_are_read_and_written_as_they_were() {
    let stored: Vec<Event> = serde_json::from_str(STORED).unwrap();
    assert_eq!(stored, every_kind());
    let mut lines = STORED.lines().filter(|line| line.len() > 1).map(|line| line.trim_end_matches(','));
    for event in every_kind() {
        let line = lines.next().unwrap_or_else(|| panic!("no line for {}", event.kind()));
        assert_eq!(serde_json::to_string(&event).unwrap(), line);
        assert!(line.contains(&format!("\"event\":\"{}\"", event.kind())));
    }
    assert_eq!(lines.next(), None);
}

#[test]
fn a_run_begins_with_its_creation_and_has_one() {
    for event in every_kind().into_iter().skip(2) {
        assert!(RunState::create(Timestamp::default(), &event).is_err(), "{event:?}");
    }
    let creation = created(&plan(), start());
    let (mut state, _) = RunState::create(Timestamp::default(), &creation).unwrap();
    assert!(state.apply(Timestamp::default(), &creation).is_err());
}

#[test]
fn events_of_another_run_are_refused_or_harmless() {
    let creation = created(&plan(), start());
    let (mut state, _) = RunState::create(Timestamp::default(), &creation).unwrap();
    for event in every_kind().into_iter().skip(2) {
        let before = state.clone();
        if state.apply(Timestamp::from_millis(u64::MAX), &event).is_err() {
            assert_eq!(state, before, "{event:?}");
        }
    }
}

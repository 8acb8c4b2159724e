//! Relayed runs: letters between an application and participants, driven by hand, with restarts in between.

use std::time::Duration;

use bytes::Bytes;
use sheaf_coordinator::{Answered, Bring, Found, Handed, KeyCard, LogCursor, NewRelay, Posted, Seat};
use sheaf_domain::{Digest, ErrorKind, JournalId, Principal, RunId, SiteName, Span, Timestamp};
use sheaf_pki::{PublicKey, SiteKey};
use sheaf_relay::{LetterDraft, Loss, ObjectDraft, Outcome, Phase};

use crate::world::{Backend, World, on_both};

on_both!(
    a_question_is_answered_across_restarts,
    what_was_handed_out_comes_again_until_it_is_confirmed,
    an_application_that_shows_no_life_fails_its_run,
    a_claim_that_comes_to_nothing_is_given_back,
    a_participant_that_goes_leaves_its_question_unanswered,
    nobody_is_gone_because_the_server_died,
    nobody_reads_or_claims_what_is_of_others,
    an_upload_that_rests_is_given_up,
    a_commit_that_fails_changes_nothing,
    a_log_is_read_from_where_one_stands,
    a_run_that_is_over_keeps_no_bytes_but_its_bundle,
);

/// Long enough for a request that is answered at once.
const AT_ONCE: Duration = Duration::ZERO;

pub(crate) struct Relay {
    pub(crate) run: RunId,
    pub(crate) seat: Seat,
}

pub(crate) struct Letter {
    pub(crate) draft: LetterDraft,
    pub(crate) objects: Vec<(ObjectDraft, Bytes)>,
}

impl Letter {
    /// A letter over a model; both are objects.
    pub(crate) fn new(
        world: &World,
        text: &str,
        to: Principal,
        answers: Option<Digest>,
        model: &str,
    ) -> Letter {
        let (model, root) = (Bytes::from(model.to_owned()), Bytes::from(format!("letter {text}")));
        let below = ObjectDraft { id: Digest::of(&model), children: vec![] };
        let above = ObjectDraft { id: Digest::of(&root), children: vec![below.id] };
        let expires_at = sheaf_runtime::Clock::now(&*world.clock).after(Span::from_secs(3600));
        let draft = LetterDraft { id: above.id, to, answers, header: text.to_owned(), expires_at };
        Letter { draft, objects: vec![(below, model), (above, root)] }
    }
}

pub(crate) async fn begun(world: &World) -> Relay {
    let new = NewRelay { bundle: Bytes::from_static(b"bundle"), header: "demo".to_owned() };
    let run = world.relays.create(&world.operator, new).await.unwrap();
    let claimed = world.relays.claim(|_| true, AT_ONCE).await.unwrap().unwrap();
    assert_eq!(claimed.run, run);
    let seat = world.relays.seat(claimed.token.reveal()).unwrap();
    world.relays.begin(seat).await.unwrap();
    Relay { run, seat }
}

pub(crate) async fn participant(world: &World) -> SiteName {
    let key = SiteKey::generate().unwrap();
    let key = PublicKey::from_spki_der(key.public_key().spki_der()).unwrap();
    let site = world.relays.register(&key, KeyCard::default()).await.unwrap();
    world.relays.activate(&site, Duration::from_secs(30)).await.unwrap();
    world.relays.heard(&site, None);
    site
}

pub(crate) async fn post(world: &World, from: &Principal, run: RunId, letter: &Letter) -> Posted {
    let objects = letter.objects.iter().map(|(object, _)| object.clone()).collect();
    world.relays.post(from, run, vec![letter.draft.clone()], objects).await.unwrap()
}

/// Brings what is missing of a letter.
pub(crate) async fn send(world: &World, from: &Principal, run: RunId, letter: &Letter) {
    let posted = post(world, from, run, letter).await;
    assert_eq!(posted.refused, []);
    for object in posted.missing {
        assert!(bring(world, from, run, letter, object).await);
    }
}

pub(crate) async fn bring(
    world: &World,
    from: &Principal,
    run: RunId,
    letter: &Letter,
    object: Digest,
) -> bool {
    let (_, bytes) = letter.objects.iter().find(|(draft, _)| draft.id == object).unwrap();
    match world.relays.bring(from, run, object, bytes.len() as u64).await.unwrap() {
        Bring::Wanted(mut intake) => {
            intake.write(bytes.clone()).await.unwrap();
            intake.finish().await.unwrap()
        }
        Bring::Brought => true,
        Bring::NotWanted => false,
    }
}

pub(crate) async fn next(world: &World, site: &SiteName) -> Option<Handed> {
    world.relays.next_letter(site, AT_ONCE).await.unwrap()
}

pub(crate) async fn read(world: &World, who: &Principal, run: RunId, object: Digest) -> Option<Vec<u8>> {
    let Found::There(mut reader) = world.relays.find(who, run, object).await.unwrap() else { return None };
    let mut all = Vec::new();
    while let Some(bytes) = reader.next().await.unwrap() {
        all.extend_from_slice(&bytes);
    }
    Some(all)
}

async fn answer(world: &World, run: RunId, question: Digest) -> Answered {
    let answers = world.relays.answers(run, &[question], AT_ONCE, AT_ONCE).await.unwrap();
    answers.into_iter().next().unwrap().1
}

pub(crate) fn node(site: &SiteName) -> Principal {
    Principal::Participant(site.clone())
}

async fn a_question_is_answered_across_restarts(backend: Backend) {
    let mut undisturbed = None;
    for restart_at in 0..8 {
        let mut world = World::start(backend).await;
        let mut steps = 0;
        let mut step = async |world: &mut World| {
            steps += 1;
            if steps == restart_at {
                world.restart().await;
            }
        };
        let site = participant(&world).await;
        let Relay { run, .. } = begun(&world).await;
        let application = Principal::ServerApp(run);
        step(&mut world).await;
        let question = Letter::new(&world, "train", node(&site), None, "the model");
        let posted = post(&world, &application, run, &question).await;
        assert_eq!(posted.missing.len(), 2);
        step(&mut world).await;
        assert!(bring(&world, &application, run, &question, posted.missing[0]).await);
        assert!(next(&world, &site).await.is_none(), "not all of it is there");
        step(&mut world).await;
        // The sender asks what is missing, and what it brought is not asked for again.
        assert_eq!(post(&world, &application, run, &question).await.missing, posted.missing[1..]);
        for object in &posted.missing {
            assert!(bring(&world, &application, run, &question, *object).await, "bringing again is bringing");
        }
        step(&mut world).await;
        let handed = next(&world, &site).await.unwrap();
        assert_eq!(
            (handed.letter, handed.header.as_str(), handed.objects.len()),
            (question.draft.id, "train", 2)
        );
        step(&mut world).await;
        let model = handed.objects[0].id;
        assert_eq!(read(&world, &node(&site), run, model).await.unwrap(), b"the model");
        world.relays.confirm(&node(&site), run, handed.letter).await.unwrap();
        step(&mut world).await;
        let reply = Letter::new(&world, "done", application.clone(), Some(question.draft.id), "the update");
        send(&world, &node(&site), run, &reply).await;
        step(&mut world).await;
        assert_eq!(post(&world, &node(&site), run, &reply).await.missing, [], "sending again is sending");
        let Answered::Ready(answer) = answer(&world, run, question.draft.id).await else {
            panic!("no answer")
        };
        let update = read(&world, &application, run, answer.objects[0].id).await.unwrap();
        world.relays.confirm(&application, run, answer.letter).await.unwrap();
        assert_eq!(*undisturbed.get_or_insert_with(|| update.clone()), update);
        assert!(world.relays.end(run, Outcome::Completed, String::new()).await.unwrap());
        let kinds = world.kinds(JournalId::Relay(run)).await;
        let expected = [
            "created",
            "claimed",
            "begun",
            "posted",
            "handed_out",
            "confirmed",
            "posted",
            "confirmed",
            "ended",
        ];
        assert_eq!(kinds, expected);
    }
}

async fn what_was_handed_out_comes_again_until_it_is_confirmed(backend: Backend) {
    let mut world = World::start(backend).await;
    let site = participant(&world).await;
    let Relay { run, seat } = begun(&world).await;
    let letters = ["first", "second"].map(|text| Letter::new(&world, text, node(&site), None, "model"));
    for letter in &letters {
        send(&world, &Principal::ServerApp(run), run, letter).await;
    }
    for _ in 0..2 {
        assert_eq!(next(&world, &site).await.unwrap().header, "first");
        world.restart().await;
    }
    world.relays.confirm(&node(&site), run, letters[0].draft.id).await.unwrap();
    world.relays.confirm(&node(&site), run, letters[0].draft.id).await.unwrap();
    assert_eq!(next(&world, &site).await.unwrap().header, "second");
    // Another process takes over with the same key: what was never answered comes again.
    for _ in 0..2 {
        // The application is heard meanwhile, the participant is not.
        world.clock.advance(Span::from_secs(40));
        world.relays.beat(seat).unwrap();
    }
    world.relays.activate(&site, Duration::from_secs(30)).await.unwrap();
    assert_eq!(next(&world, &site).await.unwrap().header, "first");
}

async fn an_application_that_shows_no_life_fails_its_run(backend: Backend) {
    let world = World::start(backend).await;
    let Relay { run, seat } = begun(&world).await;
    world.clock.advance(Span::from_secs(50));
    world.relays.beat(seat).unwrap();
    world.clock.advance(Span::from_secs(50));
    assert_eq!(world.relays.overview(run).unwrap().application.phase, Phase::Running);
    world.clock.advance(Span::from_secs(11));
    world.relays.over(run).await.unwrap();
    let Phase::Ended { outcome, .. } = world.relays.overview(run).unwrap().application.phase else {
        panic!("it is not over")
    };
    assert_eq!(outcome, Outcome::Failed);
}

async fn a_claim_that_comes_to_nothing_is_given_back(backend: Backend) {
    let world = World::start(backend).await;
    let new = NewRelay { bundle: Bytes::from_static(b"bundle"), header: String::new() };
    let run = world.relays.create(&world.operator, new).await.unwrap();
    assert_eq!(&world.relays.bundle(run).await.unwrap()[..], b"bundle");
    let first = world.relays.claim_run(run).await.unwrap().unwrap();
    assert!(world.relays.claim_run(run).await.unwrap().is_none(), "it is claimed");
    world.clock.advance(Span::from_secs(31));
    let second = world.relays.claim(|_| true, Duration::from_secs(60)).await.unwrap().unwrap();
    let stale = world.relays.seat(first.token.reveal()).unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::Unauthenticated);
    assert_eq!(world.relays.seat(second.token.reveal()).unwrap().run, run);
    assert_eq!(format!("{second:?}").matches(second.token.reveal()).count(), 0);
}

async fn a_participant_that_goes_leaves_its_question_unanswered(backend: Backend) {
    let world = World::start(backend).await;
    let site = participant(&world).await;
    let Relay { run, .. } = begun(&world).await;
    let application = Principal::ServerApp(run);
    let question = Letter::new(&world, "train", node(&site), None, "model");
    send(&world, &application, run, &question).await;
    assert!(matches!(answer(&world, run, question.draft.id).await, Answered::Awaited));
    world.relays.deactivate(&site);
    let Answered::Never { why, header } = answer(&world, run, question.draft.id).await else {
        panic!("lost")
    };
    assert_eq!((why, header.as_deref()), (Some(Loss::RecipientGone), Some("train")));
    let expires_at = question.draft.expires_at;
    let notice = Bytes::from_static(b"node unavailable");
    let told =
        world.relays.notify(run, question.draft.id, "notice".to_owned(), notice, expires_at).await.unwrap();
    let Answered::Ready(handed) = answer(&world, run, question.draft.id).await else { panic!("told") };
    assert_eq!(handed.letter, told.letter);
    assert_eq!(read(&world, &application, run, told.letter).await.unwrap(), b"node unavailable");
    world.relays.confirm(&application, run, told.letter).await.unwrap();
    assert_eq!(world.relays.overview(run).unwrap().letters, 0);
    assert!(matches!(answer(&world, run, question.draft.id).await, Answered::Never { why: None, .. }));
}

async fn nobody_is_gone_because_the_server_died(backend: Backend) {
    let mut world = World::start(backend).await;
    let site = participant(&world).await;
    let Relay { run, .. } = begun(&world).await;
    let question = Letter::new(&world, "train", node(&site), None, "model");
    send(&world, &Principal::ServerApp(run), run, &question).await;
    // At once, before anything is written that is written from time to time.
    world.restart().await;
    assert!(world.relays.is_online(&site));
    assert!(matches!(answer(&world, run, question.draft.id).await, Answered::Awaited));
}

async fn nobody_reads_or_claims_what_is_of_others(backend: Backend) {
    let world = World::start(backend).await;
    let (site, other) = (participant(&world).await, participant(&world).await);
    let Relay { run, .. } = begun(&world).await;
    let application = Principal::ServerApp(run);
    let question = Letter::new(&world, "train", node(&site), None, "model");
    send(&world, &application, run, &question).await;
    let handed = next(&world, &site).await.unwrap();
    let model = handed.objects[0].id;
    assert!(read(&world, &node(&site), run, model).await.is_some());
    assert!(matches!(world.relays.find(&node(&other), run, model).await.unwrap(), Found::Unknown));
    assert!(next(&world, &other).await.is_none());
    world.relays.confirm(&node(&other), run, question.draft.id).await.unwrap();
    assert_eq!(
        next(&world, &site).await.unwrap().letter,
        question.draft.id,
        "another's word confirms nothing"
    );
    let forged = Letter::new(&world, "forged", application.clone(), Some(question.draft.id), "update");
    assert_eq!(post(&world, &node(&other), run, &forged).await.refused.len(), 1);
    let unknown = RunId::new(0x5ea).unwrap();
    let asked = world.relays.find(&node(&site), unknown, model).await.unwrap_err();
    assert_eq!(asked.kind(), ErrorKind::NotFound);
    let offered = world.relays.bring(&node(&other), run, Digest::of(b"anything"), 8).await.unwrap();
    assert!(matches!(offered, Bring::NotWanted));
    // Wrong bytes under a name that is wanted are refused, and nothing is kept.
    let reply = Letter::new(&world, "done", application, Some(question.draft.id), "update");
    let posted = post(&world, &node(&site), run, &reply).await;
    let Bring::Wanted(mut intake) =
        world.relays.bring(&node(&site), run, posted.missing[0], 6).await.unwrap()
    else {
        panic!("wanted")
    };
    intake.write(Bytes::from_static(b"UPDATE")).await.unwrap();
    assert_eq!(intake.finish().await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(post(&world, &node(&site), run, &reply).await.missing, posted.missing);
}

async fn an_upload_that_rests_is_given_up(backend: Backend) {
    let mut world = World::start(backend).await;
    let site = participant(&world).await;
    let Relay { run, seat } = begun(&world).await;
    let application = Principal::ServerApp(run);
    let question = Letter::new(&world, "train", node(&site), None, "model");
    let posted = post(&world, &application, run, &question).await;
    assert!(bring(&world, &application, run, &question, posted.missing[0]).await);
    for _ in 0..4 {
        world.clock.advance(Span::from_secs(46));
        world.relays.beat(seat).unwrap();
    }
    let journal = JournalId::Relay(run);
    let mut grown = world.store.watch(journal);
    grown.wait_for(|seq| *seq >= 5).await.unwrap();
    assert_eq!(world.kinds(journal).await.last().map(String::as_str), Some("abandoned"));
    assert!(
        !bring(&world, &application, run, &question, posted.missing[1]).await,
        "nobody asks for it any more"
    );
    world.restart().await;
    assert_eq!(world.relays.overview(run).unwrap().letters, 0);
    // It may be sent anew.
    send(&world, &application, run, &question).await;
    assert!(next(&world, &site).await.is_some());
}

async fn a_commit_that_fails_changes_nothing(backend: Backend) {
    let world = World::start(backend).await;
    let site = participant(&world).await;
    let Relay { run, .. } = begun(&world).await;
    let application = Principal::ServerApp(run);
    let question = Letter::new(&world, "train", node(&site), None, "model");
    send(&world, &application, run, &question).await;
    world.faults.dead.store(true, std::sync::atomic::Ordering::SeqCst);
    let refused = world.relays.next_letter(&site, AT_ONCE).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    world.faults.dead.store(false, std::sync::atomic::Ordering::SeqCst);
    let handed = world.relays.next_letter(&site, Duration::from_secs(60)).await;
    let handed = match handed {
        Ok(handed) => handed,
        // It was being rebuilt; there is news when it is.
        Err(error) => {
            assert!(error.is_transient(), "{error}");
            world.relays.next_letter(&site, Duration::from_secs(60)).await.unwrap()
        }
    };
    assert_eq!(handed.unwrap().letter, question.draft.id);
    let kinds = world.kinds(JournalId::Relay(run)).await;
    assert_eq!(kinds, ["created", "claimed", "begun", "posted", "handed_out"]);
}

async fn a_log_is_read_from_where_one_stands(backend: Backend) {
    let mut world = World::start(backend).await;
    world.settings.relay.log_dir = Some(world.dir.path().to_owned());
    world.settings.relay.log_len_max = 4096;
    world.restart().await;
    let Relay { run, .. } = begun(&world).await;
    for text in ["one\n", "two\n"] {
        world.relays.log(run, text.to_owned()).await.unwrap();
    }
    let texts =
        |lines: &[sheaf_coordinator::LogLine]| lines.iter().map(|line| line.text.clone()).collect::<Vec<_>>();
    let (lines, _) = world.relays.log_lines(run, LogCursor::default()).await.unwrap().unwrap();
    assert_eq!(texts(&lines), ["one\n", "two\n"]);
    let after_first = LogCursor::after(lines[0].at);
    let (rest, end) = world.relays.log_lines(run, after_first).await.unwrap().unwrap();
    assert_eq!(texts(&rest), ["two\n"]);
    let (relays, waiting) = (world.relays.clone(), world.relays.clone());
    let (more, ()) = tokio::join!(async { waiting.log_lines(run, end).await.unwrap().unwrap() }, async {
        relays.log(run, "x".repeat(5000)).await.unwrap();
    });
    assert!(more.0[0].text.contains("limit of 4096 bytes"), "{:?}", more.0);
    world.relays.end(run, Outcome::Failed, String::new()).await.unwrap();
    assert!(world.relays.log_lines(run, more.1).await.unwrap().is_none());
}

async fn a_run_that_is_over_keeps_no_bytes_but_its_bundle(backend: Backend) {
    let mut world = World::start(backend).await;
    let site = participant(&world).await;
    let Relay { run, .. } = begun(&world).await;
    let question = Letter::new(&world, "train", node(&site), None, "model");
    send(&world, &Principal::ServerApp(run), run, &question).await;
    assert_eq!(world.blob.usage().objects, 3);
    assert!(world.relays.stop(&world.operator, run).await.unwrap());
    assert!(!world.relays.stop(&world.operator, run).await.unwrap(), "it was over");
    world.restart().await;
    assert_eq!(world.blob.usage().objects, 1);
    let late =
        world.relays.post(&Principal::ServerApp(run), run, vec![question.draft], vec![]).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Conflict);
    let none: Option<Timestamp> = None;
    assert_eq!(world.relays.participants()[0].unregistered_at, none);
    world.relays.unregister(&site).await.unwrap();
    assert!(world.relays.participants()[0].unregistered_at.is_some());
}

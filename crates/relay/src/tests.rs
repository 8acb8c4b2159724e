//! The rules of a relayed run, told as lists of events.

use sheaf_domain::{Digest, Principal, RunId, SiteName, Timestamp};

use crate::event::{Event, LetterDraft, Loss, ObjectDraft, Outcome};
use crate::{Answer, Effects, Phase, Rejected, Relay, Standing, Wanted};

const NOW: Timestamp = Timestamp::from_millis(1_000);
const LATER: Timestamp = Timestamp::from_millis(60_000);

fn run() -> RunId {
    RunId::new(7).unwrap()
}
fn app() -> Principal {
    Principal::ServerApp(run())
}
fn site(name: &str) -> SiteName {
    SiteName::new(name).unwrap()
}
fn node(name: &str) -> Principal {
    Principal::Participant(site(name))
}
fn object(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

/// A letter over a model that it shares with others.
struct Mail {
    letter: LetterDraft,
    objects: Vec<ObjectDraft>,
}

fn mail(name: &str, to: Principal, answers: Option<Digest>, model: &str) -> Mail {
    let (root, model) = (object(name), object(model));
    let objects =
        vec![ObjectDraft { id: model, children: vec![] }, ObjectDraft { id: root, children: vec![model] }];
    let header = format!("header of {name}");
    Mail { letter: LetterDraft { id: root, to, answers, header, expires_at: LATER }, objects }
}

fn begun() -> Relay {
    let by = site("ada");
    let created = Event::Created {
        run: run(),
        by,
        bundle: object("bundle"),
        header: String::new(),
        coordinated: false,
    };
    let mut relay = Relay::create(NOW, &created).unwrap();
    relay.apply(NOW, &Event::Claimed { token: object("token") }).unwrap();
    relay.apply(NOW, &Event::Begun).unwrap();
    relay
}

fn post(relay: &mut Relay, session: &str, from: &Principal, mails: &[&Mail]) -> Result<Effects, Rejected> {
    let letters = mails.iter().map(|mail| mail.letter.clone()).collect();
    let objects: Vec<_> = mails.iter().flat_map(|mail| mail.objects.clone()).collect();
    let objects = relay.new_objects(&objects);
    relay.apply(NOW, &Event::Posted { session: session.to_owned(), from: from.clone(), letters, objects })
}

fn bring(relay: &mut Relay, who: &Principal, names: &[&str]) -> Effects {
    let mut all = Effects::default();
    for name in names {
        let effects = relay.bring(who, &object(name)).unwrap();
        all.wake.extend(effects.wake);
        all.freed.extend(effects.freed);
    }
    all
}

fn freed(effects: &Effects) -> Vec<Digest> {
    let mut freed: Vec<Digest> = effects.freed.iter().map(|freed| freed.object).collect();
    freed.sort();
    freed
}

fn sorted(names: &[&str]) -> Vec<Digest> {
    let mut digests: Vec<Digest> = names.iter().map(|name| object(name)).collect();
    digests.sort();
    digests
}

/// A question handed to `berlin`, with everything below it there.
fn asked() -> Relay {
    let mut relay = begun();
    post(&mut relay, "s", &app(), &[&mail("question", node("berlin"), None, "model")]).unwrap();
    bring(&mut relay, &app(), &["model", "question"]);
    relay.apply(NOW, &Event::HandedOut { letter: object("question") }).unwrap();
    relay
}

fn answer_of(name: &str) -> Mail {
    mail(name, app(), Some(object("question")), "update")
}

#[test]
fn a_letter_waits_once_all_below_it_is_there_and_not_before() {
    let mut relay = begun();
    let question = mail("question", node("berlin"), None, "model");
    post(&mut relay, "s", &app(), &[&question]).unwrap();
    assert_eq!(relay.missing(&app(), &[object("question")]), [object("model"), object("question")]);
    assert!(bring(&mut relay, &app(), &["question"]).wake.is_empty());
    assert!(relay.next_for(&site("berlin"), NOW).is_none());
    assert_eq!(relay.is_wanted(&app(), &object("question")), Wanted::Brought);
    let effects = bring(&mut relay, &app(), &["model"]);
    assert_eq!(effects.wake.into_iter().collect::<Vec<_>>(), [node("berlin")]);
    assert_eq!(relay.next_for(&site("berlin"), NOW).unwrap().0, object("question"));
    assert!(relay.next_for(&site("berlin"), LATER).is_none(), "its time is up");
}

#[test]
fn a_letter_is_handed_out_again_until_it_is_confirmed() {
    let mut relay = asked();
    assert_eq!(relay.next_for(&site("berlin"), NOW).unwrap().0, object("question"));
    relay.apply(NOW, &Event::HandedOut { letter: object("question") }).unwrap();
    relay.apply(NOW, &Event::Confirmed { letter: object("question") }).unwrap();
    assert!(relay.next_for(&site("berlin"), NOW).is_none());
    relay.apply(NOW, &Event::Confirmed { letter: object("question") }).unwrap();
    relay.apply(NOW, &Event::Reopened { site: site("berlin") }).unwrap();
    assert_eq!(relay.next_for(&site("berlin"), NOW).unwrap().0, object("question"));
}

#[test]
fn an_answer_ends_the_question_and_the_applications_confirmation_forgets_both() {
    let mut relay = asked();
    post(&mut relay, "r", &node("berlin"), &[&answer_of("answer")]).unwrap();
    assert_eq!(relay.answer(&object("question")), Answer::Awaited);
    let effects = bring(&mut relay, &node("berlin"), &["update", "answer"]);
    assert_eq!(effects.wake.into_iter().collect::<Vec<_>>(), [app()]);
    assert_eq!(effects.freed.len(), 2, "the question's objects go");
    assert_eq!(relay.answer(&object("question")), Answer::Ready(object("answer")));
    assert!(relay.may_read(&app(), &object("update")));
    let effects = relay.apply(NOW, &Event::Confirmed { letter: object("answer") }).unwrap();
    assert_eq!(freed(&effects), sorted(&["answer", "update"]));
    assert_eq!((relay.answer(&object("question")), relay.letters_len()), (Answer::Unknown, 0));
}

#[test]
fn the_first_complete_answer_counts_and_a_newer_one_replaces_an_incomplete_one() {
    let mut relay = asked();
    post(&mut relay, "r", &node("berlin"), &[&answer_of("first")]).unwrap();
    post(&mut relay, "q", &node("berlin"), &[&answer_of("second")]).unwrap();
    assert!(relay.letter(&object("first")).is_none());
    assert_eq!(relay.session_of(&[object("second")]), Some("q"));
    bring(&mut relay, &node("berlin"), &["update", "second"]);
    let refused = post(&mut relay, "t", &node("berlin"), &[&answer_of("third")]);
    assert_eq!(refused, Err(Rejected::Answered(object("question"))));
    assert_eq!(relay.answer(&object("question")), Answer::Ready(object("second")));
}

#[test]
fn only_who_was_asked_may_answer_and_nobody_learns_what_others_brought() {
    let mut relay = asked();
    let refused = post(&mut relay, "r", &node("zurich"), &[&answer_of("forged")]);
    assert_eq!(refused, Err(Rejected::NoLetter(object("question"))));
    assert!(!relay.may_read(&node("zurich"), &object("model")));
    assert!(relay.may_read(&node("berlin"), &object("model")));
    let other = mail("other", node("zurich"), None, "small");
    post(&mut relay, "s2", &app(), &[&other]).unwrap();
    bring(&mut relay, &app(), &["small", "other"]);
    relay.apply(NOW, &Event::HandedOut { letter: object("other") }).unwrap();
    // Zurich was not handed the model, so its answer over the model has to bring it.
    post(&mut relay, "z", &node("zurich"), &[&mail("echo", app(), Some(object("other")), "model")]).unwrap();
    assert_eq!(relay.missing(&node("zurich"), &[object("echo")]), [object("model"), object("echo")]);
    // Berlin was.
    post(&mut relay, "b", &node("berlin"), &[&mail("echo2", app(), Some(object("question")), "model")])
        .unwrap();
    assert_eq!(relay.missing(&node("berlin"), &[object("echo2")]), [object("echo2")]);
    bring(&mut relay, &node("berlin"), &["echo2"]);
    assert!(relay.is_there(&object("model")), "the answer keeps what the question no longer needs");
}

#[test]
fn what_a_sender_was_handed_it_need_not_bring_after_a_replay_either() {
    // An answer over the model that came with the question; all but the answer's own object is there.
    let tell = |relay: &mut Relay, names: &[(&Principal, &str)]| {
        for (who, name) in names {
            relay.bring(who, &object(name));
        }
        relay.settle()
    };
    let created = Event::Created {
        run: run(),
        by: site("ada"),
        bundle: object("bundle"),
        header: String::new(),
        coordinated: false,
    };
    let mut replayed = Relay::create(NOW, &created).unwrap();
    replayed.apply(NOW, &Event::Claimed { token: object("token") }).unwrap();
    replayed.apply(NOW, &Event::Begun).unwrap();
    post(&mut replayed, "s", &app(), &[&mail("question", node("berlin"), None, "model")]).unwrap();
    replayed.apply(NOW, &Event::HandedOut { letter: object("question") }).unwrap();
    let echo = mail("echo", app(), Some(object("question")), "model");
    post(&mut replayed, "r", &node("berlin"), &[&echo]).unwrap();
    let berlin = node("berlin");
    tell(&mut replayed, &[(&app(), "model"), (&app(), "question")]);
    assert_eq!(replayed.missing(&berlin, &[object("echo")]), [object("echo")]);
    assert_eq!(replayed.answer(&object("question")), Answer::Awaited);
    let effects = tell(&mut replayed, &[(&berlin, "echo")]);
    assert_eq!(replayed.answer(&object("question")), Answer::Ready(object("echo")));
    assert!(effects.wake.is_empty(), "the last object had completed it");
}

#[test]
fn a_shared_object_lives_while_one_letter_is_above_it() {
    let mut relay = begun();
    let mails = [mail("a", node("berlin"), None, "model"), mail("b", node("zurich"), None, "model")];
    post(&mut relay, "s", &app(), &[&mails[0], &mails[1]]).unwrap();
    assert_eq!(relay.missing(&app(), &[object("a"), object("b")]).len(), 3);
    bring(&mut relay, &app(), &["model", "a", "b"]);
    for (name, rest) in [("a", vec!["a"]), ("b", vec!["b", "model"])] {
        let effects = relay.apply(NOW, &Event::Lost { letter: object(name), why: Loss::Expired }).unwrap();
        assert_eq!(freed(&effects), sorted(&rest));
        assert_eq!(relay.answer(&object(name)), Answer::Lost(Loss::Expired));
    }
}

#[test]
fn the_server_tells_the_application_what_became_of_a_letter() {
    let mut relay = asked();
    let notice = |question: &str| mail("notice", app(), Some(object(question)), "reason");
    assert_eq!(post(&mut relay, "n", &app(), &[&notice("question")]), Err(Rejected::NotAsked));
    relay.apply(NOW, &Event::Lost { letter: object("question"), why: Loss::RecipientGone }).unwrap();
    let late = post(&mut relay, "r", &node("berlin"), &[&answer_of("late")]);
    assert_eq!(late, Err(Rejected::NotAsked));
    post(&mut relay, "n", &app(), &[&notice("question")]).unwrap();
    bring(&mut relay, &app(), &["reason", "notice"]);
    assert_eq!(relay.answer(&object("question")), Answer::Ready(object("notice")));
    relay.apply(NOW, &Event::Confirmed { letter: object("notice") }).unwrap();
    assert_eq!(relay.letters_len(), 0);
    // Also about one that was never there.
    post(&mut relay, "n", &app(), &[&notice("nothing")]).unwrap();
    bring(&mut relay, &app(), &["reason", "notice"]);
    assert_eq!(relay.answer(&object("nothing")), Answer::Ready(object("notice")));
}

#[test]
fn an_upload_that_never_ends_is_abandoned_whole() {
    let mut relay = begun();
    post(&mut relay, "s", &app(), &[&mail("question", node("berlin"), None, "model")]).unwrap();
    bring(&mut relay, &app(), &["model"]);
    let abandoned = Event::Abandoned { letters: vec![object("question")], reason: "silence".to_owned() };
    let effects = relay.apply(NOW, &abandoned).unwrap();
    assert_eq!(freed(&effects), sorted(&["model", "question"]));
    assert_eq!(relay.sessions().count(), 0);
    assert_eq!(relay.bring(&app(), &object("question")), None, "nobody needs it");
    assert_eq!(relay.is_wanted(&app(), &object("question")), Wanted::No);
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_changes_nothing() {
    let mut relay = begun();
    let mut dangling = mail("question", node("berlin"), None, "model");
    dangling.objects.remove(0);
    let refused = post(&mut relay, "s", &app(), &[&dangling]);
    assert_eq!(refused, Err(Rejected::Dangling { parent: object("question"), child: object("model") }));
    let mut expired = mail("question", node("berlin"), None, "model");
    expired.letter.expires_at = NOW;
    assert_eq!(post(&mut relay, "s", &app(), &[&expired]), Err(Rejected::Expired(object("question"))));
    let to_operator = mail("question", Principal::Operator(site("ada")), None, "model");
    assert_eq!(post(&mut relay, "s", &app(), &[&to_operator]), Err(Rejected::WrongRecipient));
    assert_eq!((relay.letters_len(), relay.sessions().count()), (0, 0));
    let question = mail("question", node("berlin"), None, "model");
    post(&mut relay, "s", &app(), &[&question]).unwrap();
    assert_eq!(relay.new_letters(&app(), std::slice::from_ref(&question.letter)), Ok(vec![]));
    let mut other = question.letter.clone();
    other.header = "another".to_owned();
    assert_eq!(relay.new_letters(&app(), &[other]), Err(Rejected::Taken(object("question"))));
}

#[test]
fn an_application_goes_from_pending_to_its_end_and_the_end_frees_everything() {
    let mut relay = begun();
    assert_eq!(relay.application().phase, Phase::Running);
    let refused = relay.apply(NOW, &Event::Claimed { token: object("other") });
    assert_eq!(refused, Err(Rejected::NotThere { is: "running", wanted: "pending" }));
    post(&mut relay, "s", &app(), &[&mail("question", node("berlin"), None, "model")]).unwrap();
    bring(&mut relay, &app(), &["model", "question"]);
    let ended = Event::Ended { outcome: Outcome::Stopped, details: "by ada".to_owned() };
    let effects = relay.apply(NOW, &ended).unwrap();
    assert_eq!(freed(&effects), sorted(&["model", "question"]));
    assert!(effects.wake.contains(&node("berlin")) && effects.wake.contains(&app()));
    assert_eq!(relay.application().token, None);
    assert_eq!(relay.apply(NOW, &ended), Err(Rejected::Over));
}

#[test]
fn a_claim_that_comes_to_nothing_is_given_back_and_completion_needs_an_application_at_work() {
    let by = site("ada");
    let created = Event::Created {
        run: run(),
        by,
        bundle: object("bundle"),
        header: String::new(),
        coordinated: false,
    };
    let mut relay = Relay::create(NOW, &created).unwrap();
    relay.apply(NOW, &Event::Claimed { token: object("token") }).unwrap();
    let completed = Event::Ended { outcome: Outcome::Completed, details: String::new() };
    assert_eq!(relay.apply(NOW, &completed), Err(Rejected::NotThere { is: "starting", wanted: "running" }));
    relay.apply(NOW, &Event::Returned { reason: "silence".to_owned() }).unwrap();
    assert_eq!((relay.application().phase.name(), relay.application().token), ("pending", None));
    assert_eq!(Relay::create(NOW, &completed).map(|_| ()), Err(Rejected::NotFirst));
    let failed = Event::Ended { outcome: Outcome::Failed, details: "no application".to_owned() };
    relay.apply(NOW, &failed).unwrap();
    assert_eq!(relay.letter(&object("x")).map(|letter| letter.standing), None::<Standing>);
}

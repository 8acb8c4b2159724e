//! Whole runs: every stage, several at once, start, extension and end; late, repeated and foreign answers.

use sheaf_coordinator::{Beat, CreateRun, Delivery, Which};
use sheaf_domain::{ErrorKind, JournalId, RunPhase, Span, SubmitOutcome, Wait};

use crate::world::{
    Backend, HOLD_MAX, Model, World, name, num_examples, on_both, plan, request, slot, submission,
};

on_both!(
    a_run_with_every_stage_ends_with_its_model,
    the_order_in_which_sites_answer_does_not_matter,
    answers_count_once_and_only_for_their_task,
    a_run_continues_from_another_and_is_extended,
    runs_go_on_side_by_side_over_the_same_sites,
);

const EVALUATED: &str = "[task.evaluate]\nevery = 1\n";

async fn a_run_with_every_stage_ends_with_its_model(backend: Backend) {
    let world = World::start(backend).await;
    let sites = world.sites(3).await;
    world.present(&sites).await;
    let run = world.create(&plan(2, 3, EVALUATED)).await;
    let status = world.drive(run, &sites).await;
    assert!(matches!(status.phase, RunPhase::Finished { .. }), "{:?}", status.phase);
    let stages: Vec<String> = status.history.iter().map(|r| format!("{}/{}", r.round, r.stage)).collect();
    assert_eq!(stages, ["0/init", "1/train", "1/evaluate", "2/train", "2/evaluate"]);

    // What FedAvg makes of it, computed here: sums in f64 over sites by name.
    let start = Model::zeros().trained(&status.history[0].accepted[0], 0);
    let mut model = start;
    for round in 1..=2 {
        let updates: Vec<(f64, Model)> = sites
            .iter()
            .map(|site| (num_examples(&site.who.name), model.clone().trained(&site.who.name, round)))
            .collect();
        let total: f64 = updates.iter().map(|(weight, _)| weight).sum();
        let mean = |of: &dyn Fn(&Model) -> f64| updates.iter().map(|(n, m)| n * of(m)).sum::<f64>() / total;
        #[expect(clippy::cast_possible_truncation, reason = "the model is f32")]
        let w = (0..600).map(|idx| mean(&|m| f64::from(m.w[idx])) as f32).collect();
        let b = (0..5).map(|idx| mean(&|m| m.b[idx])).collect();
        model = Model { w, b };
    }
    let last = world.handle.model(&world.operator, run, Which::Last).await.unwrap();
    let bytes = world.read(&world.operator, &last.version, last.manifest.byte_len()).await.unwrap();
    let made = Model::of(&bytes);
    for (made, expected) in made.w.iter().zip(&model.w) {
        assert!((made - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{made} {expected}");
    }
    assert_eq!(made.digest(), last.digest);
    assert_eq!(status.model, Some(last.digest));
    assert!(world.handle.model(&world.operator, run, Which::Best).await.is_ok());
    assert!(world.handle.model(&world.operator, run, Which::Round(1)).await.is_ok());

    // Nothing but the models is kept, and a participant without work reads none of them.
    let holds = world.blob.holds().await.unwrap();
    assert!(holds.iter().all(|hold| hold.as_str().starts_with("run/")), "{holds:?}");
    let refused = world.handle.manifest(&sites[0].who, &last.version).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    let head = world.handle.signed_head(&world.operator, JournalId::Run(run)).await.unwrap();
    assert_eq!(head.seq, world.journal(JournalId::Run(run)).await.len() as u64);
}

async fn the_order_in_which_sites_answer_does_not_matter(backend: Backend) {
    let mut digests = Vec::new();
    for turn in 0..3 {
        let world = World::start(backend).await;
        let mut sites = world.sites(4).await;
        world.present(&sites).await;
        let run = world.create(&plan(3, 4, "")).await;
        sites.rotate_left(turn);
        if turn == 2 {
            sites.reverse();
        }
        world.drive(run, &sites).await;
        digests.push(world.digest(run).await);
    }
    assert_eq!(digests[0], digests[1]);
    assert_eq!(digests[0], digests[2]);
}

async fn answers_count_once_and_only_for_their_task(backend: Backend) {
    let world = World::start(backend).await;
    let sites = world.sites(2).await;
    world.present(&sites).await;
    let run = world.create_from_file(&plan(2, 2, "[model]\ninit = \"first.npz\""), &Model::zeros()).await;
    let (first, second) = (&sites[0], &sites[1]);
    let order = world.order(first).await;
    let result = world.result(first, &order).await.unwrap();
    let manifest = world.upload(first, &order, &result).await.unwrap();
    let slots = vec![sheaf_domain::SubmittedSlot { slot: slot(&order), manifest }];
    let answer = submission(order.assignment.task, slots, 3.0);

    // Not the other site's, in any call.
    let theirs = order.assignment.task;
    for refused in [
        world.handle.submit(&second.who, answer.clone()).await.unwrap_err(),
        world.handle.missing(&second.who, theirs, &[]).await.unwrap_err(),
        world.handle.upload(&second.who, theirs, 8).await.unwrap_err(),
        world.handle.fail(&second.who, theirs, "mine now".to_owned()).await.unwrap_err(),
    ] {
        assert_eq!(refused.kind(), ErrorKind::NotFound);
    }
    let overview = world.handle.sites(&world.operator).await.unwrap();
    let told = overview[1].last_error.as_deref().unwrap();
    assert!(told.contains("another participant's"), "{told}");
    world.settle().await;
    let entries = world.kinds(JournalId::Federation).await;
    assert_eq!(entries.iter().filter(|kind| *kind == "foreign_task_refused").count(), 1, "{entries:?}");

    // Two at once: one counts, the other is its repetition.
    let (one, two) = tokio::join!(
        world.handle.submit(&first.who, answer.clone()),
        world.handle.submit(&first.who, answer.clone()),
    );
    let mut outcomes = [one.unwrap(), two.unwrap()];
    outcomes.sort_by_key(|outcome| *outcome == SubmitOutcome::Duplicate);
    assert_eq!(outcomes, [SubmitOutcome::Accepted, SubmitOutcome::Duplicate]);
    let mut worse = answer.clone();
    worse.num_examples = -1.0;
    assert_eq!(world.handle.submit(&first.who, worse).await.unwrap(), SubmitOutcome::Duplicate);
    let closed = world.handle.upload(&first.who, theirs, 8).await.unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::Conflict);

    // The task is over once its round is: too late, and told why.
    let late = world.order(second).await;
    let reply = world.handle.stop(&world.operator, run, "enough".to_owned()).await.unwrap();
    assert!(matches!(reply.phase, RunPhase::Stopped { .. }));
    let outcome = world.handle.submit(&second.who, submission(late.assignment.task, Vec::new(), 1.0)).await;
    assert!(matches!(outcome.unwrap(), SubmitOutcome::TooLate { .. }));
    let have = [late.assignment.task];
    let told = world.handle.next(&second.who, &have, HOLD_MAX).await.unwrap();
    assert!(matches!(&told[..], [Delivery::Withdraw(withdrawn)] if withdrawn.task == have[0]), "{told:?}");
    let beat = Beat { working: have.to_vec(), client: "hand".to_owned() };
    assert_eq!(world.handle.beat(&second.who, beat).await.unwrap().withdrawn.len(), 1);
    let unknown = sheaf_domain::TaskId::derive(run, 99, &order.assignment.stage, &name("site-0"), 1);
    let refused = world.handle.submit(&first.who, submission(unknown, Vec::new(), 1.0)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
}

async fn a_run_continues_from_another_and_is_extended(backend: Backend) {
    let world = World::start(backend).await;
    let sites = world.sites(2).await;
    let adam = "[strategy]\nkind = \"fedadam\"";
    let first = world.create(&plan(2, 2, adam)).await;
    world.drive(first, &sites).await;
    let ended_at = world.digest(first).await;

    let from = CreateRun { from: Some(first), ..request(&plan(1, 2, adam)) };
    let second = world.handle.create_run(&world.operator, from).await.unwrap();
    let start = world.handle.model(&world.operator, second, Which::Round(0)).await.unwrap();
    assert_eq!(start.digest, ended_at);
    world.drive(second, &sites).await;

    let status = world.handle.extend(&world.operator, first, 1).await.unwrap();
    assert!(matches!(status.phase, RunPhase::Running));
    // Everybody who is there is in the cohort at once.
    let [Wait::Submissions { missing, .. }] = &status.waits[..] else { panic!("{:?}", status.waits) };
    assert_eq!(missing.len(), 2);
    let status = world.drive(first, &sites).await;
    assert_eq!(status.history.last().unwrap().round, 3);
    assert_ne!(world.digest(first).await, ended_at);
    let refused = world.handle.stop(&world.operator, first, String::new()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
}

async fn runs_go_on_side_by_side_over_the_same_sites(backend: Backend) {
    let world = World::start(backend).await;
    let sites = world.sites(3).await;
    world.present(&sites).await;
    let mut runs = Vec::new();
    for seed in 0..3 {
        runs.push(world.create(&plan(2, 3, &format!("seed = {seed}\nkeep_updates = \"run\""))).await);
    }
    for run in &runs {
        world.drive(*run, &sites).await;
    }
    // The first finished while the others were served as well: `drive` answers whatever a site is given.
    for run in &runs {
        assert!(matches!(world.status(*run).await.phase, RunPhase::Finished { .. }));
    }
    let listed = world.handle.runs(&world.operator).await.unwrap();
    assert_eq!(listed.len(), 3);
    let found = world.handle.find_run(&world.operator, &runs[1].to_string()).await.unwrap();
    assert_eq!(found, runs[1]);
    assert_eq!(world.handle.find_run(&world.operator, &runs[2].to_string()[..12]).await.unwrap(), runs[2]);
    assert!(world.handle.find_run(&world.operator, "test").await.is_ok());
    let unknown = world.handle.find_run(&world.operator, "zzz").await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_deadline_closes_a_stage_with_those_who_came() {
    let world = World::start(Backend::Memory).await;
    let sites = world.sites(3).await;
    world.present(&sites).await;
    let plan = "[run]\nname = \"test\"\nrounds = 1\n[model]\ninit = \"a.npz\"\n[cohort]\nmin = 2\ndeadline = \"10m\"\n";
    let run = world.create_from_file(plan, &Model::zeros()).await;
    for site in &sites[..2] {
        let order = world.order(site).await;
        assert_eq!(order.remaining, Some(Span::from_secs(600)));
        world.work(site, &order).await.unwrap();
    }
    assert!(!world.status(run).await.phase.is_over());
    world.clock.advance(Span::from_secs(601));
    let status = world.until(run, |status| status.phase.is_over()).await;
    assert_eq!(status.history[0].accepted.len(), 2);
    assert_eq!(status.history[0].cohort, 3);
}

#[tokio::test]
async fn a_silent_participant_is_lost_and_one_that_leaves_is_gone_at_once() {
    let world = World::start(Backend::Memory).await;
    let sites = world.sites(2).await;
    world.present(&sites).await;
    let run = world.create(&plan(1, 2, "[model]\ninit = \"trainer\"")).await;
    world.clock.advance(Span::from_secs(61));
    let lost =
        |status: &sheaf_domain::RunStatus| status.sites.iter().filter(|s| s.presence == "lost").count();
    let status = world.until(run, |status| lost(status) == 2).await;
    assert!(status.sites[0].last_error.as_deref().unwrap().contains("no sign of life"), "{status:?}");
    world.present(&sites).await;
    assert_eq!(lost(&world.status(run).await), 0);
    world.handle.leave(&sites[1].who).await.unwrap();
    world.settle().await;
    assert_eq!(lost(&world.status(run).await), 1);
    let overview = world.handle.sites(&world.operator).await.unwrap();
    assert!(overview[0].present && !overview[1].present);
}

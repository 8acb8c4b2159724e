//! The gate: each thing that may be wrong with a submission is refused by name, noted, and loses nothing.

use bytes::Bytes;
use sheaf_coordinator::WorkOrder;
use sheaf_domain::{
    Digest, ErrorKind, JournalId, Manifest, Refusal, RunId, RunPhase, SlotName, Submission, SubmitOutcome,
    SubmittedSlot, Wait,
};
use sheaf_tensor::{Dtype, TensorSpec};

use crate::world::{Backend, Model, Site, World, on_both, plan, settings, slot, specs, submission};

on_both!(
    every_wrong_submission_is_refused_by_name,
    bytes_that_are_not_as_promised_are_refused_and_seen,
    a_full_store_refuses_uploads_and_goes_on_when_there_is_room,
);

const PLAN: &str = "[model]\ninit = \"first.npz\"";

async fn started(world: &World, sites: &[Site]) -> RunId {
    world.present(sites).await;
    let plan = plan(1, 2, PLAN) + "attempts = 100\nexamples_max = 1000.0\n";
    world.create_from_file(&plan, &Model::zeros()).await
}

/// A submission of `model` as `specs` lays it out.
async fn sent(
    world: &World,
    site: &Site,
    order: &WorkOrder,
    specs: Vec<TensorSpec>,
    bytes: Bytes,
) -> Submission {
    let digest = Digest::of(&bytes);
    world.put(site, order.assignment.task, &bytes, digest).await.unwrap();
    let manifest = Manifest::over_pieces(specs, bytes.len() as u64, &[digest]).unwrap();
    submission(order.assignment.task, vec![SubmittedSlot { slot: slot(order), manifest }], 10.0)
}

async fn every_wrong_submission_is_refused_by_name(backend: Backend) {
    let mut world = World::start(backend).await;
    let sites = world.sites(2).await;
    let run = started(&world, &sites).await;
    let site = &sites[0];
    let good = Model::zeros().bytes();
    let spec = |name: &str, dtype, dims: &[u64]| TensorSpec::new(name, dtype, dims.to_vec()).unwrap();
    let with = |idx: usize, spec: TensorSpec| {
        let mut all = specs();
        all[idx] = spec;
        all
    };
    let mut refused = 0;
    let mut check =
        async |change: &dyn Fn(&mut Submission), specs: Vec<TensorSpec>, bytes: Bytes, says: &str| {
            let order = world.order(site).await;
            let mut submission = sent(&world, site, &order, specs, bytes).await;
            change(&mut submission);
            let outcome = world.handle.submit(&site.who, submission).await.unwrap();
            let SubmitOutcome::Refused { refusal } = outcome else { panic!("{says}: {outcome:?}") };
            assert!(refusal.to_string().contains(says), "{refusal} / {says}");
            refused += 1;
            let status = world.status(run).await;
            assert!(status.sites[0].last_error.as_deref().unwrap().contains(says), "{status:?}");
            assert_eq!(status.sites[0].refused, refused);
            // Its bytes are freed, and there is another attempt.
            assert_eq!(world.order(site).await.assignment.attempt, refused + 1);
            refusal
        };
    let same = |_: &mut Submission| {};

    // Tensors.
    check(
        &same,
        with(0, spec("v", Dtype::F32, &[20, 30])),
        good.clone(),
        "tensor 0 is \"v\", expected \"w\"",
    )
    .await;
    check(&same, with(0, spec("w", Dtype::F32, &[30, 20])), good.clone(), "has shape").await;
    check(&same, with(2, spec("b", Dtype::I64, &[5])), good.clone(), "is i64, expected f64").await;
    check(&same, specs()[..2].to_vec(), good.slice(..2400), "\"b\" is missing").await;
    let mut more = specs();
    more.push(spec("c", Dtype::U8, &[1]));
    let longer = Bytes::from([&good[..], &[0]].concat());
    check(&same, more, longer, "\"c\" is not part of the model").await;

    // Values.
    let mut model = Model::zeros();
    model.w[417] = f32::NAN;
    let refusal = check(&same, specs(), model.bytes(), "tensor \"w\" is not finite at index 417").await;
    assert!(matches!(refusal, Refusal::NotFinite { index: 417, .. }));
    let mut model = Model::zeros();
    model.b[4] = f64::NEG_INFINITY;
    check(&same, specs(), model.bytes(), "tensor \"b\" is not finite at index 4").await;

    // Weights.
    for weight in [-3.0, 0.0, -0.0, 1000.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let change = move |submission: &mut Submission| submission.num_examples = weight;
        let says = format!("num_examples of {weight} is not above 0 and at most 1000");
        check(&change, specs(), good.clone(), &says).await;
    }

    // Metrics.
    let nan = |submission: &mut Submission| {
        submission.metrics.insert("loss".to_owned(), f64::NAN);
    };
    check(&nan, specs(), good.clone(), "metric \"loss\"").await;
    let many = |submission: &mut Submission| {
        submission.metrics.extend((0..257).map(|n| (format!("m{n}"), 0.0)));
    };
    check(&many, specs(), good.clone(), "metrics exceed the limit").await;
    let long = |submission: &mut Submission| {
        submission.metrics.insert("x".repeat(129), 0.0);
    };
    check(&long, specs(), good.clone(), "printable bytes").await;

    // Slots.
    check(&|submission| submission.slots.clear(), specs(), good.clone(), "slot model is missing").await;
    let twice = |submission: &mut Submission| submission.slots.push(submission.slots[0].clone());
    check(&twice, specs(), good.clone(), "given twice").await;
    let extra = |submission: &mut Submission| {
        let slot = SlotName::new("extra").unwrap();
        submission.slots.push(SubmittedSlot { slot, ..submission.slots[0].clone() });
    };
    check(&extra, specs(), good.clone(), "slot extra was not asked for").await;

    // Bytes.
    let other = |submission: &mut Submission| {
        submission.slots[0].manifest.tensors[0].segments[0].object = Digest::of(b"never seen");
    };
    check(&other, specs(), good.clone(), "was not uploaded under this task").await;
    let beyond =
        |submission: &mut Submission| submission.slots[0].manifest.tensors[0].segments[0].offset = 2430;
    check(&beyond, specs(), good.clone(), "reaches beyond the 2440 bytes").await;
    let overflow =
        |submission: &mut Submission| submission.slots[0].manifest.tensors[0].segments[0].offset = u64::MAX;
    check(&overflow, specs(), good.clone(), "overflowing segment").await;
    let short = |submission: &mut Submission| submission.slots[0].manifest.tensors[0].segments[0].len = 4;
    check(&short, specs(), good.clone(), "needs 2400 bytes").await;
    let crumbs = |submission: &mut Submission| {
        let segments = &mut submission.slots[0].manifest.tensors[0].segments;
        let (object, base) = (segments[0].object, segments[0].offset);
        *segments = (0..2400).map(|n| sheaf_domain::Segment { object, offset: base + n, len: 1 }).collect();
    };
    check(&crumbs, specs(), good.clone(), "segments, the limit is").await;

    // The other site's bytes are not this one's, though they are stored.
    let theirs = world.order(&sites[1]).await;
    let mut model = Model::zeros();
    model.w[0] = 7.0;
    world.put(&sites[1], theirs.assignment.task, &model.bytes(), Digest::of(&model.bytes())).await.unwrap();
    let stolen = |submission: &mut Submission| {
        for segment in submission.slots[0].manifest.tensors.iter_mut().flat_map(|tensor| &mut tensor.segments)
        {
            segment.object = Digest::of(&model.bytes());
        }
    };
    check(&stolen, specs(), good.clone(), "was not uploaded under this task").await;

    // All of it is in the journal, and the run ends as if nothing had been.
    let kinds = world.kinds(JournalId::Run(run)).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "refused").count(), usize::try_from(refused).unwrap());
    let status = world.drive(run, &sites).await;
    assert!(matches!(status.phase, RunPhase::Finished { .. }));
    world.stop().await;
    assert!(world.blob.holds().await.unwrap().iter().all(|hold| !hold.as_str().starts_with("task/")));
}

async fn bytes_that_are_not_as_promised_are_refused_and_seen(backend: Backend) {
    let world = World::start(backend).await;
    let sites = world.sites(2).await;
    started(&world, &sites).await;
    let (site, order) = (&sites[0], world.order(&sites[0]).await);
    let task = order.assignment.task;
    let bytes = Bytes::from_static(b"eight by");
    let seen = async |says: &str| {
        let overview = world.handle.sites(&world.operator).await.unwrap();
        let told = overview[0].last_error.clone().unwrap();
        assert!(told.contains(says), "{told} / {says}");
    };

    let wrong = world.put(site, task, &bytes, Digest::of(b"other")).await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::InvalidArgument);
    seen("hash to").await;
    let mut lying = world.handle.upload(&site.who, task, 4).await.unwrap();
    let written = lying.write(bytes.clone()).await;
    let refused = match written {
        Err(refused) => refused,
        Ok(()) => lying.finish(Digest::of(&bytes)).await.unwrap_err(),
    };
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    seen("where 4 were declared").await;
    let mut cut = world.handle.upload(&site.who, task, 9).await.unwrap();
    cut.write(bytes.clone()).await.unwrap();
    assert_eq!(cut.finish(Digest::of(&bytes)).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    seen("where 9 were declared").await;
    let long = world.handle.upload(&site.who, task, sheaf_coordinator::PIECE_LEN_MAX + 1).await.unwrap_err();
    assert_eq!(long.kind(), ErrorKind::InvalidArgument);
    seen("exceeds the limit").await;

    // A peer cannot fill the journal: one entry a minute.
    world.settle().await;
    let kinds = world.kinds(JournalId::Federation).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "upload_refused").count(), 1, "{kinds:?}");
    assert!(
        world.blob.held(&sheaf_blob::Hold::new(format!("task/{task}")).unwrap()).await.unwrap().is_empty()
    );
    world.work(site, &order).await.unwrap();
}

async fn a_full_store_refuses_uploads_and_goes_on_when_there_is_room(backend: Backend) {
    let mut world = World::start(backend).await;
    let sites = world.sites(2).await;
    let run = started(&world, &sites).await;
    let order = world.order(&sites[0]).await;
    let junk = sheaf_blob::Hold::new("junk").unwrap();
    let fill = async |world: &World| {
        // Down to the last byte the store takes.
        let mut len = 8 * 1024 * 1024;
        let mut number = 0_u64;
        while len > 0 {
            number += 1;
            match world.blob.writer(&junk, len).await {
                Ok(mut writer) => {
                    let mut bytes = vec![0; usize::try_from(len).unwrap()];
                    bytes.iter_mut().zip(number.to_le_bytes()).for_each(|(to, from)| *to = from);
                    writer.write(Bytes::from(bytes)).await.unwrap();
                    writer.finish(None).await.unwrap();
                }
                Err(_) => len /= 2,
            }
        }
    };
    fill(&world).await;
    let full = world.work(&sites[0], &order).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Exhausted);
    assert!(full.retry_after().is_some());
    let status = world.status(run).await;
    assert!(status.sites[0].last_error.as_deref().unwrap().contains("no room"), "{status:?}");
    world.blob.release(&junk).await.unwrap();
    world.work(&sites[0], &order).await.unwrap();

    // Full again when the last update is in: the fold waits for room, under its name, with everything kept.
    let order = world.order(&sites[1]).await;
    let result = world.result(&sites[1], &order).await.unwrap();
    let manifest = world.upload(&sites[1], &order, &result).await.unwrap();
    fill(&world).await;
    let slots = vec![SubmittedSlot { slot: slot(&order), manifest }];
    let outcome = world.handle.submit(&sites[1].who, submission(order.assignment.task, slots, 5.0)).await;
    assert_eq!(outcome.unwrap(), SubmitOutcome::Accepted);
    let retrying = |status: &sheaf_domain::RunStatus| matches!(status.waits[..], [Wait::FoldRetry { .. }]);
    let status = world.until(run, retrying).await;
    assert!(status.waits[0].to_string().contains("no room"), "{}", status.waits[0]);
    match backend {
        // A start frees what nothing of ours refers to, and takes the fold up again.
        Backend::Memory => world.restart().await,
        Backend::Disk => {
            world.blob.release(&junk).await.unwrap();
        }
    }
    let status = world.until(run, |status| status.phase.is_over()).await;
    assert!(matches!(status.phase, RunPhase::Finished { .. }), "{:?}", status.phase);
}

#[tokio::test]
async fn a_first_model_must_be_its_uploads_own_and_finite() {
    let world = World::start(Backend::Memory).await;
    let plan = plan(1, 2, PLAN);
    let mut bad = Model::zeros();
    bad.b[2] = f64::NAN;
    let refused = world.try_create_from_file(&plan, &bad).await.unwrap_err();
    assert!(refused.to_string().contains("tensor \"b\" is not finite at index 2"), "{refused}");
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);

    let bytes = Model::zeros().bytes();
    let manifest = Manifest::over_pieces(specs(), bytes.len() as u64, &[Digest::of(&bytes)]).unwrap();
    let create = async |init: Option<Manifest>, upload: Option<&str>, plan: &str| {
        let request = sheaf_coordinator::CreateRun {
            plan: plan.to_owned(),
            init,
            upload: upload.map(str::to_owned),
            app: None,
            from: None,
        };
        world.handle.create_run(&world.operator, request).await.unwrap_err().to_string()
    };
    assert!(create(Some(manifest.clone()), Some("none"), &plan).await.contains("was not uploaded"));
    assert!(create(Some(manifest.clone()), None, &plan).await.contains("name of its upload"));
    assert!(create(None, None, &plan).await.contains("no first model was handed in"));
    assert!(
        create(Some(manifest), Some("x"), &crate::world::plan(1, 2, "")).await.contains("init = \"trainer\"")
    );
    assert!(create(None, None, "[run]\nname = \"x\"\n").await.contains("rounds"));
    world.settle().await;
    let kinds = world.kinds(JournalId::Federation).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "plan_refused").count(), 1);
    assert!(world.handle.runs(&world.operator).await.unwrap().is_empty());
    assert!(world.blob.holds().await.unwrap().iter().all(|hold| !hold.as_str().starts_with("run/")));
}

#[tokio::test]
async fn uploads_wait_for_the_byte_budget_and_are_refused_when_it_stays_full() {
    let mut small = settings();
    small.inflight = sheaf_domain::ByteSize::from_bytes(4096);
    let world = World::with(Backend::Memory, small, sheaf_domain::ByteSize::from_mib(64)).await;
    let sites = world.sites(2).await;
    started(&world, &sites).await;
    let order = world.order(&sites[0]).await;
    let held = world.handle.upload(&sites[0].who, order.assignment.task, 4000).await.unwrap();
    let other = world.order(&sites[1]).await;
    let refused = world.handle.upload(&sites[1].who, other.assignment.task, 1000).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Exhausted);
    drop(held);
    assert!(world.handle.upload(&sites[1].who, other.assignment.task, 1000).await.is_ok());
}

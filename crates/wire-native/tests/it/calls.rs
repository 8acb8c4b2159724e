//! The calls themselves, the same over every transport.

use bytes::Bytes;
use sheaf_client::Error;
use sheaf_client::transport::Transport;
use sheaf_domain::{Digest, ErrorKind, Manifest, ModelHasher, SubmitOutcome, TaskId};
use sheaf_messages::{Order, bounds, manifest_to_wire, outcome_from_wire, v1};

use crate::world::{PIECE_LEN, Way, World, enrol_request, model_spec, on_every_way, order};

on_every_way! {
    a_round_is_worked_and_counts_once,
    an_interrupted_upload_goes_on_with_what_is_missing,
    a_connection_takes_as_many_pieces_as_a_model_has,
    a_piece_of_another_digest_is_not_stored,
    tasks_of_others_and_unknown_tasks_are_not_known,
    a_held_request_ends_when_the_site_is_revoked,
    nothing_is_served_without_an_identity,
    a_token_is_spent_by_its_first_key,
    a_failed_task_is_told,
    bounds_are_kept,
}

/// The bytes of the model handed out, read by ranges.
async fn download(transport: &dyn Transport, order: &Order) -> Bytes {
    let input = &order.inputs[0];
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < input.byte_len() {
        let offset = bytes.len() as u64;
        let len = (input.byte_len() - offset).min(bounds::READ_LEN_MAX);
        bytes.extend_from_slice(&transport.read_version(&input.input.version, offset, len).await.unwrap());
    }
    Bytes::from(bytes)
}

fn update() -> Vec<Bytes> {
    let ones: Vec<u8> = (0..crate::world::ELEMENTS).flat_map(|_| 1.0f32.to_le_bytes()).collect();
    let ones = Bytes::from(ones);
    (0..ones.len()).step_by(PIECE_LEN).map(|at| ones.slice(at..ones.len().min(at + PIECE_LEN))).collect()
}

fn submission(task: TaskId, pieces: &[Bytes]) -> v1::SubmitRequest {
    let digests: Vec<Digest> = pieces.iter().map(|piece| Digest::of(piece)).collect();
    let manifest = Manifest::over_pieces(vec![model_spec()], PIECE_LEN as u64, &digests).unwrap();
    let slot = v1::SubmittedSlot { slot: "model".to_owned(), manifest: Some(manifest_to_wire(&manifest)) };
    v1::SubmitRequest {
        task: task.to_string(),
        slots: vec![slot],
        num_examples: 10.0,
        metrics: std::collections::BTreeMap::from([("loss".to_owned(), 0.1 + 0.2)]),
    }
}

fn missing(task: TaskId, pieces: &[Bytes]) -> v1::MissingRequest {
    let digests = pieces.iter().map(|piece| Digest::of(piece).to_string()).collect();
    v1::MissingRequest { task: task.to_string(), digests }
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    match result.unwrap_err() {
        Error::Refused { kind, .. } => kind,
        other => panic!("not a refusal of the server: {other}"),
    }
}

async fn a_round_is_worked_and_counts_once(way: Way) {
    let world = World::start().await;
    let site = world.site("a", way).await;
    let run = world.run(1, 1).await;
    let transport = world.connect(&site, way);
    let beat = v1::BeatRequest { working: Vec::new(), client: "test/1".to_owned() };
    assert_eq!(transport.beat(beat).await.unwrap().beat_every_ms, 200);
    let order = order(&*transport).await;
    assert_eq!((order.assignment.run, order.assignment.round), (run, 1));
    let model = download(&*transport, &order).await;
    let mut hasher = ModelHasher::new();
    hasher.tensor(&model_spec());
    hasher.bytes(&model);
    assert_eq!(hasher.finish(), order.inputs[0].input.digest);
    let (task, pieces) = (order.assignment.task, update());
    for piece in &pieces {
        transport.put_piece(task, Digest::of(piece), piece.clone()).await.unwrap();
    }
    let first = transport.submit(submission(task, &pieces)).await.unwrap();
    assert_eq!(outcome_from_wire(first), Ok(SubmitOutcome::Accepted));
    let again = transport.submit(submission(task, &pieces)).await.unwrap();
    assert_eq!(outcome_from_wire(again), Ok(SubmitOutcome::Duplicate));
    crate::world::eventually(async || {
        let status = world.handle.status(&world.operator, run).await.unwrap();
        status.phase.is_over() && status.history.len() == 1
    })
    .await;
    let status = world.handle.status(&world.operator, run).await.unwrap();
    // The very number that was sent, whichever way it came.
    assert_eq!(status.history[0].metrics["loss"], 0.1 + 0.2);
    transport.leave().await.unwrap();
}

async fn an_interrupted_upload_goes_on_with_what_is_missing(way: Way) {
    let world = World::start().await;
    let site = world.site("a", way).await;
    world.run(1, 1).await;
    let transport = world.connect(&site, way);
    let task = order(&*transport).await.assignment.task;
    let pieces = update();
    transport.put_piece(task, Digest::of(&pieces[0]), pieces[0].clone()).await.unwrap();
    drop(transport);
    let transport = world.connect(&site, way);
    let left = transport.missing(missing(task, &pieces)).await.unwrap();
    assert_eq!(left.digests, [Digest::of(&pieces[1]).to_string()]);
    transport.put_piece(task, Digest::of(&pieces[1]), pieces[1].clone()).await.unwrap();
    assert!(transport.missing(missing(task, &pieces)).await.unwrap().digests.is_empty());
    let reply = transport.submit(submission(task, &pieces)).await.unwrap();
    assert_eq!(outcome_from_wire(reply), Ok(SubmitOutcome::Accepted));
}

async fn a_connection_takes_as_many_pieces_as_a_model_has(way: Way) {
    let world = World::start().await;
    let site = world.site("a", way).await;
    world.run(1, 1).await;
    let transport = world.connect(&site, way);
    let task = order(&*transport).await.assignment.task;
    // More than a connection may have of whatever an HTTP/2 peer counts for as long as it lives.
    for number in 0..300_u16 {
        let piece = Bytes::copy_from_slice(&number.to_le_bytes());
        let put = transport.put_piece(task, Digest::of(&piece), piece).await;
        assert!(put.is_ok(), "piece {number}: {put:?}");
    }
}

async fn a_piece_of_another_digest_is_not_stored(way: Way) {
    let world = World::start().await;
    let site = world.site("a", way).await;
    world.run(1, 1).await;
    let transport = world.connect(&site, way);
    let task = order(&*transport).await.assignment.task;
    let piece = Bytes::from_static(b"some bytes");
    let other = Digest::of(b"other bytes");
    assert_eq!(kind(transport.put_piece(task, other, piece).await), ErrorKind::InvalidArgument);
    let asked = v1::MissingRequest { task: task.to_string(), digests: vec![other.to_string()] };
    assert_eq!(transport.missing(asked).await.unwrap().digests, [other.to_string()]);
    // What was not uploaded cannot be submitted.
    let reply = outcome_from_wire(transport.submit(submission(task, &update())).await.unwrap()).unwrap();
    assert!(matches!(reply, SubmitOutcome::Refused { .. }), "{reply:?}");
}

async fn tasks_of_others_and_unknown_tasks_are_not_known(way: Way) {
    let world = World::start().await;
    let (first, second) = (world.site("a", way).await, world.site("b", way).await);
    world.run(1, 1).await;
    let (owner, other) = (world.connect(&first, way), world.connect(&second, way));
    let task = order(&*owner).await.assignment.task;
    let unknown: TaskId = "00112233445566778899aabbccddeeff".parse().unwrap();
    let pieces = update();
    for (caller, task) in [(&other, task), (&owner, unknown)] {
        assert_eq!(kind(caller.missing(missing(task, &pieces)).await), ErrorKind::NotFound);
        let put = caller.put_piece(task, Digest::of(&pieces[0]), pieces[0].clone()).await;
        assert_eq!(kind(put), ErrorKind::NotFound);
        assert_eq!(kind(caller.submit(submission(task, &pieces)).await), ErrorKind::NotFound);
        let fail = v1::FailRequest { task: task.to_string(), reason: "no".to_owned() };
        assert_eq!(kind(caller.fail(fail).await), ErrorKind::NotFound);
    }
    let version = order(&*owner).await.inputs[0].input.version.clone();
    assert_eq!(kind(other.read_version(&version, 0, 10).await), ErrorKind::NotFound);
}

async fn a_held_request_ends_when_the_site_is_revoked(way: Way) {
    let world = World::start().await;
    let (site, bystander) = (world.site("a", way).await, world.site("b", way).await);
    let transport = world.connect(&site, way);
    let held = transport.next(v1::NextRequest { have: Vec::new(), hold_ms: 600_000 });
    let revoke = async {
        world.until_present(&site.name).await;
        world.revoke(&site.name).await;
    };
    let (ended, ()) = tokio::join!(held, revoke);
    assert_eq!(kind(ended), ErrorKind::PermissionDenied);
    let beat = v1::BeatRequest::default();
    assert_eq!(kind(transport.beat(beat.clone()).await), ErrorKind::PermissionDenied);
    assert!(world.connect(&bystander, way).beat(beat).await.is_ok());
}

async fn nothing_is_served_without_an_identity(way: Way) {
    let world = World::start().await;
    let transport = world.anonymous(way);
    let task: TaskId = "00112233445566778899aabbccddeeff".parse().unwrap();
    let pieces = [Bytes::from_static(b"piece")];
    let version = sheaf_domain::VersionRef {
        run: sheaf_domain::RunId::new(1).unwrap(),
        lineage: sheaf_domain::LineageName::global(),
        version: 0,
    };
    assert_eq!(kind(transport.beat(v1::BeatRequest::default()).await), ErrorKind::Unauthenticated);
    assert_eq!(kind(transport.next(v1::NextRequest::default()).await), ErrorKind::Unauthenticated);
    assert_eq!(kind(transport.missing(missing(task, &pieces)).await), ErrorKind::Unauthenticated);
    assert_eq!(kind(transport.submit(v1::SubmitRequest::default()).await), ErrorKind::Unauthenticated);
    assert_eq!(kind(transport.fail(v1::FailRequest::default()).await), ErrorKind::Unauthenticated);
    assert_eq!(kind(transport.leave().await), ErrorKind::Unauthenticated);
    assert_eq!(kind(transport.renew(v1::RenewRequest::default()).await), ErrorKind::Unauthenticated);
    assert_eq!(kind(transport.read_version(&version, 0, 1).await), ErrorKind::Unauthenticated);
    let put = transport.put_piece(task, Digest::of(&pieces[0]), pieces[0].clone()).await;
    assert_eq!(kind(put), ErrorKind::Unauthenticated);
}

async fn a_token_is_spent_by_its_first_key(way: Way) {
    let world = World::start().await;
    let kit = world.kit("a").await;
    let transport = world.anonymous(way);
    let (key, thief) = (sheaf_pki::SiteKey::generate().unwrap(), sheaf_pki::SiteKey::generate().unwrap());
    let first = transport.enrol(enrol_request(&kit, &key)).await.unwrap();
    let again = transport.enrol(enrol_request(&kit, &key)).await.unwrap();
    assert_eq!(first, again);
    let stolen = transport.enrol(enrol_request(&kit, &thief)).await.unwrap_err();
    assert_eq!(stolen.kind(), ErrorKind::PermissionDenied);
    assert!(stolen.to_string().contains("another key"), "{stolen}");
    let garbage = v1::EnrolRequest { csr_pem: "garbage".to_owned(), ..enrol_request(&kit, &key) };
    assert_eq!(kind(transport.enrol(garbage).await), ErrorKind::InvalidArgument);
}

async fn a_failed_task_is_told(way: Way) {
    let world = World::start().await;
    let site = world.site("a", way).await;
    let run = world.run(1, 1).await;
    let transport = world.connect(&site, way);
    let task = order(&*transport).await.assignment.task;
    let fail = v1::FailRequest { task: task.to_string(), reason: "no data for this".to_owned() };
    transport.fail(fail).await.unwrap();
    let status = world.handle.status(&world.operator, run).await.unwrap();
    assert!(status.sites[0].last_error.as_deref().unwrap().contains("no data for this"), "{status:?}");
}

async fn bounds_are_kept(way: Way) {
    let world = World::start().await;
    let site = world.site("a", way).await;
    world.run(1, 1).await;
    let transport = world.connect(&site, way);
    let order = order(&*transport).await;
    let task = order.assignment.task;
    let too_many = vec![task.to_string(); bounds::TASKS_MAX + 1];
    let beat = v1::BeatRequest { working: too_many.clone(), client: String::new() };
    assert_eq!(kind(transport.beat(beat).await), ErrorKind::InvalidArgument);
    let next = v1::NextRequest { have: too_many, hold_ms: 0 };
    assert_eq!(kind(transport.next(next).await), ErrorKind::InvalidArgument);
    let reason = "x".repeat(bounds::REASON_LEN_MAX + 1);
    let fail = v1::FailRequest { task: task.to_string(), reason };
    assert_eq!(kind(transport.fail(fail).await), ErrorKind::InvalidArgument);
    let piece = Bytes::from(vec![0; usize::try_from(bounds::PIECE_LEN_MAX).unwrap() + 1]);
    let put = transport.put_piece(task, Digest::of(&piece), piece).await;
    assert_eq!(kind(put), ErrorKind::InvalidArgument);
    let none = transport.put_piece(task, Digest::of(b""), Bytes::new()).await;
    assert_eq!(kind(none), ErrorKind::InvalidArgument);
    // After all of it the participant goes on as before.
    assert_eq!(crate::world::order(&*transport).await, order);
}

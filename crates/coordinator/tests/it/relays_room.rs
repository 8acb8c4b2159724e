//! Objects of relayed runs that are large, and stores that are full.

use bytes::Bytes;
use sheaf_coordinator::{Bring, OBJECT_LEN_MAX, PIECE_LEN_MAX, Settings};
use sheaf_domain::{ByteSize, Digest, ErrorKind, Principal};
use sheaf_relay::ObjectDraft;

use crate::relays::{Letter, Relay, begun, bring, next, node, participant, post, read, send};
use crate::world::{Backend, World, on_both, settings};

on_both!(
    an_object_longer_than_a_piece_passes_within_the_budget,
    a_full_store_loses_nothing_and_goes_on_when_there_is_room,
);

async fn an_object_longer_than_a_piece_passes_within_the_budget(backend: Backend) {
    // Room for one piece in flight: what is longer passes all the same, one after another.
    let settings = Settings { inflight: ByteSize::from_bytes(PIECE_LEN_MAX), ..settings() };
    let world = World::with(backend, settings, ByteSize::from_mib(256)).await;
    let site = participant(&world).await;
    let Relay { run, .. } = begun(&world).await;
    let application = Principal::ServerApp(run);
    let mut letter = Letter::new(&world, "train", node(&site), None, "small");
    let chunk = Bytes::from(vec![7; 1 << 20]);
    let count = 80;
    let len = count * chunk.len() as u64;
    assert!(len > 4 * PIECE_LEN_MAX, "longer than a piece, and than a file of the store usually is");
    let large = ObjectDraft { id: Digest::of(&chunk.repeat(80)), children: vec![] };
    let (root, _) = letter.objects.pop().unwrap();
    let above = ObjectDraft { children: vec![large.id], ..root };
    let objects = vec![large.clone(), above];
    world.relays.post(&application, run, vec![letter.draft], objects).await.unwrap();

    let Bring::Wanted(mut intake) = world.relays.bring(&application, run, large.id, len).await.unwrap()
    else {
        panic!("it is wanted")
    };
    let other = world.relays.bring(&application, run, large.id, len).await.unwrap_err();
    assert_eq!(
        other.kind(),
        ErrorKind::Exhausted,
        "another waits for its share of the budget, and is told to come again"
    );
    for _ in 0..count {
        intake.write(chunk.clone()).await.unwrap();
    }
    assert!(intake.finish().await.unwrap());
    let back = read(&world, &application, run, large.id).await.unwrap();
    assert_eq!((back.len() as u64, Digest::of(&back)), (len, large.id));

    let unbounded =
        world.relays.bring(&application, run, above_of(&world, &application, run).await, OBJECT_LEN_MAX + 1);
    assert_eq!(unbounded.await.unwrap_err().kind(), ErrorKind::InvalidArgument);
}

/// An object that is still wanted.
async fn above_of(world: &World, application: &Principal, run: sheaf_domain::RunId) -> Digest {
    let site = participant(world).await;
    let letter = Letter::new(world, "another", node(&site), None, "another model");
    post(world, application, run, &letter).await.missing[0]
}

async fn a_full_store_loses_nothing_and_goes_on_when_there_is_room(backend: Backend) {
    let mut world = World::with(backend, settings(), ByteSize::from_mib(1)).await;
    let site = participant(&world).await;
    let (first, second) = (begun(&world).await.run, begun(&world).await.run);
    let kept = Letter::new(&world, "train", node(&site), None, &"m".repeat(700_000));
    send(&world, &Principal::ServerApp(first), first, &kept).await;

    let application = Principal::ServerApp(second);
    let late = Letter::new(&world, "later", node(&site), None, &"n".repeat(700_000));
    let posted = post(&world, &application, second, &late).await;
    let (model, root) = (posted.missing[0], posted.missing[1]);
    for _ in 0..3 {
        let full = world.relays.bring(&application, second, model, 700_000).await.unwrap_err();
        assert!(full.kind() == ErrorKind::Exhausted && full.is_transient(), "{full}");
    }
    // What is small finds room still, and the letter waits for the rest.
    assert!(bring(&world, &application, second, &late, root).await);
    let handed = next(&world, &site).await.unwrap();
    assert_eq!(handed.letter, kept.draft.id, "what was there before is there");
    assert_eq!(read(&world, &node(&site), first, kept.objects[0].0.id).await.unwrap().len(), 700_000);

    // A restart finds it as it was; the end of the first run makes room.
    if matches!(backend, Backend::Memory) {
        world.restart().await;
        assert_eq!(post(&world, &application, second, &late).await.missing, [model]);
    }
    world.relays.stop(&world.operator, first).await.unwrap();
    while world.blob.usage().objects > 2 {
        tokio::task::yield_now().await;
    }
    assert!(bring(&world, &application, second, &late, model).await);
    assert_eq!(next(&world, &site).await.unwrap().letter, late.draft.id);
    assert_eq!(read(&world, &node(&site), second, model).await.unwrap().len(), 700_000);
}

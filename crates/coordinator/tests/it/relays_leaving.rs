//! Relayed runs that are removed, their journals, and participants that come and go.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sheaf_coordinator::{Force, NewRelay};
use sheaf_domain::{ErrorKind, JournalId, Principal, Role, Span};
use sheaf_pki::{PublicKey, SiteKey};

use crate::relays::{Letter, Relay, begun, node, participant, send};
use crate::world::{Backend, World, on_both, settings};

on_both!(
    a_relayed_run_is_removed_with_everything_of_it,
    a_relayed_run_that_goes_on_is_removed_by_force_only,
    a_removal_of_a_relayed_run_cut_off_leaves_it_whole,
    a_broken_relayed_run_may_be_removed_by_force,
    those_who_left_make_room_and_those_taken_out_stay_out,
    who_left_first_goes_first_unless_the_store_keeps_it,
);

async fn a_relayed_run_is_removed_with_everything_of_it(backend: Backend) {
    let mut world = World::start(backend).await;
    world.settings.relay.log_dir = Some(world.dir.path().to_owned());
    world.restart().await;
    let site = participant(&world).await;
    let Relay { run, .. } = begun(&world).await;
    let journal = JournalId::Relay(run);
    let letter = Letter::new(&world, "train", node(&site), None, "model");
    send(&world, &Principal::ServerApp(run), run, &letter).await;
    world.relays.log(run, "a line\n".to_owned()).await.unwrap();
    world.relays.stop(&world.operator, run).await.unwrap();
    let log = world.dir.path().join(format!("{run}.jsonl"));
    assert!(log.exists());

    // Its journal is read and signed as any other, by every name that people have for it.
    let decimal = run.get().to_string();
    for name in [journal.to_string(), run.to_string(), decimal, run.to_string()[..12].to_owned()] {
        assert_eq!(world.handle.find_journal(&world.operator, &name).await.unwrap(), journal, "{name}");
    }
    let missing = world.handle.find_journal(&world.operator, "relay-zz").await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let entries = world.handle.journal(&world.operator, journal, 0, 100, Span::default()).await.unwrap();
    let head = world.handle.signed_head(&world.operator, journal).await.unwrap();
    assert_eq!((head.seq, head.hash), (entries.len() as u64, entries.last().unwrap().hash));

    let removed = world.handle.remove_relayed(&world.operator, run, Force::No).await.unwrap();
    assert_eq!((removed.name, removed.entries, removed.head), (journal.to_string(), head.seq, head.hash));
    let again = world.handle.remove_relayed(&world.operator, run, Force::No).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::NotFound);
    let gone = world.handle.journal(&world.operator, journal, 0, 100, Span::default()).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    assert!(!log.exists() && world.relays.overviews().unwrap().is_empty());
    assert_eq!(world.blob.holds().await.unwrap(), []);
    assert_eq!(world.kinds(JournalId::Federation).await.last().map(String::as_str), Some("run_removed"));
    world.restart().await;
    assert!(world.relays.overviews().unwrap().is_empty());
    begun(&world).await;
}

async fn a_relayed_run_that_goes_on_is_removed_by_force_only(backend: Backend) {
    let world = World::start(backend).await;
    let Relay { run, seat } = begun(&world).await;
    let refused = world.handle.remove_relayed(&world.operator, run, Force::No).await.unwrap_err();
    assert!(refused.kind() == ErrorKind::Conflict && refused.to_string().contains("goes on"), "{refused}");
    let stranger = sheaf_domain::Identity { role: Role::Participant, ..world.operator.clone() };
    let refused = world.handle.remove_relayed(&stranger, run, Force::Yes).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    world.handle.remove_relayed(&world.operator, run, Force::Yes).await.unwrap();
    assert!(world.relays.beat(seat).is_err() && world.relays.overview(run).is_err());
}

async fn a_removal_of_a_relayed_run_cut_off_leaves_it_whole(backend: Backend) {
    let mut world = World::start(backend).await;
    let Relay { run, .. } = begun(&world).await;
    world.relays.stop(&world.operator, run).await.unwrap();
    world.faults.dead.store(true, Ordering::SeqCst);
    world.handle.remove_relayed(&world.operator, run, Force::No).await.unwrap_err();
    world.faults.dead.store(false, Ordering::SeqCst);
    assert!(world.relays.overview(run).unwrap().application.phase.is_over(), "it is put back");
    world.restart().await;
    assert!(world.relays.overview(run).unwrap().application.phase.is_over());
    world.handle.remove_relayed(&world.operator, run, Force::No).await.unwrap();
}

async fn a_broken_relayed_run_may_be_removed_by_force(backend: Backend) {
    let mut world = World::start(backend).await;
    let new = NewRelay { bundle: bytes::Bytes::from_static(b"bundle"), header: "demo".to_owned() };
    let run = world.relays.create(&world.operator, new).await.unwrap();
    world.crash().await;
    let journal = JournalId::Relay(run);
    let now = sheaf_runtime::Clock::now(&*world.clock).after(Span::from_secs(60));
    let lease = world.store.acquire_lease(journal, "x", Span::from_secs(1), now).await.unwrap();
    let entries =
        vec![sheaf_domain::EntryDraft { at: now, kind: "nonsense".to_owned(), body: "{}".to_owned() }];
    let append = sheaf_store::Append { journal, lease_epoch: lease.epoch, expected_seq: 1, entries };
    world.store.append(vec![append]).await.unwrap();
    world.clock.advance(Span::from_secs(120));
    world.boot().await.unwrap();
    assert!(world.relays.overviews().unwrap().is_empty(), "it is set aside");
    let refused = world.handle.remove_relayed(&world.operator, run, Force::No).await.unwrap_err();
    assert!(refused.kind() == ErrorKind::Conflict && refused.to_string().contains("set aside"), "{refused}");
    let removed = world.handle.remove_relayed(&world.operator, run, Force::Yes).await.unwrap();
    assert_eq!(removed.entries, 2);
    assert_eq!(world.blob.holds().await.unwrap(), []);
}

fn key() -> PublicKey {
    PublicKey::from_spki_der(SiteKey::generate().unwrap().public_key().spki_der()).unwrap()
}

async fn those_who_left_make_room_and_those_taken_out_stay_out(backend: Backend) {
    let settings = sheaf_coordinator::Settings { sites_max: 3, ..settings() };
    let mut world = World::with(backend, settings, sheaf_domain::ByteSize::from_mib(64)).await;
    let peer = IpAddr::from([192, 0, 2, 1]);
    let (gone, banned, here) = (key(), key(), key());
    let first = world.relays.register_self(&gone, peer).await.unwrap();
    world.relays.activate(&first, Duration::from_secs(30)).await.unwrap();
    world.relays.leave(&first).await.unwrap();
    world.relays.leave(&first).await.unwrap();
    assert!(!world.relays.by_key(&gone.fingerprint()).unwrap().active, "its late calls are refused");
    let second = world.relays.register_self(&banned, peer).await.unwrap();
    world.relays.unregister(&second).await.unwrap();
    world.relays.register_self(&here, peer).await.unwrap();
    // The room of the one that left first is needed.
    let next = key();
    world.relays.register_self(&next, peer).await.unwrap();
    assert!(world.relays.by_key(&gone.fingerprint()).is_none());
    assert!(!world.relays.by_key(&banned.fingerprint()).unwrap().active, "an operator's word stands");
    let full = world.relays.register_self(&key(), peer).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Exhausted);
    world.restart().await;
    assert!(world.relays.by_key(&gone.fingerprint()).is_none());
    assert_eq!(world.relays.participants().len(), 3);
    let banned_again = world.relays.register_self(&banned, peer).await.unwrap_err();
    assert_eq!(banned_again.kind(), ErrorKind::Conflict);
}

async fn who_left_first_goes_first_unless_the_store_keeps_it(backend: Backend) {
    let settings = sheaf_coordinator::Settings { sites_max: 4, ..settings() };
    let world = World::with(backend, settings, sheaf_domain::ByteSize::from_mib(64)).await;
    let peer = IpAddr::from([192, 0, 2, 1]);
    let keys: [PublicKey; 4] = std::array::from_fn(|_| key());
    let mut names = Vec::new();
    for key in &keys {
        names.push(world.relays.register_self(key, peer).await.unwrap());
    }
    // They leave in another order than that of their names and of their coming.
    let order = [2, 0, 3, 1];
    for idx in order {
        world.clock.advance(Span::from_secs(1));
        world.relays.leave(&names[idx]).await.unwrap();
    }
    *world.faults.keeps.lock().unwrap() = Some(names[order[1]].clone());
    let known = |idx: usize| world.relays.by_key(&keys[idx].fingerprint()).is_some();
    world.relays.register_self(&key(), peer).await.unwrap();
    assert_eq!(order.map(known), [false, true, true, true]);
    world.relays.register_self(&key(), peer).await.unwrap();
    assert_eq!(order.map(known), [false, true, false, true], "what the store keeps is known here too");
    world.relays.register_self(&key(), peer).await.unwrap();
    assert_eq!(order.map(known), [false, true, false, false]);
    let full = world.relays.register_self(&key(), peer).await.unwrap_err();
    assert_eq!((full.kind(), known(order[1])), (ErrorKind::Exhausted, true));
}

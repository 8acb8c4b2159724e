//! Many changes of membership at once: each site and each key is treated as if it were alone, and bounds hold exactly.

use futures_util::future::join_all;
use sheaf_coordinator::{Enrolment, Settings};
use sheaf_domain::{ByteSize, ErrorKind, JournalId};
use sheaf_pki::{Kit, SiteKey};

use crate::world::{Backend, World, name, on_both, settings};

on_both!(
    many_are_invited_and_come_in_at_once_and_never_more_than_there_is_room_for,
    of_two_keys_with_one_token_one_gets_in,
    of_two_sites_with_one_key_one_gets_in_and_the_other_keeps_its_token,
    an_invitation_made_anew_takes_the_place_of_the_open_one,
);

const ROOM: usize = 40;
const ASKING: usize = 50;

fn key() -> SiteKey {
    SiteKey::generate().unwrap()
}

async fn world_with_room(backend: Backend, room: usize) -> World {
    let settings = Settings { sites_max: room, ..settings() };
    World::with(backend, settings, ByteSize::from_mib(1)).await
}

async fn many_are_invited_and_come_in_at_once_and_never_more_than_there_is_room_for(backend: Backend) {
    let mut world = world_with_room(backend, ROOM).await;
    let names: Vec<String> = (0..ASKING).map(|idx| format!("site-{idx}")).collect();
    let invited = join_all(names.iter().map(|name| world.invite(name, false))).await;
    let (kits, refused): (Vec<_>, Vec<_>) = invited.into_iter().partition(Result::is_ok);
    assert_eq!((kits.len(), refused.len()), (ROOM, ASKING - ROOM));
    assert!(refused.iter().all(|refused| refused.as_ref().unwrap_err().kind() == ErrorKind::Exhausted));
    let kits: Vec<Kit> = kits.into_iter().map(Result::unwrap).collect();
    let keys: Vec<SiteKey> = kits.iter().map(|_| key()).collect();
    let enrolled = join_all(kits.iter().zip(&keys).map(|(kit, key)| world.enrol(kit, key))).await;
    assert!(enrolled.iter().all(|enrolled| matches!(enrolled, Ok(Enrolment::Issued(_)))), "{enrolled:?}");
    let sites = world.store.sites().await.unwrap();
    assert_eq!(sites.len(), ROOM);
    for (kit, key) in kits.iter().zip(&keys) {
        let site = world.store.site(&kit.site).await.unwrap().unwrap();
        assert_eq!(site.key_fingerprint, key.fingerprint());
    }
    let entries = world.store.entries(JournalId::Federation, 0, 1_000).await.unwrap();
    for kind in ["site_invited", "site_enrolled"] {
        assert_eq!(entries.iter().filter(|entry| entry.kind == kind).count(), ROOM, "{kind}");
    }
    // The count is right afterwards, and made anew at the next start.
    assert_eq!(world.invite("late", false).await.unwrap_err().kind(), ErrorKind::Exhausted);
    world.restart().await;
    assert_eq!(world.invite("late", false).await.unwrap_err().kind(), ErrorKind::Exhausted);
}

async fn of_two_keys_with_one_token_one_gets_in(backend: Backend) {
    let world = World::start(backend).await;
    let kit = world.kit("ward").await;
    let keys: Vec<SiteKey> = (0..8).map(|_| key()).collect();
    let enrolled = join_all(keys.iter().map(|key| world.enrol(&kit, key))).await;
    let site = world.store.site(&name("ward")).await.unwrap().unwrap();
    for (enrolled, key) in enrolled.iter().zip(&keys) {
        match enrolled {
            Ok(_) => assert_eq!(site.key_fingerprint, key.fingerprint()),
            Err(error) => assert!(error.to_string().contains("another key"), "{error}"),
        }
    }
    assert_eq!(enrolled.iter().filter(|enrolled| enrolled.is_ok()).count(), 1);
}

async fn of_two_sites_with_one_key_one_gets_in_and_the_other_keeps_its_token(backend: Backend) {
    let world = World::start(backend).await;
    let (ward, lab) = (world.kit("ward").await, world.kit("lab").await);
    let one = key();
    let (in_ward, in_lab) = tokio::join!(world.enrol(&ward, &one), world.enrol(&lab, &one));
    let (refused, left_out) = match (in_ward, in_lab) {
        (Ok(_), Err(refused)) => (refused, lab),
        (Err(refused), Ok(_)) => (refused, ward),
        both => panic!("{both:?}"),
    };
    assert!(refused.to_string().contains("another site's"), "{refused}");
    assert!(matches!(world.enrol(&left_out, &key()).await, Ok(Enrolment::Issued(_))));
}

async fn an_invitation_made_anew_takes_the_place_of_the_open_one(backend: Backend) {
    let mut world = world_with_room(backend, 3).await;
    let first = world.kit("ward").await;
    world.restart().await;
    let second = world.kit("ward").await;
    let refused = world.enrol(&first, &key()).await.unwrap_err();
    assert!(refused.to_string().contains("taken back"), "{refused}");
    world.kit("lab").await;
    world.kit("clinic").await;
    assert_eq!(world.invite("hospital", false).await.unwrap_err().kind(), ErrorKind::Exhausted);
    // An invitation that is taken back leaves its room to another.
    world.handle.revoke(&world.operator, &name("clinic"), String::new()).await.unwrap();
    world.kit("hospital").await;
    assert!(matches!(world.enrol(&second, &key()).await, Ok(Enrolment::Issued(_))));
}

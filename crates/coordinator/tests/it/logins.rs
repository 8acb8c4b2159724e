//! Operators who log in from elsewhere.

use std::net::IpAddr;

use sheaf_coordinator::LoginRequest;
use sheaf_domain::{ErrorKind, JournalId, Role, Span};

use crate::world::{Backend, World, days, name, on_both, operator, participant};

on_both!(
    nobody_is_let_in_whom_no_operator_approved,
    a_login_lasts_across_restarts_and_ends_when_it_is_told_to_or_its_time_is_up,
    a_login_takes_the_place_of_the_one_before_it,
    a_login_that_was_ended_is_not_fetched_any_more,
    a_token_is_fetched_again_for_a_minute_only,
    nobody_is_let_in_by_an_operator_who_was_revoked_since,
    requests_are_bounded_and_grow_old,
);

fn peer(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

async fn logged_in(world: &World, who: &str) -> String {
    let request = world.relays.request_login(peer(1)).unwrap();
    world.handle.approve_login(&world.operator, &request.code, name(who), days(1)).unwrap();
    let token = world.relays.complete_login(request.secret.reveal()).await.unwrap().unwrap();
    token.reveal().to_owned()
}

async fn nobody_is_let_in_whom_no_operator_approved(backend: Backend) {
    let world = World::start(backend).await;
    let request = world.relays.request_login(peer(1)).unwrap();
    assert!(world.relays.complete_login(request.secret.reveal()).await.unwrap().is_none());
    for secret in ["", &request.code, "0"] {
        let refused = world.relays.complete_login(secret).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unauthenticated, "{secret:?}");
        assert_eq!(world.relays.operator_of(secret).unwrap_err().kind(), ErrorKind::Unauthenticated);
    }
    assert!(world.relays.operator_of(request.secret.reveal()).is_err(), "the asker's secret is no token");

    let approve = |who, code: &str| world.handle.approve_login(&who, code, name("alice"), days(1));
    let stranger = participant("site", sheaf_domain::Digest::of(b"key"));
    assert_eq!(approve(stranger, &request.code).unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(approve(operator("o"), "BBBBBBBB").unwrap_err().kind(), ErrorKind::NotFound);
    let nothing = world.handle.approve_login(&world.operator, &request.code, name("alice"), days(0));
    assert_eq!(nothing.unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert!(world.relays.complete_login(request.secret.reveal()).await.unwrap().is_none(), "still nobody");

    // People write codes as they like.
    let code = request.code.to_lowercase();
    let written = format!("{}-{}", &code[..4], &code[4..]);
    approve(operator("o"), &written).unwrap();
    let other = world.handle.approve_login(&world.operator, &request.code, name("mallory"), days(1));
    assert_eq!(other.unwrap_err().kind(), ErrorKind::Conflict, "it was approved for somebody");
    let token = world.relays.complete_login(request.secret.reveal()).await.unwrap().unwrap();
    let who = world.relays.operator_of(token.reveal()).unwrap();
    assert_eq!((who.name.as_str(), who.role), ("alice", Role::Operator));
    world.relays.authorise_operator(&who).unwrap();
    assert!(!format!("{token:?} {request:?}").contains(token.reveal()));
    // Its answer may have been lost: asked again there is another, and the first counts for nothing.
    let again = world.relays.complete_login(request.secret.reveal()).await.unwrap().unwrap();
    assert!(
        world.relays.operator_of(again.reveal()).is_ok() && world.relays.operator_of(token.reveal()).is_err()
    );
}

async fn a_login_lasts_across_restarts_and_ends_when_it_is_told_to_or_its_time_is_up(backend: Backend) {
    let mut world = World::start(backend).await;
    let (alice, bob) = (logged_in(&world, "alice").await, logged_in(&world, "bob").await);
    let kept = world.store.setting("operator_logins").await.unwrap().unwrap();
    assert!(!kept.contains(&alice) && !kept.contains(&bob), "only hashes are kept");
    world.restart().await;
    assert_eq!(world.relays.operator_of(&alice).unwrap().name, name("alice"));
    let names: Vec<_> =
        world.handle.logins(&world.operator).unwrap().into_iter().map(|login| login.name).collect();
    assert_eq!(names, [name("alice"), name("bob")]);
    world.handle.end_login(&world.operator, &name("alice")).await.unwrap();
    assert!(world.relays.operator_of(&alice).is_err() && world.relays.operator_of(&bob).is_ok());
    let unknown = world.handle.end_login(&world.operator, &name("alice")).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    world.restart().await;
    assert!(world.relays.operator_of(&alice).is_err() && world.relays.operator_of(&bob).is_ok());
    world.clock.advance(days(1));
    assert!(world.relays.operator_of(&bob).is_err());
    assert_eq!(world.handle.logins(&world.operator).unwrap(), []);
    world.settle().await;
    let kinds = world.kinds(JournalId::Federation).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "operator_logged_in").count(), 2, "{kinds:?}");
    assert!(kinds.contains(&"operator_logged_out".to_owned()), "{kinds:?}");
}

async fn a_login_takes_the_place_of_the_one_before_it(backend: Backend) {
    let world = World::start(backend).await;
    let (first, second) = (logged_in(&world, "alice").await, logged_in(&world, "alice").await);
    assert!(world.relays.operator_of(&first).is_err() && world.relays.operator_of(&second).is_ok());
    assert_eq!(world.handle.logins(&world.operator).unwrap().len(), 1);
}

async fn refused(world: &World, request: &LoginRequest) {
    let refused = world.relays.complete_login(request.secret.reveal()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unauthenticated, "{refused}");
}

async fn a_login_that_was_ended_is_not_fetched_any_more(backend: Backend) {
    let world = World::start(backend).await;
    let [first, second, other] = [(); 3].map(|()| world.relays.request_login(peer(1)).unwrap());
    let approve = |request: &LoginRequest, who: &str| {
        world.handle.approve_login(&world.operator, &request.code, name(who), days(1)).unwrap();
    };
    // Approved and not fetched yet: there is no login, and what would be one is ended.
    approve(&first, "alice");
    approve(&other, "bob");
    world.handle.end_login(&world.operator, &name("alice")).await.unwrap();
    refused(&world, &first).await;
    // Fetched, and its answer lost: the same holds.
    approve(&second, "alice");
    let token = world.relays.complete_login(second.secret.reveal()).await.unwrap().unwrap();
    world.handle.end_login(&world.operator, &name("alice")).await.unwrap();
    assert!(world.relays.operator_of(token.reveal()).is_err());
    refused(&world, &second).await;
    assert!(world.relays.complete_login(other.secret.reveal()).await.unwrap().is_some(), "bob's stands");
    let names = world.handle.logins(&world.operator).unwrap().into_iter().map(|login| login.name);
    assert_eq!(names.collect::<Vec<_>>(), [name("bob")]);
}

async fn a_token_is_fetched_again_for_a_minute_only(backend: Backend) {
    let world = World::start(backend).await;
    let request = world.relays.request_login(peer(1)).unwrap();
    world.handle.approve_login(&world.operator, &request.code, name("alice"), days(1)).unwrap();
    world.clock.advance(Span::from_secs(300));
    world.relays.complete_login(request.secret.reveal()).await.unwrap().unwrap();
    world.clock.advance(Span::from_secs(59));
    let token = world.relays.complete_login(request.secret.reveal()).await.unwrap().unwrap();
    // The minute is that of the first time.
    world.clock.advance(Span::from_secs(1));
    refused(&world, &request).await;
    assert!(world.relays.operator_of(token.reveal()).is_ok(), "the login itself goes on");
}

async fn nobody_is_let_in_by_an_operator_who_was_revoked_since(backend: Backend) {
    let mut world = World::start(backend).await;
    let who = world.known_operator("other").await;
    let request = world.relays.request_login(peer(1)).unwrap();
    world.handle.approve_login(&who, &request.code, name("alice"), days(1)).unwrap();
    world.handle.revoke(&world.operator, &who.name, "left".to_owned()).await.unwrap();
    refused(&world, &request).await;
}

async fn requests_are_bounded_and_grow_old(backend: Backend) {
    let world = World::start(backend).await;
    let waits = async |request: &LoginRequest| {
        world.relays.complete_login(request.secret.reveal()).await.is_ok_and(|token| token.is_none())
    };
    // Of one address the newest five wait; an IPv6 network is one address.
    let network = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
    let mut own = Vec::new();
    for last in 0..7 {
        own.push(world.relays.request_login(network(last)).unwrap());
    }
    for (idx, request) in own.iter().enumerate() {
        assert_eq!(waits(request).await, idx >= 2, "{idx}");
    }
    // A request that was approved gives way to none.
    world.handle.approve_login(&world.operator, &own[2].code, name("alice"), days(1)).unwrap();
    for last in 7..12 {
        world.relays.request_login(network(last)).unwrap();
    }
    world.relays.complete_login(own[2].secret.reveal()).await.unwrap().unwrap();

    // Twenty addresses fill what there is; the others are heard nevertheless, until each address has one.
    let first = world.relays.request_login(peer(0)).unwrap();
    for last in (0..19).flat_map(|address| [address; 5]).skip(1) {
        world.relays.request_login(peer(last)).unwrap();
    }
    let mut late = Vec::new();
    for last in 100..180 {
        late.push(world.relays.request_login(peer(last)).unwrap());
        assert!(waits(&late[0]).await, "who has one request keeps it");
    }
    assert!(!waits(&first).await);
    let refused = world.relays.request_login(peer(200)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Exhausted);
    // An address that waits with one may still change its mind.
    let again = world.relays.request_login(peer(100)).unwrap();
    assert!(waits(&again).await && !waits(&late[0]).await);

    world.clock.advance(Span::from_secs(600));
    world.relays.request_login(peer(200)).unwrap();
    let code = &again.code;
    let late = world.handle.approve_login(&world.operator, code, name("bob"), days(1)).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::NotFound);
    let late = world.relays.complete_login(again.secret.reveal()).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Unauthenticated);
}

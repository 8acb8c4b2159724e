//! Cases of invitations: a token is spent once, by one key, in time.

use sheaf_domain::Role;

use super::{at, digest, site_name};
use crate::{Error, Invite, InviteState, SpendOutcome, StateStore};

fn invite(site: &str) -> Invite {
    Invite {
        site: site_name(site),
        token_hash: digest(site),
        role: Role::Participant,
        created_at: at(0),
        expires_at: at(100),
        approve: false,
        state: InviteState::Open,
    }
}

/// The first key spends it and gets the invitation; what is kept says so.
pub async fn an_open_token_is_spent_once(store: &dyn StateStore) {
    let open = Invite { approve: true, role: Role::Operator, ..invite("site-1") };
    store.put_invite(open.clone()).await.unwrap();
    assert_eq!(store.invite_by_token(open.token_hash).await.unwrap().as_ref(), Some(&open));
    let spent = Invite { state: InviteState::Spent { by: digest("key"), at: at(99) }, ..open.clone() };
    let outcome = store.spend_invite(open.token_hash, digest("key"), at(99)).await.unwrap();
    assert_eq!(outcome, SpendOutcome::Spent(spent.clone()));
    assert_eq!(store.invite_by_token(open.token_hash).await.unwrap(), Some(spent));
}

/// The key that spent it gets the same answer later; another key is reported with the first.
pub async fn a_spent_token_answers_its_key_for_ever(store: &dyn StateStore) {
    store.put_invite(invite("site-1")).await.unwrap();
    store.spend_invite(digest("site-1"), digest("key"), at(1)).await.unwrap();
    for now in [2, 100, 100_000] {
        let same = store.spend_invite(digest("site-1"), digest("key"), at(now)).await.unwrap();
        assert!(
            matches!(&same, SpendOutcome::SameKey(invite) if invite.state == InviteState::Spent { by: digest("key"), at: at(1) }),
            "{same:?}"
        );
        let other = store.spend_invite(digest("site-1"), digest("thief"), at(now)).await.unwrap();
        assert_eq!(other, SpendOutcome::OtherKey { site: site_name("site-1"), first: digest("key") });
    }
}

/// Its end is exclusive; what nobody spent in time stays open and useless.
pub async fn an_expired_token_is_not_spent(store: &dyn StateStore) {
    store.put_invite(invite("site-1")).await.unwrap();
    for now in [100, 101] {
        let outcome = store.spend_invite(digest("site-1"), digest("key"), at(now)).await.unwrap();
        assert_eq!(outcome, SpendOutcome::Expired);
    }
    assert_eq!(store.invite_by_token(digest("site-1")).await.unwrap(), Some(invite("site-1")));
}

/// A token of no invitation is unknown.
pub async fn an_unknown_token_is_told_apart(store: &dyn StateStore) {
    store.put_invite(invite("site-1")).await.unwrap();
    let outcome = store.spend_invite(digest("guess"), digest("key"), at(0)).await.unwrap();
    assert_eq!(outcome, SpendOutcome::Unknown);
    assert_eq!(store.invite_by_token(digest("guess")).await.unwrap(), None);
}

/// Two keys that come at the same time are put in an order.
pub async fn of_two_keys_at_once_one_is_first(store: &dyn StateStore) {
    store.put_invite(invite("site-1")).await.unwrap();
    let (one, two) = tokio::join!(
        store.spend_invite(digest("site-1"), digest("one"), at(1)),
        store.spend_invite(digest("site-1"), digest("two"), at(1)),
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    let (won, lost, first) = match &one {
        SpendOutcome::Spent(_) => (&one, &two, digest("one")),
        _ => (&two, &one, digest("two")),
    };
    assert!(matches!(won, SpendOutcome::Spent(_)), "{won:?}");
    assert_eq!(*lost, SpendOutcome::OtherKey { site: site_name("site-1"), first });
}

/// Withdrawing takes back what is open of one site, and only that.
pub async fn a_withdrawn_invitation_is_not_spent(store: &dyn StateStore) {
    let second = Invite { token_hash: digest("second"), ..invite("site-1") };
    for invite in [invite("site-1"), second, invite("site-2")] {
        store.put_invite(invite).await.unwrap();
    }
    store.spend_invite(digest("second"), digest("key"), at(1)).await.unwrap();
    assert_eq!(store.withdraw_invites(&site_name("site-1")).await.unwrap(), 1);
    assert_eq!(store.withdraw_invites(&site_name("site-1")).await.unwrap(), 0);
    let outcome = store.spend_invite(digest("site-1"), digest("key"), at(1)).await.unwrap();
    assert_eq!(outcome, SpendOutcome::Withdrawn);
    let same = store.spend_invite(digest("second"), digest("key"), at(1)).await.unwrap();
    assert!(matches!(same, SpendOutcome::SameKey(_)), "{same:?}");
    let other = store.spend_invite(digest("site-2"), digest("other"), at(1)).await.unwrap();
    assert!(matches!(other, SpendOutcome::Spent(_)), "{other:?}");
}

/// A token stands for one invitation.
pub async fn a_token_in_use_is_refused(store: &dyn StateStore) {
    store.put_invite(invite("site-1")).await.unwrap();
    let twin = Invite { site: site_name("site-2"), ..invite("site-1") };
    assert!(matches!(store.put_invite(twin).await, Err(Error::Conflict(_))));
    assert_eq!(store.invites().await.unwrap(), [invite("site-1")]);
}

/// The list is in the order of making.
pub async fn invitations_are_listed_oldest_first(store: &dyn StateStore) {
    for (site, created) in [("c", 3), ("a", 1), ("b", 2)] {
        store.put_invite(Invite { created_at: at(created), ..invite(site) }).await.unwrap();
    }
    let sites: Vec<_> = store.invites().await.unwrap().into_iter().map(|invite| invite.site).collect();
    assert_eq!(sites, [site_name("a"), site_name("b"), site_name("c")]);
}

/// Spent invitations are kept: they tell a key from another.
pub async fn only_unspent_invitations_are_forgotten(store: &dyn StateStore) {
    let later = Invite { expires_at: at(200), ..invite("later") };
    for invite in [invite("open"), invite("spent"), later] {
        store.put_invite(invite).await.unwrap();
    }
    store.spend_invite(digest("spent"), digest("key"), at(1)).await.unwrap();
    assert_eq!(store.forget_invites(at(100)).await.unwrap(), 0);
    assert_eq!(store.forget_invites(at(101)).await.unwrap(), 1);
    assert_eq!(store.invite_by_token(digest("open")).await.unwrap(), None);
    assert_eq!(store.invites().await.unwrap().len(), 2);
}

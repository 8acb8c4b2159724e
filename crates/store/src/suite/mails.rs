//! Cases of mail: posted once, handed out until acknowledged, bounded.

use sheaf_domain::{Mail, MailDraft, MailId, Principal, Timestamp};

use super::{MAIL_LIMITS, at, digest, participant, run_id};
use crate::{Error, MAIL_KINDS_MAX, StateStore};

fn draft(to: &str, correlation: &str) -> MailDraft {
    MailDraft {
        run: run_id(1),
        from: Principal::ServerApp(run_id(1)),
        to: participant(to),
        kind: "train".to_owned(),
        correlation: correlation.to_owned(),
        expires_at: at(100),
        body: Some(digest("body")),
        header: "{}".to_owned(),
    }
}

async fn waiting(store: &dyn StateStore, to: &str, now: u64) -> Vec<Mail> {
    store.mail(&participant(to), &[], None, 100, at(now)).await.unwrap()
}

async fn post(store: &dyn StateStore, draft: MailDraft, now: u64) -> Mail {
    let (mail, new) = store.post_mail(draft, at(now)).await.unwrap();
    assert!(new, "{mail:?} was there before");
    mail
}

/// The same key is the same mail, whatever else changed, before and after it was acknowledged; another key is not.
pub async fn posting_again_is_the_same_mail(store: &dyn StateStore) {
    let first = post(store, draft("site-1", "1"), 0).await;
    assert_eq!(first, Mail { id: first.id, draft: draft("site-1", "1"), posted_at: at(0) });
    let changed = MailDraft { header: "changed".to_owned(), body: None, ..draft("site-1", "1") };
    assert_eq!(store.post_mail(changed.clone(), at(5)).await.unwrap(), (first.clone(), false));
    store.ack_mail(&participant("site-1"), &[first.id]).await.unwrap();
    assert_eq!(store.post_mail(changed, at(6)).await.unwrap(), (first, false));
    assert_eq!(waiting(store, "site-1", 7).await, []);
    let others = [
        draft("site-1", "2"),
        draft("site-2", "1"),
        MailDraft { kind: "evaluate".to_owned(), ..draft("site-1", "1") },
        MailDraft { from: participant("site-2"), ..draft("site-1", "1") },
        MailDraft { run: run_id(2), ..draft("site-1", "1") },
    ];
    for other in others {
        post(store, other, 8).await;
    }
}

/// Mail is handed out again and again, oldest first, until it is acknowledged.
pub async fn mail_waits_until_it_is_acknowledged(store: &dyn StateStore) {
    let first = post(store, draft("site-1", "1"), 0).await;
    let second = post(store, draft("site-1", "2"), 1).await;
    assert!(first.id < second.id);
    for now in [2, 3] {
        assert_eq!(waiting(store, "site-1", now).await, [first.clone(), second.clone()]);
    }
    assert_eq!(store.ack_mail(&participant("site-1"), &[first.id]).await.unwrap(), 1);
    assert_eq!(waiting(store, "site-1", 4).await, [second]);
    assert_eq!(store.ack_mail(&participant("site-1"), &[first.id]).await.unwrap(), 0);
}

/// Mail of others is neither seen nor ended.
pub async fn only_the_recipient_acknowledges(store: &dyn StateStore) {
    let mail = post(store, draft("site-1", "1"), 0).await;
    let strangers = [participant("site-2"), mail.draft.from.clone()];
    for stranger in strangers {
        assert_eq!(store.mail(&stranger, &[], None, 10, at(1)).await.unwrap(), []);
        let ids = [mail.id, MailId(mail.id.0 + 1), MailId(u64::MAX)];
        assert_eq!(store.ack_mail(&stranger, &ids).await.unwrap(), 0);
    }
    assert_eq!(waiting(store, "site-1", 1).await, [mail]);
}

/// As much waits as may; one more is refused until one is acknowledged or expires. Others are not affected.
pub async fn a_full_mailbox_refuses(store: &dyn StateStore) {
    let limit = MAIL_LIMITS.waiting_max;
    let mut mails = Vec::new();
    for idx in 0..limit {
        mails.push(post(store, draft("site-1", &idx.to_string()), 0).await);
    }
    let refused = store.post_mail(draft("site-1", "more"), at(1)).await.unwrap_err();
    assert!(
        matches!(&refused, Error::MailboxFull { recipient, limit: l } if *recipient == participant("site-1") && *l == limit),
        "{refused:?}"
    );
    let again = store.post_mail(draft("site-1", "0"), at(1)).await.unwrap();
    assert!(!again.1);
    post(store, draft("site-2", "more"), 1).await;
    store.ack_mail(&participant("site-1"), &[mails.first().unwrap().id]).await.unwrap();
    post(store, draft("site-1", "more"), 2).await;
    let later = MailDraft { expires_at: at(500), ..draft("site-1", "later") };
    assert!(matches!(store.post_mail(later.clone(), at(99)).await, Err(Error::MailboxFull { .. })));
    post(store, later, 100).await;
}

/// What has expired is not handed out, is forgotten by a sweep, and may be posted anew.
pub async fn mail_expires(store: &dyn StateStore) {
    let first = post(store, draft("site-1", "1"), 0).await;
    let later = post(store, MailDraft { expires_at: at(300), ..draft("site-1", "2") }, 0).await;
    assert_eq!(waiting(store, "site-1", 99).await, [first.clone(), later.clone()]);
    assert_eq!(waiting(store, "site-1", 100).await, std::slice::from_ref(&later));
    assert_eq!(store.expire_mail(at(99)).await.unwrap(), 0);
    assert_eq!(store.expire_mail(at(100)).await.unwrap(), 1);
    let anew = post(store, MailDraft { expires_at: at(200), ..draft("site-1", "1") }, 150).await;
    assert!(anew.id > later.id);
    let unswept = post(store, MailDraft { expires_at: at(280), ..draft("site-1", "1") }, 250).await;
    assert_eq!(waiting(store, "site-1", 250).await, [later, unswept]);
}

/// Kinds and pages narrow what is handed out.
pub async fn mail_is_handed_out_by_kind_and_in_pages(store: &dyn StateStore) {
    let mut mails = Vec::new();
    for (correlation, kind) in [("1", "train"), ("2", "evaluate"), ("3", "train"), ("4", "quit")] {
        let draft = MailDraft { kind: kind.to_owned(), ..draft("site-1", correlation) };
        mails.push(post(store, draft, 0).await.id);
    }
    let to = participant("site-1");
    let ask = async |kinds: &[&str], after: Option<MailId>, limit: u32| {
        let kinds: Vec<String> = kinds.iter().map(|&kind| kind.to_owned()).collect();
        let page = store.mail(&to, &kinds, after, limit, at(1)).await.unwrap();
        page.iter().map(|mail| mails.iter().position(|id| *id == mail.id).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ask(&[], None, 10).await, [0, 1, 2, 3]);
    assert_eq!(ask(&["train"], None, 10).await, [0, 2]);
    assert_eq!(ask(&["quit", "train"], None, 10).await, [0, 2, 3]);
    assert_eq!(ask(&["nothing", "' OR 1=1 --"], None, 10).await, [0; 0]);
    assert_eq!(ask(&[], None, 2).await, [0, 1]);
    assert_eq!(ask(&[], mails.get(1).copied(), 2).await, [2, 3]);
    assert_eq!(ask(&["train"], mails.first().copied(), 10).await, [2]);
    assert_eq!(ask(&[], Some(MailId(u64::MAX)), 10).await, [0; 0]);
    assert_eq!(ask(&[], None, 0).await, [0; 0]);
    let too_many = vec![String::new(); MAIL_KINDS_MAX + 1];
    assert!(matches!(store.mail(&to, &too_many, None, 1, at(1)).await, Err(Error::InvalidArgument(_))));
}

/// Of what was acknowledged, only the newest is remembered: posting an older one again is a new mail.
pub async fn the_oldest_acknowledged_mail_is_forgotten(store: &dyn StateStore) {
    let num = MAIL_LIMITS.acknowledged_max + 1;
    for idx in 0..num {
        let mail = post(store, draft("site-1", &idx.to_string()), 0).await;
        assert_eq!(store.ack_mail(&participant("site-1"), &[mail.id]).await.unwrap(), 1);
    }
    for idx in 1..num {
        let (mail, new) = store.post_mail(draft("site-1", &idx.to_string()), at(1)).await.unwrap();
        assert!(!new, "{mail:?}");
    }
    post(store, draft("site-1", "0"), 1).await;
}

/// A number is spent for good, also when the newest mail was forgotten.
pub async fn a_number_is_never_given_twice(store: &dyn StateStore) {
    let first = post(store, draft("site-1", "1"), 0).await;
    assert_eq!(store.expire_mail(at(100)).await.unwrap(), 1);
    let second = post(store, MailDraft { expires_at: at(200), ..draft("site-1", "2") }, 100).await;
    assert!(second.id > first.id);
}

/// Mail beyond a bound, or past its end, is refused.
pub async fn bad_mail_is_refused(store: &dyn StateStore) {
    let bad = [
        MailDraft { kind: "k".repeat(MailDraft::TAG_LEN_MAX + 1), ..draft("site-1", "1") },
        MailDraft { correlation: "c".repeat(MailDraft::TAG_LEN_MAX + 1), ..draft("site-1", "1") },
        MailDraft { header: "h".repeat(MailDraft::HEADER_LEN_MAX + 1), ..draft("site-1", "1") },
        MailDraft { expires_at: at(1), ..draft("site-1", "1") },
        MailDraft { expires_at: Timestamp::from_millis(u64::MAX), ..draft("site-1", "1") },
    ];
    for draft in bad {
        let refused = store.post_mail(draft, at(1)).await.unwrap_err();
        assert!(matches!(refused, Error::InvalidArgument(_)), "{refused:?}");
    }
    assert_eq!(waiting(store, "site-1", 1).await, []);
}

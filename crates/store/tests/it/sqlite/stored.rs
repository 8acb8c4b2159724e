//! What the kept file of each format holds: how it was filled, and how it is checked.
//!
//! `cargo run -p sheaf-store --example stored_bytes -- FILE` fills a new file of the present format.

use sheaf_domain::{
    Digest, EntryDraft, GENESIS, JournalId, Mail, MailDraft, MailId, Principal, Role, RunId, SiteName, Span,
    Timestamp,
};
use sheaf_store::{
    Append, Invite, InviteState, SignedHead, SiteCertificate, SiteRecord, SiteState, SpendOutcome, StateStore,
};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const LATER: Timestamp = Timestamp::from_millis(1_700_000_100_000);

fn run() -> JournalId {
    JournalId::Run(RunId::new(0x5eaf).unwrap())
}

fn name() -> SiteName {
    SiteName::new("site-1").unwrap()
}

fn invite(state: InviteState) -> Invite {
    Invite {
        site: name(),
        token_hash: Digest::of(b"token"),
        role: Role::Participant,
        created_at: NOW,
        expires_at: LATER,
        approve: true,
        state,
    }
}

fn site() -> SiteRecord {
    SiteRecord {
        name: name(),
        role: Role::Participant,
        key_fingerprint: Digest::of(b"key"),
        public_key_der: b"key".to_vec(),
        certificate: Some(SiteCertificate {
            pem: "a certificate\n".to_owned(),
            serial: "0a1b".to_owned(),
            not_after: LATER,
        }),
        state: SiteState::Revoked { reason: "key lost".to_owned(), at: LATER },
        enrolled_at: NOW,
        last_seen: Some(LATER),
        label: None,
        location: None,
    }
}

fn mail() -> MailDraft {
    MailDraft {
        run: RunId::new(0x5eaf).unwrap(),
        from: Principal::ServerApp(RunId::new(0x5eaf).unwrap()),
        to: Principal::Participant(name()),
        kind: "train".to_owned(),
        correlation: "round-1".to_owned(),
        expires_at: LATER,
        body: Some(Digest::of(b"body")),
        header: "{\"round\":1}".to_owned(),
    }
}

fn bodies() -> Vec<String> {
    (1..=5).map(|round| format!("{{\"round\":{round},\"name\":\"Garbe \u{1F33E}\"}}")).collect()
}

/// Writes one of everything.
pub(crate) async fn fill(store: &dyn StateStore) {
    let lease = store.acquire_lease(run(), "server-1", Span::from_secs(30), NOW).await.unwrap();
    let draft = |body| EntryDraft { at: NOW, kind: "round-closed".to_owned(), body };
    let entries = bodies().into_iter().map(draft).collect();
    let append = Append { journal: run(), lease_epoch: lease.epoch, expected_seq: 0, entries };
    store.append(vec![append]).await.unwrap();
    let (seq, hash) = store.head(run()).await.unwrap();
    let signed = SignedHead { journal: run(), seq, hash, signature: b"signed".to_vec(), at: LATER };
    store.put_signed_head(signed).await.unwrap();
    store.put_invite(invite(InviteState::Open)).await.unwrap();
    store.spend_invite(Digest::of(b"token"), Digest::of(b"key"), NOW).await.unwrap();
    store.put_site(site()).await.unwrap();
    store.post_mail(mail(), NOW).await.unwrap();
    store.put_setting("trust-domain", "federation.example").await.unwrap();
}

/// Checks that exactly that is there, and that it is alive.
pub(crate) async fn check(store: &dyn StateStore) {
    let entries = store.entries(run(), 0, 100).await.unwrap();
    let mut head = (0, GENESIS);
    for (entry, body) in entries.iter().zip(bodies()) {
        entry.check_follows(run(), head).unwrap();
        assert_eq!((entry.at, entry.kind.as_str(), &entry.body), (NOW, "round-closed", &body));
        head = (entry.seq, entry.hash);
    }
    assert_eq!(head.0, 5);
    // The chain's hash is part of the format: it must not change.
    assert_eq!(head.1.to_string(), HEAD);
    assert_eq!(store.head(run()).await.unwrap(), head);
    assert_eq!(store.journals().await.unwrap(), [run()]);
    let signed = store.signed_head(run()).await.unwrap().unwrap();
    assert_eq!(
        (signed.seq, signed.hash, signed.signature.as_slice(), signed.at),
        (5, head.1, &b"signed"[..], LATER)
    );
    let spent = invite(InviteState::Spent { by: Digest::of(b"key"), at: NOW });
    assert_eq!(store.invites().await.unwrap(), std::slice::from_ref(&spent));
    let again = store.spend_invite(Digest::of(b"token"), Digest::of(b"key"), LATER).await.unwrap();
    assert_eq!(again, SpendOutcome::SameKey(spent));
    assert_eq!(store.sites().await.unwrap(), [site()]);
    let waiting = store.mail(&mail().to, &[], None, 10, NOW).await.unwrap();
    assert_eq!(waiting, [Mail { id: MailId(1), draft: mail(), posted_at: NOW }]);
    assert_eq!(store.setting("trust-domain").await.unwrap().as_deref(), Some("federation.example"));
    let lease = store.acquire_lease(run(), "server-2", Span::from_secs(30), LATER).await.unwrap();
    assert_eq!(lease.epoch, 2);
    let entry = EntryDraft { at: LATER, kind: "note".to_owned(), body: "{}".to_owned() };
    let append = Append { journal: run(), lease_epoch: 2, expected_seq: 5, entries: vec![entry] };
    store.append(vec![append]).await.unwrap();
}

/// The hash of the last entry.
const HEAD: &str = "fa09d82278f498a5876b62ae2bc3e612566bfc0b976c3ea5a9a40cb1eab7b395";

//! The backends agree: any list of calls gets the same answers from the store in memory and from the one in a file.

use proptest::prelude::*;
use sheaf_domain::{
    Digest, EntryDraft, JournalId, MailDraft, MailId, Principal, Role, RunId, SiteName, Span, Timestamp,
};
use sheaf_store::{
    Append, Invite, InviteState, MemoryStore, OpenOptions, SiteRecord, SiteState, SqliteStore, StateStore,
    suite,
};

/// One call: which, about what, and when.
#[derive(Debug, Clone, Copy)]
struct Call {
    what: u8,
    subject: u8,
    object: u8,
    now: u64,
}

impl Call {
    fn now(self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }
    fn journal(self) -> JournalId {
        RunId::new(u64::from(self.subject)).map_or(JournalId::Federation, JournalId::Run)
    }
    fn name(self) -> SiteName {
        SiteName::new(format!("site-{}", self.subject)).unwrap()
    }
    fn digest(self) -> Digest {
        Digest::of(&[self.object])
    }
    fn principal(self) -> Principal {
        Principal::Participant(self.name())
    }

    fn append(self) -> Append {
        let draft = EntryDraft { at: self.now(), kind: "note".to_owned(), body: self.object.to_string() };
        Append {
            journal: self.journal(),
            lease_epoch: u64::from(self.object) + 1,
            expected_seq: u64::from(self.object),
            entries: vec![draft; usize::from(self.object % 2) + 1],
        }
    }

    fn mail(self) -> MailDraft {
        MailDraft {
            run: RunId::new(1).unwrap(),
            from: Principal::ServerApp(RunId::new(1).unwrap()),
            to: self.principal(),
            kind: format!("kind-{}", self.object % 2),
            correlation: self.object.to_string(),
            expires_at: Timestamp::from_millis(self.now + 20),
            body: None,
            header: String::new(),
        }
    }

    fn invite(self) -> Invite {
        Invite {
            site: self.name(),
            token_hash: self.digest(),
            role: Role::Participant,
            created_at: self.now(),
            expires_at: Timestamp::from_millis(self.now + 20),
            approve: self.object.is_multiple_of(2),
            state: InviteState::Open,
        }
    }

    fn site(self) -> SiteRecord {
        SiteRecord {
            name: self.name(),
            role: Role::Operator,
            key_fingerprint: self.digest(),
            public_key_der: vec![self.object],
            certificate: None,
            state: if self.object.is_multiple_of(2) { SiteState::Active } else { SiteState::PendingApproval },
            enrolled_at: self.now(),
            last_seen: None,
            label: None,
            location: None,
        }
    }

    /// Makes the call and describes the answer.
    async fn make(self, store: &dyn StateStore) -> String {
        fn told<T: std::fmt::Debug>(answer: Result<T, sheaf_store::Error>) -> String {
            format!("{:?}", answer.map_err(|error| (error.kind(), error.to_string())))
        }
        let (ttl, epoch) = (Span::from_millis(10), u64::from(self.object) + 1);
        let holder = if self.object.is_multiple_of(2) { "one" } else { "two" };
        match self.what {
            0 | 1 => told(store.acquire_lease(self.journal(), holder, ttl, self.now()).await),
            2 => told(store.renew_lease(self.journal(), epoch, ttl, self.now()).await),
            3 => told(store.release_lease(self.journal(), epoch).await),
            4..=6 => told(store.append(vec![self.append()]).await),
            7 => {
                let other = Call { subject: self.subject + 1, ..self };
                told(store.append(vec![self.append(), other.append()]).await)
            }
            8 => told(store.entries(self.journal(), u64::from(self.object), 3).await),
            9 => told(store.head(self.journal()).await),
            10 => told(store.put_invite(self.invite()).await),
            11 => told(store.spend_invite(self.digest(), Digest::of(&[self.subject]), self.now()).await),
            12 => told(store.withdraw_invites(&self.name()).await),
            13 => told(store.forget_invites(self.now()).await),
            14 => told(store.put_site(self.site()).await),
            15 => told(store.replace_site(Digest::of(&[self.subject]), self.site()).await),
            16 => {
                let state = SiteState::Revoked { reason: "why".to_owned(), at: self.now() };
                told(store.set_site_state(&self.name(), state).await)
            }
            17 => told(store.touch_sites(vec![(self.name(), self.now())]).await),
            18..=20 => told(store.post_mail(self.mail(), self.now()).await),
            21 => told(store.ack_mail(&self.principal(), &[MailId(u64::from(self.object))]).await),
            22 => told(store.expire_mail(self.now()).await),
            23 => told(store.mail(&self.principal(), &["kind-1".to_owned()], None, 2, self.now()).await),
            _ => told(store.put_setting("key", holder).await),
        }
    }
}

/// Everything a store tells about itself.
async fn portrait(store: &dyn StateStore) -> Vec<String> {
    let mut parts = vec![
        format!("{:?}", store.journals().await),
        format!("{:?}", store.invites().await),
        format!("{:?}", store.sites().await),
        format!("{:?}", store.setting("key").await),
    ];
    for subject in 0..5 {
        let call = Call { what: 0, subject, object: 0, now: 0 };
        parts.push(format!("{:?}", store.entries(call.journal(), 0, 100).await));
        parts.push(format!("{:?}", store.mail(&call.principal(), &[], None, 100, call.now()).await));
        parts.push(format!("{:?}", *store.watch(call.journal()).borrow()));
    }
    parts
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let call = (0_u8..25, 0_u8..4, 0_u8..6, 0_u64..100);
    let call = call.prop_map(|(what, subject, object, now)| Call { what, subject, object, now });
    proptest::collection::vec(call, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_sqlite_give_the_same_answers(calls in calls()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::TempDir::new().unwrap();
            let options = OpenOptions { mail: suite::MAIL_LIMITS, ..OpenOptions::default() };
            let file = SqliteStore::open(&dir.path().join("state.sqlite"), options).await.unwrap();
            let memory = MemoryStore::new(suite::MAIL_LIMITS);
            for call in calls {
                prop_assert_eq!(call.make(&memory).await, call.make(&file).await, "{:?}", call);
            }
            prop_assert_eq!(portrait(&memory).await, portrait(&file).await);
            file.close().await;
            Ok(())
        })?;
    }
}

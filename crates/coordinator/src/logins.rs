//! Operators who log in from elsewhere: whoever asks is shown a code, an operator who is known here approves it, and the asker gets a
//! token that is good for a while.
//!
//! Refused: more requests than an address or everybody may make, or than wait at once from as many addresses, and codes that are unknown or too old. Invariants: a
//! token is kept as a hash and told to the asker alone; nobody is let in whom no operator approved; a login that was ended, or whose time
//! is up, counts for nothing from then on, and no request that was approved before gets a token of it. Requests live in memory and end with
//! the process. Source: the device grant of RFC 8628.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sheaf_domain::{Digest, ErrorKind, Identity, Role, SiteName, Span, Timestamp};
use sheaf_pki::network_of;
use sheaf_runtime::Entropy;
use sheaf_store::StateStore;
use tokio::sync::{Semaphore, watch};

use crate::outbox::lock;
use crate::relay::Token;
use crate::shared::Shared;
use crate::{Error, Handle, Relays};

/// How long a request waits for an operator, and its asker for the token.
const REQUEST_TTL: Duration = Duration::from_secs(600);
/// Requests that nobody has approved yet, at once.
const REQUESTS_MAX: usize = 100;
/// The same from one address.
const REQUESTS_OF_ADDRESS_MAX: usize = 5;
/// Operators that are logged in at once; what is kept of them fits one setting.
const LOGINS_MAX: usize = 128;
/// How often those who wait for an operator to be refused look at the time.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long a token may be fetched again, whose answer may have been lost.
const FETCH_AGAIN: Duration = Duration::from_secs(60);
/// The longest that a login may last.
const VALIDITY_MAX: Span = Span::from_secs(366 * 24 * 3600);
/// Where logins are kept.
const SETTING: &str = "operator_logins";
/// What codes are made of: no vowels, and nothing that is read as something else.
const CODE_LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// Letters of a code; twenty to this power is beyond guessing while a request waits.
const CODE_LEN: usize = 8;

/// Who is logged in, and who asks to be.
#[derive(Debug)]
pub(crate) struct Logins {
    requests: Mutex<Vec<Request>>,
    kept: RwLock<Vec<Login>>,
    turn: Semaphore,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Request {
    /// Whoever has one address of a network may have them all.
    network: IpAddr,
    secret: Digest,
    code: String,
    until: Duration,
    approved: Option<Approval>,
}

#[derive(Debug, Clone)]
struct Approval {
    name: SiteName,
    by: Identity,
    ends_at: Timestamp,
}

/// A login as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Login {
    name: SiteName,
    by: SiteName,
    token: Digest,
    begun_at: Timestamp,
    ends_at: Timestamp,
}

/// A request to be let in.
#[derive(Debug, Clone)]
pub struct LoginRequest {
    /// What the asker comes back with; a secret.
    pub secret: Token,
    /// What an operator approves.
    pub code: String,
    /// How long it waits.
    pub lasts: Duration,
}

/// A login, for lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginOverview {
    /// Whom it stands for.
    pub name: SiteName,
    /// Who approved it.
    pub by: SiteName,
    /// Since when.
    pub begun_at: Timestamp,
    /// Until when.
    pub ends_at: Timestamp,
}

impl Logins {
    pub(crate) async fn load(store: &dyn StateStore) -> Result<Logins, Error> {
        let kept = match store.setting(SETTING).await? {
            None => Vec::new(),
            Some(text) => serde_json::from_str(&text)
                .map_err(|error| Error::internal(format!("the kept logins cannot be read: {error}")))?,
        };
        let (requests, kept) = (Mutex::default(), RwLock::new(kept));
        Ok(Logins { requests, kept, turn: Semaphore::new(1), changes: watch::Sender::new(0) })
    }

    fn of_token(&self, token: &Digest, now: Timestamp) -> Option<Login> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        // Digests of 128 random bytes: nothing is learnt from how long their comparison takes.
        kept.iter().find(|login| login.token == *token && login.ends_at > now).cloned()
    }

    fn live(&self, now: Timestamp) -> Vec<Login> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.iter().filter(|login| login.ends_at > now).cloned().collect()
    }

    /// Puts a request in; requests whose time is up make room.
    fn ask(&self, request: Request, now: Duration) -> Result<(), Error> {
        let mut requests = lock(&self.requests);
        requests.retain(|known| known.until > now);
        make_room(&mut requests, request.network)?;
        requests.push(request);
        Ok(())
    }

    fn approve(&self, code: &str, approval: Approval, now: Duration) -> Result<(), Error> {
        let code: String = code.chars().filter(|letter| *letter != '-').collect();
        let mut requests = lock(&self.requests);
        let approved = requests.iter().filter(|known| known.approved.is_some()).count();
        let asked =
            requests.iter_mut().find(|known| known.until > now && known.code.eq_ignore_ascii_case(&code));
        let asked =
            asked.ok_or_else(|| Error::not_found("no login waits with this code; it may be too old"))?;
        match &asked.approved {
            Some(before) if before.name != approval.name => {
                Err(Error::conflict(format!("this login was approved for {} before", before.name)))
            }
            None if approved >= LOGINS_MAX => Err(full()),
            _ => {
                asked.approved = Some(approval);
                Ok(())
            }
        }
    }

    /// What became of a request.
    fn approval(&self, secret: &Digest, now: Duration) -> Result<Option<Approval>, Error> {
        let requests = lock(&self.requests);
        let asked = requests.iter().find(|known| known.until > now && known.secret == *secret);
        asked.map(|asked| asked.approved.clone()).ok_or_else(no_request)
    }

    /// The token of a request is durable: it may be fetched again for a moment only.
    fn fetched(&self, secret: &Digest, now: Duration) {
        let mut requests = lock(&self.requests);
        if let Some(asked) = requests.iter_mut().find(|known| known.secret == *secret) {
            asked.until = asked.until.min(now + FETCH_AGAIN);
        }
    }

    /// Forgets requests that were approved for `name`; returns whether there was one.
    fn withdraw(&self, name: &SiteName) -> bool {
        let mut requests = lock(&self.requests);
        let before = requests.len();
        requests.retain(|known| known.approved.as_ref().is_none_or(|approval| approval.name != *name));
        requests.len() < before
    }

    /// Changes what is kept, one change at a time; durable on return. What the change goes by it looks at itself: when its turn comes,
    /// what was so before may be otherwise.
    ///
    /// # Cancel safety
    /// A dropped call may have written what the memory does not have; the next change, or start, settles it.
    async fn change<T>(
        &self,
        shared: &Shared,
        change: impl FnOnce(&mut Vec<Login>, Timestamp) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        let _turn = self.turn.acquire().await.map_err(|_| Error::shutting_down())?;
        let now = shared.clock.now();
        let mut next = self.live(now);
        let changed = change(&mut next, now)?;
        let text = serde_json::to_string(&next).map_err(|error| Error::internal(error.to_string()))?;
        shared.store.put_setting(SETTING, &text).await?;
        *self.kept.write().unwrap_or_else(PoisonError::into_inner) = next;
        self.changes.send_modify(|version| *version += 1);
        Ok(changed)
    }
}

impl Relays {
    /// Asks to be let in as an operator; an operator who is known here has to approve the code. Of one address the five newest requests
    /// wait, and when a hundred do, one of the address with the most makes room.
    ///
    /// # Errors
    /// Exhausted when the address, or everybody, asks too often, or a hundred addresses wait with one request each.
    pub fn request_login(&self, peer: IpAddr) -> Result<LoginRequest, Error> {
        let now = self.shared.clock.monotonic();
        self.shared.login_limiter.admit(peer, now)?;
        let secret = Token::draw(&*self.shared.entropy)?;
        let code = code(&*self.shared.entropy)?;
        let request = Request {
            network: network_of(peer),
            secret: Digest::of(secret.reveal().as_bytes()),
            code: code.clone(),
            until: now + REQUEST_TTL,
            approved: None,
        };
        self.shared.logins.ask(request, now)?;
        tracing::info!(%peer, "somebody asks to be let in as an operator");
        Ok(LoginRequest { secret, code, lasts: REQUEST_TTL })
    }

    /// The token of a request that was approved; `None` while it waits. Asked again within a minute, there is a new token in place of the
    /// first, whose answer may have been lost; later there is none.
    ///
    /// # Errors
    /// Unauthenticated when there is no such request, its login was ended, or who approved it may not any more; exhausted when as many
    /// operators are logged in as may.
    /// # Cancel safety
    /// A dropped call is carried out nevertheless; asking again gets a token.
    pub async fn complete_login(&self, secret: &str) -> Result<Option<Token>, Error> {
        let secret = Digest::of(secret.as_bytes());
        if self.shared.logins.approval(&secret, self.shared.clock.monotonic())?.is_none() {
            return Ok(None);
        }
        let token = Token::draw(&*self.shared.entropy)?;
        let kept_as = Digest::of(token.reveal().as_bytes());
        let handle = Handle::new(Arc::clone(&self.shared));
        let work = handle.clone();
        handle.to_the_end(async move { work.log_in(secret, kept_as).await }).await?;
        Ok(Some(token))
    }

    /// The operator whom a token stands for.
    ///
    /// # Errors
    /// Unauthenticated when it stands for nobody now.
    pub fn operator_of(&self, token: &str) -> Result<Identity, Error> {
        let found = self.shared.logins.of_token(&Digest::of(token.as_bytes()), self.shared.clock.now());
        let unknown = || Error::new(ErrorKind::Unauthenticated, "this login has ended, or never was");
        found.map(|login| identity(login.name)).ok_or_else(unknown)
    }

    /// Whether `who` may act as an operator now.
    ///
    /// # Errors
    /// Permission denied, saying why.
    pub fn authorise_operator(&self, who: &Identity) -> Result<(), Error> {
        self.shared.registry.authorise(who, Role::Operator)
    }

    /// Resolves when `check`, which asks whether somebody may act as an operator, says why not. It is asked whenever somebody may have been
    /// shut out or a login has changed, and every ten seconds, since logins also end by the clock.
    ///
    /// # Cancel safety
    /// Safe: it holds nothing.
    pub async fn until_refused<E>(&self, check: impl Fn() -> Result<(), E>) -> E {
        let (mut sites, mut logins) =
            (self.shared.registry.changes(), self.shared.logins.changes.subscribe());
        loop {
            sites.mark_unchanged();
            logins.mark_unchanged();
            if let Err(refusal) = check() {
                return refusal;
            }
            tokio::select! {
                // Their senders live as long as what is shared.
                _ = sites.changed() => {}
                _ = logins.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

impl Handle {
    /// Makes a request that was approved a login with this token.
    async fn log_in(&self, secret: Digest, token: Digest) -> Result<(), Error> {
        let shared = &*self.shared;
        let put = |kept: &mut Vec<Login>, now: Timestamp| {
            let asked = shared.logins.approval(&secret, shared.clock.monotonic())?;
            let Approval { name, by, ends_at } = asked.ok_or_else(no_request)?;
            if ends_at <= now || shared.registry.authorise(&by, Role::Operator).is_err() {
                return Err(no_request());
            }
            kept.retain(|before| before.name != name);
            if kept.len() >= LOGINS_MAX {
                return Err(full());
            }
            let login = Login { name, by: by.name, token, begun_at: now, ends_at };
            kept.push(login.clone());
            Ok(login)
        };
        let Login { name, by, ends_at, .. } = shared.logins.change(shared, put).await?;
        shared.logins.fetched(&secret, shared.clock.monotonic());
        let body = serde_json::json!({ "operator": name, "by": by, "until": ends_at });
        self.federation_entry("operator_logged_in", &body).await?;
        tracing::info!(operator = %name, %by, "an operator is logged in");
        Ok(())
    }

    /// Lets in whoever asked with this code, as the operator `name`, for `validity`. A login of that name before it ends.
    ///
    /// # Errors
    /// Permission denied unless `who` is an operator; not found when nobody waits with this code; invalid argument for a validity of
    /// nothing, or of more than a year.
    pub fn approve_login(
        &self,
        who: &Identity,
        code: &str,
        name: SiteName,
        validity: Span,
    ) -> Result<LoginOverview, Error> {
        self.authorise(who, Role::Operator)?;
        if validity == Span::from_millis(0) || validity > VALIDITY_MAX {
            return Err(Error::invalid(format!("a login lasts up to {VALIDITY_MAX}")));
        }
        let begun_at = self.shared.clock.now();
        let ends_at = begun_at.after(validity);
        let approval = Approval { name: name.clone(), by: who.clone(), ends_at };
        self.shared.logins.approve(code, approval, self.shared.clock.monotonic())?;
        Ok(LoginOverview { name, by: who.name.clone(), begun_at, ends_at })
    }

    /// Operators that are logged in.
    ///
    /// # Errors
    /// Permission denied unless `who` is an operator.
    pub fn logins(&self, who: &Identity) -> Result<Vec<LoginOverview>, Error> {
        self.authorise(who, Role::Operator)?;
        let live = self.shared.logins.live(self.shared.clock.now()).into_iter();
        Ok(live
            .map(|Login { name, by, begun_at, ends_at, .. }| LoginOverview { name, by, begun_at, ends_at })
            .collect())
    }

    /// Ends a login: its token counts for nothing from now on, and none is made of a request that was approved for the name before.
    ///
    /// # Errors
    /// Permission denied unless `who` is an operator; not found when the name is neither logged in nor approved.
    /// # Cancel safety
    /// A dropped call may still be carried out.
    pub async fn end_login(&self, who: &Identity, name: &SiteName) -> Result<(), Error> {
        self.authorise(who, Role::Operator)?;
        let shared = &*self.shared;
        let remove = |kept: &mut Vec<Login>, _| {
            shared.registry.authorise(who, Role::Operator)?;
            let approved = shared.logins.withdraw(name);
            let before = kept.len();
            kept.retain(|login| login.name != *name);
            if approved || kept.len() < before {
                Ok(())
            } else {
                Err(Error::not_found(format!("{name} is not logged in")))
            }
        };
        shared.logins.change(shared, remove).await?;
        let body = serde_json::json!({ "operator": name, "by": who.name });
        self.federation_entry("operator_logged_out", &body).await
    }
}

/// Takes the oldest request out that nobody has approved: of `asker` when it has as many as it may; when all have, of an address with more
/// than it would have itself.
fn make_room(requests: &mut Vec<Request>, asker: IpAddr) -> Result<(), Error> {
    let mut waiting: HashMap<IpAddr, usize> = HashMap::new();
    for request in requests.iter().filter(|known| known.approved.is_none()) {
        *waiting.entry(request.network).or_default() += 1;
    }
    let own = waiting.get(&asker).copied().unwrap_or(0);
    let most = waiting.values().copied().max().unwrap_or(0);
    let all_wait = waiting.values().sum::<usize>() >= REQUESTS_MAX;
    let from_most = all_wait && most > own + 1;
    if own < REQUESTS_OF_ADDRESS_MAX && !all_wait {
        return Ok(());
    }
    if own == 0 && !from_most {
        return Err(Error::new(
            ErrorKind::Exhausted,
            format!("{REQUESTS_MAX} logins wait for an operator already"),
        ));
    }
    // They are in the order in which they came.
    let gives = |known: &Request| {
        known.approved.is_none()
            && if from_most { waiting.get(&known.network) == Some(&most) } else { known.network == asker }
    };
    if let Some(oldest) = requests.iter().position(gives) {
        requests.remove(oldest);
    }
    Ok(())
}

fn no_request() -> Error {
    Error::new(ErrorKind::Unauthenticated, "no such login waits; it may be too old, or was ended")
}

fn full() -> Error {
    Error::new(ErrorKind::Exhausted, format!("{LOGINS_MAX} operators are logged in, no more may be"))
}

/// The operator of a login.
fn identity(name: SiteName) -> Identity {
    Identity {
        trust_domain: "login".to_owned(),
        name,
        role: Role::Operator,
        key_fingerprint: Digest::from_bytes([0; 32]),
    }
}

/// Draws a code; bytes beyond the last whole multiple of the letters are drawn again, so that all are equally likely.
fn code(entropy: &dyn Entropy) -> Result<String, Error> {
    let mut code = String::with_capacity(CODE_LEN);
    while code.len() < CODE_LEN {
        let mut byte = [0];
        entropy.fill(&mut byte).map_err(|error| Error::internal(error.to_string()))?;
        if let Some(letter) = CODE_LETTERS.get(usize::from(byte[0] % 32)) {
            code.push(char::from(*letter));
        }
    }
    Ok(code)
}

//! Participants that are known by a key alone: enrolled by it, there or not, and what they are called.
//!
//! Such a participant's name is made from the fingerprint of its key, so that it is the same whenever and wherever the key comes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sheaf_domain::{Digest, ErrorKind, Principal, Role, SiteName, Span, Timestamp};
use sheaf_pki::PublicKey;
use sheaf_relay::Event;
use sheaf_store::{SiteRecord, SiteState};

use super::Relays;
use super::online::Beginning;
use crate::Error;

/// How long a beginning is held while the same key may be at work elsewhere.
const ACTIVATION_HOLD_MAX: Duration = Duration::from_secs(25);
/// How often it is looked whether it is.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A participant that is known by its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFacts {
    /// Its name.
    pub site: SiteName,
    /// Whether it may come in.
    pub active: bool,
}

/// A participant that is known by its key, for lists.
#[derive(Debug, Clone)]
pub struct KeyOverview {
    /// Its name.
    pub site: SiteName,
    /// Its public key (SubjectPublicKeyInfo, DER).
    pub public_key_der: Vec<u8>,
    /// When its key was enrolled.
    pub registered_at: Timestamp,
    /// When it was taken out, if it was.
    pub unregistered_at: Option<Timestamp>,
    /// When it began last, since the server started.
    pub activated_at: Option<Timestamp>,
    /// When it said goodbye last, since the server started.
    pub deactivated_at: Option<Timestamp>,
    /// Until when it counts as there.
    pub online_until: Option<Timestamp>,
    /// How often it says that it beats.
    pub beat_every: Span,
    /// What its operator says of it.
    pub card: KeyCard,
}

/// What an operator says of a participant that is known by its key; shown, never looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyCard {
    /// What it is called beside its name.
    pub label: Option<String>,
    /// Where it is, as `<latitude>,<longitude>` in degrees.
    pub location: Option<String>,
}

/// The reason kept with participants that an operator took out: for good.
const UNREGISTERED: &str = "unregistered";
/// The reason kept with participants that took themselves out: for as long as there is room.
const LEFT: &str = "left";
/// Participants that took themselves out and are still known, so that a call of theirs that comes late is refused.
const LEFT_MAX: usize = 1000;
/// What the names of these participants begin with.
const KEY_PREFIX: &str = "key-";

/// When a participant took itself out, if it did.
fn left_at(site: Arc<SiteRecord>) -> Option<(Timestamp, SiteName, Digest)> {
    match &site.state {
        SiteState::Revoked { reason, at } if reason == LEFT && site.certificate.is_none() => {
            Some((*at, site.name.clone(), site.key_fingerprint))
        }
        _ => None,
    }
}

/// Whether a participant is known by its key alone, and works for runs of its own stack.
pub(crate) fn is_known_by_key(site: &SiteRecord) -> bool {
    site.certificate.is_none() && site.role == Role::Participant && site.name.as_str().starts_with(KEY_PREFIX)
}

/// The name of the participant with this key.
///
/// # Errors
/// Never for a digest; the name's own rules are checked nevertheless.
pub(crate) fn name_of(fingerprint: &Digest) -> Result<SiteName, Error> {
    let digits = fingerprint.to_string();
    Ok(SiteName::new(format!("{KEY_PREFIX}{}", &digits[..16]))?)
}

fn known_already() -> Error {
    Error::conflict("this key is enrolled already")
}

impl Relays {
    /// Enrols the key of a participant that registers itself, at the rate that its address may. A key that is known is told so at any rate.
    ///
    /// # Errors
    /// Exhausted when the address, or everybody, comes too often with new keys; as [`Relays::register`].
    /// # Cancel safety
    /// A dropped call may still be carried out.
    pub async fn register_self(&self, key: &PublicKey, peer: IpAddr) -> Result<SiteName, Error> {
        if self.shared.registry.by_key(&key.fingerprint()).is_some() {
            return Err(known_already());
        }
        self.shared.key_limiter.admit(peer, self.shared.clock.monotonic())?;
        self.register(key, KeyCard::default()).await
    }

    /// Enrols a key; the name it gets follows from it. `card` is kept as it comes: whoever takes it from a peer bounds it.
    ///
    /// # Errors
    /// Conflict when the key is or was enrolled; exhausted when as many participants are enrolled as may.
    /// # Cancel safety
    /// A dropped call may still be carried out.
    pub async fn register(&self, key: &PublicKey, card: KeyCard) -> Result<SiteName, Error> {
        let fingerprint = key.fingerprint();
        let name = name_of(&fingerprint)?;
        let turn = self.shared.membership.turn(&name, Some(&fingerprint)).await?;
        if self.shared.registry.by_key(&fingerprint).is_some() || self.shared.registry.site(&name).is_some() {
            return Err(known_already());
        }
        let max = self.shared.settings.sites_max;
        self.make_room(max).await?;
        if self.shared.registry.len() >= max {
            return Err(Error::new(
                ErrorKind::Exhausted,
                format!("{max} participants are enrolled, no more may"),
            ));
        }
        let record = SiteRecord {
            name: name.clone(),
            role: Role::Participant,
            key_fingerprint: fingerprint,
            public_key_der: key.spki_der().to_vec(),
            certificate: None,
            state: SiteState::Active,
            enrolled_at: self.shared.clock.now(),
            last_seen: None,
            label: card.label,
            location: card.location,
        };
        self.shared.store.put_site(record.clone()).await?;
        self.shared.registry.put(record);
        drop(turn);
        let body = serde_json::json!({ "site": name, "key": fingerprint });
        self.shared.note_in_journal("site_enrolled", &body);
        tracing::info!(site = %name, key = %fingerprint, "a key was enrolled");
        Ok(name)
    }

    /// Takes a participant out for good.
    ///
    /// # Errors
    /// Not found.
    /// # Cancel safety
    /// A dropped call may still be carried out.
    pub async fn unregister(&self, site: &SiteName) -> Result<(), Error> {
        self.take_out(site, UNREGISTERED).await
    }

    /// A participant that registered itself takes itself out. It is forgotten when there have been many others since.
    ///
    /// # Errors
    /// As [`Relays::unregister`].
    /// # Cancel safety
    /// A dropped call may still be carried out.
    pub async fn leave(&self, site: &SiteName) -> Result<(), Error> {
        self.take_out(site, LEFT).await
    }

    async fn take_out(&self, site: &SiteName, reason: &str) -> Result<(), Error> {
        let turn = self.shared.membership.turn(site, None).await?;
        let known = self.shared.registry.site(site).filter(|known| is_known_by_key(known));
        let known = known.ok_or_else(|| Error::not_found(format!("there is no participant {site}")))?;
        if known.state == SiteState::Active {
            let state = SiteState::Revoked { reason: reason.to_owned(), at: self.shared.clock.now() };
            self.shared.store.set_site_state(site, state.clone()).await?;
            self.shared.registry.put(SiteRecord { state, ..(*known).clone() });
            self.shared.note_in_journal("site_unregistered", &serde_json::json!({ "site": site }));
        }
        drop(turn);
        self.core.online.forget(site);
        self.shared.presence.leave(site);
        let reason = UNREGISTERED.to_owned();
        self.shared.send(crate::command::Command::Revoked { site: site.clone(), reason }).await
    }

    /// Forgets those who left first, when more have left than are kept or the room of `sites_max` is needed. Whom the store does not
    /// let go stays, and the next in order goes in its place.
    async fn make_room(&self, sites_max: usize) -> Result<(), Error> {
        let mut left: Vec<_> = self.shared.registry.all().into_iter().filter_map(left_at).collect();
        let over = (self.shared.registry.len() + 1).saturating_sub(sites_max);
        let surplus = over.max(left.len().saturating_sub(LEFT_MAX)).min(left.len());
        if surplus == 0 {
            return Ok(());
        }
        left.sort();
        let mut gone = 0;
        for (_, name, key) in left {
            if gone == surplus {
                break;
            }
            if !self.shared.store.forget_site(&name, key).await? {
                // It was forgotten meanwhile, and may have come back.
                continue;
            }
            self.shared.registry.forget(&name);
            self.core.online.forget(&name);
            gone += 1;
        }
        Ok(())
    }

    /// The participant with this key.
    pub fn by_key(&self, fingerprint: &Digest) -> Option<KeyFacts> {
        let known = self.shared.registry.by_key(fingerprint)?;
        (known.role == Role::Participant)
            .then(|| KeyFacts { site: known.name.clone(), active: known.state == SiteState::Active })
    }

    /// A participant begins: it is there from now on, and what it was handed before and has not answered waits for it again.
    /// Asking again before it said anything else is the same beginning. While the same key may still be at work elsewhere, the
    /// call is held until that shows: a sign of life refuses it, silence lets it in.
    ///
    /// # Errors
    /// Conflict when the same key is at work elsewhere; unavailable when that is not known in time, or the beginning cannot be made durable.
    /// # Cancel safety
    /// A dropped call may still be carried out; calling again is safe.
    pub async fn activate(&self, site: &SiteName, beat_every: Duration) -> Result<(), Error> {
        let heard_before = self.core.online.of(site).last;
        // A server that dies now starts knowing that the participant was there.
        self.shared.store.touch_sites(vec![(site.clone(), self.shared.clock.now())]).await?;
        let deadline = tokio::time::Instant::now() + ACTIVATION_HOLD_MAX;
        loop {
            let (now, wall) = (self.shared.clock.monotonic(), self.shared.clock.now());
            let begun = self.core.online.change(site, |sign| sign.begin(now, wall, beat_every, heard_before));
            let left = match begun {
                Beginning::Begun => {
                    self.core.online.somebody_came();
                    break;
                }
                Beginning::AtWork => {
                    return Err(Error::conflict(format!(
                        "participant {site} is at work with this key already"
                    )));
                }
                Beginning::Unclear { left } => left,
            };
            if tokio::time::Instant::now() >= deadline {
                let message = format!("whether participant {site} is at work elsewhere is not clear yet");
                return Err(Error::unavailable(message));
            }
            tokio::select! {
                biased;
                () = self.shared.scope.cancelled() => return Err(Error::shutting_down()),
                () = tokio::time::sleep(left.min(LOOK_EVERY)) => {}
            }
        }
        for slot in self.runs() {
            let holds = slot.read(|state| {
                state.unanswered().any(|(_, letter)| letter.to == Principal::Participant(site.clone()))
            });
            if holds.unwrap_or(false) {
                let site = site.clone();
                self.transact(slot.run, move |transaction| Ok(transaction.apply(Event::Reopened { site })?))
                    .await?;
            }
        }
        Ok(())
    }

    /// A participant shows that it is alive; `beat_every` when it says how often it beats.
    pub fn heard(&self, site: &SiteName, beat_every: Option<Duration>) {
        let now = self.shared.clock.monotonic();
        let came = self.core.online.change(site, |sign| {
            let before = sign.until;
            sign.last = now;
            sign.spoke = true;
            sign.unwritten = true;
            if let Some(beat_every) = beat_every {
                sign.beat_every_ms = u64::try_from(beat_every.as_millis()).unwrap_or(u64::MAX);
                sign.until = Some(now + 2 * beat_every);
                sign.activated_at.get_or_insert_with(|| self.shared.clock.now());
            }
            sign.until.is_some() && before.is_none_or(|until| until <= now)
        });
        if came {
            self.core.online.somebody_came();
        }
    }

    /// A participant says goodbye.
    pub fn deactivate(&self, site: &SiteName) {
        let wall = self.shared.clock.now();
        self.core.online.change(site, |sign| {
            sign.until = None;
            sign.spoke = false;
            sign.deactivated_at = Some(wall);
        });
    }

    /// Whether a participant is there.
    pub fn is_online(&self, site: &SiteName) -> bool {
        self.core.online.is_online(site, self.shared.clock.monotonic())
    }

    /// Participants that are known by their key, by name.
    pub fn participants(&self) -> Vec<KeyOverview> {
        let (now, wall) = (self.shared.clock.monotonic(), self.shared.clock.now());
        let all = self.shared.registry.all().into_iter().filter(|site| is_known_by_key(site));
        all.map(|site| {
            let sign = self.core.online.of(&site.name);
            let left = sign.until.and_then(|until| until.checked_sub(now));
            let unregistered_at = match &site.state {
                SiteState::Revoked { at, .. } => Some(*at),
                _ => None,
            };
            KeyOverview {
                site: site.name.clone(),
                public_key_der: site.public_key_der.clone(),
                registered_at: site.enrolled_at,
                unregistered_at,
                activated_at: sign.activated_at,
                deactivated_at: sign.deactivated_at,
                online_until: left
                    .map(|left| wall.after(Span::from_millis(u64::try_from(left.as_millis()).unwrap_or(0)))),
                beat_every: Span::from_millis(sign.beat_every_ms),
                card: KeyCard { label: site.label.clone(), location: site.location.clone() },
            }
        })
        .collect()
    }

    /// Writes down who was heard of lately: what the next start goes by.
    pub(super) async fn write_sightings(&self) {
        let now = self.shared.clock.now();
        let seen: Vec<_> = self.core.online.take_unwritten().into_iter().map(|site| (site, now)).collect();
        if seen.is_empty() {
            return;
        }
        if let Err(error) = self.shared.store.touch_sites(seen).await {
            tracing::warn!(%error, "when participants were last heard of could not be written down");
        }
    }

    /// After a start: whoever was there when the server went away gets one full period to show himself.
    pub(super) fn assume_online(&self) {
        let until = self.shared.clock.monotonic() + self.settings().beat_ttl.as_duration();
        self.core.online.grant(until);
        let all = self.shared.registry.all();
        let by_key = || all.iter().filter(|site| is_known_by_key(site) && site.state == SiteState::Active);
        let Some(newest) = by_key().filter_map(|site| site.last_seen).max() else { return };
        let lately = |site: &&Arc<SiteRecord>| {
            site.last_seen.is_some_and(|seen| newest.since(seen) <= self.settings().beat_ttl)
        };
        for site in by_key().filter(lately) {
            self.core.online.change(&site.name, |sign| sign.until = Some(until));
        }
    }
}

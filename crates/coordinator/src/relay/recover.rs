//! Starting again: relayed runs rebuilt from their journals, and told by the holds which bytes are there.
//!
//! A run whose journal is broken is left out by name and keeps its bytes.

use std::collections::HashMap;
use std::sync::Arc;

use sheaf_domain::{GENESIS, JournalId, RunId};
use sheaf_relay::{Event, Relay};
use sheaf_store::StateStore;

use super::Relays;
use super::logbook::Logbook;
use super::objects::{bundle_hold, object_of};
use super::slot::Slot;
use crate::Error;
use crate::recover::{Head, acquire};

/// Entries read at a time.
const PAGE: u32 = 1024;

/// Takes the leases, rebuilds every run and frees what nothing refers to.
pub(super) async fn load(relays: &Relays, holder: &str) -> Result<HashMap<RunId, Head>, Error> {
    let shared = &relays.shared;
    let mut heads = HashMap::new();
    for journal in shared.store.journals().await? {
        let JournalId::Relay(run) = journal else { continue };
        let head = acquire(&*shared.store, journal, holder, shared.clock.now()).await?;
        if head.seq == 0 {
            // A creation that was never committed left only its lease.
            continue;
        }
        match replay(&*shared.store, run).await {
            Ok((state, seq)) if seq == head.seq => {
                heads.insert(run, head);
                relays.core.slots.put(Arc::new(Slot::new(state, logbook(relays, run))));
            }
            Ok((_, seq)) => {
                tracing::error!(%run, entry = seq + 1, "the relayed run is set aside: its journal ends too early");
                relays.core.broken.put(run);
            }
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                tracing::error!(%run, %error, "the relayed run is set aside: its journal is broken");
                relays.core.broken.put(run);
            }
        }
    }
    tell_what_is_there(relays).await?;
    sweep(relays).await?;
    relays.assume_online();
    for slot in relays.runs() {
        relays.begin_pulse(&slot)?;
    }
    Ok(heads)
}

/// A run as its journal tells it, and the number of the last entry.
pub(super) async fn replay(store: &dyn StateStore, run: RunId) -> Result<(Relay, u64), Error> {
    let journal = JournalId::Relay(run);
    let broken = |seq: u64, reason: &dyn std::fmt::Display| Error::conflict(format!("entry {seq}: {reason}"));
    let mut state: Option<Relay> = None;
    let mut end = (0, GENESIS);
    loop {
        let page = store.entries(journal, end.0, PAGE).await?;
        if page.is_empty() {
            break;
        }
        for entry in page {
            entry.check_follows(journal, end).map_err(|error| broken(entry.seq, &error.reason))?;
            let event: Event =
                serde_json::from_str(&entry.body).map_err(|error| broken(entry.seq, &error))?;
            match &mut state {
                None => {
                    state = Some(Relay::create(entry.at, &event).map_err(|error| broken(entry.seq, &error))?)
                }
                Some(state) => {
                    drop(state.apply(entry.at, &event).map_err(|error| broken(entry.seq, &error))?)
                }
            }
            end = (entry.seq, entry.hash);
        }
    }
    state.map(|state| (state, end.0)).ok_or_else(|| broken(1, &"it has no entry"))
}

/// Tells every run whose bytes are there: the holds say who brought what.
pub(super) async fn tell_what_is_there(relays: &Relays) -> Result<(), Error> {
    for hold in relays.shared.blob.holds().await? {
        let Some((run, object, who)) = object_of(&hold) else { continue };
        if let Some(slot) = relays.core.slots.get(run) {
            slot.rebuild(|state| state.bring(&who, &object));
        }
    }
    for slot in relays.runs() {
        slot.rebuild(sheaf_relay::Relay::settle);
    }
    Ok(())
}

/// Frees objects that no letter is above, and bundles of runs that are not there.
async fn sweep(relays: &Relays) -> Result<(), Error> {
    let broken = relays.core.broken.all();
    for hold in relays.shared.blob.holds().await? {
        let needed = match object_of(&hold) {
            Some((run, _, _)) if broken.contains(&run) => true,
            Some((run, object, _)) => {
                relays.core.slots.get(run).is_some_and(|slot| slot.rebuild(|state| state.is_there(&object)))
            }
            None if hold.as_str().starts_with("relay/") => {
                let all = relays.runs().into_iter().map(|slot| slot.run).chain(broken.iter().copied());
                let mut bundles = all.filter_map(|run| bundle_hold(run).ok());
                bundles.any(|bundle| bundle == hold)
            }
            None => true,
        };
        if !needed {
            let freed = relays.shared.blob.release(&hold).await?;
            tracing::info!(%hold, freed_bytes = freed, "bytes freed that nothing refers to");
        }
    }
    Ok(())
}

/// The log of a run.
pub(super) fn logbook(relays: &Relays, run: RunId) -> Logbook {
    let settings = relays.settings();
    let path = settings.log_dir.as_ref().map(|dir| dir.join(format!("{run}.jsonl")));
    Logbook::new(path, settings.log_len_max)
}

//! Who came, went and was shut out, told to every run that goes on.
//!
//! Whether a participant is there is decided by what is known of it when the word is passed on, not when it was sent, so that
//! two words that overtake each other end in the truth. A run hears only of those that can work on it.

use std::sync::Arc;

use sheaf_domain::SiteName;
use sheaf_engine::{Event, RunState};

use super::Writer;
use super::commit::Batch;
use crate::shared::RunSlot;

impl Writer {
    /// Applies an event to every run that goes on and has use for it.
    fn for_running(&mut self, batch: &mut Batch, event_for: impl Fn(&RunState) -> Option<Event>) {
        for slot in self.shared.all_runs() {
            match slot.read(|state| if state.phase().is_over() { None } else { event_for(state) }) {
                Err(_) => self.presence_missed |= !self.fenced.contains(&slot.run),
                Ok(None) => {}
                Ok(Some(event)) => {
                    if let Err(error) = self.apply(slot.run, &event, batch) {
                        tracing::error!(run = %slot.run, %error, event = event.kind(), "an event was refused");
                    }
                }
            }
        }
    }

    /// Tells the runs of a participant that came; whether it did is decided by what is known of it now.
    pub(super) fn came(&mut self, site: &SiteName, batch: &mut Batch) {
        if self.shared.presence.is_present(site) && self.shared.registry.is_active(site) {
            let event = Event::SitePresent { site: site.clone() };
            let shared = Arc::clone(&self.shared);
            self.for_running(batch, |state| {
                let new = !state.present().contains(site) && shared.works_on(site, state.plan());
                new.then(|| event.clone())
            });
        }
    }

    pub(super) fn went(&mut self, site: &SiteName, reason: &str, batch: &mut Batch) {
        if !self.shared.presence.is_present(site) {
            let event = Event::SiteLost { site: site.clone(), reason: reason.to_owned() };
            self.for_running(batch, |state| state.present().contains(site).then(|| event.clone()));
        }
    }

    pub(super) fn revoke_in(&mut self, slot: &RunSlot, site: &SiteName, reason: &str, batch: &mut Batch) {
        let needed = slot.read(|state| {
            let told =
                |status: &sheaf_domain::SiteStatus| status.site == *site && status.presence == "revoked";
            let concerned = state.present().contains(site) || self.shared.works_on(site, state.plan());
            concerned && !state.phase().is_over() && !state.status().sites.iter().any(told)
        });
        match needed {
            Err(_) => self.presence_missed |= !self.fenced.contains(&slot.run),
            Ok(false) => {}
            Ok(true) => {
                let event = Event::SiteRevoked { site: site.clone(), reason: reason.to_owned() };
                if let Err(error) = self.apply(slot.run, &event, batch) {
                    tracing::error!(run = %slot.run, %error, "a revocation did not reach the run");
                }
            }
        }
    }

    /// Tells the runs who came, went and was shut out while they could not be told.
    pub(super) fn catch_up(&mut self, batch: &mut Batch) {
        let mut revoked: Vec<(SiteName, String)> = Vec::new();
        for site in self.shared.registry.all() {
            if let Some(reason) = self.shared.registry.revocation(&site.name) {
                revoked.push((site.name.clone(), reason));
            } else {
                self.came(&site.name, batch);
                self.went(&site.name, "no sign of life", batch);
            }
        }
        for slot in self.shared.all_runs() {
            let known = slot.read(|state| state.status().sites).unwrap_or_default();
            for (site, reason) in revoked.iter().filter(|(site, _)| known.iter().any(|k| k.site == *site)) {
                self.revoke_in(&slot, site, reason, batch);
            }
        }
    }
}

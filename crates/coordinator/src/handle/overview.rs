//! Every participant at a glance: who may come in, who is there, what went wrong last.

use std::collections::HashMap;

use sheaf_domain::plan::Plan;
use sheaf_domain::{Digest, Identity, Role, RunId, RunStatus, SiteName, Timestamp};
use sheaf_store::{InviteState, SiteRecord, SiteState};

use crate::{Error, Handle};

/// What is known of a participant across runs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SiteOverview {
    /// Its name.
    pub name: SiteName,
    /// `invited`, `active`, `waiting for approval` or `revoked: …`, for people.
    pub state: String,
    /// Whether it counts as present.
    pub present: bool,
    /// When it was last heard of.
    pub last_seen: Option<Timestamp>,
    /// When its certificate ends.
    pub certificate_not_after: Option<Timestamp>,
    /// The fingerprint of its key.
    pub key_fingerprint: Option<Digest>,
    /// What its client calls itself.
    pub client: Option<String>,
    /// The tasks it has been assigned and not answered.
    pub working: Vec<String>,
    /// The last thing that went wrong with it, in any run.
    pub last_error: Option<String>,
}

impl Handle {
    /// Every participant that was invited or enrolled.
    ///
    /// # Errors
    /// Permission denied; when the store cannot be read.
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn sites(&self, who: &Identity) -> Result<Vec<SiteOverview>, Error> {
        self.authorise(who, Role::Operator)?;
        let errors = self.errors_of_runs();
        let sites = self.shared.registry.all();
        let mut overviews: Vec<SiteOverview> =
            sites.iter().map(|site| self.overview(site, &errors)).collect();
        // An invitation made later has taken the earlier ones back: at most one a name is open.
        let invites = self.shared.store.invites().await?;
        for invite in invites.into_iter().filter(|invite| invite.state == InviteState::Open) {
            let expired = invite.expires_at <= self.shared.clock.now();
            let state = if expired { "invitation expired" } else { "invited" };
            match overviews.binary_search_by(|overview| overview.name.cmp(&invite.site)) {
                Ok(found) if !expired => {
                    if let Some(known) = overviews.get_mut(found) {
                        known.state = format!("{}; invited again", known.state);
                    }
                }
                Ok(_) => {}
                Err(place) => overviews.insert(place, self.invited(invite.site, state)),
            }
        }
        Ok(overviews)
    }

    /// How many participants are present that could work on a run of `plan`.
    ///
    /// # Errors
    /// Permission denied.
    pub fn present_for(&self, who: &Identity, plan: &Plan) -> Result<usize, Error> {
        self.authorise(who, Role::Operator)?;
        let present = self.shared.presence.present().into_iter();
        let here = |site: &SiteName| self.shared.registry.is_active(site) && self.shared.works_on(site, plan);
        Ok(present.filter(here).count())
    }

    fn invited(&self, name: SiteName, state: &str) -> SiteOverview {
        SiteOverview {
            state: state.to_owned(),
            present: false,
            last_seen: None,
            certificate_not_after: None,
            key_fingerprint: None,
            client: None,
            working: Vec::new(),
            last_error: self.shared.incidents.last(&name).map(|incident| incident.text),
            name,
        }
    }

    /// The last thing that went wrong with each participant, by the newest run that has something to say.
    fn errors_of_runs(&self) -> HashMap<SiteName, String> {
        let mut errors = HashMap::new();
        for slot in self.shared.all_runs() {
            // A run that cannot be read now says nothing.
            let sites = slot.read(|state| state.status().sites).unwrap_or_default();
            for site in sites {
                if let Some(error) = site.last_error {
                    errors.entry(site.site).or_insert(error);
                }
            }
        }
        errors
    }

    fn overview(&self, site: &SiteRecord, errors: &HashMap<SiteName, String>) -> SiteOverview {
        let sign = self.shared.presence.sign(&site.name);
        let incident = self.shared.incidents.last(&site.name).map(|incident| incident.text);
        SiteOverview {
            name: site.name.clone(),
            state: match &site.state {
                SiteState::Active => "active".to_owned(),
                SiteState::PendingApproval => "waiting for approval".to_owned(),
                SiteState::Revoked { reason, .. } => format!("revoked: {reason}"),
            },
            present: sign.as_ref().is_some_and(|sign| sign.present),
            last_seen: sign.as_ref().and_then(|sign| sign.last_wall).or(site.last_seen),
            certificate_not_after: site.certificate.as_ref().map(|certificate| certificate.not_after),
            key_fingerprint: Some(site.key_fingerprint),
            client: sign.and_then(|sign| sign.client),
            working: self.shared.outbox(&site.name).tasks().iter().map(ToString::to_string).collect(),
            // What was noted since the start is newer than what the runs remember from before.
            last_error: incident.or_else(|| errors.get(&site.name).cloned()),
        }
    }

    /// Sets what the status of a run is to say of how this server serves it, for as long as it does.
    pub fn set_notices(&self, run: RunId, notices: Vec<String>) {
        self.shared.incidents.set_notices(run, notices);
    }

    /// Puts what the run itself does not know into its status.
    pub(super) fn with_incidents(&self, mut status: RunStatus) -> RunStatus {
        for site in &mut status.sites {
            let incident = self.shared.incidents.last(&site.site);
            let ours = incident.filter(|incident| incident.run.is_none_or(|run| run == status.run));
            if let Some(incident) = ours {
                site.last_error = Some(incident.text);
            }
        }
        status.notices = self.shared.incidents.notices(status.run);
        status
    }
}

//! Signed requests: the site's key proves every request by itself, where a client certificate cannot pass a proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use sheaf_domain::{Digest, SiteName, Timestamp};
use sheaf_pki::{RequestParts, SiteKey, greeting_request, sign_request};
use sheaf_runtime::{Clock, Entropy};

use crate::Error;

/// What requests are signed with.
#[derive(Debug)]
pub struct Signing {
    key: Arc<SiteKey>,
    site: SiteName,
    trust_domain: String,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// What to add to the clock to get the server's time, in milliseconds.
    offset_ms: AtomicI64,
}

impl Signing {
    /// Signs as `site` of `trust_domain`.
    pub fn new(
        key: Arc<SiteKey>,
        site: SiteName,
        trust_domain: String,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Signing {
        Signing { key, site, trust_domain, clock, entropy, offset_ms: AtomicI64::new(0) }
    }

    /// The headers that prove a request.
    pub(super) fn headers(
        &self,
        method: &str,
        path_and_query: &str,
        body: Digest,
    ) -> Result<Vec<(&'static str, String)>, Error> {
        let parts = RequestParts { trust_domain: &self.trust_domain, method, path_and_query };
        let now = self.clock.now().as_millis();
        let now = now.saturating_add_signed(self.offset_ms.load(Ordering::Relaxed));
        let now = Timestamp::from_millis(now);
        Ok(sign_request(&self.key, &self.site, &parts, &body, now, self.entropy.as_ref())?)
    }

    /// The first line of a plaintext connection.
    pub(super) fn greeting(&self) -> Result<String, Error> {
        let (request, body) = greeting_request(&self.trust_domain);
        Ok(sheaf_pki::greeting(&self.headers(request.method, request.path_and_query, body)?))
    }

    /// Takes the server's time from a refused signature; whether signing again may help.
    pub(super) fn set_clock_by(&self, server_time_ms: u64) -> bool {
        let server = i64::try_from(server_time_ms).unwrap_or(i64::MAX);
        let own = i64::try_from(self.clock.now().as_millis()).unwrap_or(i64::MAX);
        let offset = server.saturating_sub(own);
        let before = self.offset_ms.swap(offset, Ordering::Relaxed);
        let moved = before.saturating_sub(offset).saturating_abs();
        if moved > SKEW_TOLD {
            tracing::warn!(
                offset_ms = offset,
                "this machine's clock differs from the server's; signing by the server's"
            );
        }
        moved > SKEW_TOLD
    }
}

/// A difference worth telling, in milliseconds.
const SKEW_TOLD: i64 = 1_000;

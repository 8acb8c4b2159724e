//! A site's own configuration: how it reaches the server, what it trains with, what it accepts.
//!
//! The one place from which a participant takes a command, a path or a limit. A plan or a server has no say in it. Unknown keys
//! are refused with the line they stand on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::participant::{Auth, LinkOptions, TransportKind};
use crate::trainer::{SitePolicy, TrainerSpec};
use crate::transport::{ProxySettings, Timeouts};

/// The longest configuration read, in bytes.
pub const CONFIG_LEN_MAX: u64 = 256 * 1024;

/// A site's configuration; paths in it are relative to its file.
///
/// # Examples
/// ```
/// use sheaf_client::site::SiteConfig;
///
/// let site = SiteConfig::parse("transport = \"https\"\n[trainers.mlp]\nkind = \"mlp\"\ndata = \"shard.csv\"\n")?;
/// assert_eq!(site.trainers.len(), 1);
/// let error = SiteConfig::parse("[trainer.mlp]\nkind = \"mlp\"\n").unwrap_err();
/// assert!(error.to_string().contains("line 1"));
/// # Ok::<(), sheaf_client::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SiteConfig {
    /// `grpc` or `https`.
    pub transport: TransportKind,
    /// `certificate`, or `signed` for proxies that open TLS (with `https`).
    pub auth: Auth,
    /// The CA of a proxy that opens TLS (PEM); with `signed` only.
    pub proxy_ca: Option<PathBuf>,
    /// Tasks at once, at least 1.
    pub tasks_max: usize,
    /// What the site trains with, by the name a plan knows it under.
    pub trainers: BTreeMap<String, TrainerSpec>,
    /// What the site accepts.
    pub policy: SitePolicy,
}

impl Default for SiteConfig {
    fn default() -> SiteConfig {
        SiteConfig {
            transport: TransportKind::default(),
            auth: Auth::default(),
            proxy_ca: None,
            tasks_max: 1,
            trainers: BTreeMap::new(),
            policy: SitePolicy::default(),
        }
    }
}

impl SiteConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`Error::Setting`] with the line.
    pub fn parse(text: &str) -> Result<SiteConfig, Error> {
        let whole = "the site's configuration";
        sheaf_domain::check_toml_marks(text).map_err(|error| Error::setting(whole, error.to_string()))?;
        toml::from_str(text).map_err(|error| {
            let line =
                error.span().map(|span| text.get(..span.start).unwrap_or(text).matches('\n').count() + 1);
            let place = line.map_or_else(String::new, |line| format!(", line {line}"));
            Error::setting(format!("{whole}{place}"), error.message())
        })
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Setting`] with the line, or above [`CONFIG_LEN_MAX`].
    pub fn load(path: &Path) -> Result<SiteConfig, Error> {
        let len = std::fs::metadata(path).map_err(Error::file("read", path))?.len();
        if len > CONFIG_LEN_MAX {
            let reason = format!("{len} bytes exceed the limit of {CONFIG_LEN_MAX}");
            return Err(Error::setting(path.display().to_string(), reason));
        }
        let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
        SiteConfig::parse(&text)
    }

    /// How the participant reaches the server; the proxy is the environment's (`HTTPS_PROXY`, `NO_PROXY`).
    ///
    /// # Errors
    /// [`Error::File`] for a CA that cannot be read; [`Error::Setting`] for a proxy that makes no sense.
    pub fn link(&self, base: &Path) -> Result<LinkOptions, Error> {
        let extra_roots = match &self.proxy_ca {
            Some(file) => {
                let path = base.join(file);
                Some(std::fs::read_to_string(&path).map_err(Error::file("read", &path))?)
            }
            None => None,
        };
        Ok(LinkOptions {
            transport: self.transport,
            auth: self.auth,
            proxy: ProxySettings::from_env()?,
            extra_roots,
            timeouts: Timeouts::default(),
        })
    }
}

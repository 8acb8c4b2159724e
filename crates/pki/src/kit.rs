//! The kit: one TOML file that holds all a site needs to join, made by `invite` and carried to the site by people.
//!
//! It holds a secret (the token), so its file has mode 0600. Unknown keys are refused with their line, since a kit that is
//! half understood is worse than none; the CA certificate must be the one it pins.

use std::path::Path;

use serde::{Deserialize, Deserializer};
use sheaf_domain::{Digest, SiteName, Timestamp};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use crate::certificate::check_trust_domain;
use crate::file::{self, Access};
use crate::tls::pinned_ca;
use crate::{Error, Secret, TOKEN_PREFIX, Token, pem};

/// The version of the file's format.
pub const KIT_FORMAT: u32 = 1;
/// The largest kit read, in bytes.
pub const KIT_LEN_MAX: usize = 64 * 1024;
const SERVERS_MAX: usize = 16;

/// All a site needs to join a federation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kit {
    /// The name the site is invited under.
    pub site: SiteName,
    /// The federation.
    pub trust_domain: String,
    /// Where the server listens, `host:port` each, tried in order.
    pub servers: Vec<String>,
    /// The CA's certificate in PEM.
    pub ca_pem: String,
    /// The fingerprint of the CA's key.
    pub ca_pin: Digest,
    /// The enrolment token.
    pub token: Token,
    /// When the token ends, to the second in the file.
    pub expires_at: Timestamp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KitFile {
    /// Checked before by [`check_format`].
    #[serde(rename = "format")]
    _format: u32,
    site: SiteName,
    trust_domain: String,
    servers: Vec<String>,
    expires_at: String,
    #[serde(deserialize_with = "token")]
    token: Token,
    ca_pin: Digest,
    ca_pem: String,
}

impl Kit {
    /// Reads the text of a kit.
    ///
    /// # Errors
    /// [`Error::Kit`] with the line where one is known, [`Error::PinMismatch`], [`Error::TooLarge`], [`Error::Malformed`].
    pub fn parse(text: &str) -> Result<Kit, Error> {
        if text.len() > KIT_LEN_MAX {
            return Err(Error::TooLarge { what: "the kit", max: KIT_LEN_MAX });
        }
        let unread =
            |error: sheaf_domain::TooManyMarks| Error::Kit { line: None, message: error.to_string() };
        sheaf_domain::check_toml_marks(text).map_err(unread)?;
        check_format(text)?;
        let file: KitFile = toml::from_str(text).map_err(|error| refused(text, &error))?;
        let kit = Kit {
            site: file.site,
            trust_domain: file.trust_domain,
            servers: file.servers,
            expires_at: instant(&file.expires_at)?,
            ca_pem: file.ca_pem,
            ca_pin: file.ca_pin,
            token: file.token,
        };
        kit.check()?;
        Ok(kit)
    }

    /// The kit as text; [`Kit::parse`] reads it back.
    ///
    /// # Errors
    /// As [`Kit::parse`], for a kit that it would refuse.
    pub fn to_text(&self) -> Result<Secret, Error> {
        let ca_der = self.check()?;
        let expires_at = date_text(self.expires_at)?;
        let servers =
            self.servers.iter().map(|server| format!("\"{server}\"")).collect::<Vec<_>>().join(", ");
        let token = self.token.to_text();
        let token = token.expose_text().unwrap_or_default();
        let ca_pem = pem::encode("CERTIFICATE", &ca_der);
        let Kit { site, trust_domain, ca_pin, .. } = self;
        Ok(Secret::from(format!(
            "# A kit to join a Sheaf federation: `sheaf join <this file>`.\n\
             # It holds a secret that one key can use once; delete it after the site has joined.\n\
             format = {KIT_FORMAT}\n\
             site = \"{site}\"\n\
             trust_domain = \"{trust_domain}\"\n\
             servers = [{servers}]\n\
             expires_at = \"{expires_at}\"\n\
             token = \"{token}\"\n\
             ca_pin = \"{ca_pin}\"\n\
             ca_pem = \"\"\"\n{}\"\"\"\n",
            ca_pem.as_str()
        )))
    }

    /// Reads a kit file.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::ReadableByOthers`] naming the remedy, or as [`Kit::parse`].
    pub fn load(path: &Path) -> Result<Kit, Error> {
        let bytes = file::read(path, "the kit", KIT_LEN_MAX, Access::Private)?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| Error::Kit { line: None, message: "it is not text in UTF-8".to_owned() })?;
        Kit::parse(text)
    }

    /// Creates a kit file with mode 0600.
    ///
    /// # Errors
    /// [`Error::Exists`] rather than overwriting; [`Error::File`].
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        file::create(path, self.to_text()?.expose(), Access::Private)
    }

    /// Checks the parts against their rules; gives the CA certificate in DER.
    fn check(&self) -> Result<Vec<u8>, Error> {
        let kit_error = |message: String| Error::Kit { line: None, message };
        check_trust_domain(&self.trust_domain)?;
        if self.servers.is_empty() || self.servers.len() > SERVERS_MAX {
            return Err(kit_error(format!("it needs 1 to {SERVERS_MAX} servers")));
        }
        if let Some(bad) = self.servers.iter().find(|server| !is_address(server)) {
            let shown: String = bad.chars().take(64).collect();
            return Err(kit_error(format!("{shown:?} is not an address: write it like \"host:port\"")));
        }
        pinned_ca(&self.ca_pem, self.ca_pin)
    }
}

/// Refuses another format before anything else, so that its new keys are not what is complained about.
fn check_format(text: &str) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let Format { format } = toml::from_str(text).map_err(|error| refused(text, &error))?;
    if format == KIT_FORMAT {
        return Ok(());
    }
    let message = format!(
        "it has format {format}, this program reads format {KIT_FORMAT}: make a new kit with `sheaf invite`"
    );
    Err(Error::Kit { line: None, message })
}

fn token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Token, D::Error> {
    let text = Zeroizing::new(String::deserialize(deserializer)?);
    Token::parse(&text).map_err(serde::de::Error::custom)
}

/// The parser's complaint with its line, and without the text it stands on: that might be the token.
fn refused(text: &str, error: &toml::de::Error) -> Error {
    let line =
        error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
    let message = if error.message().contains(TOKEN_PREFIX) {
        "a value is not what its key needs".to_owned()
    } else {
        error.message().to_owned()
    };
    Error::Kit { line, message }
}

fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    port.parse::<u16>().is_ok_and(|port| port != 0) && rustls_pki_types::ServerName::try_from(host).is_ok()
}

fn instant(text: &str) -> Result<Timestamp, Error> {
    OffsetDateTime::parse(text, &Rfc3339)
        .ok()
        .and_then(|at| u64::try_from(at.unix_timestamp()).ok())
        .and_then(|seconds| seconds.checked_mul(1_000))
        .map(Timestamp::from_millis)
        .ok_or_else(|| Error::Kit {
            line: None,
            message: "expires_at is not a time: write it like \"2030-01-31T12:00:00Z\"".to_owned(),
        })
}

fn date_text(at: Timestamp) -> Result<String, Error> {
    i64::try_from(at.as_millis() / 1_000)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|at| at.format(&Rfc3339).ok())
        .ok_or_else(|| Error::InvalidArgument("a kit cannot last beyond the year 9999".to_owned()))
}

#[cfg(test)]
mod tests;

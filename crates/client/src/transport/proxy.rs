//! Outbound HTTP proxies: which one to use, and the `CONNECT` that opens a way through it.
//!
//! Only plain `http://` proxies; their credentials, if any, stand in the URL and are shown to nobody but the proxy.

use std::sync::Arc;

use base64::Engine as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Address;
use super::connect::{Connect, Stream, Tcp};
use crate::Error;

/// Which proxy a connection goes through.
#[derive(Debug, Clone, Default)]
pub struct ProxySettings {
    proxy: Option<Proxy>,
    /// Lower-case hosts and domain suffixes reached directly; `*` is every host.
    direct: Vec<String>,
    /// What opens connections in place of the machine's TCP.
    connect: Option<Arc<dyn Connect>>,
}

#[derive(Clone)]
struct Proxy {
    address: Address,
    /// The value of `Proxy-Authorization`.
    authorization: Option<String>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy({})", self.address)
    }
}

impl ProxySettings {
    /// No proxy.
    pub fn none() -> ProxySettings {
        ProxySettings::default()
    }

    /// What `HTTPS_PROXY` and `NO_PROXY` (or their lower-case forms) say.
    ///
    /// # Errors
    /// [`Error::Setting`] for a proxy that cannot be used.
    pub fn from_env() -> Result<ProxySettings, Error> {
        let read = |names: [&str; 2]| {
            names.into_iter().find_map(|name| std::env::var(name).ok()).filter(|value| !value.is_empty())
        };
        ProxySettings::new(
            read(["HTTPS_PROXY", "https_proxy"]).as_deref(),
            read(["NO_PROXY", "no_proxy"]).as_deref(),
        )
    }

    /// A proxy by its URL, and a comma-separated list of hosts reached without it.
    ///
    /// # Errors
    /// [`Error::Setting`] for a proxy that cannot be used.
    pub fn new(proxy: Option<&str>, direct: Option<&str>) -> Result<ProxySettings, Error> {
        let proxy = proxy.map(parse).transpose()?;
        let direct = direct.unwrap_or_default().split(',').map(|host| host.trim().to_ascii_lowercase());
        let direct = direct.filter(|host| !host.is_empty()).collect();
        Ok(ProxySettings { proxy, direct, connect: None })
    }

    /// The same over connections that `connect` opens, to the proxy or to the server.
    pub fn over(self, connect: Arc<dyn Connect>) -> ProxySettings {
        ProxySettings { connect: Some(connect), ..self }
    }

    /// The proxy on the way to `target`, if there is one.
    fn on_the_way_to(&self, target: &Address) -> Option<&Proxy> {
        let host = target.host().to_ascii_lowercase();
        let direct = self.direct.iter().any(|entry| {
            let domain = entry.trim_start_matches("*.").trim_start_matches('.');
            entry == "*" || host == domain || host.ends_with(&format!(".{domain}"))
        });
        self.proxy.as_ref().filter(|_| !direct)
    }

    /// Opens a connection to `target`, through the proxy if one is on the way.
    pub(super) async fn connect(&self, target: &Address) -> Result<Box<dyn Stream>, Error> {
        match self.on_the_way_to(target) {
            None => self.open(target).await,
            Some(proxy) => tunnel(self.open(&proxy.address).await?, proxy, target).await,
        }
    }

    async fn open(&self, address: &Address) -> Result<Box<dyn Stream>, Error> {
        let connect: &dyn Connect = self.connect.as_deref().unwrap_or(&Tcp);
        connect
            .connect(address)
            .await
            .map_err(|error| Error::Unreachable { address: address.to_string(), reason: error.to_string() })
    }
}

async fn tunnel(
    mut stream: Box<dyn Stream>,
    proxy: &Proxy,
    target: &Address,
) -> Result<Box<dyn Stream>, Error> {
    let refused = |reason: String| Error::Proxy { proxy: proxy.address.to_string(), reason };
    let broken = |error: std::io::Error| refused(error.to_string());
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(authorization) = &proxy.authorization {
        request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    let mut head = Vec::new();
    // Byte by byte: nothing behind the head may be taken from the stream.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_LEN_MAX {
            return Err(refused("its answer has no end".to_owned()));
        }
        head.push(stream.read_u8().await.map_err(broken)?);
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line).into_owned();
    match line.split(' ').nth(1) {
        Some("200") => Ok(stream),
        Some("407") => Err(refused("it asks for a user and a password in HTTPS_PROXY".to_owned())),
        _ => Err(refused(format!("it answered {line:?}"))),
    }
}

fn parse(url: &str) -> Result<Proxy, Error> {
    let bad = |reason: &str| Error::setting("HTTPS_PROXY", reason);
    let rest = match url.split_once("://") {
        Some(("http", rest)) => rest,
        Some(_) => return Err(bad("only http:// proxies are supported")),
        None => url,
    };
    let rest = rest.trim_end_matches('/');
    let (user, address) = match rest.rsplit_once('@') {
        Some((user, address)) => (Some(user), address),
        None => (None, rest),
    };
    let address = Address::parse(address).map_err(|_| bad("it must be like http://host:port"))?;
    let authorization = user.map(|user| {
        let encoded = base64::engine::general_purpose::STANDARD.encode(decoded(user));
        format!("Basic {encoded}")
    });
    Ok(Proxy { address, authorization })
}

/// Undoes percent-encoding; what is not well encoded stays as it is.
fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let pair = (byte == b'%').then(|| Some((hex(ahead.next()?)?, hex(ahead.next()?)?))).flatten();
        match pair {
            Some((high, low)) => {
                out.push(high * 16 + low);
                bytes = ahead;
            }
            None => out.push(byte),
        }
    }
    out
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

const HEAD_LEN_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn through(settings: &ProxySettings, target: &str) -> bool {
        settings.on_the_way_to(&Address::parse(target).unwrap()).is_some()
    }

    #[test]
    fn listed_hosts_are_reached_directly() {
        let list = Some("localhost, .inner.example,127.0.0.1");
        let settings = ProxySettings::new(Some("http://proxy:3128"), list).unwrap();
        assert!(through(&settings, "sheaf.example:443"));
        assert!(!through(&settings, "127.0.0.1:8000"));
        assert!(!through(&settings, "a.INNER.example:443"));
        assert!(through(&settings, "notinner.example:443"));
        let all = ProxySettings::new(Some("http://proxy:3128"), Some("*")).unwrap();
        assert!(!through(&all, "sheaf.example:443"));
    }

    #[test]
    fn credentials_are_decoded_and_not_shown() {
        let proxy = parse("http://user:p%40ss@proxy:3128/").unwrap();
        assert_eq!(proxy.authorization.as_deref(), Some("Basic dXNlcjpwQHNz"));
        assert_eq!(format!("{proxy:?}"), "Proxy(proxy:3128)");
        let error = parse("https://user:secret@proxy:3128").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
        assert!(parse("http://user:secret@proxy").is_err());
    }
}

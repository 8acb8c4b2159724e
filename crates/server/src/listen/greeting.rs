//! The handshake of the plaintext listener: one line that says who calls, read before HTTP begins.
//!
//! Refuses a line that is too long or malformed, an unknown key, and a signature that is not fresh or was seen before.

use sheaf_coordinator::Handle;
use sheaf_domain::Identity;
use sheaf_pki::{GREETING_LEN_MAX, Peer, RequestVerifier, SignatureError, greeting_request, read_greeting};
use sheaf_runtime::Clock;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// What greetings are checked against.
pub(crate) struct Greeter {
    pub(crate) handle: Handle,
    pub(crate) verifier: RequestVerifier,
}

/// Why a caller is not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unwelcome {
    /// The connection broke.
    #[error("the connection ended before its greeting")]
    Ended(#[from] std::io::Error),
    /// No line feed came.
    #[error("the greeting has no end within {GREETING_LEN_MAX} bytes")]
    TooLong,
    /// Not what a greeting is.
    #[error("the greeting is refused: {0}")]
    Refused(#[from] SignatureError),
}

impl Greeter {
    /// Reads the greeting; `None` when the caller names nobody.
    pub(crate) async fn greeted(
        &self,
        stream: &mut TcpStream,
        clock: &dyn Clock,
    ) -> Result<Option<Peer>, Unwelcome> {
        let line = line(stream).await?;
        let Some(signed) = read_greeting(&line)? else { return Ok(None) };
        // An unknown key and a key of another site are answered alike.
        let facts = self.handle.signing_key(&signed.key).filter(|facts| facts.site == signed.site);
        let facts = facts.ok_or(SignatureError::OtherKey)?;
        let trust_domain = self.handle.trust_domain();
        let (request, body) = greeting_request(trust_domain);
        signed.check_body(&body)?;
        self.verifier.verify(&signed, &request, &facts.public_key_der, clock.now())?;
        let identity = Identity {
            trust_domain: trust_domain.to_owned(),
            name: facts.site,
            role: facts.role,
            key_fingerprint: signed.key,
        };
        Ok(Some(Peer { identity, not_after: facts.not_after }))
    }
}

async fn line(stream: &mut TcpStream) -> Result<String, Unwelcome> {
    let mut line = Vec::new();
    // Looked at before it is taken: what follows the line is HTTP's.
    let mut seen = [0; GREETING_LEN_MAX];
    while line.len() < GREETING_LEN_MAX {
        let seen_len = stream.peek(&mut seen).await?;
        let seen = seen.get(..seen_len).unwrap_or_default();
        if seen.is_empty() {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        let end = seen.iter().position(|byte| *byte == b'\n');
        let take = end.map_or(seen.len(), |end| end + 1).min(GREETING_LEN_MAX - line.len());
        let from = line.len();
        line.resize(from + take, 0);
        stream.read_exact(line.get_mut(from..).unwrap_or_default()).await?;
        if line.last() == Some(&b'\n') {
            line.pop();
            let refused = |_| SignatureError::Malformed { header: "greeting" };
            return Ok(String::from_utf8(line).map_err(refused)?);
        }
    }
    Err(Unwelcome::TooLong)
}

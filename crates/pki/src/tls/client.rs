//! The client's side of TLS: the server must show a certificate of the pinned CA.
//!
//! The pin is checked before anything is dialled. Further roots are possible only without a client certificate, that is
//! for enrolment and signed requests through a proxy that opens TLS: such a proxy reads everything sent through it, and
//! then the roots given, not the pin, decide whom the client speaks to.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::SectionKind;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme};
use sheaf_domain::Digest;
use sheaf_runtime::Clock;

use super::{ClockTime, VERSIONS, failed, provider, roots_of};
use crate::certificate::{CERTIFICATE_LEN_MAX, to_der};
use crate::{Error, SiteKey, certificate_facts, pem};

/// The largest text of further roots read, in bytes.
const EXTRA_ROOTS_LEN_MAX: usize = 1024 * 1024;

/// What a client's TLS is made from.
#[derive(Debug, Clone)]
pub struct ClientTls<'a> {
    /// The CA's certificate in PEM, from the kit.
    pub ca_pem: &'a str,
    /// The fingerprint of the CA's key, from the kit.
    pub ca_pin: Digest,
    /// The site's certificate in PEM and its key; `None` for enrolment and signed requests.
    pub identity: Option<(&'a str, &'a SiteKey)>,
    /// Further roots in PEM, of a proxy that opens TLS; only together with `identity: None`.
    pub extra_roots: Option<&'a str>,
    /// Protocols offered, preferred first, such as [`ALPN_H2`](super::ALPN_H2).
    pub alpn: &'a [&'a [u8]],
    /// The clock that certificates are checked by.
    pub clock: Arc<dyn Clock>,
}

/// The server's certificate was not issued by the CA this site trusts.
#[derive(Clone, thiserror::Error)]
#[error(
    "the server's certificate was not issued by this federation's CA (pin {pin}): this is another server, or a proxy opens TLS on the way"
)]
pub struct ForeignServer {
    /// The fingerprint of the CA's key that was expected.
    pub pin: Digest,
}

impl std::fmt::Debug for ForeignServer {
    /// As `Display`, since libraries in between show errors this way.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Settings for a client's connections: TLS 1.3 only, the server verified by name against the pinned CA.
///
/// # Errors
/// [`Error::PinMismatch`] when `ca_pem` is not the pinned CA, [`Error::KeyMismatch`] when the certificate is not the key's,
/// [`Error::InvalidArgument`] for further roots together with a client certificate, [`Error::Malformed`].
pub fn client_config(tls: &ClientTls<'_>) -> Result<ClientConfig, Error> {
    let ca_der = pinned_ca(tls.ca_pem, tls.ca_pin)?;
    let mut roots = vec![ca_der];
    if let Some(extra) = tls.extra_roots {
        if tls.identity.is_some() {
            let message = "further roots go with signed requests only, not with a client certificate";
            return Err(Error::InvalidArgument(message.to_owned()));
        }
        roots.extend(extra_roots(extra)?);
    }
    let verifier = PinnedVerifier::new(roots, tls.ca_pin)?;
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(ClockTime(Arc::clone(&tls.clock))))
        .with_protocol_versions(&VERSIONS)
        .map_err(failed("set up TLS 1.3"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match tls.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from(to_der(certificate.as_bytes())?)];
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified(chain, key)?)))
        }
    };
    config.alpn_protocols = tls.alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The DER of `ca_pem`, if its key is the pinned one.
pub(crate) fn pinned_ca(ca_pem: &str, pin: Digest) -> Result<Vec<u8>, Error> {
    if ca_pem.len() > CERTIFICATE_LEN_MAX {
        return Err(Error::TooLarge { what: "the CA certificate", max: CERTIFICATE_LEN_MAX });
    }
    let der = pem::decode_one("the CA certificate", SectionKind::Certificate, ca_pem.as_bytes())?;
    let found = certificate_facts(&der)?.key_fingerprint;
    if found == pin { Ok(der) } else { Err(Error::PinMismatch { pinned: pin, found }) }
}

/// A certificate chain together with the key it was issued for.
pub(super) fn certified(chain: Vec<CertificateDer<'static>>, key: &SiteKey) -> Result<CertifiedKey, Error> {
    let leaf = chain.first().ok_or(Error::KeyMismatch)?;
    if certificate_facts(leaf)?.key_fingerprint != key.fingerprint() {
        return Err(Error::KeyMismatch);
    }
    let signer = provider()
        .key_provider
        .load_private_key(super::server::private_key(key.0.pkcs8_der()).clone_key())
        .map_err(failed("use the private key in TLS"))?;
    Ok(CertifiedKey::new(chain, signer))
}

fn extra_roots(text: &str) -> Result<Vec<Vec<u8>>, Error> {
    if text.len() > EXTRA_ROOTS_LEN_MAX {
        return Err(Error::TooLarge { what: "the file of further roots", max: EXTRA_ROOTS_LEN_MAX });
    }
    let roots = pem::decode_all("the file of further roots", SectionKind::Certificate, text.as_bytes())?;
    if roots.is_empty() {
        return Err(Error::malformed("the file of further roots", "it holds no certificate"));
    }
    Ok(roots)
}

/// The library's own verifier, with a sentence for people in place of its "unknown issuer".
#[derive(Debug)]
struct PinnedVerifier {
    inner: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
    pin: Digest,
}

impl PinnedVerifier {
    fn new(roots: Vec<Vec<u8>>, pin: Digest) -> Result<PinnedVerifier, Error> {
        let provider = provider();
        let inner =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots_of(roots)?), Arc::clone(&provider))
                .build()
                .map_err(|error| Error::crypto("set up the check of the server's certificate", error))?;
        Ok(PinnedVerifier { inner, provider, pin })
    }
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now).map_err(
            |error| match error {
                rustls::Error::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::BadSignature,
                ) => rustls::Error::Other(OtherError(Arc::new(ForeignServer { pin: self.pin }))),
                other => other,
            },
        )
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

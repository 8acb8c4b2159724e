//! Identity: the CA, keys, certificates, enrolment tokens and kits, TLS settings, signed requests, the journal's signature.
//!
//! Turns a credential into an [`Identity`](sheaf_domain::Identity) and refuses everything it cannot verify. It decides
//! nothing about revocation or rights (the coordinator does, per request), opens no sockets, and keeps no database.
//! Secrets appear in no `Debug`, no error and no log; a file that holds one is created with mode 0600 and refused when
//! others may read it.

mod authority;
mod certificate;
mod credential;
mod csr;
mod error;
mod file;
mod grace;
mod hmac;
mod journal_signer;
mod key;
mod kit;
mod limiter;
mod pem;
mod public_key;
mod secret;
mod signed;
mod site_key;
mod tls;
mod token;

pub use authority::{CA_CERTIFICATE_FILE, CA_KEY_FILE, CLOCK_SKEW_ALLOWED, CertificateAuthority};
pub use certificate::{
    CertificateFacts, Peer, certificate_facts, common_name, identity_of_certificate, peer_of_chain,
};
pub use credential::{Issued, ServerCredential};
pub use csr::{CSR_LEN_MAX, SigningRequest};
pub use error::Error;
pub use grace::Grace;
pub use hmac::HmacKey;
pub use journal_signer::{JournalSigner, verify_head};
pub use kit::{KIT_FORMAT, KIT_LEN_MAX, Kit};
pub use limiter::{EnrolmentLimiter, EnrolmentLimits, Limited, network_of};
pub use public_key::PublicKey;
pub use secret::Secret;
pub use signed::{
    AHEAD_MAX, GREETING_LEN_MAX, HEADER_BODY, HEADER_KEY, HEADER_NONCE, HEADER_SERVER_TIME, HEADER_SIGNATURE,
    HEADER_SITE, HEADER_TIMESTAMP, RequestParts, RequestVerifier, SignatureError, SignedHeaders, greeting,
    greeting_request, read_greeting, sign_request,
};
pub use site_key::SiteKey;
pub use tls::{
    ALPN_H2, ALPN_HTTP1, ClientTls, ForeignServer, ServerCertificates, TlsFault, client_config,
    client_verifier, server_config,
};
pub use token::{TOKEN_PREFIX, Token};

/// What a server shares between its tasks can be shared.
const _: () = {
    const fn shared<T: Send + Sync + 'static>() {}
    shared::<CertificateAuthority>();
    shared::<ServerCertificates>();
    shared::<RequestVerifier>();
    shared::<EnrolmentLimiter>();
    shared::<JournalSigner>();
    shared::<SiteKey>();
};

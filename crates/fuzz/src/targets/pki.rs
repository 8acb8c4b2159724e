//! Credentials: kits, certificate requests, certificates and public keys.

use std::sync::OnceLock;

use sheaf_domain::SiteName;
use sheaf_pki::{Kit, PublicKey, SigningRequest, SiteKey, certificate_facts, identity_of_certificate};

use crate::form::{self, Form};
use crate::target::{Ceiling, Probe, Target, Verdict};

/// `Kit::parse`. TOML is held as a tree, twice: once for the format alone.
pub(super) const KIT: Target = Target {
    name: "kit",
    about: "a site's kit in TOML",
    form: Form::Text(form::KIT),
    len_max: sheaf_pki::KIT_LEN_MAX + 1,
    ceiling: Ceiling { per_byte: 256, constant: 64 * 1024 },
    samples: || vec![KIT_SAMPLE.as_bytes().to_vec()],
    body: kit,
};

/// `SigningRequest::parse`.
pub(super) const CSR: Target = Target {
    name: "csr",
    about: "a certificate request in PEM",
    form: Form::Pem,
    len_max: sheaf_pki::CSR_LEN_MAX + 1,
    ceiling: Ceiling { per_byte: 16, constant: 64 * 1024 },
    samples: csr_samples,
    body: csr,
};

/// `certificate_facts`, `identity_of_certificate` and `PublicKey::from_pem`.
pub(super) const CERTIFICATE: Target = Target {
    name: "certificate",
    about: "a certificate in DER or PEM, and a public key in PEM",
    form: Form::Der,
    len_max: 64 * 1024 + 1,
    ceiling: Ceiling { per_byte: 32, constant: 64 * 1024 },
    samples: certificate_samples,
    body: certificate,
};

/// The kit that the crate keeps as a sample of its format.
const KIT_SAMPLE: &str = include_str!("../../../pki/testdata/kit-1.toml");

fn kit(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    let text = match super::text(input) {
        Ok(text) => text,
        Err(refused) => return refused,
    };
    let kit = match probe.watch(|| Kit::parse(text)) {
        Ok(kit) => kit,
        Err(error) => return Verdict::refused(error),
    };
    let printed = kit.to_text().unwrap_or_else(|error| panic!("a kit that was read has no text: {error}"));
    let again = printed.expose_text().map(Kit::parse);
    assert!(matches!(again, Some(Ok(again)) if again == kit), "what was printed is another kit");
    Verdict::Accepted(format!("{} servers", kit.servers.len()))
}

fn csr(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    let text = match super::text(input) {
        Ok(text) => text,
        Err(refused) => return refused,
    };
    let request = match probe.watch(|| SigningRequest::parse(text)) {
        Ok(request) => request,
        Err(error) => return Verdict::refused(error),
    };
    let again = PublicKey::from_pem(&request.public_key().to_pem());
    assert!(matches!(&again, Ok(key) if key == request.public_key()), "its key reads back");
    Verdict::Accepted("a key".to_owned())
}

fn certificate(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    let facts = probe.watch(|| certificate_facts(input));
    let identity = probe.watch(|| identity_of_certificate(input, "example"));
    let key = std::str::from_utf8(input).ok().map(|text| probe.watch(|| PublicKey::from_pem(text)));
    if let Some(Ok(key)) = &key {
        let again = PublicKey::from_pem(&key.to_pem());
        assert!(matches!(&again, Ok(again) if again == key), "a key reads back");
        return Verdict::Accepted("a key".to_owned());
    }
    let said = identity.map_or_else(|error| error.to_string(), |identity| identity.role.name().to_owned());
    match facts {
        Ok(facts) => {
            let key = PublicKey::from_spki_der(&facts.public_key_der);
            assert!(
                matches!(&key, Ok(key) if key.fingerprint() == facts.key_fingerprint),
                "its key is another"
            );
            Verdict::Accepted(format!("a certificate: {said}"))
        }
        Err(error) => Verdict::Refused(format!("{error}; {said}")),
    }
}

/// A key made once a process.
pub(super) fn key() -> Option<&'static SiteKey> {
    static KEY: OnceLock<Option<SiteKey>> = OnceLock::new();
    KEY.get_or_init(|| SiteKey::generate().ok()).as_ref()
}

fn csr_samples() -> Vec<Vec<u8>> {
    let made = || key()?.csr_pem(&SiteName::new("berlin").ok()?).ok();
    made().into_iter().map(String::into_bytes).collect()
}

fn certificate_samples() -> Vec<Vec<u8>> {
    let pem = Kit::parse(KIT_SAMPLE).map(|kit| kit.ca_pem).unwrap_or_default();
    let mut samples = vec![pem.into_bytes()];
    samples.extend(key().map(|key| key.public_key().to_pem().into_bytes()));
    samples
}

//! The server's keys: the CA, the journal key, the operator's credential, and the certificate participants see.

use std::path::Path;
use std::sync::Arc;

use sheaf_domain::{Role, SiteName, Span};
use sheaf_pki::{CA_KEY_FILE, CertificateAuthority, JournalSigner, ServerCertificates, SiteKey};
use sheaf_runtime::{Clock, TaskScope};

use crate::Error;

/// How long a CA made here is valid.
const CA_VALIDITY: Span = Span::from_secs(10 * 365 * 24 * 3600);
/// How long the server's own certificate is valid; it is made anew at every start and at half of this.
const SERVER_VALIDITY: Span = Span::from_secs(30 * 24 * 3600);
/// How long the local operator's certificate is valid.
const OPERATOR_VALIDITY: Span = Span::from_secs(365 * 24 * 3600);
/// The file of the key that signs journals.
pub(crate) const JOURNAL_KEY_FILE: &str = "journal.key";
/// The operator's certificate, in its directory.
pub const OPERATOR_CERTIFICATE_FILE: &str = "operator.pem";
/// The operator's key, in its directory.
pub const OPERATOR_KEY_FILE: &str = "operator.key";
/// The CA's certificate, in the operator's directory.
pub const OPERATOR_CA_FILE: &str = "ca.pem";
/// Where the server listens, in the operator's directory.
pub const OPERATOR_ADDRESS_FILE: &str = "address";

/// Where the server listens without TLS, in the operator's directory, when it does.
pub const PLAINTEXT_ADDRESS_FILE: &str = "plaintext-address";

/// Loads the CA of `dir`, or makes one on the spot.
pub(crate) fn authority(
    dir: &Path,
    trust_domain: &str,
    clock: &dyn Clock,
) -> Result<CertificateAuthority, Error> {
    if dir.join(CA_KEY_FILE).exists() {
        return Ok(CertificateAuthority::load(dir)?);
    }
    let ca = CertificateAuthority::create(trust_domain, CA_VALIDITY, clock.now())?;
    ca.save(dir)?;
    tracing::info!(trust_domain, "made a certificate authority");
    Ok(ca)
}

/// Loads the key that signs journals, or makes one.
pub(crate) fn journal_signer(dir: &Path) -> Result<JournalSigner, Error> {
    let file = dir.join(JOURNAL_KEY_FILE);
    if file.exists() {
        return Ok(JournalSigner::load(&file)?);
    }
    let signer = JournalSigner::generate()?;
    signer.save(&file)?;
    Ok(signer)
}

/// Makes sure this machine's operator has a credential that is valid for a while.
pub(crate) fn operator(dir: &Path, ca: &CertificateAuthority, clock: &dyn Clock) -> Result<(), Error> {
    let failed = |source| Error::File { path: dir.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(failed)?;
    private(dir).map_err(failed)?;
    let key_file = dir.join(OPERATOR_KEY_FILE);
    let key = if key_file.exists() {
        SiteKey::load(&key_file)?
    } else {
        let key = SiteKey::generate()?;
        key.save(&key_file)?;
        key
    };
    let certificate_file = dir.join(OPERATOR_CERTIFICATE_FILE);
    let now = clock.now();
    let valid_for_long = std::fs::read(&certificate_file)
        .ok()
        .and_then(|pem| sheaf_pki::certificate_facts(&pem).ok())
        .is_some_and(|facts| {
            facts.not_after > now.after(Span::from_millis(OPERATOR_VALIDITY.as_millis() / 3))
        });
    if !valid_for_long {
        let name = SiteName::new("operator")
            .map_err(|error| Error::Config { place: "operator".to_owned(), message: error.to_string() })?;
        let issued = ca.issue(&key.csr_pem(&name)?, &name, Role::Operator, OPERATOR_VALIDITY, now)?;
        std::fs::write(&certificate_file, issued.pem).map_err(failed)?;
    }
    std::fs::write(dir.join(OPERATOR_CA_FILE), ca.certificate_pem()).map_err(failed)
}

/// Tells this machine's operator where the server listens; written last, so that its presence says the server is ready.
pub(crate) fn write_address(dir: &Path, advertised: &[String]) -> Result<(), Error> {
    let failed = |source| Error::File { path: dir.to_owned(), source };
    let address = advertised.first().map(String::as_str).unwrap_or_default();
    let new = dir.join("address.new");
    std::fs::write(&new, format!("{address}\n")).map_err(failed)?;
    std::fs::rename(&new, dir.join(OPERATOR_ADDRESS_FILE)).map_err(failed)
}

/// Tells this machine where the server listens without TLS.
pub(crate) fn write_plaintext_address(file: &Path, address: std::net::SocketAddr) -> Result<(), Error> {
    let failed = |source| Error::File { path: file.to_owned(), source };
    let new = file.with_extension("new");
    std::fs::write(&new, format!("{address}\n")).map_err(failed)?;
    std::fs::rename(&new, file).map_err(failed)
}

/// Removes what an earlier start left behind.
pub(crate) fn forget(file: &Path) -> Result<(), Error> {
    match std::fs::remove_file(file) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::File { path: file.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
}

/// The server's certificate, replaced in `scope` before it ends.
pub(crate) fn server_certificates(
    ca: &Arc<CertificateAuthority>,
    names: Vec<String>,
    clock: &Arc<dyn Clock>,
    scope: &TaskScope,
) -> Result<Arc<ServerCertificates>, Error> {
    let first = ca.issue_server(&names, SERVER_VALIDITY, clock.now())?;
    let certificates = ServerCertificates::new(&first)?;
    let (ca, clock, current) = (Arc::clone(ca), Arc::clone(clock), Arc::clone(&certificates));
    scope.spawn_until_cancelled(async move {
        loop {
            tokio::time::sleep(Span::from_millis(SERVER_VALIDITY.as_millis() / 2).as_duration()).await;
            let replaced = ca
                .issue_server(&names, SERVER_VALIDITY, clock.now())
                .and_then(|credential| current.replace(&credential));
            match replaced {
                Ok(()) => tracing::info!("renewed the server's certificate"),
                Err(error) => tracing::error!(%error, "the server's certificate could not be renewed"),
            }
        }
    });
    Ok(certificates)
}

/// Makes the keys of a data directory without starting a server; returns the CA's pin.
///
/// # Errors
/// [`Error`], when the directory is in use, has another format, or cannot be written.
pub fn init_pki(data_dir: &Path, trust_domain: &str) -> Result<sheaf_domain::Digest, Error> {
    let clock = sheaf_runtime::SystemClock::shared();
    let data_dir = crate::DataDir::open(data_dir)?;
    let ca = authority(&data_dir.join(crate::PKI_DIR), trust_domain, &*clock)?;
    journal_signer(&data_dir.join(crate::PKI_DIR))?;
    operator(&data_dir.join(crate::OPERATOR_DIR), &ca, &*clock)?;
    Ok(ca.pin())
}

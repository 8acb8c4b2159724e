//! Flower on this server: its listeners, and who starts ServerApps.
//!
//! Whoever may make the command line's or the applications' calls can run code here: they are served on loopback addresses, and elsewhere
//! only over TLS to those who prove who they are: operators by a login or certificate, SuperExecs by their secret.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sheaf_coordinator::{AppHost, Handle, Relays};
use sheaf_domain::{ConfigMap, Manifest, SiteName};
use sheaf_pki::CertificateAuthority;
use sheaf_runtime::{Clock, TaskScope};
use sheaf_sandbox::{Launcher, Protection, Unwalled};
use sheaf_wire_flower::{Flower, FlowerApps, FlowerSettings, Served, ServerApps};
use tokio_rustls::TlsAcceptor;

use crate::config::{FlowerSection, ServerAppsMode};
use crate::listen::{Listener, Security, accept};
use crate::serve::bind;
use crate::{Config, DataDir, Error};

/// Where the logs of applications are, in the data directory.
pub(crate) const LOGS_DIR: &str = "relay";
/// Where their directories are, in the data directory.
const APPS_DIR: &str = "apps";
/// Where the command line and ServerApps are served when nodes are served elsewhere than on loopback.
const LOCAL_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9093);

/// What Flower's part of a server is made of.
pub(crate) struct Parts<'a> {
    pub(crate) config: &'a Config,
    pub(crate) data_dir: &'a DataDir,
    pub(crate) handle: Handle,
    pub(crate) relays: Relays,
    /// Whose certificates prove operators.
    pub(crate) ca: &'a CertificateAuthority,
    pub(crate) clock: &'a Arc<dyn Clock>,
    pub(crate) accepting: &'a TaskScope,
    pub(crate) connections: &'a TaskScope,
    pub(crate) background: &'a TaskScope,
    /// Makes a listener within the server's bounds.
    pub(crate) listener: &'a dyn Fn(Security, Router) -> Arc<Listener>,
}

impl Parts<'_> {
    /// Listens for Flower's peers, where the configuration asks for it.
    ///
    /// # Errors
    /// [`Error`], saying what stands in the way and what to do.
    pub(crate) async fn start(self) -> Result<(), Error> {
        let section = &self.config.flower;
        let logs = self.data_dir.join(LOGS_DIR);
        std::fs::create_dir_all(&logs).map_err(|source| Error::File { path: logs, source })?;
        let Some(address) = section.address else {
            self.handle.host_apps(Arc::new(NotServed));
            return Ok(());
        };
        check_login(section)?;
        let acceptor = acceptor(section, self.ca)?;
        let operator = SiteName::new("local").map_err(|error| refused("flower", &error.to_string()))?;
        let settings = FlowerSettings {
            enable_supernode_auth: section.supernode_auth,
            refuse_runs: section.server_apps == Some(ServerAppsMode::Off),
            operator_login: section.operator_login,
            direct_connections: section.direct_connections,
        };
        let flower = Flower::new(self.relays.clone(), Arc::clone(self.clock), settings, operator);
        let flower = match &section.superexec_secret {
            None => flower,
            Some(file) => {
                let secret =
                    std::fs::read(file).map_err(|source| Error::File { path: file.clone(), source })?;
                let refused =
                    |error: &dyn std::fmt::Display| refused(&file.display().to_string(), &error.to_string());
                flower.with_superexec_secret(&secret).map_err(|error| refused(&error))?
            }
        };
        let on_loopback = address.ip().is_loopback();
        // A claim that is proven, and tokens, may pass over TLS.
        let proven_claims = section.superexec_secret.is_some() && !section.insecure;
        let runtime = on_loopback || proven_claims;
        let served = Served { fleet: true, control: on_loopback || section.operator_login, runtime };
        let address = self.listen(&flower, address, served, acceptor.as_ref()).await?;
        if let Some(also) = section.also {
            let served = Served { fleet: true, control: false, runtime: false };
            self.listen(&flower, also, served, acceptor.as_ref()).await?;
        }
        let local = match (on_loopback, section.local) {
            (true, None) => address,
            (_, local) => {
                let local = local.map_or(LOCAL_DEFAULT, crate::LoopbackAddr::get);
                let served = Served { fleet: false, control: true, runtime: true };
                self.listen(&flower, local, served, acceptor.as_ref()).await?
            }
        };
        say_where(section, address, local, on_loopback || !runtime);
        self.handle.host_apps(Arc::new(FlowerApps));
        let (handle, scope) = (self.handle.clone(), self.background.clone());
        self.background.spawn(flower.clone().work_on_plans(handle, scope));
        self.server_apps(flower, local, on_loopback)
    }

    async fn listen(
        &self,
        flower: &Flower,
        address: SocketAddr,
        served: Served,
        acceptor: Option<&TlsAcceptor>,
    ) -> Result<SocketAddr, Error> {
        let socket = bind(address).await?;
        let address = socket.local_addr().map_err(Error::Process)?;
        let router = sheaf_wire_flower::router(flower.clone(), served);
        let security = match acceptor {
            Some(acceptor) if self.config.flower.operator_login => {
                let trust_domain = self.ca.trust_domain().to_owned();
                Security::Tls { acceptor: acceptor.clone(), trust_domain }
            }
            acceptor => Security::Anonymous(acceptor.cloned()),
        };
        let listener = (self.listener)(security, router);
        let (accepting, connections) = (self.accepting.clone(), self.connections.clone());
        self.accepting.spawn(accept(socket, listener, accepting, connections));
        let tls = acceptor.is_some();
        tracing::info!(%address, tls, nodes = served.fleet, "serving Flower");
        Ok(address)
    }

    /// Starts those that start ServerApps.
    fn server_apps(&self, flower: Flower, address: SocketAddr, on_loopback: bool) -> Result<(), Error> {
        let section = &self.config.flower;
        let default = if on_loopback { ServerAppsMode::Sandboxed } else { ServerAppsMode::External };
        match section.server_apps.unwrap_or(default) {
            ServerAppsMode::Off => {
                tracing::info!("ServerApps are not started");
                return Ok(());
            }
            ServerAppsMode::External => {
                tracing::info!(%address, "ServerApps are left to a flower-superexec of yours");
                return Ok(());
            }
            ServerAppsMode::Sandboxed => {}
        }
        let executable = match &section.server_app {
            Some(executable) => absolute(executable)?,
            None => on_path("flwr-serverapp").ok_or_else(|| {
                refused("flower.server_app", "no flwr-serverapp is on the PATH: install flwr, name it, or set flower.server_apps = \"external\"")
            })?,
        };
        let protection = Protection::probe(section.server_app_account.as_deref())?;
        tracing::info!(%protection, "what keeps ServerApps from reading keys and data");
        let unwalled = if section.server_apps_unwalled { Unwalled::Allowed } else { Unwalled::Refused };
        let launcher = Launcher::new(protection, unwalled)?;
        let dir = absolute(&self.data_dir.join(APPS_DIR))?;
        std::fs::create_dir_all(&dir).map_err(|source| Error::File { path: dir.clone(), source })?;
        let read =
            |path: &PathBuf| std::fs::read(path).map_err(|source| Error::File { path: path.clone(), source });
        let roots = match (section.insecure, &section.roots) {
            (true, _) => None,
            (false, Some(roots)) => Some(read(roots)?),
            (false, None) => section.certificate.as_ref().map(read).transpose()?,
        };
        let mut hidden = vec![absolute(self.data_dir.path())?];
        hidden.extend(section.key.as_deref().map(absolute).transpose()?);
        let apps = ServerApps { executable, address, roots, dir, hidden, launcher };
        let scope = self.background.clone();
        self.background.spawn(flower.run_server_apps(apps, scope));
        Ok(())
    }
}

/// A login's token may be read by nobody on the way.
fn check_login(section: &FlowerSection) -> Result<(), Error> {
    if section.operator_login && section.insecure {
        let advice = "operators log in over TLS only: give certificate and key, or leave logins out";
        return Err(refused("flower.operator_login", advice));
    }
    Ok(())
}

/// Says who is served what, and where.
fn say_where(section: &FlowerSection, address: SocketAddr, local: SocketAddr, runtime_here_only: bool) {
    if section.operator_login {
        tracing::info!(%address, %local, "the flwr command is served to operators who log in (sheaf login)");
    } else {
        tracing::info!(%local, "the flwr command is served on this loopback address only, to whoever is on this machine");
    }
    if runtime_here_only {
        tracing::info!(%local, "ServerApps and SuperExecs are served on this loopback address only");
    } else {
        tracing::info!(%address, %local, "ServerApps are served by their tokens, SuperExecs that prove the secret");
    }
}

/// Why no run names an app where Flower is not served.
#[derive(Debug)]
struct NotServed;

impl AppHost for NotServed {
    fn header(&self, _: &[u8], _: &ConfigMap, _: Option<&Manifest>) -> Result<String, String> {
        Err("Flower is not served here: set flower.address, or start the server with `sheaf superlink`"
            .to_owned())
    }
}

/// The TLS of Flower's listeners; none when it was asked for. Where operators log in, a certificate of theirs is asked for and not required.
fn acceptor(section: &FlowerSection, ca: &CertificateAuthority) -> Result<Option<TlsAcceptor>, Error> {
    let (certificate, key) = match (&section.certificate, &section.key, section.insecure) {
        (_, _, true) => return Ok(None),
        (Some(certificate), Some(key), false) => (certificate, key),
        _ => {
            let advice = "Flower is served with TLS: give certificate and key (--ssl-certfile, --ssl-keyfile), or ask for none (--insecure)";
            return Err(refused("flower", advice));
        }
    };
    acceptor_with(certificate, key, section.operator_login.then_some(ca)).map(Some)
}

/// TLS with a certificate chain and its key, both PEM; with an authority, certificates that it issued are asked for and not required.
pub(crate) fn acceptor_with(
    certificate: &Path,
    key: &Path,
    clients: Option<&CertificateAuthority>,
) -> Result<TlsAcceptor, Error> {
    let broken =
        |path: &Path, error: &dyn std::fmt::Display| refused(&path.display().to_string(), &error.to_string());
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| broken(certificate, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| broken(key, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| broken(certificate, &error))?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(ca) => builder.with_client_cert_verifier(sheaf_pki::client_verifier(ca)?),
    };
    let built = builder.with_single_cert(chain, private);
    let mut built = built.map_err(|error| broken(certificate, &error))?;
    if clients.is_some() {
        // A resumed session would skip the check of the client's certificate.
        built.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        built.send_tls13_tickets = 0;
    }
    built.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(built)))
}

fn refused(place: &str, message: &str) -> Error {
    Error::Config { place: place.to_owned(), message: message.to_owned() }
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())?;
    std::path::absolute(found).ok()
}

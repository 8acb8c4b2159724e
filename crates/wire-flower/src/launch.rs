//! ServerApps started by this server: each in a process of its own that lives on when the server dies, and is found again after a
//! restart.
//!
//! The run's journal knows the process before it runs. A run fails when its process is really gone, never because the server was.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sheaf_coordinator::{Claimed, RelayOverview};
use sheaf_domain::RunId;
use sheaf_relay::{Outcome, Phase};
use sheaf_runtime::TaskScope;
use sheaf_sandbox::{Identity, Launcher, Network, PlacedFile, Process, Program, Secret};

use crate::front::{Flower, HOLD};

/// How long an application may take to end by itself once its run is over.
const GRACE: Duration = Duration::from_secs(20);
/// How long it may take after it was asked to end.
const TERM_GRACE: Duration = Duration::from_secs(5);
/// How often it is said that a process is there.
const VOUCH_EVERY: Duration = Duration::from_secs(5);
/// How long to wait after a claim or a start that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// The token's file, in the application's directory.
const TOKEN_FILE: &str = "token";
/// The file of the certificates that the application trusts, in its directory.
const ROOTS_FILE: &str = "roots.pem";

/// How ServerApps are started.
#[derive(Debug)]
pub struct ServerApps {
    /// The `flwr-serverapp` program.
    pub executable: PathBuf,
    /// Where applications reach this server.
    pub address: SocketAddr,
    /// The certificates that they trust, PEM; without, they connect without TLS.
    pub roots: Option<Vec<u8>>,
    /// Where their directories and logs are.
    pub dir: PathBuf,
    /// What they must not read.
    pub hidden: Vec<PathBuf>,
    /// Starts them, with walls around them.
    pub launcher: Launcher,
}

impl Flower {
    /// Starts the applications of runs that wait for one, and looks after those that this server started before, until `scope` is
    /// cancelled. Applications are not ended with the server.
    ///
    /// # Cancel safety
    /// Dropped, applications go on; the next start finds them again.
    pub async fn run_server_apps(self, apps: ServerApps, scope: TaskScope) {
        for overview in self.relays.overviews().unwrap_or_default() {
            self.adopt(&overview, &scope).await;
        }
        self.remove_left_over(&apps);
        loop {
            let claimed = tokio::select! {
                biased;
                () = scope.cancelled() => return,
                claimed = self.relays.claim(|_| true, HOLD) => claimed,
            };
            match claimed {
                Ok(Some(claimed)) => self.start(&apps, claimed, &scope).await,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "no run could be claimed");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Finds the process of a run again.
    async fn adopt(&self, overview: &RelayOverview, scope: &TaskScope) {
        let run = overview.run;
        let at_work = matches!(overview.application.phase, Phase::Starting | Phase::Running);
        let Some(kept) = overview.application.process.as_deref().filter(|_| at_work) else { return };
        let adopted = serde_json::from_str::<Identity>(kept).ok().map(|identity| Process::adopt(&identity));
        match adopted {
            Some(Ok(Some(process))) => {
                tracing::info!(%run, pid = process.identity().pid(), "the ServerApp lives on");
                scope.spawn(look_after(self.clone(), run, process, None, scope.clone()));
            }
            Some(Err(error)) => {
                tracing::warn!(%run, %error, "whether the ServerApp lives cannot be told; its heartbeats will");
            }
            Some(Ok(None)) | None => self.fail(run, "the ServerApp's process is gone".to_owned()).await,
        }
    }

    /// Removes the directories of applications that are over.
    fn remove_left_over(&self, apps: &ServerApps) {
        for entry in std::fs::read_dir(&apps.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let run = name.split_once('-').and_then(|(run, _)| run.parse::<RunId>().ok());
            let over = |run| self.relays.overview(run).is_ok_and(|found| found.application.phase.is_over());
            if run.is_some_and(over)
                && let Err(error) = std::fs::remove_dir_all(entry.path())
            {
                tracing::warn!(name, %error, "the directory of a ServerApp could not be removed");
            }
        }
    }

    async fn start(&self, apps: &ServerApps, claimed: Claimed, scope: &TaskScope) {
        let run = claimed.run;
        match self.try_start(apps, &claimed).await {
            Ok((process, directory)) => {
                tracing::info!(%run, pid = process.identity().pid(), "ServerApp started");
                scope.spawn(look_after(self.clone(), run, process, Some(directory), scope.clone()));
            }
            Err(error) => {
                tracing::error!(%run, error = error.as_ref(), "the ServerApp could not be started");
                self.fail(run, format!("the ServerApp could not be started: {error}")).await;
            }
        }
    }

    async fn try_start(
        &self,
        apps: &ServerApps,
        claimed: &Claimed,
    ) -> Result<(Process, PathBuf), Box<dyn std::error::Error + Send + Sync>> {
        let run = claimed.run;
        // A name that no earlier attempt has.
        let attempt = (0_u32..).map(|n| apps.dir.join(format!("{run}-{n}"))).find(|path| !path.exists());
        let directory = attempt.unwrap_or_else(|| apps.dir.join(run.to_string()));
        let mut program = Program::new(&apps.executable, &directory, apps.dir.join(format!("{run}.out")));
        let place = |name: &str| directory.join(name).to_string_lossy().into_owned();
        let arg = |text: &str| text.to_owned();
        program.args = vec![
            arg("--runtime-api-address"),
            apps.address.to_string(),
            arg("--token-file"),
            place(TOKEN_FILE),
        ];
        let token = Secret::new(claimed.token.reveal().as_bytes().to_vec());
        program.files.push(PlacedFile { name: TOKEN_FILE.to_owned(), content: token });
        match &apps.roots {
            None => program.args.push(arg("--insecure")),
            Some(roots) => {
                program.args.extend([arg("--root-certificates"), place(ROOTS_FILE)]);
                program
                    .files
                    .push(PlacedFile { name: ROOTS_FILE.to_owned(), content: Secret::new(roots.clone()) });
            }
        }
        program.environment = environment(&directory.to_string_lossy());
        program.hidden.clone_from(&apps.hidden);
        program.network = Network::Open;
        // It decides for all nodes: they wait for it.
        program.limits.nice = 0;
        let held = apps.launcher.hold(&program).await?;
        self.relays.launched(run, serde_json::to_string(held.identity())?).await?;
        Ok((held.start().await?, directory))
    }

    async fn fail(&self, run: RunId, details: String) {
        if let Err(error) = self.relays.end(run, Outcome::Failed, details).await {
            tracing::warn!(%run, %error, "the end of a run could not be written down");
        }
    }
}

/// Looks after a process to its end, then removes its directory.
async fn look_after(
    flower: Flower,
    run: RunId,
    mut process: Process,
    directory: Option<PathBuf>,
    scope: TaskScope,
) {
    tokio::select! {
        () = vouch(&flower, run) => {}
        () = follow(&flower, run, &mut process, &scope) => {}
    }
    if scope.is_cancelled() {
        return;
    }
    if let Some(directory) = directory
        && let Err(error) = tokio::fs::remove_dir_all(&directory).await
    {
        tracing::warn!(%run, %error, "the directory of a ServerApp could not be removed");
    }
}

/// Says again and again that the process is there: a slow start is no silence.
async fn vouch(flower: &Flower, run: RunId) {
    let mut ticks = tokio::time::interval(VOUCH_EVERY);
    loop {
        ticks.tick().await;
        if let Err(error) = flower.relays.still_starting(run) {
            tracing::debug!(%run, %error, "nothing is known of the run now");
        }
    }
}

/// Waits for the process to end, and ends it when its run is over.
async fn follow(flower: &Flower, run: RunId, process: &mut Process, scope: &TaskScope) {
    let kept = serde_json::to_string(process.identity()).ok();
    tokio::select! {
        biased;
        () = scope.cancelled() => return,
        gone = process.gone() => {
            match gone {
                // Unless another process has taken its place.
                Ok(exit) if flower.relays.overview(run).is_ok_and(|now| now.application.process == kept) => {
                    flower.fail(run, format!("the ServerApp's process ended before it said so: {exit:?}")).await;
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%run, %error, "a ServerApp cannot be followed any more"),
            }
            return;
        }
        over = flower.relays.over(run) => if over.is_err() {
            return;
        },
    }
    // It has heard of the end, or will with its next call.
    let left = tokio::select! {
        biased;
        () = scope.cancelled() => return,
        left = tokio::time::timeout(GRACE, process.gone()) => left,
    };
    if left.is_err() {
        tracing::warn!(%run, "the ServerApp of a run that is over is ended");
        if let Err(error) = process.terminate(TERM_GRACE).await {
            tracing::warn!(%run, %error, "a ServerApp could not be ended");
        }
    }
}

/// The environment of an application: nothing of ours.
fn environment(directory: &str) -> BTreeMap<String, String> {
    let set = [
        ("FLWR_HOME", directory),
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("LANG", "C.UTF-8"),
        ("PYTHONUNBUFFERED", "1"),
        // Nothing is ever sent to third parties.
        ("FLWR_TELEMETRY_ENABLED", "0"),
        ("FLWR_DISABLE_UPDATE_CHECK", "1"),
        ("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", "1"),
    ];
    set.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

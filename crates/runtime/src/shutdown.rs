//! Shutdown: the first SIGTERM or SIGINT asks for a drain, the second ends the process at once.

use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::TaskScope;

/// How far a shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownPhase {
    /// Nobody asked.
    Running,
    /// Finish what is in flight, take nothing new.
    Draining,
}

/// A cheaply cloned view of the shutdown.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<ShutdownPhase>);

impl Shutdown {
    /// A shutdown driven by the returned sender; for tests and supervisors.
    pub fn manual() -> (watch::Sender<ShutdownPhase>, Shutdown) {
        let (sender, receiver) = watch::channel(ShutdownPhase::Running);
        (sender, Shutdown(receiver))
    }

    /// How far it has come.
    pub fn phase(&self) -> ShutdownPhase {
        *self.0.borrow()
    }

    /// Resolves when a drain is asked for.
    ///
    /// # Cancel safety
    /// Safe: it holds nothing.
    pub async fn requested(&mut self) {
        // A sender that went away without asking never will.
        if self.0.wait_for(|phase| *phase == ShutdownPhase::Draining).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Shutdown {
    /// Also asks for a drain when standard input ends: a child whose supervisor is gone must not stay behind.
    pub fn or_when_stdin_ends(self, scope: &TaskScope) -> Shutdown {
        let (sender, shutdown) = Shutdown::manual();
        let mut signals = self;
        scope.spawn_until_cancelled(async move {
            use std::os::fd::AsFd as _;
            let Ok(stdin) = std::io::stdin().as_fd().try_clone_to_owned() else { return };
            let mut stdin = tokio::fs::File::from_std(stdin.into());
            let mut discarded = [0; 64];
            loop {
                tokio::select! {
                    () = signals.requested() => break,
                    read = stdin.read(&mut discarded) => if !matches!(read, Ok(len) if len > 0) { break },
                }
            }
            sender.send_replace(ShutdownPhase::Draining);
            // The sender must outlive the wait of those who ask later.
            std::future::pending::<()>().await;
        });
        shutdown
    }
}

/// The exit code of a process ended by a second signal.
pub const EXIT_SECOND_SIGNAL: i32 = 130;

/// Listens for SIGTERM and SIGINT in `scope`: the first asks for a drain, the second exits with [`EXIT_SECOND_SIGNAL`].
///
/// # Errors
/// When the handlers cannot be installed.
pub fn on_signals(scope: &TaskScope) -> std::io::Result<Shutdown> {
    let (sender, shutdown) = Shutdown::manual();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    scope.spawn_until_cancelled(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if *sender.borrow() == ShutdownPhase::Draining {
                tracing::warn!("second signal: exiting at once");
                std::process::exit(EXIT_SECOND_SIGNAL);
            }
            tracing::info!("signal received: draining; a second one exits at once");
            sender.send_replace(ShutdownPhase::Draining);
        }
    });
    Ok(shutdown)
}

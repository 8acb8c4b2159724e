//! How long a program lives: past the death of its server, and no longer than it is let.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use sheaf_domain::Span;
use sheaf_runtime::TaskScope;
use sheaf_sandbox::{Exit, Identity, Process};
use sheaf_testkit::process::{eventually, is_alive};
use sheaf_testkit::victim;

use crate::place::{Place, hold, open_gate, start};

/// Says that it runs, and waits for the gate to be opened.
const WAITS: &str = "mkfifo gate; echo running; cat gate; echo went on";

fn says(place: &Place, what: &str) {
    eventually(what, || std::fs::read_to_string(place.path("log")).ok().filter(|log| log.contains(what)));
}

#[test]
fn a_program_outlives_its_server_and_is_found_again() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if victim::place().is_some() {
        return runtime.block_on(be_the_server());
    }
    let place = Place::new();
    let name = "life::a_program_outlives_its_server_and_is_found_again";
    // The server is killed as soon as it has said whom it started.
    let said = victim::run_and_kill(name, &place.path("."), 1);
    let identity: Identity = serde_json::from_str(said.first().unwrap()).unwrap();
    runtime.block_on(async {
        says(&place, "running");
        let mut process = Process::adopt(&identity).unwrap().unwrap();
        assert!(process.is_alive());
        assert!(process.time_left(Span::from_secs(3600)) > Duration::from_secs(60));
        let scope = TaskScope::new();
        scope.cancel();
        assert_eq!(
            process.wait_gone(&scope).await.unwrap(),
            None,
            "a wait that is cancelled leaves the program"
        );
        assert!(process.is_alive());
        open_gate(&place);
        assert_eq!(process.gone().await.unwrap(), Exit::Unknown);
        assert!(place.read("log").ends_with("went on\n"), "{}", place.read("log"));
        assert!(!process.is_alive() && Process::adopt(&identity).unwrap().is_none());
    });
}

/// Starts a program at the place this victim was given, says so, and waits to be killed.
async fn be_the_server() {
    let place = victim::place().unwrap();
    let mut program =
        sheaf_sandbox::Program::new("/bin/sh", Path::new(&place).join("run"), Path::new(&place).join("log"));
    program.args = vec!["-ec".to_owned(), WAITS.to_owned()];
    let process = start(&program).await;
    victim::say(&serde_json::to_string(process.identity()).unwrap());
    std::future::pending().await
}

#[tokio::test]
async fn a_program_that_was_never_let_go_does_not_run() {
    let place = Place::new();
    let mut program = place.shell("echo it ran");
    program.files = vec![sheaf_sandbox::PlacedFile {
        name: "token".to_owned(),
        content: sheaf_sandbox::Secret::new("abc"),
    }];
    let held = hold(&program).await;
    let identity = held.identity().clone();
    assert!(identity.is_alive());
    drop(held);
    if let Some(mut process) = Process::adopt(&identity).unwrap() {
        process.gone().await.unwrap();
    }
    assert!(!identity.is_alive());
    assert_eq!(place.read("log"), "");
    assert!(!place.path("run/token").exists(), "the token was left behind");
}

#[tokio::test]
async fn an_exit_is_told_and_nothing_is_left_of_it() {
    let place = Place::new();
    let mut process = start(&place.shell("exit 7")).await;
    assert_eq!(process.gone().await.unwrap(), Exit::Code(7));
    assert_eq!(process.gone().await.unwrap(), Exit::Code(7));
    assert!(!Path::new(&format!("/proc/{}", process.identity().pid())).exists(), "a zombie is left");
}

#[tokio::test]
async fn a_child_nobody_follows_is_collected_too() {
    let place = Place::new();
    let process = start(&place.shell(WAITS)).await;
    let identity = process.identity().clone();
    says(&place, "running");
    drop(process);
    assert!(identity.is_alive(), "dropping the handle must not end the program");
    open_gate(&place);
    let entry = format!("/proc/{}", identity.pid());
    // Collecting needs a turn of the runtime; each further child gives it one.
    let mut looks = 0;
    while Path::new(&entry).exists() && looks < 1000 {
        looks += 1;
        tokio::process::Command::new("/bin/true").status().await.unwrap();
    }
    assert!(!Path::new(&entry).exists(), "a zombie is left after {looks} looks");
}

#[tokio::test]
async fn a_program_that_ends_when_asked_is_not_killed() {
    let place = Place::new();
    let mut process =
        start(&place.shell("trap 'exit 3' TERM; mkfifo gate; echo running; read line <gate")).await;
    says(&place, "running");
    assert_eq!(process.terminate(Duration::from_secs(60)).await.unwrap(), Exit::Code(3));
    assert_eq!(process.terminate(Duration::from_secs(60)).await.unwrap(), Exit::Code(3));
}

#[tokio::test]
async fn a_program_that_does_not_end_is_killed_with_its_children() {
    let place = Place::new();
    let script =
        "trap '' TERM; mkfifo gate pipe; (echo $$ >child; exec cat gate 3>pipe) & echo running; cat gate";
    let mut process = start(&place.shell(script)).await;
    says(&place, "running");
    // The pipe's other end is open in the child only; it ends when the child is gone.
    let mut pipe = std::fs::File::open(place.path("run/pipe")).unwrap();
    assert!(is_alive(process.identity().pid()));
    assert_eq!(process.terminate(Duration::from_millis(50)).await.unwrap(), Exit::Signal(9));
    assert_eq!(pipe.read(&mut [0]).unwrap(), 0);
}

#[tokio::test]
async fn children_that_stay_behind_go_with_the_program() {
    let place = Place::new();
    let mut process = start(
        &place.shell("mkfifo gate pipe; (exec cat gate 3>pipe) & echo running; read line <pipe; exit 0"),
    )
    .await;
    says(&place, "running");
    let mut pipe = std::fs::File::options().read(true).write(true).open(place.path("run/pipe")).unwrap();
    std::io::Write::write_all(&mut pipe, b"end\n").unwrap();
    let reader = std::fs::File::open(place.path("run/pipe")).unwrap();
    drop(pipe);
    assert_eq!(process.gone().await.unwrap(), Exit::Code(0));
    assert_eq!((&reader).read(&mut [0; 8]).unwrap(), 0, "the child that stayed behind was killed");
}

//! The program as the confiner of programs of others.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use sheaf_sandbox::{CONFINE, Exit, Launcher, Program, Protection, Unwalled};

use crate::world::World;

#[test]
fn the_program_becomes_another_behind_walls() {
    let world = World::new();
    let place = world.path("").canonicalize().unwrap();
    let mut program = Program::new("/bin/sh", place.join("run"), place.join("log"));
    program.args = vec!["-c".to_owned(), "echo $HOME; exit 3".to_owned()];
    let launcher = Launcher::new(Protection::probe(None).unwrap(), Unwalled::Allowed)
        .unwrap()
        .through(env!("CARGO_BIN_EXE_sheaf"), [OsString::from(CONFINE)]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let exit = runtime.block_on(async {
        let held = launcher.hold(&program).await.unwrap();
        held.start().await.unwrap().gone().await.unwrap()
    });
    assert_eq!(exit, Exit::Code(3));
    assert_eq!(world.read("log"), format!("{}\n", place.join("run").display()));
}

#[test]
fn without_an_order_it_ends_and_says_nothing() {
    let ended = Command::new(env!("CARGO_BIN_EXE_sheaf")).arg(CONFINE).stdin(Stdio::null()).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stdout.is_empty() && ended.stderr.is_empty());
}

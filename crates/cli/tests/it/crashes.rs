//! The program killed at named places and random moments, some dozens of times; `cargo xtask soak` goes on from there.

use std::process::{Command, Stdio};

use sheaf_testkit::soak::{self, Options, Places};

use crate::process::Process;
use crate::world::World;

/// How often something is killed in the suite, at least.
const KILLS: u64 = 24;

#[test]
fn kills_in_every_phase_lose_nothing_and_count_nothing_twice() {
    let program = env!("CARGO_BIN_EXE_sheaf").into();
    let report = soak::run(&Options { program, kills: KILLS, seed: 1, places: Places::Both, talk: false });
    eprintln!("{report}");
    assert!(report.num_kills() >= KILLS);
    let places = report.kills.keys().filter(|what| what.starts_with("server at ")).count();
    assert!(places >= 6, "named places must have been reached: {:?}", report.kills);
    assert!(report.acknowledged > 0, "sites must have been answered");
}

/// A server armed through the variable, with more arguments.
fn armed(world: &World, place: &str, arguments: &str) -> Command {
    let mut command = world.sheaf(&format!("serve --listen 127.0.0.1:0 {arguments}"));
    command.env("SHEAF_CRASH_AT", place).stdin(Stdio::null());
    command
}

#[test]
fn a_place_is_honoured_with_the_hidden_flag_only() {
    let world = World::new();
    let mut server = Process::start(armed(&world, "listening", "--crash-points"), &world.path("killed.log"));
    assert_eq!(server.ended(), -9, "{}", server.log());
    assert!(server.log().contains("armed to be killed"), "{}", server.log());
    let output = armed(&world, "nowhere", "--crash-points").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("names no place to crash at"));
    assert!(!output.status.success());
    // An inherited variable alone does nothing.
    let server = world.serve_with(armed(&world, "listening", ""));
    assert!(!server.log().contains("armed"), "{}", server.log());
    assert_eq!(server.drain(), 0);
    assert!(!world.ok("serve --help").contains("crash"), "help does not speak of it");
}

//! `sheaf demo`: its figures, its processes, and that a crash in the middle changes nothing.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::Value;

use crate::process::{children_of, eventually, is_alive, signal};
use crate::world::World;

const ROUNDS_DISTURBED: u32 = 30;

#[track_caller]
fn last_line(world: &World, arguments: &str) -> Value {
    let printed = world.ok(&format!("demo --json {arguments}"));
    serde_json::from_str(printed.lines().last().unwrap()).unwrap()
}

#[test]
fn the_federation_beats_the_sites_alone_and_the_last_line_says_so() {
    let world = World::new();
    let figures = last_line(&world, "--data-dir here");
    let keys: BTreeSet<&str> = figures.as_object().unwrap().keys().map(String::as_str).collect();
    let wanted = ["rounds", "final_accuracy", "alone_accuracy", "final_digest", "seconds", "data_dir"];
    assert_eq!(keys, BTreeSet::from(wanted));
    assert_eq!(figures["rounds"], 20);
    assert_eq!(figures["final_digest"].as_str().unwrap().len(), 64);
    assert!(figures["seconds"].as_f64().unwrap() > 0.0);

    let alone: Vec<f64> = figures["alone_accuracy"]
        .as_object()
        .unwrap()
        .values()
        .map(|value| value.as_f64().unwrap())
        .collect();
    assert_eq!(alone.len(), 5);
    let mean = alone.iter().sum::<f64>() / 5.0;
    let federated = figures["final_accuracy"].as_f64().unwrap();
    assert!(federated >= 0.92, "{figures}");
    assert!(federated >= mean + 0.05, "{figures}");

    let dir = std::path::Path::new(figures["data_dir"].as_str().unwrap());
    assert_eq!(dir, world.path("here").canonicalize().unwrap());
    let metrics: Value = serde_json::from_str(&world.read("here/metrics.json")).unwrap();
    assert_eq!(metrics.as_array().unwrap().iter().filter(|record| record["stage"] == "train").count(), 20);
    assert!(world.path("here/model.safetensors").exists());
    world.ok("journal check here/journal.jsonl");
    assert!(!world.path("here/server.pid").exists(), "nothing runs any more");

    let over_https = last_line(&world, "--data-dir there --transport https");
    assert_eq!(over_https["final_digest"], figures["final_digest"], "the transport is not in the result");
    let other_seed = last_line(&world, "--data-dir other --rounds 1 --seed 1 --sites 3 --strategy median");
    assert_eq!(other_seed["alone_accuracy"].as_object().unwrap().len(), 3);
    assert_ne!(other_seed["final_digest"], figures["final_digest"]);
}

#[test]
fn what_cannot_be_done_is_refused_before_anything_starts() {
    let world = World::new();
    let error = world.refused(2, "demo --sites 100 --data-dir many");
    assert!(error.contains("sites"), "{error}");
    assert!(!world.path("many").exists(), "nothing is left of it");
    world.refused(2, "demo --sites 0");
    std::fs::create_dir(world.path("full")).unwrap();
    world.write("full/something", "of value");
    let error = world.refused(6, "demo --data-dir full");
    assert!(error.contains("full is not empty"), "{error}");
    assert_eq!(world.read("full/something"), "of value");
}

#[test]
fn an_interrupt_stops_all_of_it() {
    let world = World::new();
    let mut demo = world.start("demo", "demo --rounds 5000 --data-dir d");
    demo.says("round  2/5000");
    let children = children_of(demo.pid());
    assert_eq!(children.len(), 6, "a server and five sites");
    demo.signal(Signal::INT);
    assert_eq!(demo.ended(), 0, "{}", demo.log());
    assert!(demo.log().contains("stopped on request"), "{}", demo.log());
    for child in children {
        assert!(!is_alive(child), "{child} is still there");
    }
    assert!(!world.path("d/server.pid").exists());
}

#[test]
fn a_supervisor_that_is_killed_leaves_no_process_behind() {
    let world = World::new();
    let mut demo = world.start("demo", "demo --rounds 5000 --data-dir d");
    demo.says("round  1/5000");
    let children = children_of(demo.pid());
    demo.crash();
    for child in children {
        eventually("a child of a dead supervisor ends", || (!is_alive(child)).then_some(()));
    }
}

#[test]
fn crashes_of_the_server_and_of_a_site_in_the_middle_of_a_round_change_nothing() {
    let world = World::new();
    let undisturbed = last_line(&world, &format!("--rounds {ROUNDS_DISTURBED} --data-dir calm"));

    let mut demo = world.start("demo", &format!("demo --json --rounds {ROUNDS_DISTURBED} --data-dir d"));
    let server = eventually("the server runs", || server_pid(&world));
    let sites: Vec<u32> = eventually("the sites run", || {
        let children = children_of(demo.pid());
        (children.len() == 6).then(|| children.into_iter().filter(|pid| *pid != server).collect())
    });
    demo.says("round  1/30");
    // A site that is halted keeps its round open for as long as wanted.
    let mut halted = sites[4];
    signal(halted, Signal::STOP);
    let mut killed = Vec::new();
    for next in [sites[3], sites[2], sites[1]] {
        round_under_way(&world);
        let server = server_pid(&world).unwrap();
        signal(server, Signal::KILL);
        killed.push(server);
        eventually("another server runs", || server_pid(&world).filter(|pid| !killed.contains(pid)));
        round_under_way(&world);
        signal(next, Signal::STOP);
        signal(halted, Signal::CONT);
        halted = next;
    }
    round_under_way(&world);
    signal(halted, Signal::KILL);
    assert_eq!(demo.ended(), 0, "{}", demo.log());

    let log = demo.log();
    assert_eq!(log.matches("the server died").count(), 3, "{log}");
    assert!(log.contains("starting it again"), "{log}");
    let figures: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(figures["final_digest"], undisturbed["final_digest"], "{log}");
}

fn server_pid(world: &World) -> Option<u32> {
    std::fs::read_to_string(world.path("d/server.pid")).ok()?.trim().parse().ok()
}

/// Waits until every result of a stage but one is in.
fn round_under_way(world: &World) {
    eventually("a round is under way", || {
        let output = world.run("--operator d/server/operator status digits --json");
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        let wait = status["waits"].as_array()?.first()?.clone();
        (wait["wait"] == "submissions" && wait["accepted"] == 4).then_some(())
    });
}

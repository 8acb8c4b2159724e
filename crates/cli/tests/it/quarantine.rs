//! A run whose journal was damaged on disk, as its operator meets it: the server starts, says which run and why, and goes on.

use crate::world::{World, digits_plan};

/// A state store in which a text is another, everywhere it stands.
fn damaged(whole: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = whole.to_vec();
    let stands_at = |at: &usize| whole[*at..].starts_with(from.as_bytes());
    let places: Vec<usize> = (0..whole.len()).filter(stands_at).collect();
    assert!(!places.is_empty(), "{from} is nowhere in the state store");
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

/// Puts a state store in the place of that of a server that is down.
fn put(world: &World, state: &[u8]) {
    for log in ["wal", "shm"] {
        std::fs::remove_file(world.path(format!("sheaf-data/state.sqlite-{log}"))).ok();
    }
    world.write("sheaf-data/state.sqlite", state);
}

#[test]
fn a_damaged_journal_stops_its_run_and_nothing_else() {
    let world = World::new();
    let server = world.serve("");
    let _sites = world.three_sites("softmax");
    world.write("first.toml", digits_plan("first", 2, 4, "softmax", ""));
    world.ok("run first.toml");
    world.ok("stop first --reason marker-one");
    world.write("second.toml", digits_plan("second", 1, 3, "softmax", ""));
    world.ok("run second.toml");
    let model = world.finished("second")["model"].clone();
    let entry = world.journal("first").len();
    // The copy in a backup is one file, without a log beside it.
    world.ok("backup copy");
    assert_eq!(server.drain(), 0);
    let whole = std::fs::read(world.path("copy/state.sqlite")).unwrap();
    let broken = damaged(&whole, "marker-one", "marker-two");
    put(&world, &broken);

    let mut server = world.serve_again("");
    server.says("the run is set aside: its journal is broken");
    let status = world.json("status first");
    assert_eq!((&status["phase"], &status["name"]), (&"broken".into(), &"first".into()), "{status}");
    let reason = status["reason"].as_str().unwrap();
    let says = format!("its journal is broken at entry {entry}: its content does not match its hash");
    assert!(reason.contains(&says) && reason.contains("[SHEAF-007]"), "{reason}");
    for listing in ["ls", "status", "status first"] {
        let told = world.ok(listing);
        assert!(told.contains("broken") && told.contains(&says), "{listing}: {told}");
    }
    assert_eq!(world.entry("federation", "run_set_aside")["entry"], entry);
    assert!(
        world
            .ok("logs federation")
            .contains(&format!("was set aside: its journal is broken at entry {entry}"))
    );
    for command in [
        "replay first",
        "journal export first -o first.jsonl",
        "logs first",
        "stop first",
        "run --extend first --rounds 1",
        "run second.toml --from first",
        "model get first -o first.npz",
        "rm first",
    ] {
        let error = world.refused(6, command);
        assert!(error.contains(&says) && error.contains("[SHEAF-007]"), "{command}: {error}");
    }

    // The other runs are as they were, and new ones go on.
    assert_eq!(world.json("status second")["model"], model);
    world.write("third.toml", digits_plan("third", 1, 3, "softmax", ""));
    world.ok("run third.toml");
    assert_eq!(world.finished("third")["model"], model, "the same plan, the same sites");
    assert_eq!(server.drain(), 0);

    // With its bytes put back the run is what it was.
    put(&world, &whole);
    let server = world.serve_again("");
    assert_eq!(world.json("status first")["phase"], "stopped");
    assert!(world.ok("logs first").contains("marker-one"));
    assert_eq!(server.drain(), 0);

    // And one that is not worth that goes by force.
    put(&world, &broken);
    let _server = world.serve_again("");
    world.ok("rm first --force");
    world.refused(3, "status first");
    assert_eq!(world.json("status second")["model"], model);
}

//! A full store, a full disk, backups, journals that were changed, and what replay can rebuild.

use std::process::Stdio;

use serde_json::Value;

use crate::process::{Process, eventually};
use crate::world::{World, digits_plan, file_plan};

/// Leaves a model of the site's own once `go` is there.
const GATED: &str = "echo > started-$1\nwhile [ ! -e go ]; do sleep 0.02; done\n\
    cp $1.safetensors \"$SHEAF_MODEL_OUT\"\necho '{\"num_examples\": 1}' > \"$SHEAF_METRICS_OUT\"\n";

/// A run whose model and updates have eight megabytes each, up to where its two sites have begun to train.
fn large_run(world: &World) -> [Process; 2] {
    world.write("gated.sh", GATED);
    for (name, value) in [("init", 0.5), ("ada", 0.25), ("bo", 0.75)] {
        world.model(&format!("{name}.safetensors"), &vec![value; 2_000_000]);
    }
    let sites = ["ada", "bo"]
        .map(|name| world.site(name, &format!("--trainer gated --env PATH -- /bin/sh gated.sh {name}")));
    world.write("plan.toml", file_plan("large", 1, 2, "init.safetensors", ""));
    world.ok("run plan.toml");
    for name in ["ada", "bo"] {
        eventually("a site trains", || world.path(format!("started-{name}")).exists().then_some(()));
    }
    sites
}

/// Waits until the state of the run says why it does not go on.
fn told_in_status(world: &World, what: &str) {
    eventually("status says why", || world.ok("status large").contains(what).then_some(()));
    assert_eq!(world.json("status large")["phase"], "running", "nothing is lost by it");
}

#[test]
fn a_full_store_refuses_by_name_and_goes_on_once_there_is_room() {
    let world = World::new();
    let server = world.serve("--max-bytes 20MiB");
    let _sites = large_run(&world);
    world.write("go", "");
    // The model and one update fit; the other update does not.
    told_in_status(&world, "no room");
    assert!(world.ok("status large").contains("[SHEAF-005]"));
    assert!(world.ok("logs federation").contains("no room"));
    assert_eq!(server.drain(), 0);

    let _server = world.serve_again("--max-bytes 200MiB");
    world.finished("large");
}

#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    let world = World::new();
    let server = world.serve("");
    let _sites = large_run(&world);
    assert_eq!(server.drain(), 0);
    // A limit on the size of a file stands for a disk without room; the state store stays well below it.
    let mut limited = world.command("/bin/sh");
    let address = world.read("sheaf-data/operator/address");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 6000; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_sheaf")]);
    limited.args(["serve", "--listen", address.trim()]);
    let server = world.serve_with(limited);
    world.write("go", "");
    told_in_status(&world, "disk of the blob store is full [SHEAF-006]");
    assert_eq!(server.drain(), 0);

    let _server = world.serve_again("");
    world.finished("large");
}

#[test]
fn a_backup_of_a_running_server_becomes_another_one() {
    let world = World::new();
    let server = world.serve("");
    let sites = world.three_sites("softmax");
    world.write("plan.toml", digits_plan("digits", 2, 3, "softmax", ""));
    world.ok("run plan.toml");
    let model = world.finished("digits")["model"].clone();
    // A run goes on while the backup is made: it waits for a site that is not there.
    world.write("open.toml", digits_plan("open", 1, 4, "softmax", ""));
    world.ok("run open.toml");
    let report = world.json("backup copy");
    assert!(report["objects"].as_u64().unwrap() > 0, "{report}");
    world.refused(6, "backup copy");
    assert_eq!(world.json("status open")["phase"], "running");

    world.ok("restore copy --data-dir restored");
    world.refused(6, "restore copy --data-dir restored");
    world.refused(2, "restore . --data-dir nothing");
    drop((sites, server));

    let restored = World::new();
    std::fs::rename(world.path("restored"), restored.path("sheaf-data")).unwrap();
    let _server = restored.serve("");
    assert_eq!(restored.json("status digits")["model"], model);
    assert_eq!(restored.ok("replay digits").matches("rebuilt, the same").count(), 3);
    restored.ok("model get digits -o model.npz");
    assert_eq!(restored.json("status open")["waits"][0]["wait"], "participants");
    assert_eq!(restored.json("nodes").as_array().unwrap().len(), 3);
}

#[test]
fn a_journal_that_was_changed_is_refused() {
    let world = World::new();
    let _server = world.serve("");
    let _sites = world.three_sites("softmax");
    world.write("plan.toml", digits_plan("digits", 1, 3, "softmax", ""));
    world.ok("run plan.toml");
    world.finished("digits");
    world.ok("journal export digits -o good.jsonl");
    world.ok("journal check good.jsonl");
    let good = world.read("good.jsonl");
    let lines: Vec<&str> = good.lines().collect();

    let changed = good.replacen("20", "21", 1);
    let shortened = lines[..lines.len() - 2].join("\n") + "\n" + lines[lines.len() - 1];
    let unsigned = lines[..lines.len() - 1].join("\n");
    let mut swapped = lines.clone();
    swapped.swap(1, 2);
    for bad in [changed, shortened, unsigned, swapped.join("\n"), String::new()] {
        assert_ne!(bad, good);
        world.write("bad.jsonl", &bad);
        world.refused(6, "journal check bad.jsonl");
    }
    // The chain may hold and yet not be this server's.
    let other = World::new();
    let _other_server = other.serve("");
    other.ok("journal export federation -o federation.jsonl");
    let head: Value = serde_json::from_str(other.read("federation.jsonl").lines().last().unwrap()).unwrap();
    world.write("other.pem", head["head"]["public_key"].as_str().unwrap());
    world.refused(6, "journal check good.jsonl --key other.pem");
}

#[test]
fn replay_says_what_it_could_not_rebuild() {
    let world = World::new();
    let _server = world.serve("");
    let _sites = world.three_sites("softmax");
    for (name, keep) in [("kept", "keep_updates = \"run\""), ("gone", "seed = 1")] {
        let plan = digits_plan(name, 2, 3, "softmax", "").replace("keep_updates = \"run\"", keep);
        world.write("plan.toml", plan);
        world.ok("run plan.toml");
        world.finished(name);
    }
    assert_eq!(world.ok("replay kept").matches("rebuilt, the same").count(), 3);
    let replayed = world.ok("replay gone");
    assert!(replayed.contains("not rebuilt:"), "{replayed}");
    assert!(!replayed.contains("DIFFERENT"), "{replayed}");
}

#[test]
fn an_export_to_standard_output_is_the_file() {
    let world = World::new();
    let _server = world.serve("");
    let printed = world.sheaf("journal export federation").stderr(Stdio::null()).output().unwrap().stdout;
    world.write("printed.jsonl", &printed);
    world.ok("journal check printed.jsonl");
}

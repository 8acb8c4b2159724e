//! A full store, a full disk, backups, journals that were changed, and what replay can rebuild.

use std::process::Stdio;

use serde_json::Value;

use crate::process::{Process, eventually};
use crate::world::{World, digits_plan, file_plan};

/// Leaves the model it was handed, as large as that is.
const ECHO: &str =
    "cp \"$SHEAF_MODEL_IN\" \"$SHEAF_MODEL_OUT\"\necho '{\"num_examples\": 1}' > \"$SHEAF_METRICS_OUT\"\n";
/// Elements of a model of eight megabytes.
const LARGE: usize = 2_000_000;

fn echoing(world: &World, name: &str) -> Process {
    world.write("echo.sh", ECHO);
    world.site(name, "--trainer echo --env PATH -- /bin/sh echo.sh")
}

#[test]
fn a_full_store_refuses_by_name_and_goes_on_once_there_is_room() {
    let world = World::new();
    let server = world.serve("--max-bytes 20MiB");
    world.model("init.safetensors", &vec![0.5; LARGE]);
    let _sites = [echoing(&world, "ada"), echoing(&world, "bo")];
    world.write("plan.toml", file_plan("large", 1, 2, "init.safetensors", ""));
    world.ok("run plan.toml");
    // The model, one update: the other, or what they are folded into, does not fit.
    eventually("status says that the store is full", || {
        let status = world.ok("status large");
        (status.contains("full") || status.contains("max_bytes")).then_some(())
    });
    assert_eq!(world.json("status large")["phase"], "running", "nothing is lost by it");
    assert_eq!(server.drain(), 0);

    let _server = world.serve_again("--max-bytes 200MiB");
    world.finished("large");
}

#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    let world = World::new();
    world.model("init.safetensors", &vec![0.5; LARGE]);
    // A limit on the size of a file stands for a disk without room; the state store stays well below it.
    let limited = |kib: u32, listen: &str| {
        let mut command = world.command("/bin/sh");
        let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", kib * 2);
        command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_sheaf"), "serve", "--listen", listen]);
        command
    };
    let server = world.serve_with(limited(12_000, "127.0.0.1:0"));
    let _sites = [echoing(&world, "ada"), echoing(&world, "bo")];
    world.write("plan.toml", file_plan("large", 1, 2, "init.safetensors", ""));
    let refused = world.run("run plan.toml");
    if refused.status.success() {
        eventually("status says that there is no room", || {
            world.ok("status large").contains("full").then_some(())
        });
    } else {
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(error.contains("full"), "{error}");
    }
    assert_eq!(server.drain(), 0);
    let _server = world.serve_again("");
    if !refused.status.success() {
        world.ok("run plan.toml");
    }
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

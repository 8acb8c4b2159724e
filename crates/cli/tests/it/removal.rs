//! `sheaf rm` as its users meet it.

use crate::world::{World, digits_plan};

#[test]
fn a_run_is_removed_with_everything_of_it() {
    let world = World::new();
    let server = world.serve("");
    let _sites = world.three_sites("softmax");
    world.write("plan.toml", digits_plan("digits", 1, 3, "softmax", ""));
    world.ok("run plan.toml");
    let model = world.finished("digits")["model"].clone();
    world.write("open.toml", digits_plan("open", 1, 4, "softmax", ""));
    world.ok("run open.toml");
    world.ok("run plan.toml --from digits");
    let warm = world.json("ls")[0]["run"].as_str().unwrap().to_owned();
    let entries = world.journal("open");

    let refused = world.refused(6, "rm open");
    assert!(refused.contains("goes on") && refused.contains("--force"), "{refused}");
    let removed = world.json("rm open --force");
    assert_eq!(removed["name"], "open");
    // It was stopped first: the entry that says so is its last.
    assert_eq!(removed["entries"], entries.len() + 1);
    let noted = world.entry("federation", "run_removed");
    assert_eq!(
        (&noted["name"], &noted["head"], &noted["run"]),
        (&removed["name"], &removed["head"], &removed["run"])
    );
    world.refused(3, "status open");
    world.refused(3, "rm open");

    // The first run of the name goes; the one that started from it stays, and finishes.
    world.finished(&warm);
    let first = world.json("ls").as_array().unwrap().iter().find(|run| run["run"] != warm.as_str()).unwrap()
        ["run"]
        .clone();
    let told = world.ok(&format!("rm {}", first.as_str().unwrap()));
    assert!(told.contains("digits is removed"), "{told}");
    world.ok(&format!("rm {warm}"));
    assert_eq!(world.ok("ls --json").trim(), "[]");
    assert_eq!(server.drain(), 0);

    // Nothing comes back with the next start, and the name is free.
    let _server = world.serve_again("");
    assert_eq!(world.ok("ls --json").trim(), "[]");
    assert!(world.ok("logs federation").contains("(digits) was removed by"));
    world.ok("run plan.toml");
    assert_eq!(world.finished("digits")["model"], model);
}

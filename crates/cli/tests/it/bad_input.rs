//! What cannot be done is refused by name, with the line or the place where it stands.

use crate::world::{World, digits_plan};

#[test]
fn plans_are_refused_with_the_line() {
    let world = World::new();
    let plan = digits_plan("bad", 2, 3, "mlp", "");
    let cases = [
        ("rounds = 2", "rounds = 2\nroundz = 3", "line 4", "roundz"),
        ("rounds = 2", "rounds = -1", "line 3", "rounds"),
        ("quorum = 1.0", "quorum = 1.5", "line 11", "quorum"),
        ("quorum = 1.0", "quorum = 1.0\ndeadline = 10", "line 12", "deadline"),
        ("kind = \"fedavg\"", "kind = \"magic\"", "line 8", "magic"),
        ("kind = \"fedavg\"", "kind = \"krum\"\nbyzantine = 1", "", "byzantine"),
        ("[cohort]", "[cohort", "line 9", ""),
    ];
    for (from, to, place, what) in cases {
        assert!(plan.contains(from));
        world.write("plan.toml", plan.replace(from, to));
        for command in ["run plan.toml", "run plan.toml --dry-run"] {
            let error = world.refused(2, command);
            assert!(error.contains(what) && error.contains(place), "{to:?}: {error}");
            assert!(error.contains("plan.toml: line ") && error.contains("[SHEAF-012]"), "{to:?}: {error}");
        }
    }
}

#[test]
fn a_model_that_does_not_fit_its_plan_is_refused_before_it_is_sent() {
    let world = World::new();
    let _server = world.serve("");
    world.write("plan.toml", crate::world::file_plan("x", 1, 1, "missing.safetensors", ""));
    let error = world.run("run plan.toml");
    assert!(String::from_utf8_lossy(&error.stderr).contains("missing.safetensors"));
    assert!(!error.status.success());
    world.write("init.safetensors", "not a model");
    world.write("plan.toml", crate::world::file_plan("x", 1, 1, "init.safetensors", ""));
    let error = world.run("run plan.toml");
    assert!(String::from_utf8_lossy(&error.stderr).contains("init.safetensors"), "{error:?}");
    assert_eq!(error.status.code(), Some(2), "{error:?}");
}

#[test]
fn what_is_not_there_is_named() {
    let world = World::new();
    let error = world.refused(2, "ls");
    assert!(error.contains("sheaf-data/operator") && error.contains("--operator"), "{error}");
    let server = world.serve("");
    for command in [
        "status nosuch",
        "logs nosuch",
        "stop nosuch",
        "replay nosuch",
        "journal export nosuch",
        "model get nosuch -o x.npz",
        "run --extend nosuch --rounds 1",
        "revoke nosuch",
    ] {
        let error = world.refused(3, command);
        assert!(error.contains("nosuch"), "{command}: {error}");
    }
    world.refused(2, "model get nosuch -o x.bin");
    world.refused(2, "invite Bad/Name");
    world.refused(3, "run nosuch.toml");
    assert_eq!(server.drain(), 0);
    let error = world.refused(5, "ls");
    assert!(error.contains("is it running?"), "{error}");
}

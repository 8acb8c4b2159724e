//! Federations put together by hand: every command once, and the result that does not depend on how it came about.

use serde_json::Value;

use crate::process::eventually;
use crate::world::{World, body, digits_plan, file_plan};

#[test]
fn every_command_of_a_federation_by_hand() {
    let world = World::new();
    let server = world.serve("");
    let sites = world.three_sites("mlp");
    let evaluate =
        "[task.evaluate]\nevery = 1\nmetric = \"accuracy\"\nbetter = \"higher\"\n[task.init]\nhidden = 8\n";
    world.write("plan.toml", digits_plan("digits", 2, 3, "mlp", evaluate));

    let told = world.ok("run plan.toml --dry-run");
    assert!(told.contains("digits, 2 rounds") && told.contains("it would begin at once"), "{told}");
    let run = world.json("run plan.toml")["run"].as_str().unwrap().to_owned();
    let followed = world.ok("logs -f digits");
    assert!(followed.contains("bo handed in a result on 23 examples (accuracy"), "{followed}");
    let status = world.finished("digits");
    assert_eq!(status["run"], *run);
    assert_eq!(status["round"], 2);

    let nodes = world.json("nodes");
    assert_eq!(nodes.as_array().unwrap().iter().filter(|site| site["present"] == true).count(), 3, "{nodes}");
    assert!(world.ok("nodes").contains("cy"));
    assert_eq!(world.json("ls")[0]["run"], *run);
    assert!(world.ok("ls").contains("all 2 rounds done"));
    assert_eq!(world.json("ls --running"), Value::Array(Vec::new()));
    assert!(world.ok("status").contains("no run goes on"));
    assert!(world.ok(&format!("status {}", &run[..6])).contains("best model: round"));

    let last = world.json("model get digits -o last.safetensors");
    assert_eq!(last["digest"], status["model"]);
    assert_eq!(world.json("model get digits --round 2 -o two.npz")["digest"], status["model"]);
    assert_ne!(world.json("model get digits --round 0 -o zero.npz")["digest"], status["model"]);
    world.ok("model get digits --best -o best.npz");
    for file in ["last.safetensors", "two.npz", "zero.npz", "best.npz"] {
        assert!(world.path(file).metadata().unwrap().len() > 0);
    }

    let replay = world.json("replay digits");
    let verdicts: Vec<&Value> =
        replay["rounds"].as_array().unwrap().iter().map(|round| &round["verdict"]).collect();
    assert_eq!(verdicts.len(), 3);
    assert!(world.ok("replay digits").matches("rebuilt, the same").count() == 3, "{verdicts:?}");
    world.ok("journal export digits -o digits.jsonl");
    assert!(world.ok("journal check digits.jsonl").contains("the chain holds"));
    world.ok("journal export federation -o federation.jsonl");
    world.ok("journal check federation.jsonl");

    let extended = world.run("run --extend digits --rounds 1 --follow");
    let told = String::from_utf8_lossy(&extended.stderr);
    assert!(extended.status.success() && told.contains("extended by 1 rounds"), "{told}");
    assert_eq!(world.finished("digits")["round"], 3);
    let warm = world.ok("run plan.toml --from digits --follow --json");
    let warm: Value = serde_json::from_str(&warm).unwrap();
    assert_eq!((warm["phase"].as_str(), warm["round"].as_u64()), (Some("finished"), Some(2)));
    let stopped = world.refused(6, "stop digits");
    assert!(stopped.contains("has ended"), "{stopped}");

    world.write("many.toml", digits_plan("many", 2, 9, "mlp", ""));
    world.ok("run many.toml");
    world.status_until("many", "it waits for participants", |status| {
        status["waits"][0]["wait"] == "participants" && status["waits"][0]["needed"] == 9
    });
    assert!(world.ok("run many.toml --dry-run").contains("3 of 9 present"));
    assert!(world.ok("stop many --reason enough").contains("is stopped"));
    assert_eq!(world.json("status many")["reason"], "operator: enough");

    for site in sites {
        assert_eq!(site.drain(), 0);
    }
    assert_eq!(server.drain(), 0);
}

#[test]
fn the_digest_does_not_depend_on_transport_or_order_of_start() {
    let world = World::new();
    let _server = world.serve("");
    let _sites = world.three_sites("softmax");
    world.write("plan.toml", digits_plan("digits", 3, 3, "softmax", ""));
    world.ok("run plan.toml");
    let mixed = world.finished("digits")["model"].clone();

    let other = World::new();
    let _other_server = other.serve("");
    let start = |name: &str, idx: usize, more: &str| {
        other.digits(&format!("{name}.csv"), 3 * idx + 20, idx * 100);
        other.site(name, &format!("--data {name}.csv --classes 10 --scale 0.0625 --trainer softmax {more}"))
    };
    let _sites = [start("cy", 2, ""), start("ada", 0, "--transport https"), start("bo", 1, "")];
    other.write("plan.toml", digits_plan("digits", 3, 3, "softmax", ""));
    other.ok("run plan.toml");
    assert_eq!(other.finished("digits")["model"], mixed);
}

/// A trainer whose result is a file of its own, left once `go-SITE` is there; it notes every start.
const GATED: &str = "#!/bin/sh\necho started >> started-$1\nwhile [ ! -e go-$1 ]; do sleep 0.02; done\n\
    cp $1.safetensors \"$SHEAF_MODEL_OUT\"\necho '{\"num_examples\": '$2'}' > \"$SHEAF_METRICS_OUT\"\n";

/// A site whose results weigh `examples`: a whole number or not.
fn gated(world: &World, site: &str, examples: f64) -> crate::process::Process {
    world.site(site, &format!("--trainer gated --env PATH -- /bin/sh gated.sh {site} {examples}"))
}

/// Models whose sum in double precision depends on the order of its terms.
fn ill_conditioned(world: &World) {
    world.model("init.safetensors", &[0.0, 0.0, 0.0]);
    world.model("ada.safetensors", &[1e30, 1.0, 0.1]);
    world.model("bo.safetensors", &[1.0, 1e-9, 0.3]);
    world.model("cy.safetensors", &[-1e30, 3e-17, 0.7]);
    world.write("gated.sh", GATED);
    world.write("plan.toml", file_plan("sum", 1, 3, "init.safetensors", ""));
}

#[test]
fn the_digest_does_not_depend_on_the_order_of_arrival() {
    let mut digests = Vec::new();
    for order in [["ada", "bo", "cy"], ["cy", "ada", "bo"], ["bo", "cy", "ada"]] {
        let world = World::new();
        let _server = world.serve("");
        ill_conditioned(&world);
        let _sites = ["ada", "bo", "cy"].map(|site| gated(&world, site, 0.25));
        world.ok("run plan.toml");
        for (count, site) in order.iter().enumerate() {
            world.write(&format!("go-{site}"), "");
            eventually("the result is in", || (submitted(&world).len() > count).then_some(()));
        }
        assert_eq!(submitted(&world), order);
        digests.push(world.finished("sum")["model"].clone());
    }
    assert!(digests.iter().all(|digest| digest == &digests[0] && digest.is_string()), "{digests:?}");
}

fn submitted(world: &World) -> Vec<String> {
    let entries = world.journal("sum");
    let results = entries.iter().filter(|entry| entry["kind"] == "submitted");
    results.map(|entry| body(entry)["site"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_result_survives_the_crash_of_its_participant_and_of_the_server() {
    let world = World::new();
    let server = world.serve("");
    ill_conditioned(&world);
    world.write("plan.toml", file_plan("sum", 1, 1, "init.safetensors", ""));
    let site = gated(&world, "ada", 7.5);
    world.ok("run plan.toml");
    eventually("the trainer runs", || world.path("started-ada").exists().then_some(()));
    server.crash();
    world.write("go-ada", "");
    // The result is on the site's disk before it is offered to a server that is not there.
    let mut site = site;
    site.says("handing in");
    site.crash();
    std::fs::remove_file(world.path("go-ada")).unwrap();

    let _server = world.serve_again("");
    let _site = world.site("ada", "--trainer gated --env PATH -- /bin/sh gated.sh ada 7");
    world.finished("sum");
    assert_eq!(world.read("started-ada"), "started\n", "it trained once");
}

#[test]
fn two_runs_at_once_over_the_same_sites_do_not_touch_each_other() {
    let world = World::new();
    let _server = world.serve("");
    ill_conditioned(&world);
    let _sites = ["ada", "bo", "cy"].map(|site| gated(&world, site, 0.25));
    world.write("other.toml", file_plan("other", 2, 3, "init.safetensors", ""));
    world.ok("run plan.toml");
    world.ok("run other.toml");
    for run in ["sum", "other"] {
        world.status_until(run, "it waits for results", |status| status["waits"][0]["wait"] == "submissions");
    }
    assert_eq!(world.json("ls --running").as_array().unwrap().len(), 2);
    ["ada", "bo", "cy"].iter().for_each(|site| world.write(&format!("go-{site}"), ""));
    // Every round of either run adds up the same files.
    assert_eq!(world.finished("sum")["model"], world.finished("other")["model"]);
}

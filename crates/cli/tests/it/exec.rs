//! Commands as trainers: the examples that are shipped, and commands that go wrong.

use bytes::Bytes;
use serde_json::Value;
use sheaf_tensor::{ParamSet, safetensors};

use crate::process::Process;
use crate::world::{World, file_plan};

/// Where the examples are.
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");

/// A Python that has what `tests/requirements.txt` names.
fn python() -> String {
    std::env::var("SHEAF_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

#[test]
fn the_numpy_example_and_the_built_in_softmax_make_the_same_model() {
    let world = World::new();
    let _server = world.serve("");
    let _sites: Vec<Process> = ["ada", "bo"]
        .iter()
        .enumerate()
        .map(|(idx, name)| {
            world.digits(&format!("{name}.csv"), 60 + 20 * idx, 200 * idx);
            let data = world.path(format!("{name}.csv"));
            let config = format!(
                "[trainers.ours]\nkind = \"softmax\"\ndata = {data:?}\nnum_classes = 10\nscale = 0.0625\n\
                 [trainers.numpy]\nkind = \"exec\"\nworkdir = \"{EXAMPLES}/numpy_softmax\"\nenv = [\"PATH\"]\n\
                 command = [{:?}, \"train.py\", {data:?}, \"--scale\", \"0.0625\", \"--classes\", \"10\"]\n",
                python()
            );
            world.write(&format!("{name}.toml"), config);
            world.site(name, &format!("--config {name}.toml"))
        })
        .collect();
    let models = ["ours", "numpy"].map(|trainer| {
        let plan = format!(
            "[run]\nname = \"{trainer}\"\nrounds = 3\n[model]\ninit = \"trainer\"\n[strategy]\nkind = \"fedavg\"\n\
             [cohort]\nmin = 2\nquorum = 1.0\n[task]\ntrainer = \"{trainer}\"\n\
             [task.train]\nepochs = 4\nbatch_size = 0\nlearning_rate = 0.5\n[task.evaluate]\nevery = 1\n"
        );
        world.write("plan.toml", plan);
        world.ok("run plan.toml");
        world.finished(trainer);
        world.ok(&format!("model get {trainer} -o {trainer}.safetensors"));
        safetensors::read(Bytes::from(std::fs::read(world.path(format!("{trainer}.safetensors"))).unwrap())).unwrap()
    });
    assert_close(&models[0], &models[1]);
}

/// Every tensor within 1e-5 of the other, relative to its largest element.
#[track_caller]
fn assert_close(left: &ParamSet, right: &ParamSet) {
    assert_eq!(left.specs(), right.specs());
    for (left, right) in left.iter().zip(right.iter()) {
        let (a, b) = (left.to_f64().unwrap(), right.to_f64().unwrap());
        let scale = a.iter().fold(0.0_f64, |max, value| max.max(value.abs()));
        assert!(scale > 0.0, "{} is all zeros", left.name());
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() <= 1e-5 * scale, "{}: {a} and {b}", left.name());
        }
    }
}

#[test]
fn a_plain_python_function_is_a_trainer() {
    let world = World::new();
    let _server = world.serve("");
    world.write("points.csv", "0,1\n1,3\n2,5\n3,7\n");
    let (python, points) = (python(), world.path("points.csv"));
    let _site = world.site(
        "ada",
        &format!(
            "--trainer line --env PATH --workdir {EXAMPLES}/python_function -- {python} line.py {}",
            points.display()
        ),
    );
    world.write(
        "plan.toml",
        "[run]\nname = \"line\"\nrounds = 3\n[model]\ninit = \"trainer\"\n[strategy]\nkind = \"fedavg\"\n[cohort]\nmin = 1\n\
         [task]\ntrainer = \"line\"\n[task.train]\nsteps = 200\nlearning_rate = 0.1\n\
         [task.evaluate]\nevery = 1\nmetric = \"loss\"\nbetter = \"lower\"\n",
    );
    world.ok("run plan.toml");
    let status = world.finished("line");
    let loss = status["best"][1].as_f64().unwrap();
    assert!(loss < 1e-3, "{status}");
}

/// What goes wrong, how the command does it, and what the operator reads.
const FAULTS: [(&str, &str, &str); 5] = [
    ("fails", "echo out of luck >&2; exit 3", "out of luck"),
    ("sleeps", "sleep 600", "did not end within 300ms"),
    (
        "babbles",
        "echo nonsense > \"$SHEAF_MODEL_OUT\"; echo '{\"num_examples\": 1}' > \"$SHEAF_METRICS_OUT\"",
        "safetensors",
    ),
    (
        "miscounts",
        "cp \"$SHEAF_MODEL_IN\" \"$SHEAF_MODEL_OUT\"; echo '{\"num_examples\": -1}' > \"$SHEAF_METRICS_OUT\"",
        "num_examples",
    ),
    (
        "overflows",
        "cp nan.safetensors \"$SHEAF_MODEL_OUT\"; echo '{\"num_examples\": 1}' > \"$SHEAF_METRICS_OUT\"",
        "finite",
    ),
];

#[test]
fn a_command_that_goes_wrong_is_told_with_its_reason_and_given_up_by_name() {
    let world = World::new();
    let _server = world.serve("");
    world.model("init.safetensors", &[1.0, 2.0]);
    world.model("nan.safetensors", &[1.0, f32::NAN]);
    let mut config = "tasks_max = 8\n".to_owned();
    for (name, script, _) in FAULTS {
        world.write(&format!("{name}.sh"), format!("{script}\n"));
        config += &format!(
            "[trainers.{name}]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"{name}.sh\"]\nenv = [\"PATH\"]\n\
             timeout = \"300ms\"\ngrace = \"100ms\"\n"
        );
    }
    world.write("site.toml", config);
    let _site = world.site("ada", "--config site.toml");
    for (name, _, _) in FAULTS {
        let more = format!("attempts = 2\n[task]\ntrainer = \"{name}\"\n");
        world.write("plan.toml", file_plan(name, 1, 1, "init.safetensors", &more));
        world.ok("run plan.toml");
    }
    for (name, _, reason) in FAULTS {
        let status = world.over(name);
        assert_eq!(status["phase"], "failed", "{name}: {status}");
        let why = status["reason"].as_str().unwrap();
        assert!(why.contains("ada"), "{name}: {why}");
        let error = last_error(&status);
        assert!(error.contains(reason), "{name}: {error}");
        let kinds: Vec<Value> = world.journal(name).into_iter().map(|entry| entry["kind"].clone()).collect();
        let attempts = kinds.iter().filter(|kind| *kind == "failed" || *kind == "refused").count();
        assert_eq!(attempts, 2, "{name}: {kinds:?}");
        assert!(world.ok(&format!("logs {name}")).contains(reason), "{name}");
    }
}

fn last_error(status: &Value) -> &str {
    status["sites"][0]["last_error"].as_str().unwrap_or_default()
}

//! The examples in Python, run as a site would run them.

use std::path::PathBuf;

use sheaf_runtime::Compute;

use super::*;

/// The Python the test command provides.
fn python() -> String {
    std::env::var("SHEAF_TEST_PYTHON")
        .expect("SHEAF_TEST_PYTHON must name a Python that has NumPy; `./test` makes one and sets it")
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

#[tokio::test]
async fn numpy_and_the_built_in_softmax_end_with_the_same_model() {
    let dir = tempfile::tempdir().unwrap();
    let data = digits().subset(&(0..300).collect::<Vec<_>>()).unwrap();
    let path = dir.path().join("shard.csv");
    let line = |row: usize| {
        let features: Vec<String> = data.row(row).iter().map(|value| (value * 16.0).to_string()).collect();
        format!("{},{}\n", features.join(","), data.labels()[row])
    };
    std::fs::write(&path, (0..data.len()).map(line).collect::<String>()).unwrap();
    let path = path.to_str().unwrap();
    let command = [&python(), "train.py", path, "--scale", "0.0625", "--classes", "10"];
    let spec = ExecSpec { workdir: example("numpy_softmax"), ..ExecSpec::new(command) };
    let numpy = ExecTrainer::new(spec, dir.path(), Compute::new(2)).unwrap();
    let builtin = BuiltinTrainer::softmax(data, None, Compute::new(2));

    let first = numpy.perform(&job("init", 0, None, dir.path())).await.unwrap().model.unwrap();
    assert_eq!(builtin.perform(&job("init", 0, None, dir.path())).await.unwrap().model, Some(first.clone()));
    let learning = config(&[
        ("epochs", ConfigValue::Int(10)),
        ("batch_size", ConfigValue::Int(0)),
        ("learning_rate", ConfigValue::Float(0.5)),
        ("momentum", ConfigValue::Float(0.5)),
        ("weight_decay", ConfigValue::Float(0.001)),
        ("proximal_mu", ConfigValue::Float(0.01)),
    ]);
    let (mut by_numpy, mut by_builtin) = (first.clone(), first);
    for round in 1..=3 {
        for (trainer, model) in [(&numpy as &dyn Trainer, &mut by_numpy), (&builtin, &mut by_builtin)] {
            let job =
                TrainJob { config: learning.clone(), ..job("train", round, Some(model.clone()), dir.path()) };
            *model = trainer.perform(&job).await.unwrap().model.unwrap();
        }
    }
    for (one, other) in by_numpy.iter().zip(&by_builtin) {
        assert_eq!(one.spec, other.spec);
        for (a, b) in one.to_f64().unwrap().into_iter().zip(other.to_f64().unwrap()) {
            assert!((a - b).abs() <= 1e-5 * a.abs().max(b.abs()), "{}: {a} and {b}", one.name());
        }
    }
    let one = numpy.perform(&job("evaluate", 3, Some(by_numpy), dir.path())).await.unwrap();
    let other = builtin.perform(&job("evaluate", 3, Some(by_builtin), dir.path())).await.unwrap();
    assert_eq!(one.num_examples, other.num_examples);
    assert!(one.metrics["accuracy"] > 0.9, "{:?}", one.metrics);
    for name in ["loss", "accuracy"] {
        assert!((one.metrics[name] - other.metrics[name]).abs() < 1e-5, "{name}");
    }
}

#[tokio::test]
async fn a_plain_function_is_a_trainer() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("points.csv"), "0,1\n1,3\n2,5\n").unwrap();
    let points = dir.path().join("points.csv");
    let command = [&python(), "-B", "line.py", points.to_str().unwrap()];
    let spec = ExecSpec { workdir: example("python_function"), ..ExecSpec::new(command) };
    let line = ExecTrainer::new(spec, dir.path(), Compute::new(2)).unwrap();
    let first = line.perform(&job("init", 0, None, dir.path())).await.unwrap().model.unwrap();
    let mut train = job("train", 1, Some(first), dir.path());
    train.config = config(&[("steps", ConfigValue::Int(500))]);
    let result = line.perform(&train).await.unwrap();
    assert_eq!(result.num_examples, 3.0);
    let model = result.model.unwrap();
    let value = |name: &str| model.get(name).unwrap().to_f64().unwrap()[0];
    assert!((value("slope") - 2.0).abs() < 1e-3 && (value("intercept") - 1.0).abs() < 1e-3);
    let score = line.perform(&job("evaluate", 1, Some(model.clone()), dir.path())).await.unwrap();
    assert!(score.metrics["loss"] < 1e-5, "{:?}", score.metrics);
    // An exception reaches the server as its last lines.
    train.config = config(&[("steps", ConfigValue::Text("many".into()))]);
    let error = line.perform(&train).await.unwrap_err().to_string();
    assert!(error.contains("exit status: 1") && error.contains("TypeError"), "{error}");
}

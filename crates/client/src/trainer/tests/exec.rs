//! Commands as trainers: what they are given, what is believed of what they leave, and that nothing of them stays behind.

use std::io::Read as _;
use std::sync::Arc;

use sheaf_domain::{ByteSize, Span};
use sheaf_runtime::{Compute, TaskScope};
use sheaf_tensor::safetensors;

use super::*;

/// A command that is the given shell script.
fn script(text: &str) -> ExecSpec {
    ExecSpec { grace: Span::from_millis(200), ..ExecSpec::new(["/bin/sh", "-c", text]) }
}

fn trainer(spec: ExecSpec, dir: &Path) -> ExecTrainer {
    ExecTrainer::new(spec, dir, Compute::new(2)).unwrap()
}

fn model() -> ParamSet {
    ParamSet::new(vec![tensor("b", &[1.0, 2.0]), tensor("a", &[3.0])]).unwrap()
}

async fn refusal(text: &str, stage: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let model = (stage != "init").then(model);
    trainer(script(text), dir.path())
        .perform(&job(stage, 1, model, dir.path()))
        .await
        .unwrap_err()
        .to_string()
}

/// A script that leaves the model it was given, and these metrics.
fn leaves(metrics: &str) -> String {
    format!("/bin/cat \"$SHEAF_MODEL_IN\" > \"$SHEAF_MODEL_OUT\"; echo '{metrics}' > \"$SHEAF_METRICS_OUT\"")
}

const FINE: &str = "{\"num_examples\": 12, \"metrics\": {\"loss\": 0.5}}";

#[tokio::test]
async fn a_job_goes_in_and_a_result_comes_out() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{}; /bin/cp \"$SHEAF_JOB\" seen.json; echo said; pwd", leaves(FINE));
    let mut job = job("train", 3, Some(model()), dir.path());
    job.config = config(&[("epochs", ConfigValue::Int(1)), ("rate", ConfigValue::Float(1.0))]);
    let result = trainer(script(&text), dir.path()).perform(&job).await.unwrap();
    assert_eq!(result.model, Some(model()));
    assert_eq!((result.num_examples, result.metrics["loss"]), (12.0, 0.5));

    let seen = std::fs::read_to_string(dir.path().join("seen.json")).unwrap();
    // Whole and real numbers stay apart.
    assert!(seen.contains("\"epochs\": 1,") && seen.contains("\"rate\": 1.0"), "{seen}");
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    for (key, value) in [
        ("format", serde_json::json!(1)),
        ("run", serde_json::json!("0000000000000abc")),
        ("run_name", serde_json::json!("digits")),
        ("round", serde_json::json!(3)),
        ("stage", serde_json::json!("train")),
        ("site", serde_json::json!("site-a")),
        ("seed", serde_json::json!(7)),
        ("model_out", serde_json::json!(dir.path().join("model-out.safetensors"))),
    ] {
        assert_eq!(seen[key], value, "{key}");
    }
    let log = std::fs::read_to_string(dir.path().join("trainer.log")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[0], "said");
    assert_eq!(Path::new(lines[1]).canonicalize().unwrap(), dir.path().canonicalize().unwrap());
}

#[tokio::test]
async fn the_environment_is_empty_but_for_the_list_and_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("/usr/bin/env > vars; {}", leaves(FINE));
    let spec = ExecSpec { env: vec!["CARGO_MANIFEST_DIR".into(), "SURELY_NOT_SET".into()], ..script(&text) };
    let result = trainer(spec, dir.path()).perform(&job("train", 1, Some(model()), dir.path())).await;
    assert!(result.is_ok(), "{result:?}");
    let vars = std::fs::read_to_string(dir.path().join("vars")).unwrap();
    let mut names: Vec<&str> = vars.lines().filter_map(|line| line.split('=').next()).collect();
    // What the shell itself adds.
    names.retain(|name| !matches!(*name, "PWD" | "OLDPWD" | "_" | "SHLVL"));
    names.sort_unstable();
    let expected = [
        "CARGO_MANIFEST_DIR",
        "SHEAF_JOB",
        "SHEAF_METRICS_OUT",
        "SHEAF_MODEL_IN",
        "SHEAF_MODEL_OUT",
        "SHEAF_SCRATCH",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn a_first_model_is_made_of_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = Vec::new();
    safetensors::write(&model(), &BTreeMap::new(), &mut file).unwrap();
    std::fs::write(dir.path().join("first"), file).unwrap();
    let text = format!(
        "test -z \"$SHEAF_MODEL_IN\" && /bin/cp first \"$SHEAF_MODEL_OUT\"; echo '{FINE}' > \"$SHEAF_METRICS_OUT\""
    );
    let scratch = tempfile::tempdir().unwrap();
    let result =
        trainer(script(&text), dir.path()).perform(&job("init", 0, None, scratch.path())).await.unwrap();
    assert_eq!(result.model, Some(model()));
    let evaluate = format!("echo '{FINE}' > \"$SHEAF_METRICS_OUT\"");
    let job = job("evaluate", 1, Some(model()), scratch.path());
    assert_eq!(trainer(script(&evaluate), dir.path()).perform(&job).await.unwrap().model, None);
}

#[tokio::test]
async fn the_models_own_order_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let reversed = ParamSet::new(vec![tensor("a", &[9.0]), tensor("b", &[8.0, 7.0])]).unwrap();
    let mut file = Vec::new();
    safetensors::write(&reversed, &BTreeMap::new(), &mut file).unwrap();
    std::fs::write(dir.path().join("out"), file).unwrap();
    let text = format!("/bin/cp out \"$SHEAF_MODEL_OUT\"; echo '{FINE}' > \"$SHEAF_METRICS_OUT\"");
    let scratch = tempfile::tempdir().unwrap();
    let job = job("train", 1, Some(model()), scratch.path());
    let result = trainer(script(&text), dir.path()).perform(&job).await.unwrap();
    let expected = ParamSet::new(vec![tensor("b", &[8.0, 7.0]), tensor("a", &[9.0])]).unwrap();
    assert_eq!(result.model, Some(expected));
}

#[tokio::test]
async fn a_failure_carries_the_last_lines() {
    let error =
        refusal("i=0; while [ $i -lt 50 ]; do echo line $i >&2; i=$((i+1)); done; exit 3", "train").await;
    assert!(error.contains("exit status: 3") && error.ends_with("line 48 | line 49"), "{error}");
    assert!(!error.contains("line 39 |") && error.len() < 2_500, "{error}");
    let error = refusal("kill -KILL $$", "train").await;
    assert!(error.contains("signal: 9"), "{error}");
    // A flood is neither held up nor kept.
    let error = refusal("/bin/head -c 3000000 /dev/zero | /usr/bin/tr '\\000' x >&2; exit 1", "train").await;
    assert!(error.len() < 2_500, "{}", error.len());
}

#[tokio::test]
async fn what_breaks_the_contract_is_refused() {
    for (metrics, word) in [
        ("", "EOF"),
        ("{\"num_examples\": 0}", "num_examples of 0"),
        ("{\"num_examples\": -3}", "positive"),
        ("{\"num_examples\": NaN}", "expected value"),
        ("{\"num_examples\": 1e999}", "out of range"),
        ("{\"metrics\": {}}", "missing field `num_examples`"),
        ("{\"num_examples\": 1, \"metrics\": {\"loss\": \"low\"}}", "expected f64"),
        ("{\"num_examples\": 1, \"metrics\": {\"\": 1}}", "name of a metric"),
        ("{\"num_examples\": 1, \"metric\": {}}", "unknown field `metric`"),
    ] {
        let error = refusal(&leaves(metrics), "train").await;
        assert!(error.starts_with("metrics-out.json: ") && error.contains(word), "{metrics}: {error}");
    }
    for (text, word) in [
        ("exit 0".to_owned(), "metrics-out.json: the command did not write it"),
        (
            format!("echo '{FINE}' > \"$SHEAF_METRICS_OUT\""),
            "model-out.safetensors: the command did not write it",
        ),
        (format!("{}; echo x > \"$SHEAF_MODEL_OUT\"", leaves(FINE)), "shorter than 8 bytes"),
        (format!("{}; echo >> \"$SHEAF_MODEL_OUT\"", leaves(FINE)), "model-out.safetensors"),
        (format!("/bin/mkdir \"$SHEAF_METRICS_OUT\"; {}", leaves(FINE)), "metrics-out.json"),
    ] {
        let error = refusal(&text, "train").await;
        assert!(error.contains(word), "{text}: {error}");
    }
}

#[tokio::test]
async fn tensors_are_checked() {
    let nan = ParamSet::new(vec![tensor("b", &[1.0, f64::NAN]), tensor("a", &[3.0])]).unwrap();
    let less = ParamSet::new(vec![tensor("b", &[1.0, 2.0])]).unwrap();
    let more =
        ParamSet::new(vec![tensor("a", &[3.0]), tensor("b", &[1.0, 2.0]), tensor("c", &[3.0])]).unwrap();
    let other = ParamSet::new(vec![tensor("b", &[1.0]), tensor("a", &[3.0])]).unwrap();
    for (left, word) in [
        (nan, "tensor \"b\" is not finite at index 1"),
        (less, "lacks tensor \"a\""),
        (more, "\"c\" is not of the model"),
        (other, "tensor \"b\" is f32[1], was f32[2]"),
        (ParamSet::default(), "no tensors"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut file = Vec::new();
        safetensors::write(&left, &BTreeMap::new(), &mut file).unwrap();
        std::fs::write(dir.path().join("out"), file).unwrap();
        let text = format!("/bin/cp out \"$SHEAF_MODEL_OUT\"; echo '{FINE}' > \"$SHEAF_METRICS_OUT\"");
        let scratch = tempfile::tempdir().unwrap();
        let job = job("train", 1, Some(model()), scratch.path());
        let error = trainer(script(&text), dir.path()).perform(&job).await.unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let spec = ExecSpec { output_max: ByteSize::from_bytes(50), ..script(&leaves(FINE)) };
    let error =
        trainer(spec, dir.path()).perform(&job("train", 1, Some(model()), dir.path())).await.unwrap_err();
    assert!(error.to_string().contains("no file of at most 50 bytes"), "{error}");
}

#[tokio::test]
async fn a_command_that_does_not_end_is_killed() {
    for text in ["/bin/sleep 100", "trap '' TERM; while :; do /bin/sleep 100; done"] {
        let dir = tempfile::tempdir().unwrap();
        let spec = ExecSpec { timeout: Span::from_millis(300), ..script(text) };
        let job = job("train", 1, Some(model()), dir.path());
        let error = trainer(spec, dir.path()).perform(&job).await.unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    }
}

/// Less than what the commands sleep, and far more than ending them takes.
const A_HANG: std::time::Duration = std::time::Duration::from_secs(60);

/// Reads a named pipe to its end: until nobody has it open for writing. Says when somebody first had.
fn read_pipe(path: &Path, opened: tokio::sync::oneshot::Sender<()>) {
    let mut pipe = std::fs::File::open(path).unwrap();
    opened.send(()).unwrap();
    pipe.read_to_end(&mut Vec::new()).unwrap();
}

fn make_pipe(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}

#[tokio::test]
async fn what_a_command_leaves_running_is_ended_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = make_pipe(dir.path());
    let (opened, _opened) = tokio::sync::oneshot::channel();
    let compute = Compute::new(4);
    let closed = compute.run(move || read_pipe(&pipe, opened));
    let text = format!("exec 3> pipe; /bin/sleep 100 & {}", leaves(FINE));
    let spec = ExecSpec { grace: Span::from_secs(60), ..script(&text) };
    let trainer = trainer(spec, dir.path());
    let job = job("train", 1, Some(model()), dir.path());
    let (result, closed) = tokio::join!(trainer.perform(&job), tokio::time::timeout(A_HANG, closed));
    assert!(result.is_ok(), "{result:?}");
    assert!(matches!(closed, Ok(Ok(()))), "the child outlived the command: {closed:?}");
}

#[tokio::test]
async fn work_given_up_is_ended_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = make_pipe(dir.path());
    let (opened, is_open) = tokio::sync::oneshot::channel();
    let scope = TaskScope::new();
    let compute = Compute::new(4);
    let closed = scope.spawn(async move { compute.run(move || read_pipe(&pipe, opened)).await });
    let trainer = Arc::new(trainer(script("exec 3> pipe; /bin/sleep 100 & wait"), dir.path()));
    let job = job("train", 1, Some(model()), dir.path());
    let working = scope.spawn_until_cancelled(async move { trainer.perform(&job).await });
    is_open.await.unwrap();
    scope.cancel();
    assert!(working.await.unwrap().is_none());
    // The pipe ends only when both the command and its child are gone.
    let closed = tokio::time::timeout(A_HANG, closed).await;
    assert!(matches!(closed, Ok(Ok(Ok(())))), "the child outlived the work: {closed:?}");
}

#[tokio::test]
async fn logs_are_kept_up_to_their_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{}; i=0; while [ $i -lt 99 ]; do echo 0123456789; i=$((i+1)); done", leaves(FINE));
    let spec = ExecSpec { log_dir: Some("logs".into()), log_max: ByteSize::from_bytes(25), ..script(&text) };
    let trainer = trainer(spec, dir.path());
    let logs = dir.path().join("logs");
    std::fs::create_dir(&logs).unwrap();
    for idx in 0..150 {
        std::fs::write(logs.join(format!("old-{idx}.log")), "x").unwrap();
    }
    std::fs::write(logs.join("notes.txt"), "not ours").unwrap();
    trainer.perform(&job("train", 1, Some(model()), dir.path())).await.unwrap();
    let kept = std::fs::read_to_string(logs.join("0000000000000abc-000001-train-site-a.log")).unwrap();
    assert_eq!(kept, "0123456789\n0123456789\n012\n[the rest is not kept]\n");
    assert_eq!(std::fs::read_dir(&logs).unwrap().count(), 100 + 1);
}

#[test]
fn bad_settings_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let fine = ExecSpec::new(["sh"]);
    for (spec, setting) in [
        (ExecSpec { command: vec![], ..fine.clone() }, "command"),
        (ExecSpec { command: vec!["surely-no-such-program".into()], ..fine.clone() }, "command"),
        (ExecSpec { command: vec!["./surely-no-such-program".into()], ..fine.clone() }, "command"),
        (ExecSpec { command: vec!["sh".into(), "a\0b".into()], ..fine.clone() }, "command"),
        (ExecSpec { workdir: "missing".into(), ..fine.clone() }, "workdir"),
        (ExecSpec { env: vec!["SHEAF_JOB".into()], ..fine.clone() }, "env"),
        (ExecSpec { env: vec!["A=b".into()], ..fine.clone() }, "env"),
        (ExecSpec { timeout: Span::from_millis(0), ..fine.clone() }, "timeout"),
    ] {
        let error = ExecTrainer::new(spec, dir.path(), Compute::new(1)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("trainer setting {setting}: ")), "{error}");
    }
    assert!(ExecTrainer::new(fine, dir.path(), Compute::new(1)).is_ok());
}

#[tokio::test]
async fn a_number_json_has_no_form_for_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = job("train", 1, Some(model()), dir.path());
    job.config = config(&[("rate", ConfigValue::List(vec![ConfigValue::Float(f64::NAN)]))]);
    let error = trainer(script("exit 0"), dir.path()).perform(&job).await.unwrap_err();
    assert!(error.to_string().starts_with("plan key \"rate\""), "{error}");
    job.config = ConfigMap::new();
    job.model = None;
    let error = trainer(script("exit 0"), dir.path()).perform(&job).await.unwrap_err();
    assert!(matches!(error, Error::NoModel { .. }));
}

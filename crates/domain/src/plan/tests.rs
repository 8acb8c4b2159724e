//! Tests of plans: what each key means, and what is refused on which line.

use proptest::prelude::*;

use super::*;
use crate::{ConfigValue, Error, ErrorKind};

const HEAD: &str = "[run]\nname = \"digits\"\nrounds = 20\n";

fn refusal(text: &str) -> String {
    let error = Plan::parse(text).expect_err(text);
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    error.to_string()
}

/// Asserts that the plan `HEAD` followed by `rest` is refused on `line` (from 1, of the whole) with all of `words`.
#[track_caller]
fn refused(rest: &str, line: usize, words: &[&str]) {
    let text = format!("{HEAD}{rest}");
    let message = refusal(&text);
    assert!(message.starts_with(&format!("line {line}: ")), "{message}\n{text}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}\n{text}");
    }
}

fn parsed(rest: &str) -> Plan {
    Plan::parse(&format!("{HEAD}{rest}")).unwrap()
}

#[test]
fn the_samples_are_plans() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/samples");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with("plan-") {
            let plan = Plan::parse(&std::fs::read_to_string(&path).unwrap());
            let plan = plan.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(!plan.summary().is_empty());
            assert!(plan.stages().is_ok() && plan.init_stage().is_ok());
            names.push(name);
        }
    }
    names.sort();
    assert_eq!(names, ["plan-early-stop.toml", "plan-fedadam.toml", "plan-minimal.toml", "plan-robust.toml"]);
}

#[test]
fn a_minimal_plan_has_the_documented_defaults() {
    let expected = Plan {
        name: "digits".into(),
        rounds: 20,
        seed: 0,
        keep_updates: Keep::Round,
        keep_models: Keep::Run,
        init: Init::Trainer,
        strategy: StrategySpec { kind: StrategyKind::Fedavg, clip: None },
        cohort: CohortSpec {
            min: 2,
            fraction: 1.0,
            quorum: 1.0,
            deadline: None,
            attempts: 3,
            examples_max: 1e12,
        },
        trainer: None,
        app: None,
        init_config: ConfigMap::new(),
        train_config: ConfigMap::new(),
        evaluate: None,
        stop: None,
    };
    assert_eq!(Plan::parse(HEAD), Ok(expected.clone()));
    assert_eq!(expected.check(), Ok(()));
}

#[test]
fn every_key_is_read() {
    let text = include_str!("../../../../docs/samples/plan-fedadam.toml");
    let plan = Plan::parse(text).unwrap();
    assert_eq!((plan.seed, plan.rounds), (7, 50));
    assert_eq!((plan.keep_updates, plan.keep_models), (Keep::Run, Keep::Rounds(5)));
    assert_eq!(plan.init, Init::File("init.safetensors".into()));
    assert_eq!(plan.strategy.clip, Some(ClipBound::NormRatio(4.0)));
    let adam = AdaptiveSpec { server_learning_rate: 0.01, beta1: 0.9, beta2: 0.99, tau: 0.001 };
    assert_eq!(plan.strategy.kind, StrategyKind::Fedadam(adam));
    let cohort = CohortSpec {
        min: 3,
        fraction: 0.5,
        quorum: 0.8,
        deadline: Some(crate::Span::from_secs(600)),
        attempts: 2,
        examples_max: 1e6,
    };
    assert_eq!(plan.cohort, cohort);
    assert_eq!(plan.trainer.as_deref(), Some("mlp"));
    assert_eq!(plan.train_config.get("epochs"), Some(&ConfigValue::Int(5)));
    assert_eq!(plan.train_config.get("learning_rate"), Some(&ConfigValue::Float(0.2)));
    let evaluate = plan.evaluate.unwrap();
    assert_eq!((evaluate.every, evaluate.metric.as_str(), evaluate.better), (5, "accuracy", Better::Higher));
    assert_eq!(evaluate.config, ConfigMap::new());
}

#[test]
fn strategies_have_flowers_defaults() {
    let adaptive =
        |server_learning_rate, beta1, beta2| AdaptiveSpec { server_learning_rate, beta1, beta2, tau: 1e-3 };
    for (text, kind) in [
        ("kind = \"fedavg\"", StrategyKind::Fedavg),
        ("kind = \"fedprox\"\nproximal_mu = 1", StrategyKind::Fedprox { proximal_mu: 1.0 }),
        ("kind = \"fedavgm\"", StrategyKind::Fedavgm { server_learning_rate: 1.0, server_momentum: 0.9 }),
        ("kind = \"fedadagrad\"", StrategyKind::Fedadagrad(adaptive(0.1, 0.0, 0.0))),
        ("kind = \"fedadam\"", StrategyKind::Fedadam(adaptive(0.1, 0.9, 0.99))),
        ("kind = \"fedyogi\"", StrategyKind::Fedyogi(adaptive(0.01, 0.9, 0.99))),
        ("kind = \"median\"", StrategyKind::Median),
        ("kind = \"trimmed-mean\"", StrategyKind::TrimmedMean { trim_share: 0.2 }),
        ("kind = \"krum\"", StrategyKind::Krum { byzantine: 0, keep: 1 }),
    ] {
        let plan = parsed(&format!("[strategy]\n{text}\n[cohort]\nmin = 3\n"));
        assert_eq!(plan.strategy.kind, kind);
        assert!(plan.summary().contains(kind.name()), "{}", plan.summary());
    }
}

#[test]
fn free_keys_keep_their_types() {
    let plan = parsed("[task.train]\nb = true\ni = 1\nf = 1.0\nt = \"x\"\nl = [1, [2.5, \"y\"]]\n");
    let list = ConfigValue::List(vec![
        ConfigValue::Int(1),
        ConfigValue::List(vec![ConfigValue::Float(2.5), ConfigValue::Text("y".into())]),
    ]);
    let expected = ConfigMap::from([
        ("b".to_owned(), ConfigValue::Bool(true)),
        ("i".to_owned(), ConfigValue::Int(1)),
        ("f".to_owned(), ConfigValue::Float(1.0)),
        ("t".to_owned(), ConfigValue::Text("x".into())),
        ("l".to_owned(), list),
    ]);
    assert_eq!(plan.train_config, expected);
    assert_eq!(parsed("[task.evaluate]\nsteps = 3\n").evaluate.unwrap().config.len(), 1);
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    refused("[cohrt]\nmin = 3\n", 4, &["a plan has no key `cohrt`", "`cohort`"]);
    refused("[cohort]\nmin = 3\nquorom = 1\n", 6, &["[cohort] has no key `quorom`", "`quorum`"]);
    refused("[cohort]\n\nzebra = 1\n", 6, &["`zebra`", "it has `min`, `fraction`"]);
    refused("[model]\ninitial = \"a.npz\"\n", 5, &["`initial`"]);
    refused("[task]\ntrian = { epochs = 3 }\n", 5, &["[task] has no key `trian`", "`train`"]);
    refused("[strategy]\nclip = { norm_ration = 3.0 }\n", 5, &["`norm_ratio`"]);
    refused("[strategy]\nkind = \"fedadan\"\n", 5, &["no strategy \"fedadan\"", "\"fedadam\""]);
    refused("[strategy]\nkind = \"magic\"\n", 5, &["`fedavg`", "`krum`"]);
    assert_eq!(
        refusal("[run]\nname = \"a\"\nround = 3\n"),
        format!("line 3: [run] has no key `round`; did you mean `rounds`? [{}]", crate::code::PLAN_REFUSED)
    );
    assert!(refusal("[ran]\nname = \"a\"\n").contains("did you mean `run`?"));
}

#[test]
fn what_is_missing_is_named() {
    assert!(refusal("").contains("lacks its [run] section"));
    assert!(refusal("[run]\nrounds = 3\n").starts_with("line 1: [run] lacks `name`"));
    assert!(refusal("[run]\nname = \"a\"\n").starts_with("line 1: [run] lacks `rounds`"));
    refused("[strategy]\nkind = \"fedprox\"\n", 4, &["lacks `proximal_mu`"]);
    refused("[stop]\nmin_delta = 0.1\n[task.evaluate]\n", 4, &["lacks `patience`"]);
    refused("[strategy]\nclip = {}\n", 5, &["norm_max"]);
    refused("[strategy]\nclip = { norm_max = 1, norm_ratio = 2 }\n", 5, &["not both"]);
    refused("[task.evaluate]\nmetric = \"f1\"\n", 4, &["lacks `better`", "\"higher\""]);
}

#[test]
fn a_foreign_parameter_is_refused_with_its_owners() {
    refused(
        "[strategy]\nkind = \"median\"\nbeta1 = 0.9\n",
        6,
        &["`beta1` is no parameter of median", "fedadam"],
    );
    refused("[strategy]\nproximal_mu = 0.9\n", 5, &["of fedavg", "fedprox"]);
    refused("[strategy]\nkind = \"fedadagrad\"\nbeta2 = 0.9\n", 6, &["of fedadagrad", "fedadam, fedyogi"]);
    refused("[strategy]\nkind = \"krum\"\ntrim_share = 0.1\n", 6, &["trimmed-mean"]);
}

#[test]
fn an_app_takes_the_place_of_a_trainer_or_works_beside_one() {
    let model = "[model]\ninit = \"a.npz\"\n";
    let plan =
        parsed(&format!("{model}[task]\napp = \"apps/judged\"\n[task.app_config]\nlr = 0.5\nmode = \"x\"\n"));
    let app = plan.app.clone().unwrap();
    assert_eq!((app.source.as_str(), app.config.len()), ("apps/judged", 2));
    assert!(!plan.is_for_trainers());
    assert!(
        plan.summary().contains("app       apps/judged, with lr = 0.5, mode = \"x\"\n"),
        "{}",
        plan.summary()
    );
    assert!(!plan.summary().contains("trainer  "), "{}", plan.summary());
    let both = parsed(&format!("{model}[task]\napp = \"a.fab\"\ntrainer = \"mlp\"\n"));
    assert!(both.is_for_trainers() && both.summary().contains("trainer   mlp\napp       a.fab\n"));
    let kept = serde_json::to_string(&parsed("")).unwrap();
    assert!(!kept.contains("\"app\""), "a plan without one is kept as before: {kept}");
    assert_eq!(serde_json::from_str::<Plan>(&kept).unwrap().app, None);
}

#[test]
fn what_an_app_cannot_do_is_refused_with_the_line() {
    refused("[task]\napp = \"a.fab\"\n", 5, &["an app initialises no model", "init.safetensors"]);
    refused("[task]\napp = \"a.fab\"\n[model]\ninit = \"trainer\"\n", 7, &["an app initialises no model"]);
    refused("[task]\napp = \"\"\n", 5, &["directory or its .fab"]);
    refused("[task.app_config]\nlr = 0.5\n", 4, &["names no `app`"]);
    let app = "[model]\ninit = \"a.npz\"\n[task]\napp = \"a.fab\"\n";
    refused(&format!("{app}[task.app_config]\nlr = [0.5]\n"), 9, &["`lr`", "no lists"]);
    refused(&format!("{app}[task.train]\nx = [1, \"a\"]\n"), 9, &["`x`", "one sort"]);
    refused(&format!("{app}[task.evaluate]\nx = [[1]]\n"), 9, &["`x`", "one sort"]);
    parsed(&format!("{app}[task.train]\nx = [1, 2.5]\ny = []\nz = [\"a\"]\n"));
}

#[test]
fn wrong_types_and_units_are_refused() {
    refused("[cohort]\ndeadline = 10\n", 5, &["no unit", "\"10m\""]);
    refused("[cohort]\ndeadline = \"10 parsecs\"\n", 5, &["`deadline`", "duration"]);
    refused("[cohort]\ndeadline = \"0s\"\n", 5, &["no time at all"]);
    refused("[cohort]\nmin = \"3\"\n", 5, &["a whole number"]);
    refused("[cohort]\nmin = 3.0\n", 5, &["a whole number"]);
    refused("[cohort]\nmin = -1\n", 5, &["-1"]);
    refused("[cohort]\nmin = 5000000000\n", 5, &["at most"]);
    refused("[cohort]\nfraction = true\n", 5, &["a number"]);
    refused("[cohort]\nquorum = nan\n", 5, &["finite"]);
    refused("[cohort]\nexamples_max = inf\n", 5, &["finite"]);
    refused("cohort = 3\n", 4, &["[run] has no key `cohort`"]);
    refused("[task]\ntrain = 3\n", 5, &["a table"]);
    refused("[task.evaluate]\nbetter = \"more\"\n", 5, &["\"higher\" or \"lower\""]);
    refused("[task.train]\nwhen = 2024-01-01\n", 5, &["date"]);
    refused("[task.train.deep]\nx = 1\n", 4, &["`deep` is a table"]);
    refused("[task.train]\nrate = inf\n", 5, &["finite"]);
    refused("[task.train]\nrates = [1.0,\n  nan]\n", 5, &["finite"]);
    assert!(refusal("[run]\nname = \"a\"\nrounds = 3\nkeep_updates = \"always\"\n").contains("line 4"));
    assert!(refusal("[run]\nname = \"a\"\nrounds = 3\nkeep_models = 0\n").contains("\"round\""));
    assert!(refusal("[run]\nname = \"a\"\nrounds = 3\nrounds = 4\n").starts_with("line 4: "));
    assert!(refusal("[run\nname").starts_with("line 1: "));
}

#[test]
fn ranges_are_kept() {
    assert!(refusal("[run]\nname = \"a\"\nrounds = 0\n").starts_with("line 3: `rounds` is 0"));
    assert!(refusal("[run]\nname = \"a\"\nrounds = 1000001\n").contains("1000000"));
    refused("[cohort]\nmin = 0\n", 5, &["`min` is 0"]);
    for share in ["0", "0.0", "1.01", "-0.5"] {
        refused(&format!("[cohort]\nquorum = {share}\n"), 5, &["`quorum`", "above 0 and at most 1"]);
        refused(&format!("[cohort]\nfraction = {share}\n"), 5, &["`fraction`", "above 0 and at most 1"]);
    }
    refused("[cohort]\nattempts = 0\n", 5, &["`attempts`"]);
    refused("[cohort]\nexamples_max = 0\n", 5, &["positive"]);
    refused("[strategy]\nkind = \"fedavgm\"\nserver_momentum = 1.0\n", 6, &["below 1"]);
    refused("[strategy]\nkind = \"fedadam\"\ntau = 0\n", 6, &["`tau` is 0"]);
    refused("[strategy]\nkind = \"fedprox\"\nproximal_mu = -1\n", 6, &["not be negative"]);
    refused("[strategy]\nclip = { norm_ratio = 0 }\n", 5, &["`clip` is 0"]);
    refused("[task.evaluate]\nevery = 0\n", 5, &["`every` is 0"]);
    refused("[task.evaluate]\nmetric = \"\"\nbetter = \"lower\"\n", 5, &["`metric`"]);
    refused("[model]\ninit = \"model.pkl\"\n", 5, &[".safetensors", ".npz"]);
    refused("[stop]\npatience = 0\n[task.evaluate]\n", 5, &["`patience` is 0"]);
    refused("[stop]\npatience = 1\nmin_delta = -0.1\n[task.evaluate]\n", 6, &["`min_delta`"]);
}

#[test]
fn impossible_combinations_are_refused() {
    refused("[stop]\npatience = 3\n", 4, &["[task.evaluate]"]);
    for kind in ["median", "trimmed-mean", "krum"] {
        let text = format!("[strategy]\nkind = \"{kind}\"\nclip = {{ norm_max = 1.0 }}\n[cohort]\nmin = 9\n");
        refused(&text, 6, &["`clip`", kind]);
    }
    refused("[strategy]\nkind = \"trimmed-mean\"\ntrim_share = 0.5\n", 6, &["below 0.5"]);
    refused(
        "[strategy]\nkind = \"krum\"\nbyzantine = 1\n[cohort]\nmin = 4\n",
        6,
        &["= 5 submissions", "min = 4"],
    );
    // A default is refused where its section stands.
    refused("[strategy]\nkind = \"krum\"\n", 4, &["= 3 submissions", "min = 2"]);
    let krum = "[strategy]\nkind = \"krum\"\nbyzantine = 1\n[cohort]\nmin = 5\n";
    parsed(krum);
    // No round closes with fewer than `min`, whatever the quorum.
    parsed(&format!("{krum}quorum = 0.2\n"));
    refused(&krum.replace("[cohort]", "keep = 5\n[cohort]"), 7, &["from 1 to 4"]);
    refused(&krum.replace("[cohort]", "keep = 0\n[cohort]"), 7, &["from 1 to 4"]);
}

#[test]
fn names_are_usable_and_no_ids() {
    for (name, word) in [
        ("", "not be empty"),
        ("a b", "ASCII"),
        ("-a", "start with"),
        ("00112233aabbccdd", "a run's id"),
        (&"a".repeat(65), "64"),
    ] {
        let message = refusal(&format!("[run]\nname = \"{name}\"\nrounds = 1\n"));
        assert!(message.starts_with("line 2: ") && message.contains(word), "{message}");
    }
    refused("[task]\ntrainer = \"../x\"\n", 5, &["usable name"]);
}

#[test]
fn a_plan_cannot_say_what_a_site_runs() {
    for key in ["command", "env", "workdir", "path", "shell"] {
        refused(&format!("[task.train]\n{key} = \"x\"\n"), 5, &["may not have", "site's own configuration"]);
        refused(&format!("[task.init]\n{key} = [\"x\"]\n"), 5, &["may not have"]);
        refused(&format!("[task.evaluate]\n{key} = 1\n"), 5, &["may not have"]);
    }
    refused("[task.train]\ntrainer = \"mlp\"\n", 5, &["[task] trainer"]);
    refused("[task.train]\nproximal_mu = 0.1\n", 5, &["fedprox"]);
    refused("[task.train]\n\"a b\" = 1\n", 5, &["not a usable key"]);
}

#[test]
fn an_over_long_plan_is_not_read() {
    let text = format!("{HEAD}# {}", "x".repeat(PLAN_LEN_MAX));
    assert!(refusal(&text).contains("at most 262144 are read"));
    let deep = format!("{HEAD}[task.train]\nx = {}1{}\n", "[".repeat(9), "]".repeat(9));
    assert!(refusal(&deep).contains("deeper than 8"));
    let abyss = |depth: usize| format!("{HEAD}[task.train]\nx = {}\n", "[".repeat(depth));
    assert!(refusal(&abyss(crate::TOML_MARKS_MAX - 10)).starts_with("line "));
    assert!(refusal(&abyss(50_000)).contains("opening brackets; at most 1024"));
    let tables = format!("{HEAD}[a{}]\n", ".a".repeat(crate::TOML_MARKS_MAX));
    assert!(refusal(&tables).contains("opening brackets; at most 1024"));
}

#[test]
fn a_key_is_found_on_its_line_whatever_dots_and_neighbours_it_has() {
    refused("[task.train]\nepochs = 1\n\"a.b c\" = 1\n", 6, &["\"a.b c\" is not a usable key"]);
    refused("[task]\ntrain.env = 1\n", 5, &["`env`"]);
    // Every key behind a long one has a long path; a place for each of them would take gigabytes.
    let many: String = (0..15_000).map(|key| format!("k{key} = 1\n")).collect();
    let long = format!("[{}]\n{many}", "a".repeat(60_000));
    assert!(refusal(&long).contains("has no key `aaa"), "{}", refusal(&long));
}

#[test]
fn the_check_needs_no_file() {
    let mut plan = parsed("");
    plan.cohort.quorum = f64::NAN;
    assert!(matches!(plan.check(), Err(Error::BadPlan { line: None, .. })));
    let mut plan = parsed("");
    plan.train_config.insert("command".into(), ConfigValue::Text("x".into()));
    assert!(matches!(plan.check(), Err(Error::BadPlan { line: None, .. })));
}

#[test]
fn a_summary_says_what_would_happen() {
    let text = include_str!("../../../../docs/samples/plan-fedadam.toml");
    let summary = Plan::parse(text).unwrap().summary();
    let expected = "\
run       digits-fedadam, 50 rounds, seed 7
model     starts from init.safetensors
strategy  fedadam: server learning rate 0.01, beta1 0.9, beta2 0.99, tau 0.001; each contribution clipped to 4 × the cohort's median norm
cohort    50 % of the participants present, at least 3; up to 2 attempts each
closes    when 80 % of the cohort, at least 3, have submitted, or after 10m with at least 3
trainer   mlp
train     batch_size = 8, epochs = 5, learning_rate = 0.2
evaluate  every 5 rounds and at the end; the model of highest accuracy is the best
stops     after round 50
keeps     updates as long as the run, models for 5 rounds
";
    assert_eq!(summary, expected);
}

#[test]
fn a_plan_survives_its_json() {
    for text in [
        include_str!("../../../../docs/samples/plan-fedadam.toml"),
        include_str!("../../../../docs/samples/plan-robust.toml"),
        include_str!("../../../../docs/samples/plan-early-stop.toml"),
    ] {
        let plan = Plan::parse(text).unwrap();
        let json = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
    }
}

/// Pieces that make texts which are nearly plans.
fn fragment() -> impl Strategy<Value = String> {
    let keys =
        "name|rounds|seed|keep_updates|kind|clip|min|quorum|deadline|every|metric|patience|command|beta1|x";
    let values = "-?[0-9]{1,20}|[0-9]\\.[0-9]|nan|-inf|true|\"[a-z.]{0,9}\"|\"10m\"|\"krum\"|\\[1, 2.5, \\[\\]\\]|\\{ norm_max = 1 \\}|2024-01-01";
    prop_oneof![
        "\\[(run|model|strategy|cohort|task|task.train|task.init|task.evaluate|stop|[a-z]{1,4})\\]\n",
        (keys, values).prop_map(|(key, value)| format!("{key} = {value}\n")),
        Just(HEAD.to_owned()),
        "\\PC{0,12}\n",
    ]
}

proptest! {
    #[test]
    fn no_text_panics(text in "(?s).{0,400}") {
        let _ = Plan::parse(&text);
    }

    #[test]
    fn nearly_plans_are_plans_or_refused(fragments in prop::collection::vec(fragment(), 0..12)) {
        match Plan::parse(&fragments.concat()) {
            Ok(plan) => {
                prop_assert_eq!(plan.check(), Ok(()));
                prop_assert!(plan.stages().is_ok());
                prop_assert!(!plan.summary().is_empty());
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}

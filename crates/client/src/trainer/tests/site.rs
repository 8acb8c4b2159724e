//! A site's trainers: their configuration, and the choice among them.

use std::collections::BTreeMap;

use sheaf_domain::{Assignment, TaskId};
use sheaf_runtime::Compute;

use super::*;

fn specs(text: &str) -> BTreeMap<String, TrainerSpec> {
    toml::from_str(text).unwrap()
}

fn assignment(config: ConfigMap) -> Assignment {
    let job = job("train", 1, None, Path::new("unused"));
    Assignment {
        task: TaskId::derive(job.run, 1, &job.stage, &job.site, 1),
        run: job.run,
        run_name: job.run_name,
        round: 1,
        stage: job.stage,
        site: job.site,
        attempt: 1,
        inputs: Vec::new(),
        outputs: Vec::new(),
        config,
        seed: 7,
        deadline: None,
    }
}

#[test]
fn a_sites_configuration_becomes_its_trainers() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("d.csv"), "0,0\n1,1\n").unwrap();
    let specs = specs(
        "[small]\nkind = \"softmax\"\ndata = \"d.csv\"\n\
         [net]\nkind = \"mlp\"\ndata = \"d.csv\"\nnum_classes = 3\nscale = 0.5\n\
         [own]\nkind = \"exec\"\ncommand = [\"sh\", \"-c\", \"exit 1\"]\ntimeout = \"5m\"\nenv = [\"HOME\"]\nlog_max = \"4MiB\"\n",
    );
    let trainers = Trainers::open(&specs, SitePolicy::default(), dir.path(), &Compute::new(1)).unwrap();
    let asking = |name: &str| config(&[("trainer", ConfigValue::Text(name.into()))]);
    for name in ["small", "net", "own"] {
        assert_eq!(trainers.choose(&asking(name)).unwrap().0, name);
    }
    let error = trainers.choose(&asking("big")).unwrap_err().to_string();
    assert!(error.contains("no such trainer") && error.contains("net, own, small"), "{error}");
    let error = trainers.choose(&ConfigMap::new()).unwrap_err().to_string();
    assert!(error.contains("has several"), "{error}");
    let error = trainers.choose(&config(&[("trainer", ConfigValue::Int(1))])).unwrap_err();
    assert!(matches!(error, Error::Config { .. }));
}

#[test]
fn a_bad_setting_names_its_trainer() {
    let dir = tempfile::tempdir().unwrap();
    let specs = specs("[own]\nkind = \"exec\"\ncommand = []\n");
    let error = Trainers::open(&specs, SitePolicy::default(), dir.path(), &Compute::new(1)).unwrap_err();
    assert!(error.to_string().starts_with("trainer setting own.command: "), "{error}");
    assert!(Trainers::new(BTreeMap::new(), SitePolicy::default()).is_err());
    for text in [
        "kind = \"exec\"\ncommand = [\"sh\"]\nshell = true\n",
        "kind = \"exec\"\ncommand = [\"sh\"]\ntimeout = 5\n",
        "kind = \"mlp\"\ndata = \"d.csv\"\ncommand = [\"sh\"]\n",
        "kind = \"magic\"\n",
        "command = [\"sh\"]\n",
    ] {
        assert!(toml::from_str::<TrainerSpec>(text).is_err(), "{text}");
    }
}

#[test]
fn the_policy_is_asked_with_the_name_that_was_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let specs = specs("[own]\nkind = \"exec\"\ncommand = [\"sh\"]\n");
    let policy = |text: &str| toml::from_str::<SitePolicy>(text).unwrap();
    let open = |policy| Trainers::open(&specs, policy, dir.path(), &Compute::new(1));
    assert!(open(policy("trainers = [\"other\"]")).is_err());
    let trainers = open(policy("trainers = [\"own\"]\nkeys = [\"epochs\"]")).unwrap();
    assert!(trainers.admit(&assignment(config(&[("epochs", ConfigValue::Int(1))]))).is_ok());
    let error = trainers.admit(&assignment(config(&[("rate", ConfigValue::Int(1))]))).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    let trainers = open(policy("trainers = []")).unwrap();
    assert!(trainers.admit(&assignment(ConfigMap::new())).is_err());
}

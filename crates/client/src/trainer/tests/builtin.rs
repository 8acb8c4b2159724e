//! The built-in trainers: what they learn, what they refuse, and that an attempt repeats another's bits.

use sheaf_runtime::Compute;

use super::*;
use crate::data::dirichlet;

fn mlp() -> BuiltinTrainer {
    BuiltinTrainer::mlp(digits(), None, Compute::new(2))
}

fn learning() -> ConfigMap {
    config(&[
        ("trainer", ConfigValue::Text("mlp".into())),
        ("epochs", ConfigValue::Int(5)),
        ("batch_size", ConfigValue::Int(8)),
        ("learning_rate", ConfigValue::Float(0.2)),
    ])
}

#[tokio::test]
async fn a_second_attempt_repeats_the_bits_of_the_first() {
    let trainer = mlp();
    let init = job("init", 0, None, Path::new("unused"));
    let first = trainer.perform(&init).await.unwrap().model.unwrap();
    // Whichever site initialises, the model is the same.
    let elsewhere = TrainJob { site: SiteName::new("site-b").unwrap(), ..init.clone() };
    assert_eq!(trainer.perform(&elsewhere).await.unwrap().model.unwrap(), first);

    let mut train = TrainJob { config: learning(), ..job("train", 1, Some(first), Path::new("unused")) };
    train.config.insert("epochs".into(), ConfigValue::Int(1));
    let one = trainer.perform(&train).await.unwrap();
    assert_eq!(trainer.perform(&train).await.unwrap(), one);
    assert_eq!(one.num_examples, 1797.0);
    assert!(one.metrics["loss"] > 0.0);
    for other in [
        TrainJob { round: 2, ..train.clone() },
        TrainJob { seed: 8, ..train.clone() },
        TrainJob { site: SiteName::new("site-b").unwrap(), ..train.clone() },
    ] {
        assert_ne!(trainer.perform(&other).await.unwrap().model, one.model);
    }
}

#[tokio::test]
async fn unknown_keys_and_bad_values_are_refused_by_name() {
    let (softmax, mlp) = (BuiltinTrainer::softmax(digits(), None, Compute::new(2)), mlp());
    let model = mlp.perform(&job("init", 0, None, Path::new("unused"))).await.unwrap().model;
    let cases: [(&BuiltinTrainer, &str, &str, ConfigValue, &str); 12] = [
        (&mlp, "train", "epoch", ConfigValue::Int(1), "does not know it"),
        (&mlp, "train", "hidden", ConfigValue::Int(1), "train stage"),
        (&mlp, "init", "epochs", ConfigValue::Int(1), "hidden, num_classes"),
        (&softmax, "init", "hidden", ConfigValue::Int(1), "softmax"),
        (&mlp, "evaluate", "epochs", ConfigValue::Int(1), "which has none"),
        (&mlp, "train", "epochs", ConfigValue::Float(1.0), "whole number"),
        (&mlp, "train", "epochs", ConfigValue::Int(0), "at least 1"),
        (&mlp, "train", "batch_size", ConfigValue::Int(-1), "at least 0"),
        (&mlp, "train", "learning_rate", ConfigValue::Int(0), "not positive"),
        (&mlp, "train", "learning_rate", ConfigValue::Float(f64::NAN), "finite"),
        (&mlp, "train", "momentum", ConfigValue::Float(1.0), "[0, 1)"),
        (&mlp, "train", "proximal_mu", ConfigValue::Float(-0.1), "negative"),
    ];
    for (trainer, stage, key, value, word) in cases {
        let config = config(&[(key, value)]);
        let job = TrainJob { config, ..job(stage, 1, model.clone(), Path::new("unused")) };
        let error = trainer.perform(&job).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("plan key {key:?}: ")) && error.contains(word), "{error}");
    }
    let error = mlp.perform(&job("train", 1, None, Path::new("unused"))).await.unwrap_err();
    assert!(matches!(error, Error::NoModel { .. }));
    let error = softmax.perform(&job("train", 1, model, Path::new("unused"))).await.unwrap_err();
    assert!(error.to_string().contains("softmax has 1 layers, it has 2"), "{error}");
}

#[tokio::test]
async fn evaluation_is_on_what_was_held_back() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("d.csv"), "0,0\n1,1\n0,0\n1,1\n0,0\n1,1\n0,0\n1,1\n").unwrap();
    std::fs::write(dir.path().join("t.csv"), "0,0\n1,1\n5,1\n").unwrap();
    for (setting, examples) in [("", 8.0), ("holdout = 0.25", 2.0), ("test = \"t.csv\"", 3.0)] {
        let spec: BuiltinSpec = toml::from_str(&format!("data = \"d.csv\"\n{setting}")).unwrap();
        let trainer = BuiltinTrainer::open_softmax(&spec, dir.path(), Compute::new(1)).unwrap();
        let first = trainer.perform(&job("init", 0, None, dir.path())).await.unwrap();
        let score = trainer.perform(&job("evaluate", 1, first.model, dir.path())).await.unwrap();
        assert_eq!((score.num_examples, score.model), (examples, None), "{setting}");
        assert_eq!(score.metrics.keys().collect::<Vec<_>>(), ["accuracy", "loss"]);
    }
    let spec: BuiltinSpec = toml::from_str("data = \"d.csv\"\ntest = \"t.csv\"\nholdout = 0.5").unwrap();
    let error = BuiltinTrainer::open_softmax(&spec, dir.path(), Compute::new(1)).unwrap_err();
    assert!(error.to_string().contains("keep one of the two"), "{error}");
}

/// One seed of the demonstration: FedAvg over five sites, against each site alone.
async fn federated_and_alone(seed: u64) -> (f64, f64) {
    let (train, test) = digits().split(0.2, seed).unwrap();
    let rows = dirichlet(train.labels(), 5, 0.5, seed).unwrap();
    let compute = Compute::new(2);
    let sites: Vec<(SiteName, BuiltinTrainer)> = rows
        .iter()
        .enumerate()
        .map(|(idx, rows)| {
            let trainer =
                BuiltinTrainer::mlp(train.subset(rows).unwrap(), Some(test.clone()), compute.clone());
            (SiteName::new(format!("site-{idx}")).unwrap(), trainer)
        })
        .collect();
    let at = |site: &SiteName, round, model: &ParamSet| {
        let base = job("train", round, Some(model.clone()), Path::new("unused"));
        TrainJob { site: site.clone(), seed, config: learning(), ..base }
    };
    let start = TrainJob { seed, ..job("init", 0, None, Path::new("unused")) };
    let first = sites[0].1.perform(&start).await.unwrap().model.unwrap();
    let mut global = first.clone();
    let mut alone = vec![first; sites.len()];
    for round in 1..=20 {
        let mut updates = Vec::new();
        for ((site, trainer), own) in sites.iter().zip(&mut alone) {
            updates.push(trainer.perform(&at(site, round, &global)).await.unwrap());
            *own = trainer.perform(&at(site, round, own)).await.unwrap().model.unwrap();
        }
        global = mean(&updates);
    }
    let accuracy = async |model: &ParamSet| {
        let job = job("evaluate", 20, Some(model.clone()), Path::new("unused"));
        sites[0].1.perform(&job).await.unwrap().metrics["accuracy"]
    };
    let mut of_alone = 0.0;
    for own in &alone {
        of_alone += accuracy(own).await / alone.len() as f64;
    }
    (accuracy(&global).await, of_alone)
}

fn mean(updates: &[TrainResult]) -> ParamSet {
    let total: f64 = updates.iter().map(|update| update.num_examples).sum();
    let models: Vec<&ParamSet> = updates.iter().map(|update| update.model.as_ref().unwrap()).collect();
    let tensors = models[0]
        .iter()
        .map(|like| {
            let mut sum = vec![0.0; like.to_f64().unwrap().len()];
            for (model, update) in models.iter().zip(updates) {
                let values = model.get(like.name()).unwrap().to_f64().unwrap();
                for (sum, value) in sum.iter_mut().zip(values) {
                    *sum += update.num_examples / total * value;
                }
            }
            Tensor::from_f64(like.spec.clone(), &sum).unwrap()
        })
        .collect();
    ParamSet::new(tensors).unwrap()
}

#[tokio::test]
async fn sites_learn_the_digits_together_better_than_alone() {
    for seed in 0..2 {
        let (federated, alone) = federated_and_alone(seed).await;
        println!("seed {seed}: federated {federated:.4}, alone {alone:.4}");
        assert!(federated >= 0.92 && federated >= alone + 0.05, "seed {seed}: {federated} and {alone}");
    }
}

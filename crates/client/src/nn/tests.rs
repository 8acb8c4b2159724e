//! Tests of models: gradients against finite differences, the rule of SGD step by step, the form of the parameters.

use sheaf_domain::rng::SeededRng;
use sheaf_tensor::{Dtype, ParamSet, Tensor, TensorSpec};

use super::network::Pass;
use super::*;
use crate::data::Dataset;

/// `rows` examples of `num_features` normal features, labels in turn.
fn random_data(rows: usize, num_features: usize, num_classes: usize) -> Dataset {
    let mut rng = SeededRng::new(3, "test/data");
    let features = (0..rows * num_features).map(|_| rng.normal()).collect();
    let labels = (0..rows).map(|row| row % num_classes).collect();
    Dataset::new(features, labels, num_features, num_classes).unwrap()
}

/// A network of small random parameters, so that softmax regression too is off its zero start.
fn random_network(mut network: Network) -> Network {
    let mut rng = SeededRng::new(5, "test/network");
    for value in network.slices_mut().flatten() {
        *value = 0.5 * rng.normal();
    }
    network
}

fn networks() -> [Network; 2] {
    [random_network(Network::softmax(5, 3).unwrap()), random_network(Network::mlp(5, 7, 3, 1).unwrap())]
}

/// The mean gradient over all examples.
fn gradient(network: &Network, data: &Dataset) -> Network {
    let mut gradient = network.zeros_like();
    let mut pass = Pass::new(network);
    for (row, label) in data.labels().iter().enumerate() {
        network.add_gradient(data.row(row), *label, &mut pass, &mut gradient);
    }
    for value in gradient.slices_mut().flatten() {
        *value /= data.len() as f64;
    }
    gradient
}

fn values(network: &Network) -> Vec<f64> {
    network.slices().flatten().copied().collect()
}

#[test]
fn gradients_equal_finite_differences() {
    let data = random_data(11, 5, 3);
    for network in networks() {
        let analytic = values(&gradient(&network, &data));
        let step = 1e-5;
        for (idx, analytic) in analytic.iter().enumerate() {
            let loss_at = |offset: f64| {
                let mut moved = network.clone();
                *moved.slices_mut().flatten().nth(idx).unwrap() += offset;
                moved.evaluate(&data).unwrap().loss
            };
            let numeric = (loss_at(step) - loss_at(-step)) / (2.0 * step);
            assert!((analytic - numeric).abs() < 1e-7, "parameter {idx}: {analytic} and {numeric}");
        }
    }
}

#[test]
fn each_step_follows_the_rule() {
    let data = random_data(9, 5, 3);
    let sgd = Sgd {
        epochs: 3,
        batch_size: 0,
        learning_rate: 0.3,
        momentum: 0.8,
        weight_decay: 0.05,
        proximal_mu: 0.7,
    };
    for network in networks() {
        let mut fitted = network.clone();
        let loss = sgd.fit(&mut fitted, &data, &mut SeededRng::new(1, "unused")).unwrap();

        let start = values(&network);
        let mut by_hand = network.clone();
        let mut velocity = vec![0.0; start.len()];
        let mut last_loss = 0.0;
        for _ in 0..3 {
            last_loss = by_hand.evaluate(&data).unwrap().loss;
            let g = values(&gradient(&by_hand, &data));
            for (idx, w) in by_hand.slices_mut().flatten().enumerate() {
                let full = g[idx] + 0.05 * *w + 0.7 * (*w - start[idx]);
                velocity[idx] = 0.8 * velocity[idx] + full;
                *w -= 0.3 * velocity[idx];
            }
        }
        for (a, b) in values(&fitted).iter().zip(values(&by_hand)) {
            assert!((a - b).abs() < 1e-12, "{a} and {b}");
        }
        assert!((loss - last_loss).abs() < 1e-12);
    }
}

#[test]
fn the_proximal_term_holds_the_model_back() {
    let data = random_data(60, 5, 3);
    let moved = |proximal_mu| {
        let [_, network] = networks();
        let mut fitted = network.clone();
        let sgd = Sgd { epochs: 20, batch_size: 8, proximal_mu, ..Sgd::default() };
        sgd.fit(&mut fitted, &data, &mut SeededRng::new(1, "fit")).unwrap();
        let squares = values(&fitted).iter().zip(values(&network)).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        squares.sqrt()
    };
    assert!(moved(1.0) < 0.5 * moved(0.0), "{} {}", moved(1.0), moved(0.0));
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    let data = random_data(50, 5, 3);
    let fit = |seed| {
        let mut network = Network::mlp(5, 7, 3, 9).unwrap();
        let sgd = Sgd { epochs: 2, batch_size: 8, ..Sgd::default() };
        sgd.fit(&mut network, &data, &mut SeededRng::new(seed, "fit")).unwrap();
        network.to_params().unwrap()
    };
    assert_eq!(fit(1), fit(1));
    assert_ne!(fit(1), fit(2));
    assert_eq!(Network::mlp(5, 7, 3, 9), Network::mlp(5, 7, 3, 9));
    assert_ne!(Network::mlp(5, 7, 3, 9), Network::mlp(5, 7, 3, 8));
}

#[test]
fn all_at_once_needs_no_shuffle() {
    let data = random_data(20, 5, 3);
    let fit = |batch_size, seed| {
        let mut network = Network::softmax(5, 3).unwrap();
        let sgd = Sgd { epochs: 3, batch_size, ..Sgd::default() };
        sgd.fit(&mut network, &data, &mut SeededRng::new(seed, "fit")).unwrap();
        network
    };
    assert_eq!(fit(0, 1), fit(20, 2));
    assert_eq!(fit(0, 1), fit(99, 3));
    assert_ne!(fit(0, 1), fit(19, 1));
}

#[test]
fn parameters_have_stable_names_and_shapes() {
    let network = Network::mlp(5, 7, 3, 1).unwrap();
    let params = network.to_params().unwrap();
    let shown: Vec<String> =
        params.specs().iter().map(|spec| format!("{} {}{}", spec.name, spec.dtype, spec.shape)).collect();
    let expected =
        ["layer0.weight f32[7, 5]", "layer0.bias f32[7]", "layer1.weight f32[3, 7]", "layer1.bias f32[3]"];
    assert_eq!(shown, expected);
    // What is read back is what was rounded, whatever the order.
    let again = Network::from_params(&params).unwrap();
    assert_eq!(again.to_params().unwrap(), params);
    let mut tensors = params.into_tensors();
    tensors.reverse();
    assert_eq!(Network::from_params(&ParamSet::new(tensors).unwrap()), Ok(again));
}

#[test]
fn other_models_are_refused() {
    let tensor = |name: &str, dtype, dims: &[u64]| {
        let spec = TensorSpec::new(name, dtype, dims).unwrap();
        let len = usize::try_from(spec.shape.num_elements()).unwrap();
        Tensor::from_f64(spec, &vec![1.0; len]).unwrap()
    };
    let (w, b) = (tensor("layer0.weight", Dtype::F32, &[3, 5]), tensor("layer0.bias", Dtype::F32, &[3]));
    let nan = Tensor::from_f64(w.spec.clone(), &[f64::NAN; 15]).unwrap();
    let cases: [(Vec<Tensor>, &str); 8] = [
        (vec![], "0 tensors"),
        (vec![w.clone()], "1 tensors"),
        (vec![w.clone(), tensor("bias", Dtype::F32, &[3])], "\"layer0.bias\""),
        (vec![w.clone(), tensor("layer0.bias", Dtype::I32, &[3])], "\"layer0.bias\""),
        (vec![w.clone(), tensor("layer0.bias", Dtype::F32, &[4])], "3 rows and 4 biases"),
        (vec![w.clone(), tensor("layer0.bias", Dtype::F32, &[3, 1])], "a matrix and a vector"),
        (vec![nan, b.clone()], "not finite"),
        (
            vec![w, b, tensor("layer1.weight", Dtype::F32, &[2, 4]), tensor("layer1.bias", Dtype::F32, &[2])],
            "layer 1 takes 4 inputs of 3",
        ),
    ];
    for (tensors, word) in cases {
        let error = Network::from_params(&ParamSet::new(tensors).unwrap()).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[test]
fn data_the_model_is_not_for_is_refused() {
    let network = Network::softmax(5, 3).unwrap();
    let wide = network.evaluate(&random_data(4, 6, 3)).unwrap_err();
    assert_eq!(wide, Error::Mismatch { what: "features", model: 5, data: 6 });
    let many = network.evaluate(&random_data(4, 5, 4)).unwrap_err();
    assert_eq!(many, Error::Mismatch { what: "classes", model: 3, data: 4 });
    // A site that has not seen every class is no obstacle.
    assert!(network.evaluate(&random_data(4, 5, 2)).is_ok());
    for (features, classes) in [(0, 3), (5, 0), (usize::MAX, 2)] {
        assert!(matches!(Network::softmax(features, classes), Err(Error::Sizes { .. })));
    }
}

#[test]
fn divergence_is_an_error() {
    let data = random_data(20, 5, 3);
    let sgd = Sgd { epochs: 400, learning_rate: 1e6, weight_decay: 1.0, ..Sgd::default() };
    let mut network = Network::mlp(5, 7, 3, 1).unwrap();
    let error = sgd.fit(&mut network, &data, &mut SeededRng::new(1, "fit")).unwrap_err();
    assert!(matches!(error, Error::Diverged { .. }), "{error}");
}

#[test]
fn scores_are_those_of_the_definition() {
    // One feature, logits (0, x): class 1 where x is positive.
    let params = [("layer0.weight", vec![2, 1], vec![0.0, 1.0]), ("layer0.bias", vec![2], vec![0.0, 0.0])];
    let tensors = params
        .into_iter()
        .map(|(name, dims, values)| {
            Tensor::from_f64(TensorSpec::new(name, Dtype::F32, dims).unwrap(), &values).unwrap()
        })
        .collect();
    let network = Network::from_params(&ParamSet::new(tensors).unwrap()).unwrap();
    let data = Dataset::new(vec![1.0, -1.0, 1000.0, 1.0], vec![1, 0, 1, 0], 1, 2).unwrap();
    let score = network.evaluate(&data).unwrap();
    let small = (1.0 + (-1.0f64).exp()).ln();
    let expected = (small + small + 0.0 + (1.0 + small)) / 4.0;
    assert!((score.loss - expected).abs() < 1e-12, "{score:?} {expected}");
    assert_eq!(score.accuracy, 0.75);
}

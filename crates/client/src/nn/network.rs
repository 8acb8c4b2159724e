//! A stack of fully connected layers with ReLU between them and softmax cross-entropy at the end.

use sheaf_domain::rng::SeededRng;
use sheaf_tensor::{Dtype, ParamSet, Tensor, TensorSpec};

use super::Error;
use super::kernel::{add_scaled, argmax, dot, softmax};
use crate::data::Dataset;

/// Softmax regression (one layer) or a perceptron with a hidden layer (two).
///
/// # Shapes
/// Tensors in this order, all f32: `layer0.weight [H, F]`, `layer0.bias [H]`, `layer1.weight [C, H]`, `layer1.bias [C]`;
/// softmax regression has `layer0` alone, with `C` in place of `H`.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    pub(super) layers: Vec<Layer>,
}

/// `y = weight · x + bias`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layer {
    pub(super) num_inputs: usize,
    /// `[outputs][inputs]`, row-major.
    pub(super) weight: Vec<f64>,
    /// `[outputs]`.
    pub(super) bias: Vec<f64>,
}

/// How well a model does on a data set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Mean cross-entropy, in nats.
    pub loss: f64,
    /// The share of examples whose most probable class is theirs.
    pub accuracy: f64,
}

impl Network {
    /// Softmax regression, all zeros: its loss is convex, so there is nothing to break the symmetry of.
    ///
    /// # Errors
    /// [`Error::Sizes`].
    pub fn softmax(num_features: usize, num_classes: usize) -> Result<Network, Error> {
        check_sizes(&[num_features, num_classes])?;
        Ok(Network { layers: vec![Layer::zeros(num_features, num_classes)] })
    }

    /// A perceptron with one hidden layer of ReLU units. Weights are normal: He's variance 2/inputs before the ReLU,
    /// Glorot's 2/(inputs + outputs) before the softmax. Biases are zero.
    ///
    /// # Errors
    /// [`Error::Sizes`].
    /// # Source
    /// He 2015, "Delving Deep into Rectifiers" (<https://arxiv.org/abs/1502.01852>), section 2.2; Glorot 2010,
    /// "Understanding the difficulty of training deep feedforward neural networks", equation 16 as a normal.
    pub fn mlp(num_features: usize, hidden: usize, num_classes: usize, seed: u64) -> Result<Network, Error> {
        check_sizes(&[num_features, hidden, num_classes])?;
        let mut rng = SeededRng::new(seed, "nn/init");
        let mut layers = vec![Layer::zeros(num_features, hidden), Layer::zeros(hidden, num_classes)];
        let variances = [2.0 / num_features as f64, 2.0 / (hidden + num_classes) as f64];
        for (layer, variance) in layers.iter_mut().zip(variances) {
            for weight in &mut layer.weight {
                *weight = variance.sqrt() * rng.normal();
            }
        }
        Ok(Network { layers })
    }

    /// Reads a model's tensors; any float dtype.
    ///
    /// # Errors
    /// [`Error::Schema`] when they are not those of such a model, or not finite.
    pub fn from_params(params: &ParamSet) -> Result<Network, Error> {
        if params.is_empty() || !params.len().is_multiple_of(2) {
            return Err(Error::Schema {
                reason: format!("it has {} tensors, not a weight and a bias a layer", params.len()),
            });
        }
        let mut layers: Vec<Layer> = Vec::new();
        for idx in 0..params.len() / 2 {
            let layer = Layer::read(params, idx)?;
            if let Some(before) = layers.last()
                && before.bias.len() != layer.num_inputs
            {
                let reason =
                    format!("layer {idx} takes {} inputs of {}", layer.num_inputs, before.bias.len());
                return Err(Error::Schema { reason });
            }
            layers.push(layer);
        }
        Ok(Network { layers })
    }

    /// The model's tensors, rounded to f32.
    ///
    /// # Errors
    /// [`Error::Tensor`]; none for a network that could be made.
    pub fn to_params(&self) -> Result<ParamSet, Error> {
        let mut tensors = Vec::with_capacity(2 * self.layers.len());
        for (idx, layer) in self.layers.iter().enumerate() {
            let (outputs, inputs) = (layer.bias.len() as u64, layer.num_inputs as u64);
            let weight = TensorSpec::new(weight_name(idx), Dtype::F32, [outputs, inputs])?;
            tensors.push(Tensor::from_f64(weight, &layer.weight)?);
            let bias = TensorSpec::new(bias_name(idx), Dtype::F32, [outputs])?;
            tensors.push(Tensor::from_f64(bias, &layer.bias)?);
        }
        Ok(ParamSet::new(tensors)?)
    }

    /// The number of features it takes.
    pub fn num_features(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.num_inputs)
    }

    /// The number of classes it tells apart.
    pub fn num_classes(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.bias.len())
    }

    /// The number of its layers: 1 for softmax regression, 2 for a perceptron.
    pub fn num_layers(&self) -> usize {
        self.layers.len()
    }

    /// Measures it on every example.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when it is not a model for such data.
    pub fn evaluate(&self, data: &Dataset) -> Result<Score, Error> {
        self.check_fits(data)?;
        let mut pass = Pass::new(self);
        let (mut loss, mut right) = (0.0, 0usize);
        for (row, label) in data.labels().iter().enumerate() {
            pass.forward(self, data.row(row));
            right += usize::from(argmax(pass.logits()) == *label);
            loss += softmax(pass.logits_mut(), *label);
        }
        let num_examples = data.len() as f64;
        Ok(Score { loss: loss / num_examples, accuracy: right as f64 / num_examples })
    }

    /// Refuses data the model is not for. Data of fewer classes will do: a site need not have seen them all.
    pub(super) fn check_fits(&self, data: &Dataset) -> Result<(), Error> {
        if self.num_features() != data.num_features() {
            return Err(Error::Mismatch {
                what: "features",
                model: self.num_features(),
                data: data.num_features(),
            });
        }
        let classes_seen = data.labels().iter().max().map_or(0, |label| label + 1);
        if classes_seen > self.num_classes() {
            return Err(Error::Mismatch { what: "classes", model: self.num_classes(), data: classes_seen });
        }
        Ok(())
    }

    /// Adds the gradient of the loss of one example to `gradient`, and gives the loss.
    pub(super) fn add_gradient(
        &self,
        row: &[f64],
        label: usize,
        pass: &mut Pass,
        gradient: &mut Network,
    ) -> f64 {
        pass.forward(self, row);
        let loss = softmax(pass.logits_mut(), label);
        let mut delta = pass.logits().to_vec();
        if let Some(of_label) = delta.get_mut(label) {
            *of_label -= 1.0;
        }
        for (idx, (layer, into)) in self.layers.iter().zip(&mut gradient.layers).enumerate().rev() {
            let input = if idx == 0 { row } else { pass.outputs.get(idx - 1).map_or(&[][..], Vec::as_slice) };
            for ((into, bias), delta) in
                into.weight.chunks_exact_mut(layer.num_inputs).zip(&mut into.bias).zip(&delta)
            {
                add_scaled(into, *delta, input);
                *bias += delta;
            }
            if idx > 0 {
                delta = layer.backward(&delta, input);
            }
        }
        loss
    }

    /// A network of the same shape, all zeros.
    pub(super) fn zeros_like(&self) -> Network {
        let layers = self.layers.iter().map(|layer| Layer::zeros(layer.num_inputs, layer.bias.len()));
        Network { layers: layers.collect() }
    }

    /// Every parameter, one slice a tensor.
    pub(super) fn slices(&self) -> impl Iterator<Item = &[f64]> {
        self.layers.iter().flat_map(|layer| [layer.weight.as_slice(), layer.bias.as_slice()])
    }

    /// Every parameter, one slice a tensor.
    pub(super) fn slices_mut(&mut self) -> impl Iterator<Item = &mut [f64]> {
        self.layers.iter_mut().flat_map(|layer| [layer.weight.as_mut_slice(), layer.bias.as_mut_slice()])
    }

    /// The first tensor that is not finite once rounded to f32, if there is one.
    #[expect(clippy::cast_possible_truncation, reason = "rounding to the precision that is handed on")]
    pub(super) fn first_non_finite(&self) -> Option<String> {
        let at = self.slices().position(|values| values.iter().any(|value| !(*value as f32).is_finite()))?;
        Some(if at % 2 == 0 { weight_name(at / 2) } else { bias_name(at / 2) })
    }
}

impl Layer {
    fn zeros(num_inputs: usize, num_outputs: usize) -> Layer {
        Layer { num_inputs, weight: vec![0.0; num_inputs * num_outputs], bias: vec![0.0; num_outputs] }
    }

    fn read(params: &ParamSet, idx: usize) -> Result<Layer, Error> {
        let (weight, bias) = (float(params, &weight_name(idx))?, float(params, &bias_name(idx))?);
        let (&[outputs, inputs], &[biases]) = (weight.spec.shape.dims(), bias.spec.shape.dims()) else {
            return Err(Error::Schema { reason: format!("layer {idx} is not a matrix and a vector") });
        };
        if outputs != biases || outputs == 0 || inputs == 0 {
            return Err(Error::Schema {
                reason: format!("layer {idx} has {outputs} rows and {biases} biases"),
            });
        }
        let layer = Layer {
            num_inputs: usize::try_from(inputs).unwrap_or(usize::MAX),
            weight: weight.to_f64()?,
            bias: bias.to_f64()?,
        };
        if layer.weight.iter().chain(&layer.bias).any(|value| !value.is_finite()) {
            return Err(Error::Schema { reason: format!("layer {idx} is not finite") });
        }
        Ok(layer)
    }

    fn forward(&self, input: &[f64], output: &mut [f64]) {
        for ((output, row), bias) in
            output.iter_mut().zip(self.weight.chunks_exact(self.num_inputs)).zip(&self.bias)
        {
            *output = bias + dot(row, input);
        }
    }

    /// The gradient with respect to the input, through the ReLU that made it.
    fn backward(&self, delta: &[f64], input: &[f64]) -> Vec<f64> {
        let mut back = vec![0.0; self.num_inputs];
        for (row, delta) in self.weight.chunks_exact(self.num_inputs).zip(delta) {
            add_scaled(&mut back, *delta, row);
        }
        for (back, input) in back.iter_mut().zip(input) {
            if *input <= 0.0 {
                *back = 0.0;
            }
        }
        back
    }
}

/// The outputs of every layer for one example, after the ReLU; those of the last are the logits.
pub(super) struct Pass {
    outputs: Vec<Vec<f64>>,
}

impl Pass {
    pub(super) fn new(network: &Network) -> Pass {
        Pass { outputs: network.layers.iter().map(|layer| vec![0.0; layer.bias.len()]).collect() }
    }

    fn forward(&mut self, network: &Network, row: &[f64]) {
        let last = network.layers.len().saturating_sub(1);
        let mut before: Option<&Vec<f64>> = None;
        for (idx, (layer, output)) in network.layers.iter().zip(&mut self.outputs).enumerate() {
            layer.forward(before.map_or(row, Vec::as_slice), output);
            if idx < last {
                for value in output.iter_mut() {
                    *value = value.max(0.0);
                }
            }
            before = Some(output);
        }
    }

    fn logits(&self) -> &[f64] {
        self.outputs.last().map_or(&[], Vec::as_slice)
    }

    fn logits_mut(&mut self) -> &mut [f64] {
        self.outputs.last_mut().map_or(&mut [], Vec::as_mut_slice)
    }
}

fn float<'a>(params: &'a ParamSet, name: &str) -> Result<&'a Tensor, Error> {
    params
        .get(name)
        .filter(|tensor| tensor.spec.dtype.is_float())
        .ok_or_else(|| Error::Schema { reason: format!("it has no float tensor {name:?}") })
}

fn check_sizes(sizes: &[usize]) -> Result<(), Error> {
    let total = sizes.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    if sizes.contains(&0) || sizes.iter().any(|size| *size > SIZE_MAX) || total.is_none() {
        return Err(Error::Sizes { sizes: sizes.to_vec() });
    }
    Ok(())
}

fn weight_name(layer: usize) -> String {
    format!("layer{layer}.weight")
}

fn bias_name(layer: usize) -> String {
    format!("layer{layer}.bias")
}

/// The most units of a layer.
const SIZE_MAX: usize = 1_000_000;

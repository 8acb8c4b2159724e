//! Models to exchange: the names and shapes of known architectures, made from their dimensions, or one of a wanted size.
//!
//! Only names, dtypes and shapes; the bytes are made piece by piece where they are needed ([`crate::piece`]).
//!
//! # Source
//! Names and shapes are those of the state dictionaries of torchvision (ResNet-50, He 2016, "Deep Residual Learning for Image
//! Recognition") and of Hugging Face transformers (GPT-2, Radford 2019). GPT-2's state dictionary lists the tied output matrix
//! `lm_head.weight` beside `transformer.wte.weight`, and both are exchanged: that is what published exchanges of it count as 437
//! tensors.

use sheaf_tensor::{Dtype, TensorSpec};

use crate::Error;

/// The presets by name.
pub const PRESETS: [&str; 5] = ["mlp", "cnn-1m", "resnet50", "gpt2", "gpt2-large"];

/// The tensors of a preset.
///
/// # Errors
/// [`Error::Unexpected`] for a name that is none of [`PRESETS`].
pub fn preset(name: &str) -> Result<Vec<TensorSpec>, Error> {
    let mut specs = Specs::default();
    match name {
        "mlp" => mlp(&mut specs),
        "cnn-1m" => cnn(&mut specs),
        "resnet50" => resnet50(&mut specs),
        "gpt2" => gpt2(&mut specs, 12, 768),
        "gpt2-large" => gpt2(&mut specs, 36, 1280),
        other => {
            return Err(Error::unexpected(format!("model {other:?} is none of {}", PRESETS.join(", "))));
        }
    }
    specs.finish()
}

/// A model of about `bytes` bytes: square f32 matrices of at most 64 MiB, the last one shorter.
///
/// # Errors
/// [`Error::Tensor`]; none for sizes that fit a disk.
pub fn of_size(bytes: u64) -> Result<Vec<TensorSpec>, Error> {
    let mut specs = Specs::default();
    let row = SIDE * F32_LEN;
    let (mut left, mut layer) = (bytes.max(F32_LEN), 0);
    while left > 0 {
        let rows = (left / row).min(SIDE);
        let dims = if rows > 0 { vec![rows, SIDE] } else { vec![left.div_ceil(F32_LEN)] };
        let len = dims.iter().product::<u64>() * F32_LEN;
        specs.float(format!("layer{layer}.weight"), dims);
        left = left.saturating_sub(len);
        layer += 1;
    }
    specs.finish()
}

/// How many bytes all tensors have.
pub fn byte_len(specs: &[TensorSpec]) -> u64 {
    specs.iter().map(TensorSpec::byte_len).sum()
}

/// How many elements all tensors have.
pub fn num_elements(specs: &[TensorSpec]) -> u64 {
    specs.iter().map(|spec| spec.shape.num_elements()).sum()
}

#[derive(Default)]
struct Specs(Vec<(String, Dtype, Vec<u64>)>);

impl Specs {
    fn float(&mut self, name: impl Into<String>, dims: impl Into<Vec<u64>>) {
        self.0.push((name.into(), Dtype::F32, dims.into()));
    }

    /// A weight matrix (or kernel) and its bias.
    fn layer(&mut self, name: &str, dims: impl Into<Vec<u64>>, outputs: u64) {
        self.float(format!("{name}.weight"), dims);
        self.float(format!("{name}.bias"), [outputs]);
    }

    fn batch_norm(&mut self, name: &str, channels: u64) {
        for part in ["weight", "bias", "running_mean", "running_var"] {
            self.float(format!("{name}.{part}"), [channels]);
        }
        self.0.push((format!("{name}.num_batches_tracked"), Dtype::I64, Vec::new()));
    }

    fn finish(self) -> Result<Vec<TensorSpec>, Error> {
        let specs = self.0.into_iter().map(|(name, dtype, dims)| TensorSpec::new(name, dtype, dims));
        Ok(specs.collect::<Result<_, _>>()?)
    }
}

/// 784 inputs, two hidden layers, 10 classes.
fn mlp(specs: &mut Specs) {
    specs.layer("fc1", [200, 784], 200);
    specs.layer("fc2", [200, 200], 200);
    specs.layer("fc3", [10, 200], 10);
}

/// Two convolutions of 5 × 5 and two dense layers over 28 × 28 images, 1.66 million parameters (McMahan 2017's CNN).
fn cnn(specs: &mut Specs) {
    specs.layer("conv1", [32, 1, 5, 5], 32);
    specs.layer("conv2", [64, 32, 5, 5], 64);
    specs.layer("fc1", [512, 3136], 512);
    specs.layer("fc2", [10, 512], 10);
}

fn resnet50(specs: &mut Specs) {
    specs.float("conv1.weight", [64, 3, 7, 7]);
    specs.batch_norm("bn1", 64);
    let mut inputs = 64;
    for (stage, (blocks, width)) in [(3, 64), (4, 128), (6, 256), (3, 512)].into_iter().enumerate() {
        for block in 0..blocks {
            let name = format!("layer{}.{block}", stage + 1);
            specs.float(format!("{name}.conv1.weight"), [width, inputs, 1, 1]);
            specs.batch_norm(&format!("{name}.bn1"), width);
            specs.float(format!("{name}.conv2.weight"), [width, width, 3, 3]);
            specs.batch_norm(&format!("{name}.bn2"), width);
            specs.float(format!("{name}.conv3.weight"), [4 * width, width, 1, 1]);
            specs.batch_norm(&format!("{name}.bn3"), 4 * width);
            if block == 0 {
                specs.float(format!("{name}.downsample.0.weight"), [4 * width, inputs, 1, 1]);
                specs.batch_norm(&format!("{name}.downsample.1"), 4 * width);
            }
            inputs = 4 * width;
        }
    }
    specs.layer("fc", [1000, 2048], 1000);
}

fn gpt2(specs: &mut Specs, layers: u64, width: u64) {
    let norm = |specs: &mut Specs, name: &str| specs.layer(name, [width], width);
    specs.float("transformer.wte.weight", [VOCABULARY, width]);
    specs.float("transformer.wpe.weight", [POSITIONS, width]);
    for layer in 0..layers {
        let name = format!("transformer.h.{layer}");
        norm(specs, &format!("{name}.ln_1"));
        specs.layer(&format!("{name}.attn.c_attn"), [width, 3 * width], 3 * width);
        specs.layer(&format!("{name}.attn.c_proj"), [width, width], width);
        norm(specs, &format!("{name}.ln_2"));
        specs.layer(&format!("{name}.mlp.c_fc"), [width, 4 * width], 4 * width);
        specs.layer(&format!("{name}.mlp.c_proj"), [4 * width, width], width);
    }
    norm(specs, "transformer.ln_f");
    specs.float("lm_head.weight", [VOCABULARY, width]);
}

const VOCABULARY: u64 = 50_257;
const POSITIONS: u64 = 1_024;
const SIDE: u64 = 4_096;
const F32_LEN: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_have_the_sizes_of_their_architectures() {
        // (name, tensors, parameters that are trained; batch norms' statistics and the tied matrix are not)
        let known = [
            ("mlp", 6, 199_210),
            ("cnn-1m", 8, 1_663_370),
            ("resnet50", 320, 25_557_032),
            ("gpt2", 149, 124_439_808),
            ("gpt2-large", 437, 774_030_080),
        ];
        for (name, tensors, parameters) in known {
            let specs = preset(name).unwrap();
            let statistics = ["running_mean", "running_var", "num_batches_tracked", "lm_head.weight"];
            let trained = specs.iter().filter(|spec| !statistics.iter().any(|end| spec.name.ends_with(end)));
            let trained: u64 = trained.map(|spec| spec.shape.num_elements()).sum();
            assert_eq!((specs.len(), trained), (tensors, parameters), "{name}");
        }
        assert!(preset("alexnet").is_err());
    }

    #[test]
    fn a_model_of_a_size_has_that_size() {
        for bytes in [1, 4, 1_000, 100_000_000, 1 << 30] {
            let specs = of_size(bytes).unwrap();
            assert_eq!(byte_len(&specs), bytes.div_ceil(4) * 4, "{bytes}");
            assert_eq!(num_elements(&specs), bytes.div_ceil(4));
        }
    }
}

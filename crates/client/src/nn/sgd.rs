//! Stochastic gradient descent with momentum, weight decay and the proximal term of FedProx.

use sheaf_domain::rng::SeededRng;

use super::network::Pass;
use super::{Error, Network};
use crate::data::Dataset;

/// How a model is trained.
///
/// For each batch, with `g` the mean gradient of the batch's losses and `w0` the parameters before training:
/// `g += weight_decay·w + proximal_mu·(w − w0)`, `v = momentum·v + g`, `w −= learning_rate·v`. The velocity `v` begins at
/// zero with each call.
///
/// # Source
/// Momentum as in Sutskever 2013, "On the importance of initialization and momentum in deep learning", in the form
/// without a dampened gradient; the proximal term of Li 2020, "Federated Optimization in Heterogeneous Networks"
/// (<https://arxiv.org/abs/1812.06127>), Algorithm 2: `mu/2·‖w − w0‖²` added to the loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Sgd {
    /// Passes over the data, at least 1.
    pub epochs: u32,
    /// Examples in a batch; 0, or as many as there are, takes all at once, in their order. The last batch may be smaller.
    pub batch_size: usize,
    /// Learning rate, positive.
    pub learning_rate: f64,
    /// Momentum, in [0, 1).
    pub momentum: f64,
    /// Weight decay, at least 0; biases decay too.
    pub weight_decay: f64,
    /// Weight of the proximal term, at least 0.
    pub proximal_mu: f64,
}

impl Default for Sgd {
    /// One epoch of batches of 32 at learning rate 0.1, without anything else.
    fn default() -> Sgd {
        Sgd {
            epochs: 1,
            batch_size: 32,
            learning_rate: 0.1,
            momentum: 0.0,
            weight_decay: 0.0,
            proximal_mu: 0.0,
        }
    }
}

impl Sgd {
    /// Trains `network` on `data`, and gives the mean loss of the last epoch as it went along.
    ///
    /// Examples are shuffled by `rng` before every epoch, unless all are taken at once.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for data the model is not for, with nothing changed; [`Error::Diverged`] when the loss or a
    /// parameter stops being finite.
    pub fn fit(&self, network: &mut Network, data: &Dataset, rng: &mut SeededRng) -> Result<f64, Error> {
        network.check_fits(data)?;
        let start = network.clone();
        let mut velocity = network.zeros_like();
        let mut gradient = network.zeros_like();
        let mut pass = Pass::new(network);
        let mut order: Vec<usize> = (0..data.len()).collect();
        let full = self.batch_size == 0 || self.batch_size >= data.len();
        let batch_size = if full { data.len() } else { self.batch_size };
        let mut loss = 0.0;
        for epoch in 1..=self.epochs {
            if !full {
                rng.shuffle(&mut order);
            }
            loss = 0.0;
            for batch in order.chunks(batch_size) {
                gradient.slices_mut().for_each(|values| values.fill(0.0));
                for row in batch {
                    let label = data.labels().get(*row).copied().unwrap_or_default();
                    loss += network.add_gradient(data.row(*row), label, &mut pass, &mut gradient);
                }
                self.step(network, &start, &mut velocity, &gradient, batch.len());
            }
            loss /= data.len() as f64;
            if !loss.is_finite() {
                return Err(Error::Diverged { epoch, what: "the loss".to_owned() });
            }
        }
        match network.first_non_finite() {
            Some(what) => Err(Error::Diverged { epoch: self.epochs, what }),
            None => Ok(loss),
        }
    }

    fn step(
        &self,
        network: &mut Network,
        start: &Network,
        velocity: &mut Network,
        gradient: &Network,
        count: usize,
    ) {
        let count = count as f64;
        let tensors =
            network.slices_mut().zip(start.slices()).zip(velocity.slices_mut()).zip(gradient.slices());
        for (((weights, starts), velocities), sums) in tensors {
            for (((w, w0), v), sum) in weights.iter_mut().zip(starts).zip(velocities).zip(sums) {
                let g = sum / count + self.weight_decay * *w + self.proximal_mu * (*w - w0);
                *v = self.momentum * *v + g;
                *w -= self.learning_rate * *v;
            }
        }
    }
}

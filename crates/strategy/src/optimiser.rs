//! The server optimiser: from the current values and the folded ones to the next, with moments carried along.
//!
//! It keeps nothing between calls. The moments of an element depend on that element alone, so a model may be
//! stepped tile by tile, in any order and from any thread, with the same bits as a result.

use sheaf_domain::{AdaptiveKind, GradientOptimiser, ServerStep};

use crate::Error;

/// How a folded value becomes the next version, for one round.
///
/// In the notation of the papers `x` is the current value, `delta` is folded − current, `m` and `v` the moments (zero
/// before the first round, but for gradients), `eta` the server learning rate.
///
/// - **Replace** (FedAvg, FedProx, the robust rules): the folded value itself.
/// - **Momentum** (FedAvgM): `m = momentum·m + delta`, `x += eta·m`. Hsu 2019 writes it with the negated delta, a
///   pseudo-gradient, and subtracts; the numbers are the same. With zero moments the first round is `m = delta`.
/// - **Adaptive**: `m = beta1·m + (1 − beta1)·delta`; then by kind
///   - FedAdagrad `v = v + delta²`,
///   - FedYogi `v = v − (1 − beta2)·delta²·sign(v − delta²)`, where sign(0) = 0,
///   - FedAdam `v = beta2·v + (1 − beta2)·delta²`;
///
///   and `x += eta·m / (sqrt(v) + tau)`. **FedAdam alone** takes, in place of `eta`, the bias-corrected
///   `eta·sqrt(1 − beta2^(round+1)) / (1 − beta1^(round+1))`, rounds counted from 1.
/// - **Gradient** (told versions): `g` is current − folded, moments begin with `start`; then by kind
///   - Adagrad `v = v + g²`, `x −= eta·g / (sqrt(v) + epsilon)`,
///   - Adam `m = beta1·m + (1 − beta1)·g`, `v = beta2·v + (1 − beta2)·g²`,
///     `x −= eta·(m / (1 − beta1^round)) / (sqrt(v / (1 − beta2^round)) + epsilon)`.
///
/// # Numerics
/// f64 throughout; the operations are in the order written, and integer powers are products, so the bits do not depend
/// on a maths library. NaN and infinity propagate to their element. Rounding to the model's dtype is the caller's.
///
/// # Examples
/// ```
/// use sheaf_domain::ServerStep;
/// use sheaf_strategy::ServerOptimiser;
///
/// let step = ServerStep::Momentum { learning_rate: 0.5, momentum: 0.9 };
/// let (mut m, mut next) = ([0.0], [0.0]);
/// ServerOptimiser::new(&step, 1)?.step(&[1.0], &[3.0], &mut [&mut m], &mut next)?;
/// assert_eq!((m, next), ([2.0], [2.0]));
/// # Ok::<(), sheaf_strategy::Error>(())
/// ```
///
/// # Source
/// McMahan 2017 (<https://arxiv.org/abs/1602.05629>), Algorithm 1, for FedAvg. Hsu 2019, "Measuring the Effects of
/// Non-Identical Data Distribution for Federated Visual Classification" (<https://arxiv.org/abs/1909.06335>),
/// for FedAvgM. Reddi 2021, "Adaptive Federated Optimization" (<https://arxiv.org/abs/2003.00295>), Algorithm 2,
/// for the adaptive kinds.
///
/// Where the papers and the implementation in Flower 1.42.0 (`flwr/serverapp/strategy/fed{opt,adam,yogi,adagrad,
/// avgm}.py`; `flwr/server/strategy` computes the same) part, the implementation is followed, so that its users get the
/// numbers they know: `v` starts at zero (the paper: at `tau²` or above), and FedAdam corrects its learning rate for
/// bias with `round + 1` as exponent (the paper has no correction; Kingma 2014, <https://arxiv.org/abs/1412.6980>,
/// section 2, has it with `round`). One difference stays: Flower computes in the dtype of the arrays, often float32,
/// where this computes in f64 and rounds once.
///
/// Gradients are openfl 1.9's (`openfl/utilities/optimizers/numpy/{adagrad,adam}_optimizer.py`; Duchi 2011,
/// <https://jmlr.org/papers/v12/duchi11a.html>, and Kingma 2014), with the same difference, and with the current version for the
/// parameters that upstream keeps beside it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ServerOptimiser(Step);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Replace,
    Momentum { rate: f64, momentum: f64 },
    Adaptive { kind: AdaptiveKind, rate: f64, beta1: f64, beta2: f64, tau: f64 },
    Adagrad { rate: f64, epsilon: f64, start: f64 },
    Adam { adam: Adam, start: f64 },
}

impl ServerOptimiser {
    /// The optimiser of a plan's server step in `round` (from 1).
    ///
    /// # Errors
    /// [`Error::BadParameter`] for a learning rate or `tau` that is not positive and finite, or a decay outside
    /// [0, 1), or a start below 0; [`Error::Unknown`] for a step this version does not know.
    pub fn new(step: &ServerStep, round: u32) -> Result<ServerOptimiser, Error> {
        let step = match *step {
            // How participants are told it is not the optimiser's to know.
            ServerStep::Replace | ServerStep::Told { optimiser: None, .. } => Step::Replace,
            ServerStep::Told { optimiser: Some(optimiser), .. } => of_gradients(optimiser, round)?,
            ServerStep::Momentum { learning_rate, momentum } => Step::Momentum {
                rate: positive("server learning rate", learning_rate)?,
                momentum: decay("server momentum", momentum)?,
            },
            ServerStep::Adaptive { kind, learning_rate, beta1, beta2, tau } => {
                let eta = positive("server learning rate", learning_rate)?;
                let (beta1, beta2) = (decay("beta1", beta1)?, decay("beta2", beta2)?);
                let rate = match kind {
                    AdaptiveKind::Adam => bias_corrected(eta, beta1, beta2, round),
                    AdaptiveKind::Adagrad | AdaptiveKind::Yogi => eta,
                };
                Step::Adaptive { kind, rate, beta1, beta2, tau: positive("tau", tau)? }
            }
            _ => return Err(Error::Unknown { what: "server step" }),
        };
        Ok(ServerOptimiser(step))
    }

    /// The names of the moments it keeps, in the order [`ServerOptimiser::step`] takes them.
    ///
    /// Each has the model's tensors and shapes in f64 and is [`ServerOptimiser::start`] throughout before the first step.
    pub fn moments(&self) -> &'static [&'static str] {
        match self.0 {
            Step::Replace => &[],
            Step::Momentum { .. } => &["m"],
            Step::Adagrad { .. } => &["v"],
            Step::Adaptive { .. } | Step::Adam { .. } => &["m", "v"],
        }
    }

    /// What every element of every moment is before the first step.
    pub fn start(&self) -> f64 {
        match self.0 {
            Step::Adagrad { start, .. } | Step::Adam { start, .. } => start,
            Step::Replace | Step::Momentum { .. } | Step::Adaptive { .. } => 0.0,
        }
    }

    /// Steps one tile: reads `current` and `folded`, updates the moments in place and writes `next`.
    ///
    /// # Shapes
    /// All slices `[P]`; `moments` as many as [`ServerOptimiser::moments`] names.
    /// # Errors
    /// [`Error::Length`] or [`Error::Moments`]; nothing is written then.
    pub fn step(
        &self,
        current: &[f64],
        folded: &[f64],
        moments: &mut [&mut [f64]],
        next: &mut [f64],
    ) -> Result<(), Error> {
        self.check(current.len(), folded, moments, next)?;
        let elements = current.iter().zip(folded).zip(next.iter_mut());
        match (self.0, moments) {
            (Step::Momentum { rate, momentum }, [m]) => step_momentum(rate, momentum, elements, m),
            (Step::Adaptive { kind, rate, beta1, beta2, tau }, [m, v]) => {
                let adapt = Adapt { rate, beta1, tau };
                let rest = 1.0 - beta2;
                match kind {
                    AdaptiveKind::Adagrad => adapt.step(|v, square| v + square, elements, m, v),
                    AdaptiveKind::Adam => adapt.step(|v, square| beta2 * v + rest * square, elements, m, v),
                    AdaptiveKind::Yogi => {
                        adapt.step(|v, square| v - rest * square * sign(v - square), elements, m, v);
                    }
                }
            }
            (Step::Adagrad { rate, epsilon, .. }, [v]) => step_adagrad(rate, epsilon, elements, v),
            (Step::Adam { adam, .. }, [m, v]) => adam.step(elements, m, v),
            _ => next.copy_from_slice(folded),
        }
        Ok(())
    }

    fn check(
        &self,
        expected: usize,
        folded: &[f64],
        moments: &[&mut [f64]],
        next: &[f64],
    ) -> Result<(), Error> {
        let names = self.moments();
        if moments.len() != names.len() {
            return Err(Error::Moments { expected: names.len(), got: moments.len() });
        }
        let lengths = moments.iter().map(|moment| moment.len());
        let slices =
            names.iter().copied().zip(lengths).chain([("folded", folded.len()), ("next", next.len())]);
        for (what, got) in slices {
            if got != expected {
                return Err(Error::Length { what, expected, got });
            }
        }
        Ok(())
    }
}

/// The current and the folded value of an element, and the place of its next.
type Element<'a> = ((&'a f64, &'a f64), &'a mut f64);

fn step_momentum<'a>(rate: f64, momentum: f64, elements: impl Iterator<Item = Element<'a>>, m: &mut [f64]) {
    for (((x, folded), next), m) in elements.zip(m) {
        *m = momentum * *m + (folded - x);
        *next = x + rate * *m;
    }
}

/// What the adaptive kinds share; they differ in how the second moment takes in the square of the difference.
struct Adapt {
    rate: f64,
    beta1: f64,
    tau: f64,
}

impl Adapt {
    #[inline]
    fn step<'a>(
        &self,
        second: impl Fn(f64, f64) -> f64,
        elements: impl Iterator<Item = Element<'a>>,
        m: &mut [f64],
        v: &mut [f64],
    ) {
        for ((((x, folded), next), m), v) in elements.zip(m).zip(v) {
            let delta = folded - x;
            *m = self.beta1 * *m + (1.0 - self.beta1) * delta;
            *v = second(*v, delta * delta);
            *next = x + self.rate * *m / (v.sqrt() + self.tau);
        }
    }
}

fn of_gradients(optimiser: GradientOptimiser, round: u32) -> Result<Step, Error> {
    Ok(match optimiser {
        GradientOptimiser::Adagrad { learning_rate, start, epsilon } => Step::Adagrad {
            rate: positive("server learning rate", learning_rate)?,
            epsilon: positive("epsilon", epsilon)?,
            start: at_least_zero("start", start)?,
        },
        GradientOptimiser::Adam { learning_rate, beta1, beta2, start, epsilon } => {
            let (beta1, beta2) = (decay("beta1", beta1)?, decay("beta2", beta2)?);
            let adam = Adam {
                rate: positive("server learning rate", learning_rate)?,
                beta1,
                beta2,
                epsilon: positive("epsilon", epsilon)?,
                gone1: 1.0 - power(beta1, round.max(1)),
                gone2: 1.0 - power(beta2, round.max(1)),
            };
            Step::Adam { adam, start: at_least_zero("start", start)? }
        }
    })
}

fn step_adagrad<'a>(rate: f64, epsilon: f64, elements: impl Iterator<Item = Element<'a>>, v: &mut [f64]) {
    for (((x, folded), next), v) in elements.zip(v) {
        let gradient = x - folded;
        *v += gradient * gradient;
        *next = x - rate * gradient / (v.sqrt() + epsilon);
    }
}

/// Adam of gradients, in one round.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Adam {
    rate: f64,
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    /// How much of what `m` began with is gone.
    gone1: f64,
    /// The same of `v`.
    gone2: f64,
}

impl Adam {
    fn step<'a>(&self, elements: impl Iterator<Item = Element<'a>>, m: &mut [f64], v: &mut [f64]) {
        for ((((x, folded), next), m), v) in elements.zip(m).zip(v) {
            let gradient = x - folded;
            *m = self.beta1 * *m + (1.0 - self.beta1) * gradient;
            *v = self.beta2 * *v + (1.0 - self.beta2) * (gradient * gradient);
            *next = x - self.rate * (*m / self.gone1) / ((*v / self.gone2).sqrt() + self.epsilon);
        }
    }
}

fn bias_corrected(eta: f64, beta1: f64, beta2: f64, round: u32) -> f64 {
    let exponent = round.saturating_add(1);
    eta * (1.0 - power(beta2, exponent)).sqrt() / (1.0 - power(beta1, exponent))
}

/// By repeated squaring, so that the bits are the same everywhere.
fn power(base: f64, exponent: u32) -> f64 {
    let (mut result, mut square, mut rest) = (1.0, base, exponent);
    while rest > 0 {
        if rest & 1 == 1 {
            result *= square;
        }
        square *= square;
        rest >>= 1;
    }
    result
}

/// -1, 0 or 1; unlike [`f64::signum`], zero has no sign. NaN stays NaN.
fn sign(value: f64) -> f64 {
    if value == 0.0 { 0.0 } else { value.signum() }
}

fn positive(name: &'static str, value: f64) -> Result<f64, Error> {
    if value.is_finite() && value > 0.0 {
        return Ok(value);
    }
    Err(Error::BadParameter { name, value, range: "positive and finite" })
}

fn decay(name: &'static str, value: f64) -> Result<f64, Error> {
    if (0.0..1.0).contains(&value) {
        Ok(value)
    } else {
        Err(Error::BadParameter { name, value, range: "in [0, 1)" })
    }
}

fn at_least_zero(name: &'static str, value: f64) -> Result<f64, Error> {
    if value.is_finite() && value >= 0.0 {
        return Ok(value);
    }
    Err(Error::BadParameter { name, value, range: "finite and at least 0" })
}

//! The model of a simulated run, and what a site makes of it: always the same, whatever happens around it.

use async_trait::async_trait;
use bytes::Bytes;
use sheaf_client::participant::{Done, Job, Worker};
use sheaf_domain::rng::SeededRng;
use sheaf_domain::{Digest, Metrics, SiteName, SlotName};
use sheaf_tensor::{Dtype, ParamSet, Tensor, TensorSpec};

/// The length of the first model's byte stream, in bytes.
pub(crate) const MODEL_LEN: usize = 600 * 4 + 5 * 8;

/// Three tensors, one of them empty.
pub(crate) fn specs() -> Vec<TensorSpec> {
    vec![
        TensorSpec::new("w", Dtype::F32, [20, 30]).unwrap(),
        TensorSpec::new("none", Dtype::F32, [0]).unwrap(),
        TensorSpec::new("b", Dtype::F64, [5]).unwrap(),
    ]
}

fn zeros() -> ParamSet {
    let tensors = specs().into_iter().map(|spec| {
        let len = usize::try_from(spec.byte_len()).unwrap();
        Tensor::new(spec, Bytes::from(vec![0; len])).unwrap()
    });
    ParamSet::new(tensors.collect()).unwrap()
}

/// What `site` makes of a model in a round.
fn trained(model: &ParamSet, site: &SiteName, round: u32) -> ParamSet {
    let mark = Digest::of(format!("{site} {round}").as_bytes());
    let step = |idx: usize| f64::from(mark.as_bytes()[idx % 32]) / 100.0 + idx as f64 * 1e-3;
    let tensors = model.iter().map(|tensor| {
        let bytes: Vec<u8> = match tensor.spec.dtype {
            Dtype::F64 => {
                let values = tensor.bytes.chunks_exact(8).enumerate();
                values
                    .flat_map(|(i, c)| (f64::from_le_bytes(c.try_into().unwrap()) + step(i)).to_le_bytes())
                    .collect()
            }
            _ => {
                let values = tensor.bytes.chunks_exact(4).enumerate();
                #[expect(clippy::cast_possible_truncation, reason = "the model is of 32-bit numbers")]
                let next =
                    |i, c: &[u8]| f32::from_le_bytes(c.try_into().unwrap()).mul_add(0.9, step(i) as f32);
                values.flat_map(|(i, c)| next(i, c).to_le_bytes()).collect()
            }
        };
        Tensor::new(tensor.spec.clone(), Bytes::from(bytes)).unwrap()
    });
    ParamSet::new(tensors.collect()).unwrap()
}

/// Works for as long as a seed says, with the same result every time.
#[derive(Debug)]
pub(crate) struct SteadyWorker {
    pub(crate) seed: u64,
    pub(crate) work_ms_max: u64,
}

#[async_trait]
impl Worker for SteadyWorker {
    fn accept(&self, _: &sheaf_messages::Order) -> Result<(), String> {
        Ok(())
    }

    async fn work(&self, job: Job) -> Result<Done, String> {
        let assignment = &job.order.assignment;
        let label = format!("{} {} {}", assignment.site, assignment.round, assignment.stage);
        let takes_ms = SeededRng::new(self.seed, &label).below(self.work_ms_max) + 1;
        tokio::time::sleep(std::time::Duration::from_millis(takes_ms)).await;
        let start = job.inputs.first().map_or_else(zeros, |(_, model)| model.clone());
        let outputs = job.order.outputs.iter().map(|wanted| {
            // Whoever makes the first model makes the same.
            let made = if job.inputs.is_empty() {
                start.clone()
            } else {
                trained(&start, &assignment.site, assignment.round)
            };
            (wanted.output.slot.clone(), made)
        });
        let outputs: Vec<(SlotName, ParamSet)> = outputs.collect();
        let weight = f64::from(Digest::of(assignment.site.as_str().as_bytes()).as_bytes()[0]) + 1.0;
        Ok(Done {
            outputs,
            num_examples: weight,
            metrics: Metrics::from([("accuracy".to_owned(), 1.0 / weight)]),
        })
    }
}

//! Work orders: an assignment with the tensors of its inputs and of what its outputs must be like.
//!
//! An order tells a participant names, dtypes and shapes, never where the server keeps the bytes.

use sheaf_domain::{Assignment, InputSlot, OutputSlot, SlotRole, Span, TaskId};
use sheaf_tensor::TensorSpec;

use crate::bounds::{CONFIG_TEXT_LEN_MAX, REASON_LEN_MAX, SLOTS_MAX};
use crate::text::{self, limit};
use crate::{Error, config_from_wire, config_to_wire, specs_from_wire, specs_to_wire, v1};

/// Work for one participant, as it is handed out.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// The assignment; its deadline stays with the server.
    pub assignment: Assignment,
    /// The tensors of each of the assignment's inputs, in their order.
    pub inputs: Vec<Filled>,
    /// What each of the assignment's outputs must be like, in their order.
    pub outputs: Vec<Wanted>,
    /// Time left until the stage closes.
    pub remaining: Option<Span>,
}

/// An input and its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filled {
    /// The slot.
    pub input: InputSlot,
    /// Its tensors, in the order of the canonical byte stream.
    pub tensors: Vec<TensorSpec>,
}

impl Filled {
    /// The length of the canonical byte stream.
    pub fn byte_len(&self) -> u64 {
        self.tensors.iter().map(TensorSpec::byte_len).sum()
    }
}

/// An output and what its tensors must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The slot.
    pub output: OutputSlot,
    /// The tensors it must have; any where absent.
    pub tensors: Option<Vec<TensorSpec>>,
}

/// A task that is no longer wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawal {
    /// The task.
    pub task: TaskId,
    /// Why, for people.
    pub reason: String,
}

impl Order {
    /// The order for the wire.
    ///
    /// # Errors
    /// [`Error::Bad`] for a configuration value this version of the protocol has no form for.
    pub fn to_wire(&self) -> Result<v1::WorkOrder, Error> {
        let assignment = &self.assignment;
        Ok(v1::WorkOrder {
            task: assignment.task.to_string(),
            run: assignment.run.to_string(),
            run_name: assignment.run_name.clone(),
            round: assignment.round,
            stage: assignment.stage.to_string(),
            site: assignment.site.to_string(),
            attempt: assignment.attempt,
            inputs: self.inputs.iter().map(input_to_wire).collect(),
            outputs: self.outputs.iter().map(output_to_wire).collect(),
            config: config_to_wire(&assignment.config)?,
            seed: format!("{:016x}", assignment.seed),
            remaining_ms: self.remaining.map(Span::as_millis),
        })
    }

    /// The order from the wire.
    ///
    /// # Errors
    /// [`Error`] naming the first field that is wrong.
    pub fn from_wire(order: &v1::WorkOrder) -> Result<Order, Error> {
        limit("inputs", order.inputs.len(), SLOTS_MAX)?;
        limit("outputs", order.outputs.len(), SLOTS_MAX)?;
        limit("run name", order.run_name.len(), CONFIG_TEXT_LEN_MAX)?;
        let inputs = order.inputs.iter().map(input_from_wire).collect::<Result<Vec<_>, _>>()?;
        let outputs = order.outputs.iter().map(output_from_wire).collect::<Result<Vec<_>, _>>()?;
        let assignment = Assignment {
            task: text::task(&order.task)?,
            run: text::run(&order.run)?,
            run_name: order.run_name.clone(),
            round: order.round,
            stage: text::stage(&order.stage)?,
            site: text::site(&order.site)?,
            attempt: order.attempt,
            inputs: inputs.iter().map(|filled| filled.input.clone()).collect(),
            outputs: outputs.iter().map(|wanted| wanted.output.clone()).collect(),
            config: config_from_wire(&order.config)?,
            seed: seed(&order.seed)?,
            deadline: None,
        };
        Ok(Order { assignment, inputs, outputs, remaining: order.remaining_ms.map(Span::from_millis) })
    }
}

impl Withdrawal {
    /// The withdrawal for the wire.
    pub fn to_wire(&self) -> v1::Withdrawn {
        v1::Withdrawn { task: self.task.to_string(), reason: self.reason.clone() }
    }

    /// The withdrawal from the wire; an over-long reason is cut.
    ///
    /// # Errors
    /// [`Error::Bad`] for a task that is not well formed.
    pub fn from_wire(withdrawn: &v1::Withdrawn) -> Result<Withdrawal, Error> {
        let reason = withdrawn.reason.chars().take(REASON_LEN_MAX).collect();
        Ok(Withdrawal { task: text::task(&withdrawn.task)?, reason })
    }
}

fn input_to_wire(filled: &Filled) -> v1::Input {
    v1::Input {
        slot: filled.input.slot.to_string(),
        role: role_to_wire(filled.input.role).to_owned(),
        version: Some(text::version_to_wire(&filled.input.version)),
        digest: filled.input.digest.to_string(),
        tensors: specs_to_wire(filled.tensors.iter()),
    }
}

fn input_from_wire(input: &v1::Input) -> Result<Filled, Error> {
    let slot = InputSlot {
        slot: text::slot(&input.slot)?,
        role: role_from_wire(&input.role)?,
        version: text::version_from_wire(input.version.as_ref())?,
        digest: text::digest(&input.digest)?,
    };
    Ok(Filled { input: slot, tensors: specs_from_wire(&input.tensors)? })
}

fn output_to_wire(wanted: &Wanted) -> v1::Output {
    let like = wanted.tensors.as_ref().map(|tensors| v1::Like {
        version: wanted.output.like.as_ref().map(text::version_to_wire),
        tensors: specs_to_wire(tensors.iter()),
    });
    v1::Output {
        slot: wanted.output.slot.to_string(),
        role: role_to_wire(wanted.output.role).to_owned(),
        like,
    }
}

fn output_from_wire(output: &v1::Output) -> Result<Wanted, Error> {
    let like = output.like.as_ref();
    let version = like
        .and_then(|like| like.version.as_ref())
        .map(|version| text::version_from_wire(Some(version)))
        .transpose()?;
    let slot =
        OutputSlot { slot: text::slot(&output.slot)?, role: role_from_wire(&output.role)?, like: version };
    let tensors = like.map(|like| specs_from_wire(&like.tensors)).transpose()?;
    Ok(Wanted { output: slot, tensors })
}

fn role_to_wire(role: SlotRole) -> &'static str {
    match role {
        SlotRole::Delta => "delta",
        SlotRole::OptimiserState => "optimiser_state",
        _ => "weights",
    }
}

fn role_from_wire(role: &str) -> Result<SlotRole, Error> {
    match role {
        "weights" => Ok(SlotRole::Weights),
        "delta" => Ok(SlotRole::Delta),
        "optimiser_state" => Ok(SlotRole::OptimiserState),
        other => Err(Error::unknown("role", other, "weights, delta, optimiser_state")),
    }
}

fn seed(text: &str) -> Result<u64, Error> {
    let well_formed = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    well_formed
        .then(|| u64::from_str_radix(text, 16).ok())
        .flatten()
        .ok_or_else(|| Error::bad("seed", "it must be 16 hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sheaf_domain::{ConfigMap, ConfigValue, Digest, LineageName, RunId, SiteName, VersionRef};
    use sheaf_tensor::Dtype;

    fn order() -> Order {
        let run = RunId::new(7).unwrap();
        let version = VersionRef { run, lineage: LineageName::global(), version: 3 };
        let slot = text::slot("model").unwrap();
        let tensors = vec![TensorSpec::new("w", Dtype::F32, [2, 2]).unwrap()];
        let input = InputSlot {
            slot: slot.clone(),
            role: SlotRole::Weights,
            version: version.clone(),
            digest: Digest::of(b"model"),
        };
        let output = OutputSlot { slot, role: SlotRole::Delta, like: Some(version) };
        let stage = text::stage("train").unwrap();
        let site = SiteName::new("site-1").unwrap();
        let assignment = Assignment {
            task: TaskId::derive(run, 4, &stage, &site, 1),
            run,
            run_name: "digits".to_owned(),
            round: 4,
            stage,
            site,
            attempt: 1,
            inputs: vec![input.clone()],
            outputs: vec![output.clone()],
            config: ConfigMap::from([("epochs".to_owned(), ConfigValue::Int(5))]),
            seed: u64::MAX,
            deadline: None,
        };
        Order {
            assignment,
            inputs: vec![Filled { input, tensors: tensors.clone() }],
            outputs: vec![Wanted { output, tensors: Some(tensors) }],
            remaining: Some(Span::from_secs(60)),
        }
    }

    #[test]
    fn an_order_survives_the_wire_and_its_json() {
        let json = serde_json::to_string(&order().to_wire().unwrap()).unwrap();
        let back: v1::WorkOrder = serde_json::from_str(&json).unwrap();
        assert_eq!(Order::from_wire(&back), Ok(order()));
    }

    #[test]
    fn a_wrong_field_is_named() {
        let wrong = |change: fn(&mut v1::WorkOrder)| {
            let mut wire = order().to_wire().unwrap();
            change(&mut wire);
            Order::from_wire(&wire).unwrap_err().to_string()
        };
        assert!(wrong(|wire| wire.seed = "-1".into()).starts_with("seed"));
        assert!(wrong(|wire| wire.inputs[0].role = "gift".into()).starts_with("role"));
        assert!(wrong(|wire| wire.inputs[0].version = None).starts_with("version"));
        assert!(wrong(|wire| wire.task = "x".into()).starts_with("task"));
        assert!(wrong(|wire| wire.inputs = vec![v1::Input::default(); 65]).starts_with("inputs"));
    }
}

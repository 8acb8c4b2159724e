//! A plan as upstream's `plan.yaml` has it, with its defaults, and the list of who may take part.
//!
//! Pure: files come as text. What the server goes by is read into types that cannot be wrong afterwards; what only collaborators go by
//! is left alone. Settings that upstream deprecates, or ignores, are accepted with a warning. Refused by name and line: settings that
//! do not exist, values of another sort, classes that are not known, and `secure_aggregation: true`.
//!
//! Source: observed with openfl 1.9.

pub mod dump;
mod identity;
mod model;
mod scalar;
mod sections;
mod settings;
pub mod yaml;

pub use identity::Identity;
pub use model::{
    Aggregation, Assigner, Collaborators, Federation, Group, Network, Plan, Straggler, Task, Transport,
};

use yaml::{Node, Value, YamlError};

/// The longest name of a collaborator, in bytes.
pub const COLLABORATOR_LEN_MAX: usize = 256;
/// The most collaborators.
pub const COLLABORATORS_MAX: usize = 10_000;
/// The value that has upstream fill in an address or a port.
const AUTO: &str = "auto";

/// Why a plan is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum PlanError {
    #[error("{0}")]
    Yaml(YamlError),
    #[error("{place}: {section} has no setting {key:?}")]
    Unknown { section: String, key: String, place: Place },
    #[error("{place}: {key} of {section} must be {wanted}")]
    Value { section: String, key: String, place: Place, wanted: &'static str },
    #[error("{section} lacks {key}")]
    Missing { section: String, key: String },
    #[error("{place}: {what} is not served: {reason}")]
    NotServed { what: String, place: Place, reason: &'static str },
}

/// Where in a plan something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(pub usize);

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => write!(f, "in the defaults"),
            line => write!(f, "line {line}"),
        }
    }
}

impl PlanError {
    fn value(section: &str, key: &str, line: usize, wanted: &'static str) -> PlanError {
        PlanError::Value { section: shortened(section), key: shortened(key), place: Place(line), wanted }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

/// What is known beside the files.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'s> {
    /// The plan's, which is part of who the federation is.
    pub file_name: &'s str,
    /// The name of this machine, where the plan leaves its address open.
    pub fqdn: &'s str,
    /// The one group that is served, in place of the plan's selection.
    pub task_group: Option<&'s str>,
}

/// Reads a plan and the list of collaborators.
///
/// # Errors
/// [`PlanError`].
pub fn read(plan: &str, collaborators: &str, around: Surroundings<'_>) -> Result<Plan, PlanError> {
    let mut plan = identity::with_defaults(yaml::parse(plan).map_err(PlanError::Yaml)?)?;
    let identity = Identity::of(&plan, around.file_name)?;
    let collaborators = Collaborators::read(collaborators)?;
    resolve(&mut plan, around.fqdn)?;
    sections::read(&plan, identity, collaborators, around.task_group)
}

/// Fills in address and port as upstream does, the port from the hash of the plan with its address.
fn resolve(plan: &mut Node, fqdn: &str) -> Result<(), PlanError> {
    if let Some(address) = network(plan, "agg_addr").filter(|value| value.text() == Some(AUTO)) {
        address.value = Value::Text(fqdn.to_owned());
    }
    let port = i128::from(identity::port(&identity::hash(plan)?));
    if let Some(value) = network(plan, "agg_port").filter(|value| value.text() == Some(AUTO)) {
        value.value = Value::Int(port);
    }
    Ok(())
}

fn network<'p>(plan: &'p mut Node, key: &str) -> Option<&'p mut Node> {
    let Value::Map(sections) = &mut plan.value else { return None };
    let Value::Map(section) = &mut sections.value_mut("network")?.value else { return None };
    let Value::Map(settings) = &mut section.value_mut("settings")?.value else { return None };
    settings.value_mut(key)
}

#[cfg(test)]
mod tests;

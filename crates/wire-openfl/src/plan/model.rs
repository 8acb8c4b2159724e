//! What a plan comes to, for the server.

use super::identity::Identity;
use super::yaml::{self, Value};
use super::{COLLABORATOR_LEN_MAX, COLLABORATORS_MAX, PlanError};
use crate::tensors::Pipeline;

/// A plan that was checked.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Plan {
    pub identity: Identity,
    pub collaborators: Collaborators,
    pub aggregator: Federation,
    pub network: Network,
    pub assigner: Assigner,
    /// One round, of which no model is kept.
    pub is_evaluation: bool,
    /// In the order of their names.
    pub tasks: Vec<Task>,
    pub pipeline: Pipeline,
    pub straggler: Straggler,
    /// What collaborators do with their optimisers' state; none when the plan leaves it to them.
    pub opt_treatment: Option<String>,
    /// What was accepted though upstream deprecates or ignores it.
    pub warnings: Vec<String>,
}

/// Who may take part, in the order of the file: sums go in that order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collaborators(Vec<String>);

impl Collaborators {
    /// Reads `cols.yaml`.
    ///
    /// # Errors
    /// [`PlanError`] for anything but a list of different names of usable length.
    pub fn read(text: &str) -> Result<Collaborators, PlanError> {
        let root = yaml::parse(text).map_err(PlanError::Yaml)?;
        let missing = || PlanError::Missing { section: "cols".to_owned(), key: "collaborators".to_owned() };
        let node = root.map().and_then(|map| map.get("collaborators")).ok_or_else(missing)?;
        let wrong = |line| PlanError::value("cols", "collaborators", line, "a list of different names");
        let Value::List(items) = &node.value else { return Err(wrong(node.line)) };
        if items.is_empty() || items.len() > COLLABORATORS_MAX {
            return Err(wrong(node.line));
        }
        let mut names: Vec<String> = Vec::with_capacity(items.len());
        let mut known = std::collections::BTreeSet::new();
        for item in items {
            let name = item.text().ok_or_else(|| wrong(item.line))?;
            let is_usable = !name.is_empty()
                && name.len() <= COLLABORATOR_LEN_MAX
                && !name.chars().any(char::is_control)
                && known.insert(name);
            if !is_usable {
                return Err(wrong(item.line));
            }
            names.push(name.to_owned());
        }
        Ok(Collaborators(names))
    }

    /// The names, in order.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Whether a name is among them.
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|known| known == name)
    }
}

/// The section `aggregator`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Federation {
    pub init_state_path: String,
    pub best_state_path: String,
    pub last_state_path: String,
    pub rounds_to_train: u32,
    /// Rounds that are kept for deltas; two at least where deltas are served.
    pub db_store_rounds: u32,
    pub use_delta_updates: bool,
    /// Empty unless all collaborators share one certificate.
    pub single_col_cert_common_name: String,
    pub write_logs: bool,
    pub persist_checkpoint: bool,
    pub persistent_db_path: String,
}

/// How collaborators reach the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Transport {
    Grpc,
    Rest,
    /// Ours: both on their own listeners.
    Both,
}

/// The section `network`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Network {
    pub agg_addr: String,
    pub agg_port: u16,
    pub use_tls: bool,
    pub require_client_auth: bool,
    pub cert_folder: String,
    pub transport: Transport,
}

/// Who does which tasks.
#[derive(Debug, Clone, PartialEq)]
pub enum Assigner {
    /// Each round everybody is drawn into one of the groups.
    Random(Vec<Group>),
    /// The plan says who is in which group.
    Static(Vec<Group>),
}

impl Assigner {
    /// The groups, in the order of the plan.
    pub fn groups(&self) -> &[Group] {
        match self {
            Assigner::Random(groups) | Assigner::Static(groups) => groups,
        }
    }
}

/// Tasks that are done by the same collaborators.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Group {
    pub name: String,
    /// The share of collaborators, 0 to 1.
    pub percentage: f64,
    /// In the order in which they are done.
    pub tasks: Vec<String>,
    /// Who is in it; empty where they are drawn.
    pub collaborators: Vec<String>,
}

/// A task.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Task {
    pub name: String,
    /// The method of the collaborators' task runner.
    pub function: String,
    /// The model it is applied to is the collaborator's own.
    pub is_local: bool,
    /// The model it is applied to is the federation's, so its metrics tell which of those is best.
    pub judges: bool,
    pub aggregation: Aggregation,
}

/// How the outputs of a task become one.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub enum Aggregation {
    WeightedAverage,
    Median,
    GeometricMedian,
    /// Tensors whose names end in `_u`, `_v` or `_w` are summed, all others averaged.
    FedCurv,
    Adagrad {
        learning_rate: f64,
        initial_accumulator_value: f64,
        epsilon: f64,
    },
    Adam {
        learning_rate: f64,
        betas: [f64; 2],
        initial_accumulator_value: f64,
        epsilon: f64,
    },
}

/// When a round ends that not everybody has finished.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub enum Straggler {
    WaitForAll,
    /// After this time from the first task handed out, when enough have reported.
    CutoffTime {
        cutoff_s: f64,
        minimum_reporting: u32,
    },
    /// When this share, and enough of them, have reported.
    Percentage {
        needed: f64,
        minimum_reporting: u32,
    },
}

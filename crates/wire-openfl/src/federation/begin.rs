//! How a federation begins: the first model is read and handed in, collaborators are taken in, the run is created or found.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use sheaf_coordinator::{CreateProgram, Handle};
use sheaf_domain::{
    Digest, Identity, LineageName, Manifest, PIECE_LEN_DEFAULT, Role, RunId, SiteName, VersionRef,
};
use sheaf_runtime::Compute;
use sheaf_tensor::TensorSpec;
use tokio::sync::{Semaphore, watch};

use super::index::Indices;
use super::{Federation, Inner, Opening, WHOLE_TENSORS_MAX};
use crate::coder::PlanCoder;
use crate::encoded::EncodedCache;
use crate::plan::Plan;
use crate::program::{self, ProgramError, STATE_SLOT, site_of};
use crate::state::{self, Model, StateError};
use crate::tensors::Limits;

/// The most bytes that a first model may have.
const MODEL_LEN_MAX: u64 = 16 << 30;
/// The name that a first model is handed in under.
const UPLOAD: &str = "init-state";

/// Why a federation cannot begin.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BeginError {
    #[error("the plan cannot be run: {0}")]
    Plan(#[from] ProgramError),
    #[error("the first model {}: {source}", path.display())]
    Model { path: std::path::PathBuf, source: StateError },
    #[error("the model it begins with is of round {round}, and the plan ends with round {rounds}")]
    Over { round: u32, rounds: u32 },
    #[error("the federation that was going on here is {other}, not {ours}: its plan is another one")]
    OtherPlan { other: String, ours: String },
    #[error("the server does not take it: {0}")]
    Coordinator(#[from] sheaf_coordinator::Error),
    #[error("a name cannot be used: {0}")]
    Name(#[from] sheaf_domain::Error),
    #[error("{setting} of the plan is {}, and there is no such directory", path.display())]
    NoDirectory { setting: &'static str, path: std::path::PathBuf },
}

/// What a tensor that a codec unfolds may come to however small the model is, in bytes.
const UNFOLDED_LEN_LEAST: u64 = 1 << 20;
/// How many uploads of one collaborator are taken in at once. It sends one after another; what stalls is in nobody else's way.
const UPLOADS_MAX: usize = 4;

fn uploading(collaborators: &BTreeMap<String, Identity>) -> BTreeMap<String, Semaphore> {
    collaborators.keys().map(|name| (name.clone(), Semaphore::new(UPLOADS_MAX))).collect()
}

/// Whether models can be saved where the plan says: found out before anybody works for them.
fn check_directories(plan: &Plan, workspace: &Path) -> Result<(), BeginError> {
    let settings = [
        ("best_state_path", &plan.aggregator.best_state_path),
        ("last_state_path", &plan.aggregator.last_state_path),
    ];
    for (setting, path) in settings {
        let path = workspace.join(path);
        if !plan.is_evaluation && !path.parent().is_some_and(Path::is_dir) {
            return Err(BeginError::NoDirectory { setting, path });
        }
    }
    Ok(())
}

impl Federation {
    /// Opens the federation of a plan on a coordinator that serves nothing else.
    ///
    /// # Errors
    /// [`BeginError`].
    /// # Cancel safety
    /// Not safe: run it to its end.
    pub async fn open(handle: Handle, opening: Opening) -> Result<Federation, BeginError> {
        let Opening { plan, workspace, notes } = opening;
        check_directories(&plan, &workspace)?;
        let operator = Identity {
            trust_domain: handle.trust_domain().to_owned(),
            name: SiteName::new("local")?,
            role: Role::Operator,
            key_fingerprint: Digest::from_bytes([0; 32]),
        };
        handle.host_codecs(Arc::new(PlanCoder(plan.pipeline)));
        let mut collaborators = BTreeMap::new();
        for name in plan.collaborators.names() {
            let who = handle.take_in(&operator, &site_of(name)?).await?;
            collaborators.insert(name.clone(), who);
        }
        let known = handle.runs(&operator).await?;
        let path = workspace.join(&plan.aggregator.init_state_path);
        let of_model = |source| BeginError::Model { path: path.clone(), source };
        let mut newest = 0;
        let (run, first_round) = match known.first() {
            Some(status) if status.name == plan.identity.federation_uuid => {
                newest = status.history.iter().rev().find_map(|record| record.version).unwrap_or(0);
                let first_round = if plan.is_evaluation {
                    0
                } else {
                    plan.aggregator.rounds_to_train.saturating_sub(status.rounds)
                };
                (status.run, first_round)
            }
            Some(status) => {
                let (other, ours) = (status.name.clone(), plan.identity.federation_uuid.clone());
                return Err(BeginError::OtherPlan { other, ours });
            }
            None => {
                let model = state::read(&path, plan.pipeline, MODEL_LEN_MAX).map_err(of_model)?;
                begin(&handle, &operator, &plan, model).await?
            }
        };
        let version = VersionRef { run, lineage: LineageName::global(), version: newest };
        let model = handle.manifest(&operator, &version).await?;
        let largest = model.specs().map(|spec| spec.shape.num_elements()).max().unwrap_or(0);
        Ok(Federation::of(Inner {
            limits: Limits {
                unfolded_bytes_max: largest.saturating_mul(4).max(UNFOLDED_LEN_LEAST),
                metadata_len_max: plan.pipeline.metadata_len_max(largest),
                ..Limits::default()
            },
            uploading: uploading(&collaborators),
            compute: Compute::for_this_machine(),
            handle,
            operator,
            plan,
            run,
            first_round,
            collaborators,
            workspace,
            notes,
            indices: Indices::default(),
            encoded: EncodedCache::default(),
            whole_tensors: Semaphore::new(WHOLE_TENSORS_MAX),
            ending: watch::Sender::new(None),
            dismissed: watch::Sender::new(BTreeSet::new()),
            told: Mutex::default(),
        }))
    }
}

/// Creates the run.
async fn begin(
    handle: &Handle,
    operator: &Identity,
    plan: &Plan,
    model: Model,
) -> Result<(RunId, u32), BeginError> {
    let of_model = u32::try_from(model.round_number).unwrap_or(0);
    let first_round = if plan.is_evaluation { 0 } else { of_model };
    let rounds = plan.aggregator.rounds_to_train;
    if !plan.is_evaluation && first_round >= rounds {
        return Err(BeginError::Over { round: first_round, rounds });
    }
    let request = CreateProgram {
        plan: program::run_plan(plan, first_round),
        program: program::program(plan)?,
        init: upload(handle, operator, model).await?,
        upload: UPLOAD.to_owned(),
        empty: vec![LineageName::new(STATE_SLOT)?],
    };
    Ok((handle.create_program(operator, request).await?, first_round))
}

/// Hands the first model in, piece by piece.
async fn upload(handle: &Handle, operator: &Identity, model: Model) -> Result<Manifest, BeginError> {
    let piece_len = usize::try_from(PIECE_LEN_DEFAULT).unwrap_or(usize::MAX);
    let specs: Vec<TensorSpec> = model.params.specs();
    let (mut pieces, mut piece) = (Vec::new(), Vec::new());
    for tensor in model.params.into_tensors() {
        let mut bytes = tensor.bytes;
        while !bytes.is_empty() {
            piece.extend_from_slice(&bytes.split_to(bytes.len().min(piece_len - piece.len())));
            if piece.len() == piece_len {
                pieces.push(put(handle, operator, std::mem::take(&mut piece).into()).await?);
            }
        }
    }
    if !piece.is_empty() {
        pieces.push(put(handle, operator, piece.into()).await?);
    }
    Ok(Manifest::over_pieces(specs, PIECE_LEN_DEFAULT, &pieces)?)
}

async fn put(handle: &Handle, operator: &Identity, piece: Bytes) -> Result<Digest, BeginError> {
    let mut upload = handle.operator_upload(operator, UPLOAD, piece.len() as u64).await?;
    upload.write(piece).await?;
    Ok(upload.seal().await?)
}

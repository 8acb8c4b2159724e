//! What can be wrong with a model.

use sheaf_domain::ErrorKind;

/// A model that cannot be used, or that training destroyed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Tensors that are not those of such a model.
    #[error("the model is not a softmax regression or perceptron: {reason}")]
    Schema {
        /// What is wrong with them.
        reason: String,
    },
    /// A model for other data.
    #[error("the model has {model} {what}, the data has {data}")]
    Mismatch {
        /// Features or classes.
        what: &'static str,
        /// As many as the model has.
        model: usize,
        /// As many as the data has.
        data: usize,
    },
    /// Layer sizes no model can have.
    #[error("layers of sizes {sizes:?} make no model")]
    Sizes {
        /// The sizes asked for.
        sizes: Vec<usize>,
    },
    /// A loss or a parameter that is not finite any more.
    #[error("training diverged in epoch {epoch}: {what} is not finite; try a smaller learning rate")]
    Diverged {
        /// The epoch, from 1.
        epoch: u32,
        /// The loss, or a tensor.
        what: String,
    },
    /// Tensors that cannot be made.
    #[error(transparent)]
    Tensor(#[from] sheaf_tensor::Error),
}

impl Error {
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }

    /// Whether the same call may succeed later without being changed.
    pub fn is_transient(&self) -> bool {
        false
    }
}

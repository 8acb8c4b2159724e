//! Shapes and tensor specifications (name, dtype, shape), checked on construction.
//!
//! A value of these types cannot overflow: the element count and the byte length are known to fit.

use serde::{Deserialize, Serialize};

use crate::{Dtype, Error};

/// The largest number of dimensions a shape may have.
pub const RANK_MAX: usize = 32;
/// The longest tensor name accepted, in bytes.
pub const NAME_LEN_MAX: usize = 512;

/// The extent of every dimension, outermost first; an empty list is a scalar.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u64>", into = "Vec<u64>")]
pub struct Shape(Vec<u64>);

impl Shape {
    /// Makes a shape of the given extents.
    ///
    /// # Errors
    /// [`Error::RankTooLarge`] above [`RANK_MAX`] dimensions, [`Error::ShapeOverflow`] when the element
    /// count or its size at eight bytes an element does not fit in 63 bits.
    pub fn new(dims: impl Into<Vec<u64>>) -> Result<Shape, Error> {
        let dims = dims.into();
        if dims.len() > RANK_MAX {
            return Err(Error::RankTooLarge { rank: dims.len() });
        }
        // Zeros must not hide an overflow of the other extents.
        let bound = dims.iter().try_fold(8u64, |product, dim| product.checked_mul((*dim).max(1)));
        match bound {
            Some(bytes) if i64::try_from(bytes).is_ok() => Ok(Shape(dims)),
            _ => Err(Error::ShapeOverflow { dims }),
        }
    }

    /// The extents, outermost first.
    pub fn dims(&self) -> &[u64] {
        &self.0
    }

    /// The number of elements (1 for a scalar).
    pub fn num_elements(&self) -> u64 {
        self.0.iter().product()
    }
}

impl TryFrom<Vec<u64>> for Shape {
    type Error = Error;
    fn try_from(dims: Vec<u64>) -> Result<Shape, Error> {
        Shape::new(dims)
    }
}

impl From<Shape> for Vec<u64> {
    fn from(shape: Shape) -> Vec<u64> {
        shape.0
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dims: Vec<String> = self.0.iter().map(u64::to_string).collect();
        write!(f, "[{}]", dims.join(", "))
    }
}

/// What a tensor is, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TensorSpec {
    /// The tensor's name, unique in its set; any UTF-8 without control characters.
    pub name: String,
    /// The element type.
    pub dtype: Dtype,
    /// The extents, outermost first.
    pub shape: Shape,
}

impl TensorSpec {
    /// Makes a specification.
    ///
    /// # Errors
    /// [`Error::BadName`] for an empty, over-long ([`NAME_LEN_MAX`]) or control-character name; the errors of
    /// [`Shape::new`].
    pub fn new(
        name: impl Into<String>,
        dtype: Dtype,
        dims: impl Into<Vec<u64>>,
    ) -> Result<TensorSpec, Error> {
        let spec = TensorSpec { name: name.into(), dtype, shape: Shape::new(dims)? };
        spec.check_name()?;
        Ok(spec)
    }

    /// Checks the name alone; what came through `serde` has a checked shape but an unchecked name.
    ///
    /// # Errors
    /// [`Error::BadName`], as in [`TensorSpec::new`].
    pub fn check_name(&self) -> Result<(), Error> {
        let bad =
            self.name.is_empty() || self.name.len() > NAME_LEN_MAX || self.name.chars().any(char::is_control);
        if bad {
            let name = self.name.chars().take(64).collect();
            return Err(Error::BadName { name });
        }
        Ok(())
    }

    /// The length of the tensor's bytes.
    pub fn byte_len(&self) -> u64 {
        self.shape.num_elements() * self.dtype.size() as u64
    }
}

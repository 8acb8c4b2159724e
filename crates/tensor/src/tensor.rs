//! A tensor over shared bytes, and an ordered set of tensors.
//!
//! Values of these types agree with themselves: the bytes are as long as dtype and shape say, booleans are 0 or 1,
//! names are unique. They say nothing about NaN or infinity; [`crate::element::first_non_finite`] does.

use bytes::Bytes;

use crate::{Dtype, Error, TensorSpec, element};

/// A named array: what it is, and its elements in row-major order, little-endian.
///
/// The bytes are shared: a clone copies no elements. They need not be aligned.
///
/// # Examples
/// ```
/// use bytes::Bytes;
/// use sheaf_tensor::{Dtype, Tensor, TensorSpec};
///
/// let spec = TensorSpec::new("bias", Dtype::F32, [2])?;
/// let tensor = Tensor::new(spec, Bytes::from_static(&[0, 0, 128, 63, 0, 0, 0, 192]))?;
/// assert_eq!(tensor.to_f64()?, [1.0, -2.0]);
/// # Ok::<(), sheaf_tensor::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Name, dtype and shape.
    pub spec: TensorSpec,
    /// The elements, row-major and little-endian.
    pub bytes: Bytes,
}

impl Tensor {
    /// Makes a tensor of `bytes`.
    ///
    /// # Errors
    /// [`Error::BadName`] for an unusable name, [`Error::WrongLength`] when there are not as many bytes as `spec` asks
    /// for, [`Error::BadBool`] for a boolean byte that is neither 0 nor 1.
    pub fn new(spec: TensorSpec, bytes: Bytes) -> Result<Tensor, Error> {
        let tensor = Tensor { spec, bytes };
        tensor.check()?;
        Ok(tensor)
    }

    /// Checks what [`Tensor::new`] checks; the fields may have been changed since.
    ///
    /// # Errors
    /// Those of [`Tensor::new`].
    pub fn check(&self) -> Result<(), Error> {
        self.spec.check_name()?;
        check_len(&self.spec, self.bytes.len() as u64)?;
        if self.spec.dtype == Dtype::Bool
            && let Some(index) = element::first_bad_bool(&self.bytes)
        {
            return Err(Error::BadBool { name: self.spec.name.clone(), index });
        }
        Ok(())
    }

    /// Makes a tensor of `values`, rounded to `spec`'s dtype as [`element::from_f64`] does.
    ///
    /// # Errors
    /// [`Error::BadName`]; [`Error::WrongLength`] when there are not as many values as the shape has elements.
    pub fn from_f64(spec: TensorSpec, values: &[f64]) -> Result<Tensor, Error> {
        let size = spec.dtype.size();
        check_len(&spec, (values.len() as u64).saturating_mul(size as u64))?;
        let mut bytes = vec![0; values.len() * size];
        element::from_f64(spec.dtype, values, &mut bytes)?;
        Tensor::new(spec, Bytes::from(bytes))
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The elements as `f64`, as [`element::to_f64`] converts them.
    ///
    /// # Errors
    /// Those of [`element::to_f64`]; none for a tensor that could be made.
    pub fn to_f64(&self) -> Result<Vec<f64>, Error> {
        let mut values = vec![0.0; self.bytes.len() / self.spec.dtype.size()];
        element::to_f64(self.spec.dtype, &self.bytes, &mut values)?;
        Ok(values)
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let TensorSpec { name, dtype, shape } = &self.spec;
        write!(f, "Tensor({name:?}, {dtype}{shape})")
    }
}

/// Tensors of unique names, in an order that matters: it is the order of the model's bytes and of its digest.
///
/// # Examples
/// ```
/// use sheaf_tensor::{Dtype, ParamSet, Tensor, TensorSpec};
///
/// let weight = Tensor::from_f64(TensorSpec::new("weight", Dtype::F32, [2, 2])?, &[1.0, 2.0, 3.0, 4.0])?;
/// let bias = Tensor::from_f64(TensorSpec::new("bias", Dtype::F32, [2])?, &[0.5, -0.5])?;
/// let params = ParamSet::new(vec![weight, bias])?;
/// assert_eq!(params.byte_len(), 24);
/// assert_eq!(params.get("bias").map(|tensor| tensor.to_f64()), Some(Ok(vec![0.5, -0.5])));
/// # Ok::<(), sheaf_tensor::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParamSet {
    tensors: Vec<Tensor>,
    /// Positions in `tensors`, in the order of their names.
    by_name: Vec<usize>,
}

impl ParamSet {
    /// The most tensors a set may have.
    pub const TENSORS_MAX: usize = 100_000;

    /// Makes a set, in the order given.
    ///
    /// # Errors
    /// [`Error::DuplicateName`] for a name used twice; [`Error::TooLarge`] above [`ParamSet::TENSORS_MAX`] tensors, or
    /// when the bytes of all tensors do not fit in 63 bits; the errors of [`Tensor::check`].
    pub fn new(tensors: Vec<Tensor>) -> Result<ParamSet, Error> {
        check_count(tensors.len())?;
        tensors.iter().try_for_each(Tensor::check)?;
        total_len(tensors.iter().map(|tensor| &tensor.spec))?;
        let mut by_name: Vec<usize> = (0..tensors.len()).collect();
        by_name.sort_by_key(|position| tensors.get(*position).map(Tensor::name));
        for pair in by_name.windows(2) {
            let mut names = pair.iter().filter_map(|position| tensors.get(*position)).map(Tensor::name);
            if let (Some(one), Some(next)) = (names.next(), names.next())
                && one == next
            {
                return Err(Error::DuplicateName { name: one.to_owned() });
            }
        }
        Ok(ParamSet { tensors, by_name })
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The tensors, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Tensor> {
        self.tensors.iter()
    }

    /// The tensors, in order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// Takes the set apart.
    pub fn into_tensors(self) -> Vec<Tensor> {
        self.tensors
    }

    /// Finds a tensor by its name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        let found = self.by_name.binary_search_by(|position| {
            self.tensors.get(*position).map_or(std::cmp::Ordering::Less, |tensor| tensor.name().cmp(name))
        });
        self.tensors.get(*self.by_name.get(found.ok()?)?)
    }

    /// What the tensors are, in order.
    pub fn specs(&self) -> Vec<TensorSpec> {
        self.tensors.iter().map(|tensor| tensor.spec.clone()).collect()
    }

    /// The length of all tensors' bytes together.
    pub fn byte_len(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.spec.byte_len()).sum()
    }
}

impl<'a> IntoIterator for &'a ParamSet {
    type Item = &'a Tensor;
    type IntoIter = std::slice::Iter<'a, Tensor>;
    fn into_iter(self) -> Self::IntoIter {
        self.tensors.iter()
    }
}

impl IntoIterator for ParamSet {
    type Item = Tensor;
    type IntoIter = std::vec::IntoIter<Tensor>;
    fn into_iter(self) -> Self::IntoIter {
        self.tensors.into_iter()
    }
}

/// Refuses a number of bytes other than `spec` asks for.
pub(crate) fn check_len(spec: &TensorSpec, got: u64) -> Result<(), Error> {
    if got != spec.byte_len() {
        return Err(Error::WrongLength { name: spec.name.clone(), expected: spec.byte_len(), got });
    }
    Ok(())
}

/// Refuses more tensors than a set may have.
pub(crate) fn check_count(count: usize) -> Result<(), Error> {
    if count > ParamSet::TENSORS_MAX {
        let what = format!("a set of {count} tensors");
        return Err(Error::TooLarge { what, limit: ParamSet::TENSORS_MAX as u64 });
    }
    Ok(())
}

/// Adds up byte lengths; the sum fits in an `i64`.
pub(crate) fn total_len<'a>(specs: impl IntoIterator<Item = &'a TensorSpec>) -> Result<u64, Error> {
    specs
        .into_iter()
        .try_fold(0u64, |total, spec| total.checked_add(spec.byte_len()))
        .filter(|total| i64::try_from(*total).is_ok())
        .ok_or_else(|| Error::TooLarge {
            what: "the length of all tensors".to_owned(),
            limit: i64::MAX as u64,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str) -> Tensor {
        Tensor::from_f64(TensorSpec::new(name, Dtype::I16, [2]).unwrap(), &[1.0, 2.0]).unwrap()
    }

    #[test]
    fn bytes_must_be_as_many_as_the_spec_says() {
        let spec = TensorSpec::new("w", Dtype::F32, [2, 3]).unwrap();
        for got in [0usize, 23, 25, 48] {
            let error = Tensor::new(spec.clone(), Bytes::from(vec![0; got])).unwrap_err();
            assert_eq!(error, Error::WrongLength { name: "w".into(), expected: 24, got: got as u64 });
        }
        assert!(Tensor::new(spec, Bytes::from(vec![0; 24])).is_ok());
    }

    #[test]
    fn a_boolean_byte_is_zero_or_one() {
        let spec = TensorSpec::new("mask", Dtype::Bool, [3]).unwrap();
        assert!(Tensor::new(spec.clone(), Bytes::from_static(&[0, 1, 1])).is_ok());
        let error = Tensor::new(spec, Bytes::from_static(&[0, 1, 2])).unwrap_err();
        assert_eq!(error, Error::BadBool { name: "mask".into(), index: 2 });
    }

    #[test]
    fn names_are_unique_and_found() {
        let set = ParamSet::new(vec![tensor("b"), tensor("c"), tensor("a")]).unwrap();
        assert_eq!(set.iter().map(Tensor::name).collect::<Vec<_>>(), ["b", "c", "a"]);
        for name in ["a", "b", "c"] {
            assert_eq!(set.get(name).unwrap().name(), name);
        }
        assert_eq!(set.get("d"), None);
        let error = ParamSet::new(vec![tensor("b"), tensor("a"), tensor("b")]).unwrap_err();
        assert_eq!(error, Error::DuplicateName { name: "b".into() });
    }

    #[test]
    fn the_order_is_part_of_a_set() {
        let one = ParamSet::new(vec![tensor("a"), tensor("b")]).unwrap();
        let other = ParamSet::new(vec![tensor("b"), tensor("a")]).unwrap();
        assert_ne!(one, other);
    }

    #[test]
    fn a_deserialised_name_is_checked() {
        let spec = TensorSpec { name: String::new(), ..TensorSpec::new("x", Dtype::U8, []).unwrap() };
        assert!(matches!(Tensor::new(spec, Bytes::from_static(&[0])), Err(Error::BadName { .. })));
    }
}

//! Foreign layouts of array elements, copied into ours: big-endian, and Fortran (column-major) order.

use bytes::Bytes;

use crate::{Dtype, Shape};

/// Reverses the bytes of every element.
pub(super) fn swap_bytes(dtype: Dtype, data: &Bytes) -> Bytes {
    if dtype.size() == 1 {
        return data.clone();
    }
    let mut swapped = data.to_vec();
    match dtype.size() {
        2 => reverse_each::<2>(&mut swapped),
        4 => reverse_each::<4>(&mut swapped),
        _ => reverse_each::<8>(&mut swapped),
    }
    Bytes::from(swapped)
}

/// Turns column-major elements into row-major ones. `None` when `data` does not cover `shape`.
pub(super) fn to_row_major(dtype: Dtype, shape: &Shape, data: Bytes) -> Option<Bytes> {
    let num_long_dims = shape.dims().iter().filter(|dim| **dim != 1).count();
    if num_long_dims < 2 || data.is_empty() {
        return Some(data);
    }
    let dims: Vec<usize> =
        shape.dims().iter().map(|dim| usize::try_from(*dim)).collect::<Result<_, _>>().ok()?;
    let rows = match dtype.size() {
        1 => gather::<1>(&dims, &data),
        2 => gather::<2>(&dims, &data),
        4 => gather::<4>(&dims, &data),
        _ => gather::<8>(&dims, &data),
    };
    rows.map(Bytes::from)
}

fn reverse_each<const N: usize>(data: &mut [u8]) {
    let (elements, _) = data.as_chunks_mut::<N>();
    for element in elements {
        element.reverse();
    }
}

/// Walks the row-major indices in order, keeping the position each one has in column-major `data`.
fn gather<const N: usize>(dims: &[usize], data: &[u8]) -> Option<Vec<u8>> {
    let (source, _) = data.as_chunks::<N>();
    let mut strides = Vec::with_capacity(dims.len());
    let mut stride = 1usize;
    for dim in dims {
        strides.push(stride);
        stride = stride.checked_mul(*dim)?;
    }
    let (inner_len, outer_dims) = dims.split_last()?;
    let (inner_stride, outer_strides) = strides.split_last()?;

    let mut rows = Vec::with_capacity(data.len());
    let mut index = vec![0usize; outer_dims.len()];
    let mut start = 0usize;
    loop {
        let mut position = start;
        for _ in 0..*inner_len {
            rows.extend_from_slice(source.get(position)?);
            position += inner_stride;
        }
        // Count the outer index up by one, the innermost digit first.
        let mut digits = index.iter_mut().zip(outer_dims).zip(outer_strides).rev();
        loop {
            let Some(((digit, dim), stride)) = digits.next() else {
                return Some(rows);
            };
            *digit += 1;
            start += stride;
            if *digit < *dim {
                break;
            }
            start -= stride * dim;
            *digit = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_become_rows() {
        // The value of an element is its row-major index.
        let shape = Shape::new([2, 3, 2]).unwrap();
        let columns = Bytes::from_static(&[0, 6, 2, 8, 4, 10, 1, 7, 3, 9, 5, 11]);
        let rows = to_row_major(Dtype::U8, &shape, columns).unwrap();
        assert_eq!(rows, (0..12).collect::<Vec<u8>>());
    }

    #[test]
    fn one_long_dimension_needs_no_copy() {
        let data = Bytes::from(vec![1, 2, 3]);
        let rows = to_row_major(Dtype::U8, &Shape::new([1, 3, 1]).unwrap(), data.clone()).unwrap();
        assert_eq!(rows.as_ptr(), data.as_ptr());
    }

    #[test]
    fn too_little_data_is_noticed() {
        assert_eq!(to_row_major(Dtype::U8, &Shape::new([2, 2]).unwrap(), Bytes::from_static(&[1])), None);
    }

    #[test]
    fn every_element_is_reversed() {
        let data = Bytes::from((0..8).collect::<Vec<u8>>());
        assert_eq!(swap_bytes(Dtype::I8, &data), data);
        assert_eq!(swap_bytes(Dtype::F16, &data), [1u8, 0, 3, 2, 5, 4, 7, 6].as_slice());
        assert_eq!(swap_bytes(Dtype::F32, &data), [3u8, 2, 1, 0, 7, 6, 5, 4].as_slice());
        assert_eq!(swap_bytes(Dtype::F64, &data), [7u8, 6, 5, 4, 3, 2, 1, 0].as_slice());
    }
}

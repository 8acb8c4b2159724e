//! What is known of pieces from when they came in: read as elements of a type, all of them may be in a model.
//!
//! The gate would read every byte of an update again to look for a value that is not finite; what was looked at on its way in need not
//! be. It is a note and nothing more: of a piece that is not here, or that holds what looks like a bad value of some type, the gate
//! reads the bytes and names tensor and index. A note is of the bytes that a digest names, so whoever brought them, it holds. Kept
//! in memory only and bounded; it is lost with the process.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use sheaf_domain::{Digest, Manifest, Segment};
use sheaf_tensor::{Dtype, element};

use crate::outbox::lock;

/// How many pieces notes are kept of: 400 GB of pieces of 4 MiB.
const NOTES_MAX: usize = 100_000;
/// A model of more types than this is left to the gate: each costs a look at every byte.
const DTYPES_MAX: usize = 2;

/// The notes.
#[derive(Debug, Default)]
pub(crate) struct Vetted(Mutex<Notes>);

#[derive(Debug, Default)]
struct Notes {
    clean: HashMap<Digest, Vec<Dtype>>,
    /// The oldest first.
    order: VecDeque<Digest>,
}

/// Looks at one piece as it comes in.
#[derive(Debug, Default)]
pub(crate) struct Vetting(Vec<Look>);

/// One reading of a piece.
#[derive(Debug)]
struct Look {
    dtype: Dtype,
    /// The beginning of an element whose end has not come yet.
    cut: Vec<u8>,
    is_clean: bool,
}

impl Vetted {
    /// Notes what was seen of a piece that is stored.
    pub(crate) fn note(&self, piece: Digest, vetting: Vetting) {
        let clean = vetting.clean();
        if clean.is_empty() {
            return;
        }
        let mut notes = lock(&self.0);
        if notes.clean.insert(piece, clean).is_none() {
            notes.order.push_back(piece);
        }
        while notes.order.len() > NOTES_MAX
            && let Some(oldest) = notes.order.pop_front()
        {
            notes.clean.remove(&oldest);
        }
    }

    /// Whether no element of `dtype` in these stretches can be a bad one.
    pub(crate) fn covers(&self, dtype: Dtype, segments: &[Segment]) -> bool {
        let size = dtype.size() as u64;
        let notes = lock(&self.0);
        segments.iter().all(|segment| {
            let whole = segment.offset.is_multiple_of(size) && segment.len.is_multiple_of(size);
            whole && notes.clean.get(&segment.object).is_some_and(|clean| clean.contains(&dtype))
        })
    }
}

impl Vetting {
    /// For a piece of one of these models; looks at nothing when they are of too many types.
    pub(crate) fn of<'a>(models: impl IntoIterator<Item = &'a Manifest>) -> Vetting {
        let mut looks: Vec<Look> = Vec::new();
        for tensor in models.into_iter().flat_map(|model| &model.tensors) {
            let dtype = tensor.spec.dtype;
            if !is_checked(dtype) || looks.iter().any(|look| look.dtype == dtype) {
                continue;
            }
            if looks.len() == DTYPES_MAX {
                return Vetting::default();
            }
            looks.push(Look { dtype, cut: Vec::with_capacity(dtype.size()), is_clean: true });
        }
        Vetting(looks)
    }

    /// Takes in the next bytes, of any number.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for look in self.0.iter_mut().filter(|look| look.is_clean) {
            look.feed(bytes);
        }
    }

    /// The types of which every element is one that may be in a model. Bytes that end inside an element are none of it.
    fn clean(self) -> Vec<Dtype> {
        self.0.into_iter().filter(|look| look.is_clean).map(|look| look.dtype).collect()
    }
}

impl Look {
    fn feed(&mut self, mut bytes: &[u8]) {
        let size = self.dtype.size();
        if !self.cut.is_empty() {
            let (rest, others) = bytes.split_at((size - self.cut.len()).min(bytes.len()));
            self.cut.extend_from_slice(rest);
            bytes = others;
            if self.cut.len() < size {
                return;
            }
            self.is_clean &= first_bad(self.dtype, &self.cut).is_none();
            self.cut.clear();
        }
        let (whole, cut) = bytes.split_at(bytes.len() - bytes.len() % size);
        self.is_clean &= first_bad(self.dtype, whole).is_none();
        self.cut.extend_from_slice(cut);
    }
}

/// Whether elements of this type can be ones that may not be in a model.
pub(crate) fn is_checked(dtype: Dtype) -> bool {
    dtype.is_float() || dtype == Dtype::Bool
}

/// The first element that may not be in a model, by its index.
pub(crate) fn first_bad(dtype: Dtype, bytes: &[u8]) -> Option<u64> {
    match dtype {
        Dtype::Bool => element::first_bad_bool(bytes),
        _ => element::first_non_finite(dtype, bytes),
    }
}

#[cfg(test)]
mod tests {
    use sheaf_tensor::TensorSpec;

    use super::*;

    fn model(dtypes: &[Dtype]) -> Manifest {
        let specs = dtypes.iter().enumerate();
        let specs = specs.map(|(idx, dtype)| TensorSpec::new(format!("t{idx}"), *dtype, [0_u64]).unwrap());
        Manifest::over_pieces(specs.collect(), 1, &[]).unwrap()
    }

    fn vetted(dtypes: &[Dtype], bytes: &[u8], part_len: usize) -> Vec<Dtype> {
        let mut vetting = Vetting::of([&model(dtypes)]);
        bytes.chunks(part_len).for_each(|part| vetting.feed(part));
        vetting.clean()
    }

    #[test]
    fn a_bad_value_is_seen_wherever_the_parts_are_cut() {
        let good: Vec<u8> = (0..40_u16).flat_map(|value| f32::from(value).to_le_bytes()).collect();
        for part_len in 1..=good.len() {
            assert_eq!(vetted(&[Dtype::F32, Dtype::I8, Dtype::F32], &good, part_len), [Dtype::F32]);
            for idx in [0, 17, 39] {
                let mut bad = good.clone();
                bad[4 * idx..4 * idx + 4].copy_from_slice(&f32::NAN.to_le_bytes());
                assert!(vetted(&[Dtype::F32], &bad, part_len).is_empty(), "{idx}, parts of {part_len}");
            }
        }
        assert_eq!(vetted(&[Dtype::Bool, Dtype::F32], &[0, 1, 1, 0], 3), [Dtype::Bool, Dtype::F32]);
        assert_eq!(vetted(&[Dtype::Bool, Dtype::F32], &[0, 2, 1, 0], 3), [Dtype::F32]);
    }

    #[test]
    fn what_is_not_known_is_left_to_the_gate() {
        assert!(Vetting::of([]).clean().is_empty());
        assert!(vetted(&[Dtype::F16, Dtype::F32, Dtype::F64], &[0; 16], 16).is_empty(), "too many types");
        let (notes, piece) = (Vetted::default(), Digest::of(b"piece"));
        let segment = |offset, len| [Segment { object: piece, offset, len }];
        assert!(!notes.covers(Dtype::F32, &segment(0, 8)));
        notes.note(piece, Vetting::of([&model(&[Dtype::F32])]));
        assert!(notes.covers(Dtype::F32, &segment(4, 8)));
        assert!(!notes.covers(Dtype::F64, &segment(0, 8)), "another type");
        assert!(
            !notes.covers(Dtype::F32, &segment(2, 8)) && !notes.covers(Dtype::F32, &segment(0, 7)),
            "cut elements"
        );
    }

    #[test]
    fn notes_are_bounded_and_the_oldest_go_first() {
        let notes = Vetted::default();
        let piece = |idx: usize| Digest::of(&idx.to_le_bytes());
        for idx in 0..NOTES_MAX + 3 {
            notes.note(piece(idx), Vetting::of([&model(&[Dtype::Bool])]));
        }
        let known = |idx| notes.covers(Dtype::Bool, &[Segment { object: piece(idx), offset: 0, len: 1 }]);
        assert!(!known(2) && known(3) && known(NOTES_MAX + 2));
        assert_eq!(lock(&notes.0).clean.len(), NOTES_MAX);
    }
}

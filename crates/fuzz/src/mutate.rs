//! Mutations of bytes that know nothing of their meaning, and the words each sort of text is made of.

use sheaf_domain::rng::SeededRng;

/// Draws and changes; the same seed makes the same changes.
#[derive(Debug)]
pub struct Mutator {
    rng: SeededRng,
}

impl Mutator {
    /// A mutator for one target under `seed`.
    pub fn new(seed: u64, label: &str) -> Mutator {
        Mutator { rng: SeededRng::new(seed, label) }
    }

    /// A number below `bound`, 0 for a bound of 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.below(bound as u64)).unwrap_or(0)
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of `choices`.
    pub fn pick<'c, T>(&mut self, choices: &'c [T]) -> Option<&'c T> {
        choices.get(self.below(choices.len()))
    }

    /// How often something of `len` bytes is repeated: `wanted` times, unless that adds more than `REPEATED_LEN_MAX`.
    pub fn times(&mut self, wanted: usize, len: usize) -> usize {
        self.below(wanted).min(REPEATED_LEN_MAX / len.max(1))
    }

    /// A number that decoders get wrong: bounds of widths, powers of two and their neighbours.
    pub fn number(&mut self) -> u64 {
        let power = 1u64 << self.below(64);
        match self.below(6) {
            0 => power,
            1 => power.wrapping_sub(1),
            2 => power.wrapping_neg(),
            3 => self.below(256) as u64,
            4 => *self.pick(&EDGES).unwrap_or(&0),
            _ => self.rng.next_u64(),
        }
    }

    /// Changes `bytes` in one to four places; `other` is what may be spliced in, `words` the format's own.
    pub fn bytes(&mut self, bytes: &mut Vec<u8>, other: &[u8], words: &[&str]) {
        for _ in 0..=self.below(4) {
            match self.below(12) {
                0 => self.flip(bytes),
                1 => self.set(bytes),
                2 | 3 => self.number_at(bytes),
                4 => bytes.truncate(self.below(bytes.len() + 1)),
                5 => self.extend(bytes),
                6 => self.splice(bytes, other),
                7 => self.repeat(bytes),
                8 => self.remove(bytes),
                9 => self.swap_ends(bytes),
                _ => self.word(bytes, words),
            }
        }
    }

    fn flip(&mut self, bytes: &mut [u8]) {
        let (at, bit) = (self.below(bytes.len()), self.below(8));
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << bit;
        }
    }

    fn set(&mut self, bytes: &mut [u8]) {
        let at = self.below(bytes.len());
        let value = self.number().to_le_bytes()[0];
        if let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
    }

    /// Writes an edge of a width over what may be a length, in either byte order.
    fn number_at(&mut self, bytes: &mut [u8]) {
        let (width, at) = (1 << self.below(4), self.below(bytes.len()));
        let number = self.number();
        let number =
            if self.once_in(2) { number.to_le_bytes() } else { number.rotate_right(8).to_be_bytes() };
        for (byte, new) in bytes.iter_mut().skip(at).take(width).zip(number) {
            *byte = new;
        }
    }

    fn extend(&mut self, bytes: &mut Vec<u8>) {
        let (count, value) = (self.below(64), self.number().to_le_bytes()[0]);
        bytes.extend(std::iter::repeat_n(value, count));
    }

    /// A range of `bytes`, at most half of them long.
    fn range(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let from = self.below(bytes.len());
        let len = self.below(bytes.len().saturating_sub(from).min(bytes.len() / 2 + 1) + 1);
        from..from + len
    }

    fn splice(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let (to, from) = (self.range(bytes), self.range(other));
        let taken = other.get(from).unwrap_or_default().to_vec();
        if to.end <= bytes.len() {
            bytes.splice(to, taken);
        }
    }

    /// Repeats a range, mostly a few times, at times many.
    fn repeat(&mut self, bytes: &mut Vec<u8>) {
        let range = self.range(bytes);
        let taken = bytes.get(range.clone()).unwrap_or_default().to_vec();
        let wanted = if self.once_in(8) { 2_000 } else { 4 };
        let times = self.times(wanted, taken.len());
        let end = range.end.min(bytes.len());
        bytes.splice(end..end, taken.repeat(times));
    }

    fn remove(&mut self, bytes: &mut Vec<u8>) {
        let range = self.range(bytes);
        if range.end <= bytes.len() {
            bytes.drain(range);
        }
    }

    fn swap_ends(&mut self, bytes: &mut [u8]) {
        let (one, two) = (self.below(bytes.len()), self.below(bytes.len()));
        if one < bytes.len() && two < bytes.len() {
            bytes.swap(one, two);
        }
    }

    fn word(&mut self, bytes: &mut Vec<u8>, words: &[&str]) {
        let at = self.below(bytes.len() + 1);
        let number;
        let word = match self.pick(words) {
            Some(word) if !self.once_in(4) => word.as_bytes(),
            _ => {
                number = self.number().to_string();
                number.as_bytes()
            }
        };
        let over = if self.once_in(2) { (at + word.len()).min(bytes.len()) } else { at };
        bytes.splice(at..over, word.iter().copied());
    }
}

/// How much one repetition may add, in bytes: without it a few of them in a row are more than a machine has.
const REPEATED_LEN_MAX: usize = 32 * 1024;

const EDGES: [u64; 16] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_ffff,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_changes_and_another_does_not() {
        let changed = |seed: u64| {
            let mut mutator = Mutator::new(seed, "test");
            let mut bytes = b"{\"name\":\"w\",\"shape\":[2,3]}".to_vec();
            for _ in 0..20 {
                mutator.bytes(&mut bytes, b"0123456789", &["null"]);
            }
            bytes
        };
        assert_eq!(changed(1), changed(1));
        assert_ne!(changed(1), changed(2));
    }

    #[test]
    fn nothing_is_too_short_to_be_changed() {
        let mut mutator = Mutator::new(3, "test");
        for _ in 0..5_000 {
            let mut bytes = Vec::new();
            mutator.bytes(&mut bytes, b"", &[]);
            mutator.bytes(&mut bytes, b"x", &["a"]);
        }
    }
}

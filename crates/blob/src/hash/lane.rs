//! One message of SHA-256 on its way, and two of them taking in bytes together.
//!
//! Source: FIPS 180-4, sections 5.1.1 (padding), 5.3.3 (initial value), 6.2 (the hash).

use sheaf_domain::Digest;

/// Bytes of a block.
pub(super) const BLOCK_LEN: usize = 64;
/// Where the length stands in the last block, in bytes.
const LENGTH_AT: usize = BLOCK_LEN - 8;
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// A message on its way.
#[derive(Clone)]
pub(crate) struct Lane {
    state: [u32; 8],
    /// Bytes taken in.
    len: u64,
    /// The bytes behind the last whole block.
    rest: [u8; BLOCK_LEN],
}

impl Lane {
    pub(crate) fn new() -> Lane {
        Lane { state: INITIAL, len: 0, rest: [0; BLOCK_LEN] }
    }

    /// Takes in the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        let (blocks, tail) = self.begin(bytes);
        compress(&mut self.state, blocks);
        self.end(tail);
    }

    /// The digest of all bytes taken in.
    pub(crate) fn finish(mut self) -> Digest {
        let filled = self.filled();
        let bits = self.len.wrapping_mul(8);
        let mut last = [0; 2 * BLOCK_LEN];
        last[..filled].copy_from_slice(&self.rest[..filled]);
        last[filled] = 0x80;
        let blocks = if filled < LENGTH_AT { 1 } else { 2 };
        last[blocks * BLOCK_LEN - 8..blocks * BLOCK_LEN].copy_from_slice(&bits.to_be_bytes());
        let (last, _) = last[..blocks * BLOCK_LEN].as_chunks::<BLOCK_LEN>();
        compress(&mut self.state, last);
        let mut digest = [0; 32];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(self.state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        Digest::from_bytes(digest)
    }

    /// How many bytes wait for their block to become whole.
    fn filled(&self) -> usize {
        // A remainder below 64 fits.
        usize::try_from(self.len % BLOCK_LEN as u64).unwrap_or(0)
    }

    /// Completes the waiting block, and cuts `bytes` into whole blocks and what is left.
    fn begin<'a>(&mut self, bytes: &'a [u8]) -> (&'a [[u8; BLOCK_LEN]], &'a [u8]) {
        let filled = self.filled();
        self.len = self.len.wrapping_add(bytes.len() as u64);
        if filled == 0 {
            return bytes.as_chunks();
        }
        let (head, bytes) = bytes.split_at(bytes.len().min(BLOCK_LEN - filled));
        self.rest[filled..filled + head.len()].copy_from_slice(head);
        if filled + head.len() < BLOCK_LEN {
            return (&[], &[]);
        }
        compress(&mut self.state, &[self.rest]);
        bytes.as_chunks()
    }

    fn end(&mut self, tail: &[u8]) {
        self.rest[..tail.len()].copy_from_slice(tail);
    }
}

/// Both lanes take in their next bytes: interleaved as far as both have some, the longer one's rest alone.
pub(crate) fn update_both(left: &mut Lane, left_bytes: &[u8], right: &mut Lane, right_bytes: &[u8]) {
    let (left_blocks, left_tail) = left.begin(left_bytes);
    let (right_blocks, right_tail) = right.begin(right_bytes);
    let both = left_blocks.len().min(right_blocks.len());
    let (left_both, left_alone) = left_blocks.split_at(both);
    let (right_both, right_alone) = right_blocks.split_at(both);
    compress_both((&mut left.state, left_both), (&mut right.state, right_both));
    compress(&mut left.state, left_alone);
    compress(&mut right.state, right_alone);
    left.end(left_tail);
    right.end(right_tail);
}

/// The digests of two messages, hashed side by side where the processor has instructions for it.
///
/// # Examples
/// ```
/// use sheaf_domain::Digest;
///
/// let (left, right) = sheaf_blob::digests_of_pair(b"one", b"another, longer one");
/// assert_eq!((left, right), (Digest::of(b"one"), Digest::of(b"another, longer one")));
/// ```
pub fn digests_of_pair(left: &[u8], right: &[u8]) -> (Digest, Digest) {
    let (mut left_lane, mut right_lane) = (Lane::new(), Lane::new());
    update_both(&mut left_lane, left, &mut right_lane, right);
    (left_lane.finish(), right_lane.finish())
}

fn compress(state: &mut [u32; 8], blocks: &[[u8; BLOCK_LEN]]) {
    if !blocks.is_empty() {
        sha2::block_api::compress256(state, blocks);
    }
}

type Blocks<'a> = (&'a mut [u32; 8], &'a [[u8; BLOCK_LEN]]);

#[cfg(target_arch = "x86_64")]
fn compress_both(left: Blocks<'_>, right: Blocks<'_>) {
    if let Some(pair) = super::pair::Pair::detect() {
        return pair.compress(left, right);
    }
    compress(left.0, left.1);
    compress(right.0, right.1);
}

#[cfg(not(target_arch = "x86_64"))]
fn compress_both(left: Blocks<'_>, right: Blocks<'_>) {
    compress(left.0, left.1);
    compress(right.0, right.1);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sheaf_domain::rng::SeededRng;

    use super::*;

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut rng = SeededRng::new(seed, "lane");
        (0..len).map(|_| rng.next_u64().to_le_bytes()[0]).collect()
    }

    /// The digests of two messages taken in together, in parts that end anywhere.
    fn both(left: &[u8], right: &[u8], parts: usize) -> (Digest, Digest) {
        let (mut a, mut b) = (Lane::new(), Lane::new());
        let part = |bytes: &[u8]| (bytes.len() / parts).max(1);
        let (mut left, mut right) = (left.chunks(part(left)), right.chunks(part(right)));
        loop {
            match (left.next(), right.next()) {
                (None, None) => return (a.finish(), b.finish()),
                (x, y) => {
                    update_both(&mut a, x.unwrap_or_default(), &mut b, y.unwrap_or_default());
                }
            }
        }
    }

    #[test]
    fn every_length_around_the_border_of_a_block_has_the_digest_of_sha2() {
        let bytes = noise(1, 5 * BLOCK_LEN);
        for left in 0..bytes.len() {
            let mut alone = Lane::new();
            alone.update(&bytes[..left]);
            assert_eq!(alone.finish(), Digest::of(&bytes[..left]), "{left} bytes alone");
            for right in [0, 1, 55, 56, 63, 64, 65, 119, 120, 127, 128, 129, 191, 192, 193, 300] {
                for parts in [1, 3] {
                    let (a, b) = both(&bytes[..left], &bytes[..right], parts);
                    assert_eq!(a, Digest::of(&bytes[..left]), "{left} beside {right} bytes in {parts} parts");
                    assert_eq!(
                        b,
                        Digest::of(&bytes[..right]),
                        "{right} beside {left} bytes in {parts} parts"
                    );
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn messages_cut_anywhere_have_the_digests_of_sha2(
            seed in any::<u64>(),
            left_len in 0..40_000_usize,
            right_len in 0..40_000_usize,
            parts in 1..60_usize,
        ) {
            let (left, right) = (noise(seed, left_len), noise(!seed, right_len));
            let (a, b) = both(&left, &right, parts);
            prop_assert_eq!(a, Digest::of(&left));
            prop_assert_eq!(b, Digest::of(&right));
        }
    }
}

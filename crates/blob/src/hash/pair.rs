//! Two messages of SHA-256 interleaved, with the x86 SHA extensions: while one waits for a round's result the other one goes on.
//!
//! One message alone leaves about half of the unit idle. Two lanes fit the sixteen vector registers; three spill and are slower.
//! Source: Intel, "Intel SHA Extensions", 2013: two rounds an instruction, state kept as ABEF and CDGH.
#![expect(unsafe_code, reason = "instructions that not every x86 processor has, and unaligned loads")]

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_loadu_si128, _mm_set_epi64x,
    _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
    _mm_storeu_si128,
};

use super::lane::BLOCK_LEN;

/// Says that this processor has the instructions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair(());

impl Pair {
    /// The proof, where the processor has them.
    pub(super) fn detect() -> Option<Pair> {
        let has = is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1");
        has.then_some(Pair(()))
    }

    /// Takes the blocks of both messages into their states; of the longer one, as many as the shorter one has.
    pub(super) fn compress(
        self,
        left: (&mut [u32; 8], &[[u8; BLOCK_LEN]]),
        right: (&mut [u32; 8], &[[u8; BLOCK_LEN]]),
    ) {
        // SAFETY: a `Pair` is made only where the processor has the instructions.
        unsafe { compress(left.0, left.1, right.0, right.1) }
    }
}

/// The round constants, FIPS 180-4 section 4.2.2.
static ROUNDS: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
    [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
    [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
    [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
    [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
    [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
    [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
    [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
    [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

/// A message's state in the order the instructions want.
#[derive(Clone, Copy)]
struct State {
    abef: __m128i,
    cdgh: __m128i,
}

#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn compress(
    left: &mut [u32; 8],
    left_blocks: &[[u8; BLOCK_LEN]],
    right: &mut [u32; 8],
    right_blocks: &[[u8; BLOCK_LEN]],
) {
    let (mut a, mut b) = (load(left), load(right));
    for (left_block, right_block) in left_blocks.iter().zip(right_blocks) {
        let (a_before, b_before) = (a, b);
        let ([mut x0, mut x1, mut x2, mut x3], [mut y0, mut y1, mut y2, mut y3]) =
            (words(left_block), words(right_block));
        // Four rounds of each message in turn.
        macro_rules! step {
            ($x:ident, $y:ident, $round:expr) => {
                let k = constants($round);
                (a, b) = (rounds(a, _mm_add_epi32($x, k)), rounds(b, _mm_add_epi32($y, k)));
            };
        }
        let (first, later) = ROUNDS.as_chunks::<4>().0.split_at(1);
        for [k0, k1, k2, k3] in first {
            step!(x0, y0, k0);
            step!(x1, y1, k1);
            step!(x2, y2, k2);
            step!(x3, y3, k3);
        }
        // The oldest four words make way for the next four.
        for [k0, k1, k2, k3] in later {
            (x0, y0) = (schedule(x0, x1, x2, x3), schedule(y0, y1, y2, y3));
            step!(x0, y0, k0);
            (x1, y1) = (schedule(x1, x2, x3, x0), schedule(y1, y2, y3, y0));
            step!(x1, y1, k1);
            (x2, y2) = (schedule(x2, x3, x0, x1), schedule(y2, y3, y0, y1));
            step!(x2, y2, k2);
            (x3, y3) = (schedule(x3, x0, x1, x2), schedule(y3, y0, y1, y2));
            step!(x3, y3, k3);
        }
        (a, b) = (add(a, a_before), add(b, b_before));
    }
    store(a, left);
    store(b, right);
}

/// Four rounds with the words of the schedule, constants added.
#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn rounds(state: State, words: __m128i) -> State {
    let State { abef, cdgh } = state;
    let cdgh = _mm_sha256rnds2_epu32(cdgh, abef, words);
    let abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32::<0x0e>(words));
    State { abef, cdgh }
}

/// The four words of the schedule that follow these sixteen, the oldest first.
#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn schedule(w0: __m128i, w1: __m128i, w2: __m128i, w3: __m128i) -> __m128i {
    let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
    _mm_sha256msg2_epu32(sum, w3)
}

#[inline]
#[target_feature(enable = "sse2")]
fn add(state: State, before: State) -> State {
    State { abef: _mm_add_epi32(state.abef, before.abef), cdgh: _mm_add_epi32(state.cdgh, before.cdgh) }
}

/// The sixteen words of a block, big-endian.
#[inline]
#[target_feature(enable = "sse2,ssse3")]
fn words(block: &[u8; BLOCK_LEN]) -> [__m128i; 4] {
    let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let at = block.as_ptr().cast::<__m128i>();
    // SAFETY: the block has 64 bytes, which are four times 16; the load may be unaligned.
    let loaded = unsafe {
        [
            _mm_loadu_si128(at),
            _mm_loadu_si128(at.add(1)),
            _mm_loadu_si128(at.add(2)),
            _mm_loadu_si128(at.add(3)),
        ]
    };
    let [w0, w1, w2, w3] = loaded;
    [
        _mm_shuffle_epi8(w0, swap),
        _mm_shuffle_epi8(w1, swap),
        _mm_shuffle_epi8(w2, swap),
        _mm_shuffle_epi8(w3, swap),
    ]
}

#[inline]
#[target_feature(enable = "sse2")]
fn constants(round: &[u32; 4]) -> __m128i {
    // SAFETY: four words are 16 bytes; the load may be unaligned.
    unsafe { _mm_loadu_si128(round.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sse2,ssse3,sse4.1")]
fn load(state: &[u32; 8]) -> State {
    let at = state.as_ptr().cast::<__m128i>();
    // SAFETY: the state has 32 bytes, which are twice 16; the load may be unaligned.
    let (abcd, efgh) = unsafe { (_mm_loadu_si128(at), _mm_loadu_si128(at.add(1))) };
    let cdab = _mm_shuffle_epi32::<0xb1>(abcd);
    let efgh = _mm_shuffle_epi32::<0x1b>(efgh);
    State { abef: _mm_alignr_epi8::<8>(cdab, efgh), cdgh: _mm_blend_epi16::<0xf0>(efgh, cdab) }
}

#[inline]
#[target_feature(enable = "sse2,ssse3,sse4.1")]
fn store(state: State, into: &mut [u32; 8]) {
    let feba = _mm_shuffle_epi32::<0x1b>(state.abef);
    let dchg = _mm_shuffle_epi32::<0xb1>(state.cdgh);
    let at = into.as_mut_ptr().cast::<__m128i>();
    // SAFETY: the state has 32 bytes, which are twice 16; the store may be unaligned.
    unsafe {
        _mm_storeu_si128(at, _mm_blend_epi16::<0xf0>(feba, dchg));
        _mm_storeu_si128(at.add(1), _mm_alignr_epi8::<8>(dchg, feba));
    }
}

//! What comes after a block of rows: asked of memory while the block is worked on, so that the two overlap.
//!
//! Many tiles of work ask for a few lines each; where there are few tiles, each asks for whole rows as it goes, because
//! the processor stands still when too many lines are on their way. Nothing here changes a result.

use sheaf_tensor::cpu::prefetch;

/// Where the next block comes from.
pub(crate) struct Ahead<'a> {
    /// The rows it is in.
    pub(crate) rows: &'a [&'a [u8]],
    /// Where it begins in each, in bytes.
    pub(crate) from: usize,
    /// Bytes of each row.
    pub(crate) len: usize,
}

impl<'a> Ahead<'a> {
    /// Nothing.
    pub(crate) fn nothing() -> Ahead<'a> {
        Ahead { rows: &[], from: 0, len: 0 }
    }

    /// Deals the next block out to `parts` parts of the work.
    #[inline(always)]
    pub(crate) fn deal(&self, parts: usize) -> Deal<'a> {
        let lines = self.len.div_ceil(LINE_BYTES);
        let quota = (lines * self.rows.len()).div_ceil(parts.max(1));
        Deal { rows: self.rows, from: self.from, len: self.len, quota, row: 0, place: 0 }
    }
}

/// What nobody asked for yet.
pub(crate) struct Deal<'a> {
    rows: &'a [&'a [u8]],
    from: usize,
    len: usize,
    /// Lines for each part.
    quota: usize,
    row: usize,
    /// How many bytes of the row were asked for.
    place: usize,
}

impl<'a> Deal<'a> {
    /// Asks for a few lines at once, or tells which rows, `N` at most, the next part is to ask for as it goes.
    #[inline(always)]
    pub(crate) fn next<const N: usize>(&mut self) -> Option<Dealt<'a, N>> {
        let first = self.rows.get(self.row)?;
        if self.quota > QUOTA_AT_ONCE_MAX {
            let each = (self.quota * LINE_BYTES).div_ceil(self.len).min(N);
            // Where there are fewer, the first again: it is near by then.
            let mut rows = [*first; N];
            for (place, row) in rows.iter_mut().enumerate().take(each) {
                *row = self.rows.get(self.row + place).unwrap_or(first);
            }
            self.row += each;
            return Some(Dealt { rows, from: self.from, len: self.len });
        }
        for _ in 0..self.quota {
            let row = self.rows.get(self.row)?;
            prefetch(row, self.from + self.place);
            self.place += LINE_BYTES;
            if self.place >= self.len {
                (self.row, self.place) = (self.row + 1, 0);
            }
        }
        None
    }
}

/// Some rows of the next block.
pub(crate) struct Dealt<'a, const N: usize> {
    rows: [&'a [u8]; N],
    from: usize,
    len: usize,
}

impl<const N: usize> Dealt<'_, N> {
    /// Asks for what falls on one of `steps` steps.
    #[inline(always)]
    pub(crate) fn ask(&self, step: usize, steps: usize) {
        let place = self.from + self.len / steps * step;
        for row in self.rows {
            prefetch(row, place);
        }
    }
}

const LINE_BYTES: usize = 64;
/// So many lines can be on their way at once without holding up the work.
const QUOTA_AT_ONCE_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_dealt_once_and_none_beyond() {
        let bytes = [0_u8; 4096];
        for num_rows in 0..40 {
            let rows = vec![&bytes[..]; num_rows];
            for parts in [num_rows.div_ceil(2), num_rows] {
                let mut deal = Ahead { rows: &rows, from: 0, len: 2048 }.deal(parts);
                let asked: usize = (0..parts).filter_map(|_| deal.next::<2>()).map(|_| 1).sum();
                assert!(deal.row >= num_rows && deal.next::<2>().is_none(), "{num_rows} rows, {parts} parts");
                assert!(asked <= num_rows);
            }
            let mut deal = Ahead { rows: &rows, from: 0, len: 2048 }.deal(num_rows * 4);
            assert!((0..num_rows * 4).all(|_| deal.next::<2>().is_none()));
            assert_eq!(deal.row, num_rows);
        }
    }
}

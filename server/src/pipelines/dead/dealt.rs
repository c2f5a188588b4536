//! Which dead letters of one queue are dealt with: replayed, or purged.

use std::ops::Range;

/// Most stretches beyond the position: they stand in every unit that deals with letters.
const STRETCHES_LIMIT: usize = 4_096;

/// Those before the position, and stretches beyond it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dealt {
    position: u64,
    /// Ascending; they neither touch each other nor the position.
    beyond: Vec<Range<u64>>,
}

impl Dealt {
    /// `beyond` are stretches, from and to, in any order.
    pub fn new(position: u64, beyond: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut dealt = Self { position, beyond: Vec::new() };
        dealt.add(beyond);
        dealt
    }

    /// Offset of the first letter that waits.
    pub fn position(&self) -> u64 {
        self.position
    }

    pub fn beyond(&self) -> Vec<(u64, u64)> {
        self.beyond.iter().map(|stretch| (stretch.start, stretch.end)).collect()
    }

    /// Whether there is no room for what may come.
    pub fn is_full(&self) -> bool {
        self.beyond.len() > STRETCHES_LIMIT
    }

    pub fn add(&mut self, more: impl IntoIterator<Item = (u64, u64)>) {
        let mut all = std::mem::take(&mut self.beyond);
        all.extend(more.into_iter().map(|(from, to)| from..to).filter(|stretch| !stretch.is_empty()));
        all.sort_unstable_by_key(|stretch| stretch.start);
        for stretch in all {
            if stretch.start <= self.position {
                self.position = self.position.max(stretch.end);
                continue;
            }
            match self.beyond.last_mut() {
                Some(last) if stretch.start <= last.end => last.end = last.end.max(stretch.end),
                _ => self.beyond.push(stretch),
            }
        }
    }

    /// The first offset from `from` on that is not dealt with.
    pub fn next_open(&self, from: u64) -> u64 {
        let from = from.max(self.position);
        let at = self.beyond.partition_point(|stretch| stretch.end <= from);
        self.beyond.get(at).filter(|stretch| stretch.start <= from).map_or(from, |stretch| stretch.end)
    }

    pub fn holds(&self, offset: u64) -> bool {
        self.next_open(offset) != offset
    }

    /// How many before `end` are not dealt with.
    pub fn open_before(&self, end: u64) -> u64 {
        let dealt: u64 = self.beyond.iter().map(|stretch| stretch.end.min(end).saturating_sub(stretch.start)).sum();
        end.saturating_sub(self.position).saturating_sub(dealt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_become_one_where_they_meet() {
        let mut dealt = Dealt::new(2, [(7, 9), (12, 13)]);
        assert_eq!((dealt.next_open(0), dealt.next_open(7), dealt.next_open(9), dealt.open_before(15)), (2, 9, 9, 10));
        dealt.add([(9, 12)]);
        assert_eq!(dealt, Dealt::new(2, [(7, 13)]));
        dealt.add([(2, 4), (5, 6)]);
        assert_eq!((dealt.position(), dealt.beyond()), (4, vec![(5, 6), (7, 13)]));
        dealt.add([(4, 5)]);
        assert_eq!(dealt, Dealt::new(6, [(7, 13)]));
        dealt.add([(0, 7), (3, 3)]);
        assert_eq!((dealt.clone(), dealt.holds(12), dealt.holds(13)), (Dealt::new(13, []), true, false));
        assert_eq!((dealt.open_before(13), dealt.open_before(20)), (0, 7));
    }

    #[test]
    fn any_order_comes_to_the_same() {
        let offsets = [5_u64, 1, 9, 2, 8, 0, 3];
        let mut dealt = Dealt::default();
        for (count, offset) in (1..).zip(offsets) {
            dealt.add([(offset, offset + 1)]);
            let open = (0..12).filter(|offset| !dealt.holds(*offset)).count();
            assert_eq!((open, dealt.open_before(12)), (12 - count, 12 - count as u64));
        }
        assert_eq!((dealt.position(), dealt.beyond()), (4, vec![(5, 6), (8, 10)]));
    }
}

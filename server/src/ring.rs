//! The newest entries of what never ends.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Keeps so many entries; older ones go.
pub struct Ring<T> {
    most: usize,
    kept: Mutex<Kept<T>>,
}

struct Kept<T> {
    newest: VecDeque<T>,
    /// Entries ever added.
    count: u64,
}

impl<T: Clone> Ring<T> {
    pub fn new(most: usize) -> Self {
        Self { most, kept: Mutex::new(Kept { newest: VecDeque::new(), count: 0 }) }
    }

    pub fn push(&self, entry: T) {
        let mut kept = self.kept.lock();
        if kept.newest.len() >= self.most {
            kept.newest.pop_front();
        }
        kept.count += 1;
        kept.newest.push_back(entry);
    }

    /// Entries ever added.
    pub fn count(&self) -> u64 {
        self.kept.lock().count
    }

    /// The newest `max` entries, the oldest first.
    pub fn newest(&self, max: usize) -> Vec<T> {
        let kept = self.kept.lock();
        kept.newest.iter().skip(kept.newest.len().saturating_sub(max)).cloned().collect()
    }

    /// How many entries were ever added, and those behind the first `seen` that are still kept, the oldest first.
    pub fn after(&self, seen: u64) -> (u64, Vec<T>) {
        let kept = self.kept.lock();
        let fresh = usize::try_from(kept.count.saturating_sub(seen)).unwrap_or(usize::MAX);
        let skip = kept.newest.len().saturating_sub(fresh);
        (kept.count, kept.newest.iter().skip(skip).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_told_once() {
        let ring = Ring::new(3);
        (1..=5).for_each(|number| ring.push(number));
        assert_eq!((ring.newest(2), ring.newest(9)), (vec![4, 5], vec![3, 4, 5]));
        assert_eq!(ring.after(4), (5, vec![5]));
        assert_eq!(ring.after(0), (5, vec![3, 4, 5]), "what is gone is gone");
        assert_eq!((ring.after(5), ring.count()), ((5, vec![]), 5));
    }
}

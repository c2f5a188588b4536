//! How many records a turn takes, so that its calls keep their deadline: a call that misses it has done its work for nothing.

use std::time::Duration;

/// Where it begins.
const FIRST: usize = 64;
/// By what part it goes up once it has come near the deadline.
const STEP: usize = 128;

pub(crate) struct Pace {
    most: usize,
    limit: usize,
    /// It was near the deadline.
    careful: bool,
}

impl Pace {
    /// At most `limit` records.
    pub(crate) fn new(limit: usize) -> Self {
        Self { most: limit.min(FIRST), limit, careful: false }
    }

    /// How many records the next turn may take.
    pub(crate) fn records(&self) -> usize {
        self.most
    }

    /// No call missed its deadline in a turn of so many records, in which the step that took longest had the processor for so long. It is
    /// to have it for half of the deadline: where the same number of records may take twice as long, that is kept as well.
    pub(crate) fn kept(&mut self, records: usize, took: Duration, deadline: Duration) {
        let (took, aim) = (took.as_nanos().max(1), deadline.as_nanos() / 2);
        let fits = usize::try_from(records as u128 * aim / took).unwrap_or(usize::MAX);
        if took > aim {
            (self.most, self.careful) = (self.most.min(fits).max(1), true);
        } else if records >= self.most {
            let more = if self.careful { (self.most / STEP).max(1) } else { self.most };
            self.careful |= fits <= self.most + more;
            self.most = (self.most + more).min(fits).min(self.limit);
        }
    }

    /// A call missed its deadline in a turn of so many records.
    pub(crate) fn missed(&mut self, records: usize) {
        (self.most, self.careful) = ((records / 2).clamp(1, self.most), true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_millis(10);

    /// Turns over records that take so many nanoseconds each; gives how many calls missed the deadline.
    fn play(pace: &mut Pace, turns: usize, each: impl Fn(usize) -> u64) -> usize {
        let mut missed = 0;
        for turn in 0..turns {
            let records = pace.records();
            let took = Duration::from_nanos(records as u64 * each(turn));
            if took > DEADLINE {
                missed += 1;
                pace.missed(records);
            } else {
                pace.kept(records, took, DEADLINE);
            }
        }
        missed
    }

    #[test]
    fn what_is_fast_has_full_batches_at_once_and_what_is_slow_half_of_its_deadline() {
        let mut fast = Pace::new(1_024);
        assert_eq!((play(&mut fast, 4, |_| 1_000), fast.records()), (0, 1_024));
        let mut slow = Pace::new(1_024);
        assert_eq!((play(&mut slow, 1_000, |_| 20_000), slow.records()), (0, 250));
        let mut slowest = Pace::new(1_024);
        assert_eq!((play(&mut slowest, 1_000, |_| 4_000_000), slowest.records()), (5, 1));
    }

    #[test]
    fn what_takes_longer_now_and_then_misses_seldom_and_what_becomes_faster_is_noticed() {
        let mut pace = Pace::new(1_024);
        let missed = play(&mut pace, 10_000, |turn| if turn % 20 == 0 { 60_000 } else { 10_000 });
        assert!(missed < 100 && (80..500).contains(&pace.records()), "{missed} of 10,000, {} records", pace.records());
        assert_eq!(play(&mut pace, 1_000, |_| 1_000), 0);
        assert_eq!(pace.records(), 1_024);
    }

    #[test]
    fn few_records_say_nothing_of_many() {
        let mut pace = Pace::new(1_024);
        play(&mut pace, 10, |_| 1_000);
        for _ in 0..1_000 {
            pace.kept(1, DEADLINE / 4, DEADLINE);
        }
        assert_eq!(pace.records(), 1_024);
    }
}

//! The plugin instances that pipelines may have: not all that there are, so that chains and checkers always find some.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use sluice_model::Kind;

use crate::failure::{Failure, Result};

/// The pipelines' share of the runtime's instances: three quarters.
pub(super) struct Share {
    limit: usize,
    /// By pipeline.
    taken: Mutex<BTreeMap<String, usize>>,
}

/// Some of them; dropping it gives them back.
pub(super) struct Taken {
    share: Arc<Share>,
    pipeline: String,
    count: usize,
}

impl Share {
    /// Of so many instances in all.
    pub fn of(instances: u32) -> Arc<Self> {
        let limit = instances - instances / 4;
        Arc::new(Self { limit: limit as usize, taken: Mutex::default() })
    }

    /// Takes instances for one queue of a pipeline; fails with `Busy` when there are not so many.
    pub fn take(self: &Arc<Self>, pipeline: &str, count: usize) -> Result<Taken> {
        let mut taken = self.taken.lock();
        let free = self.limit.saturating_sub(taken.values().sum());
        if count > free {
            return Err(self.none(pipeline, count, free));
        }
        *taken.entry(pipeline.to_owned()).or_default() += count;
        Ok(Taken { share: self.clone(), pipeline: pipeline.to_owned(), count })
    }

    /// Fails with `Busy` when a pipeline cannot have so many in all, with those that it has.
    pub fn check(&self, pipeline: &str, count: usize) -> Result<()> {
        let taken = self.taken.lock();
        let others = taken.iter().filter(|(name, _)| *name != pipeline).map(|(_, count)| count).sum();
        let free = self.limit.saturating_sub(others);
        if count > free { Err(self.none(pipeline, count, free)) } else { Ok(()) }
    }

    fn none(&self, pipeline: &str, count: usize, free: usize) -> Failure {
        let limit = self.limit;
        let text = format!(
            "pipeline \"{pipeline}\" needs {count} plugin instances, one for each step and queue (a shadow runs both versions once more), and there \
             are {free}: pipelines have {limit} together; take fewer steps or queues, or pause other pipelines"
        );
        Failure::new(Kind::Busy, text)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut taken = self.share.taken.lock();
        if let Some(count) = taken.get_mut(&self.pipeline) {
            *count -= self.count;
            if *count == 0 {
                taken.remove(&self.pipeline);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_left_to_others_and_what_is_given_back_is_there_again() {
        let share = Share::of(32);
        let p = share.take("p", 20).unwrap();
        assert!(share.take("q", 4).is_ok());
        let refused = share.take("q", 5).err().unwrap();
        assert_eq!(refused.kind, Kind::Busy);
        assert!(refused.text.contains("needs 5 ") && refused.text.contains("are 4: pipelines have 24"), "{refused}");
        // What a pipeline has is in the place of what it is to have.
        assert!(share.check("p", 24).is_ok() && share.check("q", 4).is_ok());
        assert!(share.check("p", 25).is_err() && share.check("q", 5).is_err());
        drop(p);
        assert!(share.take("q", 24).is_ok());
        assert!(Share::of(1).take("p", 1).is_ok(), "there is one in any case");
    }
}

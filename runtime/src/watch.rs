//! How long a call may still run, for those who work on its behalf outside of the guest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::ticker::{Clock, TICK};

/// Not yet: the first half is not over.
const NOT_YET: u64 = u64::MAX;

/// The deadline of the running call. The first half goes by the clock on the wall. On a busy machine the guest may hardly have run by
/// then, so the second half is counted on the processor. Cloning gives another look at the same deadline.
#[derive(Clone)]
pub(crate) struct Watch(Arc<Call>);

struct Call {
    clock: Clock,
    /// The tick at which the first half is over.
    half_at: AtomicU64,
    /// Nanoseconds.
    half: AtomicU64,
    /// The thread's time on the processor when the first half was over, nanoseconds.
    second_half_from: AtomicU64,
}

impl Watch {
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Call {
            clock,
            half_at: AtomicU64::new(u64::MAX),
            half: AtomicU64::new(0),
            second_half_from: AtomicU64::new(NOT_YET),
        }))
    }

    /// Begins a call, and gives the ticks of the first half.
    pub fn begin(&self, deadline: Duration) -> u64 {
        let half = deadline / 2;
        let ticks = ticks(half);
        let Call { clock, half_at, half: stored, second_half_from } = &*self.0;
        half_at.store(clock.now().saturating_add(ticks), Ordering::Relaxed);
        stored.store(nanos(half), Ordering::Relaxed);
        second_half_from.store(NOT_YET, Ordering::Relaxed);
        ticks
    }

    /// Does work for the guest that takes its time elsewhere. That time counts for neither half; whoever calls this bounds it.
    pub fn waiting<R>(&self, work: impl FnOnce() -> R) -> R {
        let Call { clock, half_at, second_half_from, .. } = &*self.0;
        let (tick, processor) = (clock.now(), processor_time());
        let done = work();
        half_at.fetch_add(clock.now() - tick, Ordering::Relaxed);
        if second_half_from.load(Ordering::Relaxed) != NOT_YET {
            second_half_from.fetch_add(processor_time().saturating_sub(processor), Ordering::Relaxed);
        }
        done
    }

    /// Whether the call has used up its time. Cheap as long as the first half lasts.
    pub fn is_over(&self) -> bool {
        let call = &*self.0;
        call.clock.now() >= call.half_at.load(Ordering::Relaxed) && self.next_look().is_none()
    }

    /// The ticks of the first half are over: in how many ticks to look again, `None` when the second one is over as well.
    pub fn next_look(&self) -> Option<u64> {
        let Call { clock, half_at, half, second_half_from } = &*self.0;
        // Some of them passed while the guest waited.
        if let Some(left) = half_at.load(Ordering::Relaxed).checked_sub(clock.now()).filter(|left| *left > 0) {
            return Some(left);
        }
        let (now, half) = (processor_time(), half.load(Ordering::Relaxed));
        match second_half_from.load(Ordering::Relaxed) {
            NOT_YET => {
                second_half_from.store(now, Ordering::Relaxed);
                Some(ticks(Duration::from_nanos(half)))
            }
            from if now.saturating_sub(from) < half => Some(1),
            _ => None,
        }
    }
}

/// The calling thread's time on the processor, nanoseconds. Takes some hundred nanoseconds itself.
#[must_use]
pub fn processor_time() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_millis(20);

    #[test]
    fn waiting_takes_nothing_from_the_first_half() {
        let clock = Clock::stopped();
        let watch = Watch::new(clock.clone());
        assert_eq!(watch.begin(DEADLINE), 10);
        clock.advance(4);
        watch.waiting(|| clock.advance(1_000));
        assert!(!watch.is_over());
        assert_eq!(watch.next_look(), Some(6), "what was left of the first half before it waited");
        clock.advance(6);
        assert_eq!(watch.next_look(), Some(10), "the second half begins");
    }

    #[test]
    fn waiting_takes_nothing_from_the_second_half_and_adds_nothing_to_it() {
        let clock = Clock::stopped();
        let watch = Watch::new(clock.clone());
        watch.begin(DEADLINE);
        clock.advance(10);
        assert_eq!(watch.next_look(), Some(10));
        let busy_for = |time: Duration| {
            let from = processor_time();
            while processor_time() - from < nanos(time) {
                std::hint::spin_loop();
            }
        };
        watch.waiting(|| busy_for(DEADLINE));
        assert!(watch.next_look().is_some(), "the host's own work for the guest is not the guest's");
        busy_for(DEADLINE);
        assert_eq!(watch.next_look(), None);
        assert!(watch.is_over());
    }
}

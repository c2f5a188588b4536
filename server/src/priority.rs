//! Threads that run plugins stand back behind those that serve sockets, the log and the disk.

use std::time::Duration;

/// How much nicer they are (`nice(2)`): beside a thread that serves, one of them gets about a tenth of the processor that both want.
const NICER: i32 = 10;
/// A thread rests so many times as long as calls had the processor that ended their instance: a pipeline whose plugins fail on everything
/// has a tenth of a processor at the most.
pub const PIPELINE_RESTS: u32 = 9;
/// The same for a thread of a chain. Senders and consumers wait for it, so it is less: half a processor.
pub const CHAIN_RESTS: u32 = 1;
/// The same for the thread of a checker: nobody waits for an answer, and the broker asks again.
pub const CHECKER_RESTS: u32 = 9;
const REST_LIMIT: Duration = Duration::from_secs(2);

/// Lowers the priority of the calling thread for good. What it asks of the broker has to be left to others, see [`Shell::standing_back`]:
/// who holds the writer and does not get the processor holds up everybody.
///
/// [`Shell::standing_back`]: crate::shell::Shell::standing_back
pub fn stand_back() {
    // On Linux a thread has a priority of its own.
    let own = rustix::process::getpriority_process(None).unwrap_or(0);
    if let Err(error) = rustix::process::setpriority_process(None, own.saturating_add(NICER)) {
        tracing::debug!(%error, "a thread of plugins keeps its priority");
    }
}

/// How long a thread is to rest after so much processor time was wasted.
pub fn rest(wasted: Duration, times: u32) -> Duration {
    wasted.saturating_mul(times).min(REST_LIMIT)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test panics")]
mod tests {
    use super::*;

    #[test]
    fn a_rest_is_longer_than_what_was_wasted_and_has_an_end() {
        assert_eq!(rest(Duration::ZERO, 9), Duration::ZERO);
        assert_eq!(rest(Duration::from_millis(10), 3), Duration::from_millis(30));
        assert_eq!(rest(Duration::from_secs(3600), 9), REST_LIMIT);
    }

    #[test]
    fn only_the_calling_thread_stands_back() {
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let before = priority();
        let of_another = std::thread::spawn(move || {
            stand_back();
            priority()
        });
        assert_eq!(of_another.join().unwrap(), (before + NICER).min(19));
        assert_eq!(priority(), before);
    }
}

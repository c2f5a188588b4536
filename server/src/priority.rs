//! Threads that run plugins stand back behind those that serve sockets, the log and the disk.

use std::time::Duration;

/// How much nicer they are (`nice(2)`): beside a thread that serves, one of them gets about a tenth of the processor that both want.
const NICER: i32 = 10;
/// A thread rests so many times as long as calls had the processor that ended their instance: a pipeline whose plugins fail on everything
/// has a tenth of a processor at the most, unless a call takes longer than a ninth of [`REST_LIMIT`].
pub const PIPELINE_RESTS: u32 = 9;
/// The same for the thread of a checker: nobody waits for an answer, and the broker asks again.
pub const CHECKER_RESTS: u32 = 9;
const REST_LIMIT: Duration = Duration::from_secs(60);
/// What part of a processor the threads of a chain have together for such calls: a quarter.
const CHAIN_PART: u32 = 4;
/// Senders and consumers wait behind a thread of a chain.
const CHAIN_REST_LIMIT: Duration = Duration::from_secs(1);

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

/// The same for each of the threads of a chain.
pub fn rest_of_chain(wasted: Duration, threads: u32) -> Duration {
    wasted.saturating_mul((CHAIN_PART * threads).saturating_sub(1)).min(CHAIN_REST_LIMIT)
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
        // Four threads, each a sixteenth of its time.
        assert_eq!(rest_of_chain(Duration::from_millis(10), 4), Duration::from_millis(150));
        assert_eq!(rest_of_chain(Duration::from_secs(1), 1), CHAIN_REST_LIMIT);
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

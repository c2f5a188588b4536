use std::time::Duration;

use crate::error::Error;

pub(crate) const MIB: u64 = 1024 * 1024;

/// Settings of a [`crate::Runtime`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Instances that may live at the same time: one per plugin and queue. Each reserves 4 GiB of address space, no memory.
    pub instances: u32,
    /// Ceiling for [`Limits::memory`], bytes.
    pub memory: u64,
    /// Largest component that is accepted, bytes.
    pub component: u64,
    /// Longest compilation that is waited for.
    pub compile_timeout: Duration,
    /// Deadline of `describe` and `configure`.
    pub start_deadline: Duration,
    pub compilers: Compilers,
}

/// The threads that compile. A host may have them stand back behind others.
#[derive(Clone, Copy, Debug)]
pub struct Compilers {
    /// How many; 0: as many as there are processors.
    pub threads: usize,
    /// Called by each of them when it begins.
    pub begin: fn(),
    /// The same when it ends.
    pub end: fn(),
    /// Called when somebody begins to wait for an upload, and every second from then on, with how long that has been.
    pub waiting: fn(Duration),
}

impl Default for Compilers {
    fn default() -> Compilers {
        Compilers { threads: 0, begin: || (), end: || (), waiting: |_| () }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            instances: 1024,
            memory: 64 * MIB,
            component: 8 * MIB,
            compile_timeout: Duration::from_secs(30),
            start_deadline: Duration::from_millis(200),
            compilers: Compilers::default(),
        }
    }
}

/// What one instance may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory, bytes. 64 KiB to [`Config::memory`].
    pub memory: u64,
    /// Running time of one `matches` or `apply`, 1 ms to 10 s. A call is never ended before it used half of this on the processor, and
    /// never runs longer on the processor than this.
    pub deadline: Duration,
    /// Running time of one `check`, 1 ms to 10 s. What the host waits for on the guest's behalf counts for neither.
    pub check_deadline: Duration,
    /// Bytes that one answer, or one call of a host function, may carry.
    pub output: u64,
    /// Output records for each input record of a batch, on average.
    pub fan_out: u32,
    /// Log lines kept from one call. More are counted and dropped.
    pub log_lines: u32,
    /// Bytes of one log line with its fields; longer ones are cut.
    pub log_line: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            memory: 16 * MIB,
            deadline: Duration::from_millis(10),
            check_deadline: Duration::from_millis(50),
            output: 16 * MIB,
            fan_out: 64,
            log_lines: 64,
            log_line: 4096,
        }
    }
}

impl Limits {
    /// # Errors
    /// Names the first limit that is out of range.
    pub fn check(&self, config: &Config) -> Result<(), Error> {
        let bad = |limit, problem| Err(Error::Limit { limit, problem });
        if !(64 * 1024..=config.memory).contains(&self.memory) {
            return bad("memory", format!("expected 64 KiB to {} MiB, got {} bytes", config.memory / MIB, self.memory));
        }
        for (name, value) in [("deadline", self.deadline), ("check deadline", self.check_deadline)] {
            if !(Duration::from_millis(1)..=Duration::from_secs(10)).contains(&value) {
                return bad(name, format!("expected 1 ms to 10 s, got {} ms", value.as_millis()));
            }
        }
        if !(1024..=64 * MIB).contains(&self.output) {
            return bad("output", format!("expected 1 KiB to 64 MiB, got {} bytes", self.output));
        }
        if !(1..=10_000).contains(&self.fan_out) {
            return bad("fan-out", format!("expected 1 to 10000, got {}", self.fan_out));
        }
        Ok(())
    }
}

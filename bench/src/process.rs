//! What another process uses of the machine, as `/proc` tells.

use serde::Serialize;

use crate::Error;

/// What the watched process used.
#[derive(Clone, Debug, Serialize)]
pub struct Process {
    pub pid: u32,
    /// Seconds of processor time, of all its threads, while the plan was carried out.
    pub cpu_seconds: f64,
    /// Most memory it ever had, bytes.
    pub peak_rss: u64,
}

/// A process and the processor time that it had used before.
pub struct Watch {
    pid: u32,
    before: f64,
}

impl Watch {
    /// Fails when there is no such process.
    pub fn start(pid: u32) -> Result<Self, Error> {
        Ok(Self { pid, before: cpu_seconds(pid)? })
    }

    pub fn end(&self) -> Result<Process, Error> {
        let cpu_seconds = cpu_seconds(self.pid)? - self.before;
        Ok(Process { pid: self.pid, cpu_seconds, peak_rss: peak_rss(self.pid)? })
    }
}

/// Source of the fields: proc(5), `utime` and `stime` are the 14th and 15th of `stat`.
fn cpu_seconds(pid: u32) -> Result<f64, Error> {
    let text = read(pid, "stat")?;
    // The name, in brackets, may itself hold blanks and brackets.
    let behind_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut ticks = behind_name.split_whitespace().skip(11).map(|field| field.parse::<u64>().unwrap_or(0));
    let used = ticks.next().unwrap_or(0) + ticks.next().unwrap_or(0);
    Ok(used as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn peak_rss(pid: u32) -> Result<u64, Error> {
    let text = read(pid, "status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
    Ok(kib.unwrap_or(0) * 1024)
}

fn read(pid: u32, file: &str) -> Result<String, Error> {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).map_err(|source| Error::Process { pid, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_time_and_memory() {
        let watch = Watch::start(std::process::id()).unwrap();
        let began = std::time::Instant::now();
        let mut sum = 0u64;
        while began.elapsed().as_millis() < 100 {
            sum = std::hint::black_box(sum + 1);
        }
        let used = watch.end().unwrap();
        assert!(used.cpu_seconds > 0.01 && used.peak_rss > 1 << 20, "{used:?}");
        assert!(matches!(Watch::start(u32::MAX), Err(Error::Process { .. })));
    }
}

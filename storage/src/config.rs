use crate::Error;

/// Sizes and limits of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes of a new segment file. No unit of records may be larger than this less 8.
    pub segment_len: u64,
    /// Bytes reserved ahead of the end of the log at a time; less when the disk has less.
    pub allocate_step: u64,
    /// Bytes of the disk that the log leaves for consume queues, key index and checkpoints.
    pub reserve_bytes: u64,
    /// Bytes of log after which a checkpoint is due.
    pub checkpoint_bytes: u64,
    /// Most bytes that may be staged and not written.
    pub pending_bytes: usize,
    /// Keys after which a run of the key index is written.
    pub index_run_entries: usize,
    /// Most runs of the key index; the oldest are dropped beyond that.
    pub index_runs: usize,
    /// Most open files of consume queues and key index.
    pub open_files: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            segment_len: 1 << 30,
            allocate_step: 64 << 20,
            reserve_bytes: 32 << 20,
            checkpoint_bytes: 64 << 20,
            pending_bytes: 64 << 20,
            index_run_entries: 1 << 18,
            index_runs: 4096,
            open_files: 512,
        }
    }
}

impl Config {
    /// Names the first field whose value cannot work.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let within = |field, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(Error::Invalid { field, expected: format!("expected {least} to {most}, got {value}") })
        };
        within("segment_len", self.segment_len, 4096, 1 << 31)?;
        within("allocate_step", self.allocate_step, 4096, 1 << 31)?;
        within("checkpoint_bytes", self.checkpoint_bytes, 1, 1 << 40)?;
        within("pending_bytes", self.pending_bytes as u64, 4096, 1 << 31)?;
        within("index_run_entries", self.index_run_entries as u64, 1, 1 << 24)?;
        within("index_runs", self.index_runs as u64, 1, 1 << 20)?;
        within("open_files", self.open_files as u64, 8, 1 << 20)
    }
}

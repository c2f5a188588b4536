//! Ports of a stage that runs records which were read already.

use crate::batch::Record;
use crate::ports::{PortError, Progress, Source};

/// Records that were read already, in the order of their offsets.
pub struct Given<'a> {
    pub records: &'a [Record],
    /// Behind the last of them, and behind what was passed over.
    pub next: u64,
}

impl Source for Given<'_> {
    fn read(
        &mut self,
        position: u64,
        max_records: usize,
        max_bytes: usize,
        into: &mut Vec<Record>,
    ) -> Result<u64, PortError> {
        let mut bytes = 0;
        for record in self.records.iter().filter(|record| record.offset >= position) {
            if into.len() >= max_records || bytes >= max_bytes {
                return Ok(record.offset);
            }
            bytes += record.size();
            into.push(record.clone());
        }
        Ok(self.next)
    }
}

/// Where a stage begins whose position nobody keeps.
pub struct Begin(pub u64);

impl Progress for Begin {
    fn load(&mut self) -> Result<u64, PortError> {
        Ok(self.0)
    }
}

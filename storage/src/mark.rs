//! The durable mark: a floor under what the log has made durable.
//!
//! Recovery needs it to tell a torn end (never acknowledged, cut off) from a hole (acknowledged, refused). It is a file
//! of its own, `state/durable`, with two slots of 512 bytes, written in turn, each: magic "SLCEMARK" 8 | sequence 8 |
//! offset 8 | crc 4, big-endian.

use std::{io, sync::Arc};

use sluice_model::LogOffset;

use crate::{Disk, Error, File, bytes::Input, checkpoint::STATE_DIR};

const PATH: &str = "state/durable";
const MAGIC: &[u8; 8] = b"SLCEMARK";
const SLOT: usize = 512;
const SUM_AT: usize = 24;

pub(crate) struct Mark {
    file: Arc<dyn File>,
    sequence: u64,
    offset: LogOffset,
}

impl Mark {
    /// Opens the file, or makes one that says 0.
    pub fn open(disk: &dyn Disk) -> Result<Self, Error> {
        Self::try_open(disk).map_err(|error| Error::io("open", PATH, error))
    }

    fn try_open(disk: &dyn Disk) -> io::Result<Self> {
        let mut bytes = [0; 2 * SLOT];
        let file = match disk.open(PATH) {
            Ok(file) if file.len()? >= bytes.len() as u64 => file,
            Ok(_) => Self::make(disk)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::make(disk)?,
            Err(error) => return Err(error),
        };
        file.read_at(&mut bytes, 0)?;
        let newest = bytes.chunks_exact(SLOT).filter_map(decode).max();
        let (sequence, offset) = newest.unwrap_or((0, 0));
        Ok(Self { file, sequence, offset: LogOffset(offset) })
    }

    fn make(disk: &dyn Disk) -> io::Result<Arc<dyn File>> {
        let file = disk.create(PATH, 2 * SLOT as u64)?;
        file.allocate(0, 2 * SLOT as u64)?;
        file.sync()?;
        disk.sync_dir(STATE_DIR)?;
        Ok(file)
    }

    pub fn offset(&self) -> LogOffset {
        self.offset
    }

    /// Moves the mark, durably; does nothing when it is there already.
    pub fn store(&mut self, offset: LogOffset) -> Result<(), Error> {
        if offset <= self.offset {
            return Ok(());
        }
        let sequence = self.sequence + 1;
        let mut bytes = [0; SUM_AT + 4];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&sequence.to_be_bytes());
        bytes[16..24].copy_from_slice(&offset.0.to_be_bytes());
        let sum = crc32fast::hash(&bytes[..SUM_AT]);
        bytes[SUM_AT..].copy_from_slice(&sum.to_be_bytes());
        let slot = sequence % 2 * SLOT as u64;
        self.file.write_at(&bytes, slot).map_err(|error| Error::io("write", PATH, error))?;
        self.file.sync().map_err(|error| Error::io("sync", PATH, error))?;
        (self.sequence, self.offset) = (sequence, offset);
        Ok(())
    }
}

fn decode(slot: &[u8]) -> Option<(u64, u64)> {
    let sum = Input(&slot[SUM_AT..]).u32()?;
    let mut input = Input(slot);
    let magic = input.take(8)?;
    let read = (input.u64()?, input.u64()?);
    (magic == MAGIC && sum == crc32fast::hash(&slot[..SUM_AT])).then_some(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeDisk, Fate};

    #[test]
    fn a_torn_mark_leaves_the_one_before() {
        let disk = FakeDisk::new();
        disk.create_dir(STATE_DIR).unwrap();
        disk.sync_dir("").unwrap();
        let mut mark = Mark::open(&disk).unwrap();
        mark.store(LogOffset(10)).unwrap();
        mark.store(LogOffset(20)).unwrap();
        mark.store(LogOffset(15)).unwrap();
        assert_eq!(Mark::open(&disk.crash(Fate::Dropped, 0)).unwrap().offset(), LogOffset(20));
        disk.damage(PATH, 20, &[9]).unwrap();
        assert_eq!(Mark::open(&disk).unwrap().offset(), LogOffset(10));
    }
}

//! The checkpoint: what the views were at an offset of the log, so that a start replays only what came after it.
//!
//! Two slots, `state/checkpoint.a` and `state/checkpoint.b`, written in turn: a new file is written, synced and renamed
//! over the older slot, so that the newer one is whole at any time. All integers big-endian:
//!
//! ```text
//!  magic "SLCECHKP" 8 | version 4 | crc of the rest 4 | length of the rest 8
//!  sequence 8 | log offset 8 | store time of the last record 8 | keys written up to 8
//!  queues 4 × ( topic length 2 + topic | queue 4 | born 8 | min 8 | end 8 )
//!  runs 4 × ( from 8 | to 8 | oldest 8 | latest 8 | count 8 )
//!  length of the views' snapshot 8 + snapshot
//! ```

use std::io;

use sluice_model::{LogOffset, QueueId, QueueOffset, Timestamp, TopicName};

use crate::{Disk, Error, bytes::Input, run::Extent};

pub(crate) const STATE_DIR: &str = "state";
const SLOTS: [&str; 2] = ["state/checkpoint.a", "state/checkpoint.b"];
const NEW: &str = "state/checkpoint.new";
const MAGIC: &[u8; 8] = b"SLCECHKP";
const VERSION: u32 = 1;
const HEADER: usize = 24;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub sequence: u64,
    pub offset: LogOffset,
    pub last_stored_at: Timestamp,
    pub keys_to: LogOffset,
    pub queues: Vec<QueueMark>,
    pub runs: Vec<Extent>,
    pub snapshot: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueMark {
    pub topic: TopicName,
    pub queue: QueueId,
    pub born: LogOffset,
    pub min: QueueOffset,
    pub end: QueueOffset,
}

/// What the slots hold.
pub(crate) struct Slots {
    pub newest: Option<Checkpoint>,
    /// Offset of the older checkpoint; the log is kept from there on.
    pub older: Option<LogOffset>,
    /// Files that are there and cannot be read.
    pub damaged: Vec<String>,
}

impl Checkpoint {
    pub fn load(disk: &dyn Disk) -> Result<Slots, Error> {
        let (mut found, mut damaged) = (Vec::new(), Vec::new());
        for slot in SLOTS {
            match read(disk, slot).map_err(|error| Error::io("read", slot, error))? {
                None => {}
                Some(bytes) => match decode(&bytes) {
                    Some(checkpoint) => found.push(checkpoint),
                    None => damaged.push(slot.to_owned()),
                },
            }
        }
        found.sort_by_key(|checkpoint| checkpoint.sequence);
        let newest = found.pop();
        Ok(Slots { newest, older: found.pop().map(|checkpoint| checkpoint.offset), damaged })
    }

    /// Writes the checkpoint durably over the older slot.
    pub fn store(&self, disk: &dyn Disk) -> Result<(), Error> {
        let slot = SLOTS[(self.sequence % 2) as usize];
        let bytes = self.encode();
        let written = disk.create(NEW, bytes.len() as u64).and_then(|file| {
            file.write_at(&bytes, 0)?;
            Ok(file)
        });
        let file = written.map_err(|error| Error::io("write", NEW, error))?;
        file.sync().map_err(|error| Error::io("sync", NEW, error))?;
        disk.rename(NEW, slot).map_err(|error| Error::io("rename", NEW, error))?;
        disk.sync_dir(STATE_DIR).map_err(|error| Error::io("sync", STATE_DIR, error))
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; HEADER];
        let numbers = [self.sequence, self.offset.0, self.last_stored_at.0 as u64, self.keys_to.0];
        numbers.iter().for_each(|number| put(&mut out, *number));
        out.extend_from_slice(&(self.queues.len() as u32).to_be_bytes());
        for mark in &self.queues {
            out.extend_from_slice(&(mark.topic.as_str().len() as u16).to_be_bytes());
            out.extend_from_slice(mark.topic.as_str().as_bytes());
            out.extend_from_slice(&mark.queue.0.to_be_bytes());
            [mark.born.0, mark.min.0, mark.end.0].iter().for_each(|number| put(&mut out, *number));
        }
        out.extend_from_slice(&(self.runs.len() as u32).to_be_bytes());
        for run in &self.runs {
            let numbers = [run.from, run.to, run.oldest.0 as u64, run.latest.0 as u64, run.count];
            numbers.iter().for_each(|number| put(&mut out, *number));
        }
        put(&mut out, self.snapshot.len() as u64);
        out.extend_from_slice(&self.snapshot);
        let crc = crc32fast::hash(&out[HEADER..]);
        let len = (out.len() - HEADER) as u64;
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_be_bytes());
        out[12..16].copy_from_slice(&crc.to_be_bytes());
        out[16..24].copy_from_slice(&len.to_be_bytes());
        out
    }
}

fn put(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_be_bytes());
}

fn read(disk: &dyn Disk, path: &str) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = vec![0; file.len()? as usize];
    file.read_at(&mut bytes, 0)?;
    Ok(Some(bytes))
}

fn decode(bytes: &[u8]) -> Option<Checkpoint> {
    let mut input = Input(bytes);
    if input.take(8)? != MAGIC || input.u32()? != VERSION {
        return None;
    }
    let (crc, len) = (input.u32()?, input.u64()?);
    let payload = input.take(usize::try_from(len).ok()?)?;
    if crc32fast::hash(payload) != crc {
        return None;
    }
    let mut input = Input(payload);
    let mut checkpoint = Checkpoint {
        sequence: input.u64()?,
        offset: LogOffset(input.u64()?),
        last_stored_at: Timestamp(input.u64()? as i64),
        keys_to: LogOffset(input.u64()?),
        ..Checkpoint::default()
    };
    for _ in 0..input.u32()? {
        checkpoint.queues.push(decode_queue(&mut input)?);
    }
    for _ in 0..input.u32()? {
        checkpoint.runs.push(decode_run(&mut input)?);
    }
    let len = usize::try_from(input.u64()?).ok()?;
    checkpoint.snapshot = input.take(len)?.to_vec();
    Some(checkpoint)
}

fn decode_queue(input: &mut Input<'_>) -> Option<QueueMark> {
    let len = usize::from(input.u16()?);
    let topic = std::str::from_utf8(input.take(len)?).ok()?;
    Some(QueueMark {
        topic: TopicName::parse(topic).ok()?,
        queue: QueueId(input.u32()?),
        born: LogOffset(input.u64()?),
        min: QueueOffset(input.u64()?),
        end: QueueOffset(input.u64()?),
    })
}

fn decode_run(input: &mut Input<'_>) -> Option<Extent> {
    Some(Extent {
        from: input.u64()?,
        to: input.u64()?,
        oldest: Timestamp(input.u64()? as i64),
        latest: Timestamp(input.u64()? as i64),
        count: input.u64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeDisk;

    fn sample(sequence: u64) -> Checkpoint {
        Checkpoint {
            sequence,
            offset: LogOffset(1000 * sequence),
            last_stored_at: Timestamp(-5),
            keys_to: LogOffset(7),
            queues: vec![QueueMark {
                topic: TopicName::parse("orders").unwrap(),
                queue: QueueId(3),
                born: LogOffset(9),
                min: QueueOffset(1),
                end: QueueOffset(2),
            }],
            runs: vec![Extent { from: 0, to: 7, oldest: Timestamp(1), latest: Timestamp(2), count: 4 }],
            snapshot: b"views".to_vec(),
        }
    }

    #[test]
    fn the_newest_sound_slot_counts() {
        let disk = FakeDisk::new();
        disk.create_dir(STATE_DIR).unwrap();
        assert!(Checkpoint::load(&disk).unwrap().newest.is_none());
        for sequence in 1..=3 {
            sample(sequence).store(&disk).unwrap();
        }
        let slots = Checkpoint::load(&disk).unwrap();
        assert_eq!((slots.newest, slots.older), (Some(sample(3)), Some(LogOffset(2000))));
        disk.damage(SLOTS[1], 38, &[0xFF]).unwrap();
        let slots = Checkpoint::load(&disk).unwrap();
        assert_eq!((slots.newest, slots.older), (Some(sample(2)), None));
        assert_eq!(slots.damaged, [SLOTS[1]]);
    }

    #[test]
    fn every_cut_and_every_flip_is_noticed() {
        let whole = sample(1).encode();
        for end in 0..whole.len() {
            assert_eq!(decode(&whole[..end]), None, "cut at {end}");
            let mut flipped = whole.clone();
            flipped[end] ^= 4;
            assert_eq!(decode(&flipped), None, "flip at {end}");
        }
        assert_eq!(decode(&whole), Some(sample(1)));
    }
}

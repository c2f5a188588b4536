//! The files of the log: `commitlog/<offset of its first byte, 20 digits>`, end to end.

use std::{io, sync::Arc};

use sluice_model::LogOffset;

use crate::{Disk, Error, File};

pub(crate) const LOG_DIR: &str = "commitlog";

/// One file of the log. Its length never changes while it is open.
pub(crate) struct Segment {
    pub base: u64,
    pub len: u64,
    pub path: String,
    pub file: Arc<dyn File>,
}

impl Segment {
    pub fn path_of(base: u64) -> String {
        format!("{LOG_DIR}/{base:020}")
    }

    /// Makes the file, or takes an empty one that is there, with a durable name.
    pub fn create(disk: &dyn Disk, base: u64, len: u64) -> Result<Self, Error> {
        let path = Self::path_of(base);
        let made = disk.create(&path, len).and_then(|file| {
            file.sync()?;
            disk.sync_dir(LOG_DIR)?;
            Ok(file)
        });
        let file = made.map_err(|error| Error::io("create", &path, error))?;
        Ok(Self { base, len, path, file })
    }

    pub fn end(&self) -> u64 {
        self.base + self.len
    }

    pub fn holds(&self, at: LogOffset) -> bool {
        (self.base..self.end()).contains(&at.0)
    }

    /// Position within the file.
    pub fn position(&self, at: LogOffset) -> u64 {
        at.0 - self.base
    }

    pub fn failed(&self, action: &'static str, error: io::Error) -> Error {
        Error::io(action, &self.path, error)
    }
}

/// Reads the number that names a file of a log or a queue: exactly 20 digits.
pub(crate) fn parse_name(name: &str) -> Option<u64> {
    (name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit())).then(|| name.parse().ok())?
}

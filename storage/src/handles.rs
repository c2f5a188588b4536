//! Open files of queues and index runs: as many as allowed, the longest unused closed first.

use std::{collections::HashMap, io, sync::Arc};

use parking_lot::Mutex;

use crate::{Disk, File};

/// Which file: the number of its owner (see [`Handles::new_owner`]) and a number the owner chooses.
pub(crate) type FileKey = (u64, u64);

pub(crate) struct Handles {
    disk: Arc<dyn Disk>,
    limit: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    files: HashMap<FileKey, (Arc<dyn File>, u64)>,
    uses: u64,
    owners: u64,
}

impl Handles {
    pub fn new(disk: Arc<dyn Disk>, limit: usize) -> Self {
        Self { disk, limit: limit.max(8), open: Mutex::default() }
    }

    /// A number that no other owner of files has or had.
    pub fn new_owner(&self) -> u64 {
        let mut open = self.open.lock();
        open.owners += 1;
        open.owners
    }

    /// The file at `path()`, opened if it is not open.
    pub fn get(&self, key: FileKey, path: impl Fn() -> String) -> io::Result<Arc<dyn File>> {
        match self.lookup(key) {
            Some(file) => Ok(file),
            None => Ok(self.keep(key, self.disk.open(&path())?)),
        }
    }

    pub fn lookup(&self, key: FileKey) -> Option<Arc<dyn File>> {
        let mut open = self.open.lock();
        open.uses += 1;
        let now = open.uses;
        let (file, used) = open.files.get_mut(&key)?;
        *used = now;
        Some(file.clone())
    }

    pub fn keep(&self, key: FileKey, file: Arc<dyn File>) -> Arc<dyn File> {
        let mut open = self.open.lock();
        if open.files.len() >= self.limit {
            open.close_oldest(self.limit / 4);
        }
        open.uses += 1;
        let now = open.uses;
        open.files.insert(key, (file.clone(), now));
        file
    }

    /// Closes one file.
    pub fn close(&self, key: FileKey) {
        self.open.lock().files.remove(&key);
    }

    /// Closes all files of an owner.
    pub fn close_all(&self, owner: u64) {
        self.open.lock().files.retain(|key, _| key.0 != owner);
    }
}

impl Open {
    fn close_oldest(&mut self, count: usize) {
        let mut uses: Vec<u64> = self.files.values().map(|(_, used)| *used).collect();
        uses.sort_unstable();
        let limit = uses.get(count).copied().unwrap_or(u64::MAX);
        self.files.retain(|_, (_, used)| *used >= limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeDisk;

    #[test]
    fn the_longest_unused_files_are_closed() {
        let disk = FakeDisk::new();
        disk.create("f", 1).unwrap();
        let handles = Handles::new(Arc::new(disk), 8);
        for file in 0..8 {
            handles.get((1, file), || "f".to_owned()).unwrap();
        }
        handles.lookup((1, 0)).unwrap();
        handles.get((1, 8), || "f".to_owned()).unwrap();
        assert!(handles.lookup((1, 0)).is_some(), "it was used last");
        assert!(handles.lookup((1, 1)).is_none() && handles.lookup((1, 2)).is_none());
        assert!(handles.lookup((1, 8)).is_some());
        handles.close_all(1);
        assert!(handles.lookup((1, 8)).is_none());
    }
}

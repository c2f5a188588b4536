//! The file behind the partitions of one pipeline.

use std::{
    io::ErrorKind,
    ops::Bound,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, StorageError, TableDefinition,
    WriteTransaction, backends::InMemoryBackend,
};

use super::{StateError, wheel::Domain};

/// Key on disk to expiry time and value.
const ENTRIES: TableDefinition<'_, &[u8], (u64, &[u8])> = TableDefinition::new("entries");
/// What is due, by queue, owner, clock and time; see [`Row`].
const WHEEL: TableDefinition<'_, &[u8], ()> = TableDefinition::new("wheel");
/// By queue: the number of changes that are in it, and the newest producer's time of before steps had clocks of their own.
const STANDS: TableDefinition<'_, u32, (u64, u64)> = TableDefinition::new("stands");

/// Memory for pages of the file.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// The file of one pipeline's state. Its loss is no loss as long as the log holds the changes.
pub struct Engine {
    database: Database,
    failed: AtomicBool,
}

/// A row of the wheel: queue, owner's name, clock, time, and what.
pub(super) struct Row {
    pub at: u64,
    pub what: Vec<u8>,
}

/// Expiry time and value.
pub(super) type Stored<'a> = (u64, &'a [u8]);

/// Everything that one write brings to the file.
pub(super) struct Write<'a> {
    pub queue: u32,
    pub applied: u64,
    pub newest: u64,
    /// `None`: the entry is gone.
    pub entries: Vec<(Vec<u8>, Option<Stored<'a>>)>,
    pub added: Vec<Vec<u8>>,
    pub removed: Vec<Vec<u8>>,
    /// Whether it is on disk when the call returns.
    pub durable: bool,
}

/// An entry on disk: key, expiry time, value.
pub(super) type Entry = (Vec<u8>, u64, Vec<u8>);

impl Engine {
    /// Opens the file, or makes it, and reads it through. One that is damaged is thrown away: the log has what was in it. One that merely
    /// cannot be opened now stays.
    ///
    /// # Errors
    /// [`StateError::File`].
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let open = || Database::builder().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).create(path);
        let database = match open() {
            Err(problem) if is_damage(&problem) => {
                tracing::warn!(path = %path.display(), %problem, "the state's file is damaged: it is made anew from the log");
                std::fs::remove_file(path).map_err(|error| StateError::File(error.to_string()))?;
                open()
            }
            opened => opened,
        };
        Self::with(database.map_err(file)?)
    }

    /// One that is gone when it is dropped.
    pub(super) fn in_memory() -> Result<Self, StateError> {
        Self::with(Database::builder().create_with_backend(InMemoryBackend::new()).map_err(file)?)
    }

    pub(super) fn with(database: Database) -> Result<Self, StateError> {
        let engine = Self { database, failed: AtomicBool::new(false) };
        engine.change(Durability::Immediate, |write| {
            write.open_table(ENTRIES)?;
            write.open_table(WHEEL)?;
            write.open_table(STANDS)?;
            Ok(())
        })?;
        Ok(engine)
    }

    /// Whether something could not be read or written. Then nothing more can be until the file is opened anew.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    fn noting<T>(&self, done: Result<T, redb::Error>) -> Result<T, StateError> {
        done.map_err(|error| {
            self.failed.store(true, Ordering::Release);
            StateError::File(error.to_string())
        })
    }

    fn look<T>(&self, look: impl FnOnce(ReadTransaction) -> Result<T, redb::Error>) -> Result<T, StateError> {
        self.noting(self.database.begin_read().map_err(redb::Error::from).and_then(look))
    }

    fn change(
        &self,
        durability: Durability,
        change: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), StateError> {
        let changed = || {
            let mut write = self.database.begin_write()?;
            write.set_durability(durability)?;
            change(&write)?;
            Ok(write.commit()?)
        };
        self.noting(changed())
    }

    pub(super) fn stands(&self, queue: u32) -> Result<(u64, u64), StateError> {
        self.look(|read| Ok(read.open_table(STANDS)?.get(queue)?.map_or((0, 0), |found| found.value())))
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<(u64, Vec<u8>)>, StateError> {
        self.look(|read| {
            Ok(read.open_table(ENTRIES)?.get(key)?.map(|found| {
                let (expires_at, value) = found.value();
                (expires_at, value.to_vec())
            }))
        })
    }

    /// Entries whose keys begin with `prefix`, behind `after`, by key, for as long as `each` wants more.
    pub(super) fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        mut each: impl FnMut(Entry) -> bool,
    ) -> Result<(), StateError> {
        self.look(|read| {
            let table = read.open_table(ENTRIES)?;
            let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
            for found in table.range::<&[u8]>((from, Bound::Unbounded))? {
                let (key, value) = found?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                let (expires_at, bytes) = value.value();
                if !each((key.value().to_vec(), expires_at, bytes.to_vec())) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Rows of the wheel of one owner and clock, from this one on or from the first, the earliest first, for as long as `each` wants more.
    pub(super) fn wheel(
        &self,
        prefix: &[u8],
        from: Option<&[u8]>,
        mut each: impl FnMut(Row) -> bool,
    ) -> Result<(), StateError> {
        self.look(|read| {
            let table = read.open_table(WHEEL)?;
            for found in table.range::<&[u8]>((Bound::Included(from.unwrap_or(prefix)), Bound::Unbounded))? {
                let (key, _) = found?;
                let Some(rest) = key.value().strip_prefix(prefix) else { break };
                let Some((at, what)) = rest.split_first_chunk::<8>() else { break };
                if !each(Row { at: u64::from_be_bytes(*at), what: what.to_vec() }) {
                    break;
                }
            }
            Ok(())
        })
    }

    pub(super) fn write(&self, changes: Write<'_>) -> Result<(), StateError> {
        self.change(if changes.durable { Durability::Immediate } else { Durability::None }, |write| {
            let mut entries = write.open_table(ENTRIES)?;
            for (key, entry) in changes.entries {
                match entry {
                    Some(entry) => entries.insert(key.as_slice(), entry)?.map(drop),
                    None => entries.remove(key.as_slice())?.map(drop),
                };
            }
            let mut wheel = write.open_table(WHEEL)?;
            for key in changes.removed {
                wheel.remove(key.as_slice())?;
            }
            for key in changes.added {
                wheel.insert(key.as_slice(), ())?;
            }
            write.open_table(STANDS)?.insert(changes.queue, (changes.applied, changes.newest))?;
            Ok(())
        })
    }

    /// Forgets a queue's entries.
    pub(super) fn clear(&self, queue: u32) -> Result<(), StateError> {
        let prefix = queue.to_be_bytes();
        let ours = |key: &[u8]| key.starts_with(&prefix);
        let end = queue.checked_add(1).map(u32::to_be_bytes);
        let range = (
            Bound::Included(prefix.as_slice()),
            end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(end.as_slice())),
        );
        self.change(Durability::Immediate, |write| {
            write.open_table(ENTRIES)?.retain_in::<&[u8], _>(range, |key, _| !ours(key))?;
            write.open_table(WHEEL)?.retain_in::<&[u8], _>(range, |key, ()| !ours(key))?;
            write.open_table(STANDS)?.remove(queue)?;
            Ok(())
        })
    }
}

/// The beginning of the rows of one owner and clock.
#[expect(clippy::cast_possible_truncation, reason = "names are made of plugins' names, which are short")]
pub(super) fn wheel_prefix(queue: u32, owner: &str, domain: Domain) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(6 + owner.len());
    prefix.extend_from_slice(&queue.to_be_bytes());
    prefix.push(owner.len() as u8);
    prefix.extend_from_slice(owner.as_bytes());
    prefix.push(domain.number());
    prefix
}

/// Whether the file is what is wrong, and not that it cannot be read now.
fn is_damage(problem: &DatabaseError) -> bool {
    match problem {
        DatabaseError::Storage(StorageError::Corrupted(_)) | DatabaseError::UpgradeRequired(_) => true,
        DatabaseError::Storage(StorageError::Io(error)) => {
            matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}

fn file(error: impl Into<redb::Error>) -> StateError {
    StateError::File(error.into().to_string())
}

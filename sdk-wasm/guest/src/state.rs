//! Values that a processor keeps by key.
//!
//! Each queue of the pipeline's source has its own values, so records with the same key must come in the same queue: producers that choose
//! the queue by the key see to that. What a record writes becomes real together with what it sends, or not at all.

use std::cell::RefCell;
use std::time::Duration;

use crate::pending;
use crate::wit::imports::state as host;
use crate::wit::imports::types::Column;

thread_local! {
    static OPENED: RefCell<Vec<(&'static str, u32)>> = const { RefCell::new(Vec::new()) };
}

/// One of the stores that the attribute's `stores(..)` names, as it looks at the time of the record or timer at hand.
#[derive(Clone, Copy, Debug)]
pub struct Store {
    number: u32,
    at: u64,
}

impl Store {
    /// # Panics
    /// The attribute does not name it.
    pub(crate) fn open(name: &'static str, at: u64) -> Store {
        let known =
            OPENED.with_borrow(|opened| opened.iter().find(|(known, _)| *known == name).map(|(_, number)| *number));
        let number = known.unwrap_or_else(|| match host::open(name) {
            Ok(number) => {
                OPENED.with_borrow_mut(|opened| opened.push((name, number)));
                number
            }
            Err(problem) => panic!("{problem}; write stores(\"{name}\") in the attribute"),
        });
        Store { number, at }
    }

    #[must_use]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        pending::tell();
        host::get(self.number, key.as_ref(), self.at)
    }

    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        pending::tell();
        host::put(self.number, key.as_ref(), value.as_ref(), 0);
    }

    /// Keeps the value for so long after the record's broker time.
    pub fn put_for(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, time: Duration) {
        pending::tell();
        host::put(self.number, key.as_ref(), value.as_ref(), self.after(time));
    }

    pub fn delete(&self, key: impl AsRef<[u8]>) {
        pending::tell();
        host::delete(self.number, key.as_ref());
    }

    /// Adds to a number, which is 0 at first, and gives the sum. See [`number`] for how it is kept.
    pub fn add(&self, key: impl AsRef<[u8]>, delta: i64) -> i64 {
        pending::tell();
        host::add(self.number, key.as_ref(), delta, self.at, 0)
    }

    /// Adds to a number as [`Store::add`] does, without giving the sum: the host is told of many additions at once, which costs a good deal less.
    pub fn increase(&self, key: impl AsRef<[u8]>, delta: i64) {
        pending::add(self.number, self.at, key.as_ref(), delta);
    }

    /// Adds to a number that begins at 0 again when nothing was added for so long.
    pub fn add_for(&self, key: impl AsRef<[u8]>, delta: i64, time: Duration) -> i64 {
        pending::tell();
        host::add(self.number, key.as_ref(), delta, self.at, self.after(time))
    }

    /// The number behind a key; 0 if there is none.
    #[must_use]
    pub fn number(&self, key: impl AsRef<[u8]>) -> i64 {
        self.get(key).and_then(|bytes| number(&bytes)).unwrap_or(0)
    }

    /// The value as JSON; `None` as well if it is none.
    #[must_use]
    pub fn json(&self, key: impl AsRef<[u8]>) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.get(key)?).ok()
    }

    pub fn put_json(&self, key: impl AsRef<[u8]>, value: &serde_json::Value) {
        self.put(key, value.to_string());
    }

    /// Whether the key is new; it is remembered for so long. For dropping what comes twice.
    #[must_use]
    pub fn first_time(&self, key: impl AsRef<[u8]>, time: Duration) -> bool {
        let new = self.get(key.as_ref()).is_none();
        if new {
            self.put_for(key, [], time);
        }
        new
    }

    /// The values of many keys at once.
    #[must_use]
    pub fn get_many<'k>(&self, keys: impl IntoIterator<Item = &'k [u8]>) -> Vec<Option<Vec<u8>>> {
        pending::tell();
        let found = host::get_many(self.number, &column(keys), self.at);
        let present = |index: usize| found.present[index / 8] & (1 << (index % 8)) != 0;
        items(&found.values).enumerate().map(|(index, value)| present(index).then(|| value.to_vec())).collect()
    }

    /// Entries whose keys begin with `prefix`, by key.
    pub fn scan(&self, prefix: impl AsRef<[u8]>) -> Scan {
        Scan { store: *self, prefix: prefix.as_ref().to_vec(), page: Vec::new().into_iter(), after: None, ended: false }
    }

    fn after(&self, time: Duration) -> u64 {
        self.at.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).max(1)
    }
}

/// The number that a value holds: 8 bytes, the lowest first.
#[must_use]
pub fn number(value: &[u8]) -> Option<i64> {
    value.try_into().ok().map(i64::from_le_bytes)
}

/// Entries as they are read, page by page.
pub struct Scan {
    store: Store,
    prefix: Vec<u8>,
    page: std::vec::IntoIter<(Vec<u8>, Vec<u8>)>,
    after: Option<Vec<u8>>,
    ended: bool,
}

const PAGE: u32 = 256;

impl Iterator for Scan {
    type Item = (Vec<u8>, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.len() == 0 && !self.ended {
            pending::tell();
            let page = host::scan(self.store.number, &self.prefix, self.after.as_deref(), PAGE, self.store.at);
            let read: Vec<_> =
                items(&page.keys).zip(items(&page.values)).map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
            self.ended = read.is_empty();
            self.after = read.last().map(|(key, _)| key.clone()).or(self.after.take());
            self.page = read.into_iter();
        }
        self.page.next()
    }
}

fn column<'k>(items: impl IntoIterator<Item = &'k [u8]>) -> Column {
    let mut column = Column { data: Vec::new(), ends: Vec::new() };
    for item in items {
        column.data.extend_from_slice(item);
        // A guest's whole memory is smaller than 4 GiB.
        column.ends.push(u32::try_from(column.data.len()).unwrap_or(u32::MAX));
    }
    column
}

fn items(column: &Column) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    column.ends.iter().map(move |end| {
        let item = &column.data[start..*end as usize];
        start = *end as usize;
        item
    })
}

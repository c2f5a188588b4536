//! Additions of which nobody wants the sum: the host is told of many at once.

use std::cell::RefCell;

use crate::wit::imports::state as host;
use crate::wit::imports::types::Column;

/// How many wait at the most, and how many bytes of keys, roughly.
const COUNT_LIMIT: usize = 1024;
const BYTES_LIMIT: usize = 64 * 1024;

thread_local! {
    static PENDING: RefCell<Pending> = const { RefCell::new(Pending::NONE) };
}

/// Additions to one store at one time.
struct Pending {
    store: u32,
    at: u64,
    keys: Column,
    deltas: Vec<i64>,
}

impl Pending {
    const NONE: Pending =
        Pending { store: 0, at: 0, keys: Column { data: Vec::new(), ends: Vec::new() }, deltas: Vec::new() };

    fn tell(&mut self) {
        if !self.deltas.is_empty() {
            host::add_many(self.store, &self.keys, &self.deltas, self.at, 0);
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.keys.data.clear();
        self.keys.ends.clear();
        self.deltas.clear();
    }
}

/// Adds to a number of a store, by the time that the host tells what has expired by.
pub(crate) fn add(store: u32, at: u64, key: &[u8], delta: i64) {
    PENDING.with_borrow_mut(|pending| {
        let full = pending.deltas.len() >= COUNT_LIMIT || pending.keys.data.len() >= BYTES_LIMIT;
        if full || (pending.store, pending.at) != (store, at) {
            pending.tell();
            (pending.store, pending.at) = (store, at);
        }
        pending.keys.data.extend_from_slice(key);
        // A guest's whole memory is smaller than 4 GiB.
        pending.keys.ends.push(u32::try_from(pending.keys.data.len()).unwrap_or(u32::MAX));
        pending.deltas.push(delta);
    });
}

/// Tells the host of what waits: before anything that may see it, and at the end of a call.
pub(crate) fn tell() {
    PENDING.with_borrow_mut(Pending::tell);
}

/// The call failed, and the host takes back what it did.
pub(crate) fn forget() {
    PENDING.with_borrow_mut(Pending::forget);
}

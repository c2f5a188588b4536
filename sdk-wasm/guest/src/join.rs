//! Joins: records of two kinds that come in one source, and belong together when they have the same key and are born near each other.

use std::time::Duration;

use crate::process::Context;

/// A join. It keeps what waits for its counterpart in the store of its name.
#[derive(Clone, Copy, Debug)]
pub struct Join {
    name: &'static str,
    /// Milliseconds.
    within: u64,
}

/// Which of the two kinds a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

impl Side {
    fn byte(self) -> u8 {
        match self {
            Side::Left => b'l',
            Side::Right => b'r',
        }
    }

    fn other(self) -> Side {
        match self {
            Side::Left => Side::Right,
            Side::Right => Side::Left,
        }
    }
}

impl Join {
    /// Joins records that are born at most `within` apart.
    #[must_use]
    pub const fn new(name: &'static str, within: Duration) -> Join {
        Join { name, within: within.as_millis() as u64 }
    }

    /// Takes a record in and gives the values of the other side that it belongs to, the earliest first. `id` tells it from others of the
    /// same key and time: its offset does.
    pub fn take(
        &self,
        ctx: &mut Context<'_>,
        side: Side,
        key: impl AsRef<[u8]>,
        time: u64,
        id: u64,
        value: impl AsRef<[u8]>,
    ) -> Vec<Vec<u8>> {
        let (key, store) = (key.as_ref(), ctx.store(self.name));
        // Both sides may be late, each by as much as the other may be early.
        let keep = Duration::from_millis(self.within.saturating_mul(2));
        store.put_for(place(side, key, Some((time, id))), value, keep);
        let head = place(side.other(), key, None);
        let near = store.scan(&head).filter(|(place, _)| {
            let born = place[head.len()..].first_chunk::<8>().map(|born| u64::from_be_bytes(*born));
            born.is_some_and(|born| born.abs_diff(time) <= self.within)
        });
        near.map(|(_, value)| value).collect()
    }
}

fn place(side: Side, key: &[u8], born: Option<(u64, u64)>) -> Vec<u8> {
    let mut place = vec![side.byte()];
    // With its length ahead no key is the beginning of another.
    place.extend_from_slice(&(key.len() as u64).to_be_bytes());
    place.extend_from_slice(key);
    if let Some((time, id)) = born {
        place.extend_from_slice(&time.to_be_bytes());
        place.extend_from_slice(&id.to_be_bytes());
    }
    place
}

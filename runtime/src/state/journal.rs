//! What a turn changed, so that it can be taken back.

/// Bytes, and entries, for which room is kept from one turn to the next.
const KEPT: usize = 1 << 20;

/// How entries were before calls touched them, the bytes of all of them in one place.
#[derive(Default)]
pub(super) struct Journal {
    noted: Vec<Noted>,
    bytes: Vec<u8>,
}

struct Noted {
    /// Where its bytes begin: the key, and the value behind it.
    start: usize,
    key: usize,
    has_value: bool,
    expires_at: u64,
    call: u64,
}

/// How an entry was before a call touched it.
pub(super) struct Before {
    pub key: Box<[u8]>,
    pub value: Option<Box<[u8]>>,
    pub expires_at: u64,
    pub call: u64,
}

impl Journal {
    /// Notes how an entry was; `call` is the one that touched it before.
    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>, expires_at: u64, call: u64) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.noted.push(Noted { start, key: key.len(), has_value: value.is_some(), expires_at, call });
    }

    pub fn pop(&mut self) -> Option<Before> {
        let Noted { start, key, has_value, expires_at, call } = self.noted.pop()?;
        let (key, value) = self.bytes[start..].split_at(key);
        let before = Before { key: key.into(), value: has_value.then(|| value.into()), expires_at, call };
        self.bytes.truncate(start);
        Some(before)
    }

    /// The keys in the order in which they were noted, and the calls that touched them before.
    pub fn keys(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.noted.iter().map(|noted| (&self.bytes[noted.start..noted.start + noted.key], noted.call))
    }

    pub fn len(&self) -> usize {
        self.noted.len()
    }

    pub fn is_empty(&self) -> bool {
        self.noted.is_empty()
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn clear(&mut self) {
        self.noted.clear();
        self.bytes.clear();
        self.noted.shrink_to(KEPT / size_of::<Noted>());
        self.bytes.shrink_to(KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_last_is_given_back_first() {
        let mut journal = Journal::default();
        journal.push(b"a", None, 0, 1);
        journal.push(b"bb", Some(b""), 7, 2);
        journal.push(b"", Some(b"value"), 0, 3);
        assert_eq!(journal.keys().collect::<Vec<_>>(), [(&b"a"[..], 1), (b"bb", 2), (b"", 3)]);
        let mut pop = || journal.pop().map(|b| (b.key.to_vec(), b.value.map(Vec::from), b.expires_at, b.call));
        assert_eq!(pop(), Some((vec![], Some(b"value".to_vec()), 0, 3)));
        assert_eq!(pop(), Some((b"bb".to_vec(), Some(vec![]), 7, 2)));
        assert_eq!(pop(), Some((b"a".to_vec(), None, 0, 1)));
        assert_eq!(pop(), None);
    }
}

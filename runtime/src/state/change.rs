//! Changes as they stand in the log: one byte of version, the newest producer's time of the queue before steps had clocks of their own (0
//! for a state that began later), the names of stores, and the entries that changed.

use super::StateError;

const VERSION: u8 = 1;

/// What an entry became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Became<'a> {
    pub name: &'a str,
    pub key: &'a [u8],
    /// `None`: it is gone.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since 1970; 0: never.
    pub expires_at: u64,
}

/// Writes changes.
#[derive(Default)]
pub(super) struct Writer {
    names: Vec<String>,
    entries: Vec<u8>,
    count: u32,
}

impl Writer {
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a partition has few stores, and an entry is smaller than a guest's memory"
    )]
    pub fn push(&mut self, entry: &Became<'_>) {
        let number = self.names.iter().position(|name| name == entry.name).unwrap_or_else(|| {
            self.names.push(entry.name.to_owned());
            self.names.len() - 1
        });
        let out = &mut self.entries;
        out.extend_from_slice(&(number as u16).to_le_bytes());
        out.extend_from_slice(&(entry.key.len() as u32).to_le_bytes());
        out.extend_from_slice(entry.key);
        match entry.value {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                out.extend_from_slice(&entry.expires_at.to_le_bytes());
                out.extend_from_slice(&(value.len() as u32).to_le_bytes());
                out.extend_from_slice(value);
            }
        }
        self.count += 1;
    }

    #[expect(clippy::cast_possible_truncation, reason = "names are made of plugins' names, which are short")]
    pub fn finish(self, newest: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + self.names.len() * 32 + self.entries.len());
        out.push(VERSION);
        out.extend_from_slice(&newest.to_le_bytes());
        out.extend_from_slice(&(self.names.len() as u16).to_le_bytes());
        for name in &self.names {
            out.push(name.len() as u8);
            out.extend_from_slice(name.as_bytes());
        }
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.entries);
        out
    }
}

/// Reads changes: hands every entry to `each`, and gives the time before them.
pub(super) fn read(bytes: &[u8], mut each: impl FnMut(Became<'_>)) -> Result<u64, StateError> {
    let mut left = Left(bytes);
    let version = left.take::<1>()?[0];
    if version != VERSION {
        return Err(StateError::Change(format!("expected version {VERSION}, got {version}")));
    }
    let newest = u64::from_le_bytes(left.take()?);
    let mut names = Vec::new();
    for _ in 0..u16::from_le_bytes(left.take()?) {
        let len = usize::from(left.take::<1>()?[0]);
        let name = std::str::from_utf8(left.bytes(len)?).map_err(|_| malformed())?;
        names.push(name);
    }
    for _ in 0..u32::from_le_bytes(left.take()?) {
        let number = usize::from(u16::from_le_bytes(left.take()?));
        let name = names.get(number).copied().ok_or_else(malformed)?;
        let len = u32::from_le_bytes(left.take()?) as usize;
        let key = left.bytes(len)?;
        if left.take::<1>()?[0] == 0 {
            each(Became { name, key, value: None, expires_at: 0 });
            continue;
        }
        let expires_at = u64::from_le_bytes(left.take()?);
        let len = u32::from_le_bytes(left.take()?) as usize;
        each(Became { name, key, value: Some(left.bytes(len)?), expires_at });
    }
    if left.0.is_empty() { Ok(newest) } else { Err(malformed()) }
}

fn malformed() -> StateError {
    StateError::Change("malformed".to_owned())
}

struct Left<'a>(&'a [u8]);

impl<'a> Left<'a> {
    fn bytes(&mut self, len: usize) -> Result<&'a [u8], StateError> {
        let (taken, left) = self.0.split_at_checked(len).ok_or_else(malformed)?;
        self.0 = left;
        Ok(taken)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let (taken, left) = self.0.split_first_chunk::<N>().ok_or_else(malformed)?;
        self.0 = left;
        Ok(*taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_cut_is_refused() {
        let entries = [
            Became { name: "count/totals", key: b"a", value: Some(b"1"), expires_at: 7 },
            Became { name: "count/seen", key: b"", value: None, expires_at: 0 },
            Became { name: "count/totals", key: b"b\0", value: Some(b""), expires_at: 0 },
        ];
        let mut writer = Writer::default();
        entries.iter().for_each(|entry| writer.push(entry));
        let bytes = writer.finish(42);
        let mut at = 0;
        let newest = read(&bytes, |entry| {
            assert_eq!(entry, entries[at]);
            at += 1;
        });
        assert_eq!((newest.unwrap(), at), (42, 3));
        for len in 0..bytes.len() {
            assert!(read(&bytes[..len], |_| {}).is_err(), "{len} of {} bytes were taken", bytes.len());
        }
    }
}

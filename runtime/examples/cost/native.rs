//! The same logic as the plugins', without them: closures over records, behind a pointer as a broker would hold them.

use std::collections::HashMap;

use sluice_runtime::Record;

pub type Filter = Box<dyn FnMut(&Record) -> bool + Send>;
pub type Transform = Box<dyn FnMut(&Record) -> Record>;

pub fn trivial() -> Filter {
    Box::new(|record| record.value.first() == Some(&b'k'))
}

pub fn json() -> Filter {
    Box::new(|record| {
        // As `sluice_sdk::Record::json` does it.
        let text = str::from_utf8(&record.value).ok();
        let body: Option<serde_json::Value> = text.and_then(|text| serde_json::from_str(text).ok());
        body.is_some_and(|body| body["amount"].as_u64().is_some_and(|amount| amount > 500))
    })
}

pub fn field() -> Filter {
    Box::new(|record| {
        let amount = sluice_sdk::field::at(&record.value, "/amount");
        amount.is_ok_and(|amount| amount.and_then(|amount| amount.as_u64()).is_some_and(|amount| amount > 500))
    })
}

pub fn upper() -> Transform {
    Box::new(|record| Record { value: record.value.to_ascii_uppercase().into(), ..record.clone() })
}

/// One bit for each record, as a verdict has them.
pub fn kept(filter: &mut Filter, records: &[Record]) -> Vec<u8> {
    let mut keep = vec![0_u8; records.len().div_ceil(8)];
    for (index, record) in records.iter().enumerate() {
        keep[index / 8] |= u8::from(filter(record)) << (index % 8);
    }
    keep
}

/// Counts in memory, without anything that a crash would leave.
#[derive(Default)]
pub struct Count(HashMap<Box<[u8]>, i64>);

impl Count {
    pub fn add(&mut self, key: &[u8]) {
        match self.0.get_mut(key) {
            Some(total) => *total += 1,
            None => {
                self.0.insert(key.into(), 1);
            }
        }
    }

    /// Whether it holds for every key and its total, of which there must be some.
    pub fn all(&self, mut holds: impl FnMut(&[u8], i64) -> bool) -> bool {
        !self.0.is_empty() && self.0.iter().all(|(key, total)| holds(key, *total))
    }
}

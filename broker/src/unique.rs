//! Ids for messages whose sender gave none.

use sluice_model::{Host, Timestamp};

/// Makes 32 upper-case hex digits: address, a number of this process, milliseconds, and a counter, so that ids of one
/// broker never repeat. The same length as the ids that clients make (Apache RocketMQ `MessageClientIDSetter`).
pub struct UniqueIds {
    prefix: String,
    counter: u32,
}

impl UniqueIds {
    pub fn new(host: Host) -> Self {
        let mut bytes = Vec::new();
        host.encode(&mut bytes);
        let ip = crc(&bytes);
        Self { prefix: format!("{ip:08X}{:04X}", std::process::id() & 0xFFFF), counter: 0 }
    }

    pub fn next(&mut self, now: Timestamp) -> String {
        self.counter = self.counter.wrapping_add(1);
        format!("{}{:012X}{:08X}", self.prefix, now.0 & 0xFFFF_FFFF_FFFF, self.counter)
    }
}

fn crc(bytes: &[u8]) -> u32 {
    sluice_model::record::crc(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_length_of_client_ids_and_differ() {
        let mut ids = UniqueIds::new(Host::LOCAL);
        let (a, b) = (ids.next(Timestamp(1)), ids.next(Timestamp(1)));
        assert!(a.len() == 32 && b.len() == 32 && a != b);
    }
}

//! The id under which a broker stored a message (`offsetMsgId`).

use std::fmt;

use crate::{Error, Host, LogOffset};

/// Address of the broker and position in its log: 32 hex digits with an IPv4 address, 56 with IPv6.
///
/// Source: Apache RocketMQ `MessageDecoder.createMessageId`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageId {
    pub broker: Host,
    pub log_offset: LogOffset,
}

impl MessageId {
    /// Fails with the field `msgId` when `text` is not 32 or 56 hex digits or names a port above 65535.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = || Error::invalid("msgId", format!("expected 32 or 56 hex digits, got {:?}", clip(text)));
        if !matches!(text.len(), 32 | 56) || !text.is_ascii() {
            return Err(bad());
        }
        let bytes = (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16))
            .collect::<Result<Vec<u8>, _>>()
            .map_err(|_| bad())?;
        let (host, offset) = bytes.split_at(bytes.len() - 8);
        let broker = Host::decode(host).ok_or_else(bad)?;
        let log_offset = LogOffset(u64::from_be_bytes(offset.try_into().map_err(|_| bad())?));
        Ok(Self { broker, log_offset })
    }
}

fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(28);
        self.broker.encode(&mut bytes);
        bytes.extend_from_slice(&self.log_offset.0.to_be_bytes());
        let mut text = [0u8; 56];
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        for (at, byte) in bytes.iter().enumerate() {
            text[at * 2] = DIGITS[usize::from(byte >> 4)];
            text[at * 2 + 1] = DIGITS[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text[..bytes.len() * 2]).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_what_apache_writes() {
        // 192.168.1.2:10911 at 0x1234, as MessageDecoder.createMessageId prints it.
        let id = MessageId { broker: Host("192.168.1.2:10911".parse().unwrap()), log_offset: LogOffset(0x1234) };
        assert_eq!(id.to_string(), "C0A8010200002A9F0000000000001234");
        assert_eq!(MessageId::parse("C0A8010200002A9F0000000000001234").unwrap(), id);
        let id = MessageId { broker: Host("[::1]:10911".parse().unwrap()), log_offset: LogOffset(7) };
        assert_eq!(MessageId::parse(&id.to_string()).unwrap(), id);
    }

    #[test]
    fn nonsense_is_refused_with_the_field() {
        for bad in ["", "zz", &"G".repeat(32), &"F".repeat(32), &"é".repeat(16)] {
            assert!(MessageId::parse(bad).unwrap_err().to_string().starts_with("msgId: "), "{bad}");
        }
    }
}

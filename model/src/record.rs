//! The stored message: Apache RocketMQ's commit-log record, byte for byte, and its checks.
//!
//! All integers big-endian, packed (source: Apache RocketMQ `MessageExtEncoder`, `MessageDecoder`, `CommitLog`):
//!
//! ```text
//!  size 4 | magic 4 | body crc 4 | queue 4 | flag 4 | queue offset 8 | log offset 8 | sys flag 4 | born at 8
//!  born host 8 or 20 | stored at 8 | store host 8 or 20 | reconsume times 4 | prepared at 8
//!  body length 4 + body | topic length 1 (V1) or 2 (V2) + topic | properties length 2 + properties
//! ```
//!
//! The properties end with what the log itself writes ([`SUFFIX_LEN`]): the place in the unit, if the unit has several
//! records, and always `__CRC32#`, a CRC-32 over all bytes of the record before that property.

use crate::{
    Error, Host, LogOffset, Message, QueueId, QueueOffset, SysFlag, TagCode, Timestamp, TopicName, limits,
    properties::{key, pairs},
};

const MAGIC_V1: u32 = 0xDAA3_20A7;
const MAGIC_V2: u32 = 0xDAA3_20AB;
const MAGIC_BLANK: u32 = 0xCBD4_3194;

const AT_MAGIC: usize = 4;
const AT_BODY_CRC: usize = 8;
const AT_QUEUE: usize = 12;
const AT_FLAG: usize = 16;
const AT_QUEUE_OFFSET: usize = 20;
const AT_LOG_OFFSET: usize = 28;
const AT_SYS_FLAG: usize = 36;
const AT_BORN_AT: usize = 40;
const AT_BORN_HOST: usize = 48;

/// `SLUICE_UNIT` + separator + `0000/0000` + separator.
const UNIT_LEN: usize = key::UNIT.len() + 1 + 9 + 1;
/// `__CRC32#` + separator + ten digits + separator.
const CRC_LEN: usize = key::RECORD_CRC.len() + 1 + 10 + 1;
/// Most bytes that the log adds to a message's properties, with a separator after properties that lack it.
pub const SUFFIX_LEN: usize = 1 + UNIT_LEN + CRC_LEN;
/// Bytes of the filler record that ends a segment, at the least: its size and its magic.
pub const BLANK_LEN: usize = 8;
/// Bytes of the smallest possible record.
pub const MIN_LEN: usize = 91;

/// What the log decides about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    pub queue_offset: QueueOffset,
    pub log_offset: LogOffset,
    pub stored_at: Timestamp,
    pub store_host: Host,
    /// Place of the record in its unit.
    pub unit: UnitPlace,
}

/// Which record of how many that stand or fall together; `index < count`, `1 <= count <= UNIT_RECORDS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitPlace {
    pub index: u16,
    pub count: u16,
}

impl UnitPlace {
    pub const ALONE: Self = Self { index: 0, count: 1 };

    pub fn is_last(self) -> bool {
        self.index + 1 == self.count
    }
}

/// Bytes that `message` takes in the log.
pub fn encoded_len(message: &Message, store_host: Host, unit: UnitPlace) -> usize {
    let topic = message.topic.as_str().len();
    AT_BORN_HOST
        + message.born_host.encoded_len()
        + 8
        + store_host.encoded_len()
        + 4
        + 8
        + 4
        + message.body.len()
        + if topic > limits::TOPIC_NAME_LEN { 2 } else { 1 }
        + topic
        + 2
        + properties_len(message, unit)
}

fn properties_len(message: &Message, unit: UnitPlace) -> usize {
    let own = message.properties.as_bytes();
    own.len() + usize::from(lacks_end(own)) + if unit.count > 1 { UNIT_LEN } else { 0 } + CRC_LEN
}

fn lacks_end(properties: &[u8]) -> bool {
    properties.last().is_some_and(|last| *last != 2)
}

/// Appends the record of `message` to `out`.
///
/// The caller has checked the sizes ([`limits::SYSTEM_BODY_LEN`], [`limits::PROPERTIES_LEN`]).
pub fn encode(out: &mut Vec<u8>, message: &Message, place: &Placement) {
    let start = out.len();
    let size = encoded_len(message, place.store_host, place.unit);
    out.reserve(size);
    let topic = message.topic.as_str().as_bytes();
    let long_topic = topic.len() > limits::TOPIC_NAME_LEN;
    let sys_flag = message.sys_flag.with_hosts(message.born_host.is_v6(), place.store_host.is_v6());
    put_u32(out, size as u32);
    put_u32(out, if long_topic { MAGIC_V2 } else { MAGIC_V1 });
    put_u32(out, crc(&message.body));
    put_u32(out, message.queue.0);
    put_u32(out, message.flag as u32);
    put_u64(out, place.queue_offset.0);
    put_u64(out, place.log_offset.0);
    put_u32(out, sys_flag.0 as u32);
    put_u64(out, message.born_at.0 as u64);
    message.born_host.encode(out);
    put_u64(out, place.stored_at.0 as u64);
    place.store_host.encode(out);
    put_u32(out, message.reconsume_times as u32);
    put_u64(out, message.prepared_at);
    put_u32(out, message.body.len() as u32);
    out.extend_from_slice(&message.body);
    if long_topic {
        out.extend_from_slice(&(topic.len() as u16).to_be_bytes());
    } else {
        out.push(topic.len() as u8);
    }
    out.extend_from_slice(topic);
    out.extend_from_slice(&(properties_len(message, place.unit) as u16).to_be_bytes());
    put_properties(out, start, message, place.unit);
    debug_assert_eq!(out.len() - start, size);
}

fn put_properties(out: &mut Vec<u8>, start: usize, message: &Message, unit: UnitPlace) {
    let own = message.properties.as_bytes();
    out.extend_from_slice(own);
    if lacks_end(own) {
        out.push(2);
    }
    if unit.count > 1 {
        out.extend_from_slice(key::UNIT.as_bytes());
        out.push(1);
        put_digits(out, unit.index);
        out.push(b'/');
        put_digits(out, unit.count);
        out.push(2);
    }
    let mut sum = crc(&out[start..]);
    out.extend_from_slice(key::RECORD_CRC.as_bytes());
    out.push(1);
    // Least digit first, as Apache writes it.
    for _ in 0..10 {
        out.push(b'0' + (sum % 10) as u8);
        sum /= 10;
    }
    out.push(2);
}

fn put_digits(out: &mut Vec<u8>, number: u16) {
    for unit in [1000, 100, 10, 1] {
        out.push(b'0' + (number / unit % 10) as u8);
    }
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Apache's checksum: CRC-32 (IEEE) without the sign bit.
pub fn crc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes) & 0x7FFF_FFFF
}

/// The filler that ends a segment with `room` bytes left; `room` is at least [`BLANK_LEN`].
pub fn blank(room: u32) -> [u8; BLANK_LEN] {
    let mut out = [0; BLANK_LEN];
    out[..4].copy_from_slice(&room.to_be_bytes());
    out[4..].copy_from_slice(&MAGIC_BLANK.to_be_bytes());
    out
}

/// What the first bytes of a place in the log say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek {
    /// A record of `size` bytes, as its header says; nothing is checked yet.
    Record { size: usize },
    /// The segment ends here; the rest of it, `size` bytes, is filler.
    Blank { size: usize },
    /// Nothing was written here: zeros.
    Nothing,
    /// Neither.
    Garbage,
}

/// Looks at the first 8 bytes of `bytes`; fewer are [`Peek::Garbage`].
pub fn peek(bytes: &[u8]) -> Peek {
    let (Some(size), Some(magic)) = (u32_at(bytes, 0), u32_at(bytes, AT_MAGIC)) else { return Peek::Garbage };
    let size_ok = |least: usize| (least..=limits::RECORD_LEN).contains(&(size as usize));
    match magic {
        MAGIC_V1 | MAGIC_V2 if size_ok(MIN_LEN) => Peek::Record { size: size as usize },
        MAGIC_BLANK if size as usize >= BLANK_LEN => Peek::Blank { size: size as usize },
        0 if size == 0 => Peek::Nothing,
        _ => Peek::Garbage,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// A stored record in place. Its shape was checked when it was made; [`RecordView::verify`] checks its sums.
#[derive(Clone, Copy)]
pub struct RecordView<'a> {
    bytes: &'a [u8],
    after_born: usize,
    after_store: usize,
    body: (usize, usize),
    topic: &'a str,
    properties: &'a str,
    properties_at: usize,
}

impl<'a> RecordView<'a> {
    /// Reads the record that `bytes` begin with; bytes behind it are left alone.
    ///
    /// Fails with the field that does not fit. No checksum is computed.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let at = u64_at(bytes, AT_LOG_OFFSET).unwrap_or_default();
        let corrupt = |what: &str| Error::Corrupt { at, what: what.to_owned() };
        let Peek::Record { size } = peek(bytes) else { return Err(corrupt("no record begins here")) };
        let bytes = bytes.get(..size).ok_or_else(|| corrupt("its size goes beyond what is stored"))?;
        let flag = SysFlag(u32_at(bytes, AT_SYS_FLAG).unwrap_or_default() as i32);
        let after_born = AT_BORN_HOST + if flag.born_v6() { 20 } else { 8 };
        let after_store = after_born + 8 + if flag.store_v6() { 20 } else { 8 };
        let body = section(bytes, after_store + 12, 4).ok_or_else(|| corrupt("its body goes beyond it"))?;
        let topic_len = if u32_at(bytes, AT_MAGIC) == Some(MAGIC_V2) { 2 } else { 1 };
        let topic = section(bytes, body.1, topic_len).ok_or_else(|| corrupt("its topic goes beyond it"))?;
        let properties = section(bytes, topic.1, 2).ok_or_else(|| corrupt("its properties go beyond it"))?;
        if properties.1 != size {
            return Err(corrupt("its parts do not add up to its size"));
        }
        let text =
            |part: (usize, usize), what: &str| std::str::from_utf8(&bytes[part.0..part.1]).map_err(|_| corrupt(what));
        let (topic, properties_at) = (text(topic, "its topic is not UTF-8")?, properties.0);
        let properties = text(properties, "its properties are not UTF-8")?;
        Ok(Self { bytes, after_born, after_store, body, topic, properties, properties_at })
    }

    /// Checks the sum of the body and, where the record carries it, the sum of the whole record.
    pub fn verify(&self) -> Result<(), Error> {
        let corrupt = |what: &str| Error::Corrupt { at: self.log_offset().0, what: what.to_owned() };
        let Some(whole) = self.record_crc() else {
            // A tail that never reached the disk reads as zeros and takes the checksum with it.
            let whole = !self.properties().contains('\0');
            let body = crc(self.body());
            return (whole && u32_at(self.bytes, AT_BODY_CRC) == Some(body))
                .then_some(())
                .ok_or_else(|| corrupt("its body does not match its checksum"));
        };
        let covered = &self.bytes[..self.bytes.len() - CRC_LEN];
        (whole == crc(covered)).then_some(()).ok_or_else(|| corrupt("it does not match its checksum"))
    }

    fn record_crc(&self) -> Option<u32> {
        let property = self.bytes.get(self.bytes.len().checked_sub(CRC_LEN)?..)?;
        let digits = property.strip_prefix(key::RECORD_CRC.as_bytes())?.strip_prefix(&[1])?.strip_suffix(&[2])?;
        digits.iter().rev().try_fold(0u32, |sum, digit| {
            let digit = digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
            sum.checked_mul(10)?.checked_add(digit)
        })
    }

    /// The whole record.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn queue(&self) -> QueueId {
        QueueId(self.u32(AT_QUEUE))
    }

    pub fn flag(&self) -> i32 {
        self.u32(AT_FLAG) as i32
    }

    pub fn queue_offset(&self) -> QueueOffset {
        QueueOffset(self.u64(AT_QUEUE_OFFSET))
    }

    pub fn log_offset(&self) -> LogOffset {
        LogOffset(self.u64(AT_LOG_OFFSET))
    }

    pub fn sys_flag(&self) -> SysFlag {
        SysFlag(self.u32(AT_SYS_FLAG) as i32)
    }

    pub fn born_at(&self) -> Timestamp {
        Timestamp(self.u64(AT_BORN_AT) as i64)
    }

    pub fn born_host(&self) -> Host {
        Host::decode(&self.bytes[AT_BORN_HOST..self.after_born]).unwrap_or(Host::LOCAL)
    }

    pub fn stored_at(&self) -> Timestamp {
        Timestamp(self.u64(self.after_born) as i64)
    }

    pub fn store_host(&self) -> Host {
        Host::decode(&self.bytes[self.after_born + 8..self.after_store]).unwrap_or(Host::LOCAL)
    }

    pub fn reconsume_times(&self) -> i32 {
        self.u32(self.after_store) as i32
    }

    pub fn prepared_at(&self) -> u64 {
        self.u64(self.after_store + 4)
    }

    pub fn body(&self) -> &'a [u8] {
        &self.bytes[self.body.0..self.body.1]
    }

    /// Where the body stands within the record's bytes.
    pub fn body_range(&self) -> std::ops::Range<usize> {
        self.body.0..self.body.1
    }

    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The property string with what the log wrote behind the client's own.
    pub fn properties(&self) -> &'a str {
        self.properties
    }

    pub fn property(&self, key: &str) -> Option<&'a str> {
        pairs(self.properties()).find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    /// The pairs that the message's sender wrote: all but the log's own.
    pub fn own_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        pairs(self.properties()).filter(|(k, _)| *k != key::UNIT && *k != key::RECORD_CRC)
    }

    /// Where the sender's own pairs stand within the record's bytes; the log's own come last.
    pub fn own_properties_range(&self) -> std::ops::Range<usize> {
        let (start, mut pairs) = (self.properties_at, pairs(self.properties));
        let logs_own = pairs.by_ref().any(|(k, _)| k == key::UNIT || k == key::RECORD_CRC);
        start..start + if logs_own { pairs.start() } else { self.properties.len() }
    }

    pub fn tag_code(&self) -> TagCode {
        TagCode::of(self.property(key::TAGS))
    }

    /// Place of the record in its unit; `None` when the property is there and makes no sense.
    pub fn unit(&self) -> Option<UnitPlace> {
        let Some(text) = self.property(key::UNIT) else { return Some(UnitPlace::ALONE) };
        let (index, count) = text.split_once('/')?;
        let place = UnitPlace { index: index.parse().ok()?, count: count.parse().ok()? };
        (place.index < place.count && usize::from(place.count) <= limits::UNIT_RECORDS).then_some(place)
    }

    /// The message as a client would send it again: without the log's own properties.
    pub fn to_message(&self) -> Result<Message, Error> {
        Ok(Message {
            topic: TopicName::parse(self.topic())?,
            queue: self.queue(),
            flag: self.flag(),
            sys_flag: self.sys_flag(),
            born_at: self.born_at(),
            born_host: self.born_host(),
            reconsume_times: self.reconsume_times(),
            prepared_at: self.prepared_at(),
            properties: crate::Properties::from_pairs(self.own_properties())?,
            body: bytes::Bytes::copy_from_slice(self.body()),
        })
    }

    fn u32(&self, at: usize) -> u32 {
        u32_at(self.bytes, at).unwrap_or_default()
    }

    fn u64(&self, at: usize) -> u64 {
        u64_at(self.bytes, at).unwrap_or_default()
    }
}

/// The bounds of a part that has its length (of `len_bytes` bytes) in front.
fn section(bytes: &[u8], at: usize, len_bytes: usize) -> Option<(usize, usize)> {
    let start = at.checked_add(len_bytes)?;
    let len = bytes.get(at..start)?.iter().fold(0usize, |len, byte| len << 8 | usize::from(*byte));
    let end = start.checked_add(len)?;
    (end <= bytes.len()).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Properties;
    use proptest::prelude::*;

    fn message(topic: &str, body: &[u8], pairs: &[(&str, &str)]) -> Message {
        Message {
            flag: 7,
            reconsume_times: 3,
            prepared_at: 9,
            born_host: Host("10.0.0.1:4000".parse().unwrap()),
            ..Message::new(
                TopicName::parse(topic).unwrap(),
                QueueId(2),
                Timestamp(1_700_000_000_000),
                Properties::from_pairs(pairs.iter().copied()).unwrap(),
                body.to_vec().into(),
            )
        }
    }

    fn place(unit: UnitPlace) -> Placement {
        Placement {
            queue_offset: QueueOffset(5),
            log_offset: LogOffset(4096),
            stored_at: Timestamp(1_700_000_000_123),
            store_host: Host("[::1]:10911".parse().unwrap()),
            unit,
        }
    }

    #[test]
    fn the_layout_is_apaches() {
        let mut out = Vec::new();
        encode(&mut out, &message("t", b"hi", &[("TAGS", "a")]), &place(UnitPlace::ALONE));
        assert_eq!(peek(&out), Peek::Record { size: out.len() });
        assert_eq!(out[4..8], [0xDA, 0xA3, 0x20, 0xA7]);
        assert_eq!(out[8..12], (crc32fast::hash(b"hi") & 0x7FFF_FFFF).to_be_bytes());
        assert_eq!(out[12..16], [0, 0, 0, 2]);
        assert_eq!(out[28..36], 4096u64.to_be_bytes());
        assert_eq!(out[36..40], [0, 0, 0, 0x20], "an IPv6 store host sets its bit");
        assert_eq!(out[48..56], [10, 0, 0, 1, 0, 0, 0x0F, 0xA0]);
        let tail = &out[out.len() - 20..];
        assert_eq!(&tail[..9], b"__CRC32#\x01");
    }

    #[test]
    fn a_flipped_bit_is_found_wherever_it_is() {
        let mut out = Vec::new();
        encode(&mut out, &message("t", b"body", &[("k", "v")]), &place(UnitPlace { index: 1, count: 2 }));
        RecordView::parse(&out).unwrap().verify().unwrap();
        // A flip in the marker of the checksum itself leaves a record without one: its content is unharmed.
        let sum = out.len() - CRC_LEN;
        let digits = out.len() - 11..out.len() - 1;
        for at in (0..sum).chain(digits) {
            let mut bad = out.clone();
            bad[at] ^= 1;
            let sound = RecordView::parse(&bad).and_then(|view| view.verify());
            assert!(sound.is_err(), "a flip at byte {at} went unseen");
        }
    }

    #[test]
    fn ends_of_segments_and_unwritten_places_are_told_apart() {
        assert_eq!(peek(&blank(100)), Peek::Blank { size: 100 });
        assert_eq!(peek(&[0; 8]), Peek::Nothing);
        assert_eq!(peek(&[1; 8]), Peek::Garbage);
        assert_eq!(peek(&[0; 7]), Peek::Garbage);
    }

    #[test]
    fn a_tail_of_zeros_is_no_record_without_a_checksum() {
        let mut out = Vec::new();
        encode(&mut out, &message("t", b"body", &[("k", "v")]), &place(UnitPlace { index: 0, count: 2 }));
        let end = out.len();
        out[end - 30..].fill(0);
        assert!(RecordView::parse(&out).unwrap().verify().is_err());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(
            topic in "[a-z]{1,20}|%RETRY%[a-z]{130,200}", body in proptest::collection::vec(any::<u8>(), 0..300),
            value in "[^\u{1}\u{2}]{0,40}", index in 0u16..3, prefix in proptest::collection::vec(any::<u8>(), 0..9),
        ) {
            let sent = message(&topic, &body, &[("key", &value)]);
            let place = place(UnitPlace { index, count: 3 });
            let mut out = prefix.clone();
            encode(&mut out, &sent, &place);
            prop_assert_eq!(out.len() - prefix.len(), encoded_len(&sent, place.store_host, place.unit));
            let view = RecordView::parse(&out[prefix.len()..]).unwrap();
            view.verify().unwrap();
            prop_assert_eq!(view.unit(), Some(place.unit));
            prop_assert_eq!(&out[prefix.len()..][view.own_properties_range()], sent.properties.as_bytes());
            prop_assert_eq!(view.queue_offset(), place.queue_offset);
            prop_assert_eq!(view.stored_at(), place.stored_at);
            prop_assert_eq!(view.store_host(), place.store_host);
            let back = view.to_message().unwrap();
            prop_assert_eq!(back.sys_flag.with_hosts(false, false), sent.sys_flag);
            prop_assert_eq!(Message { sys_flag: sent.sys_flag, ..back }, sent);
        }

        #[test]
        fn reading_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), magic in any::<bool>()) {
            if magic && bytes.len() > 100 {
                let size = bytes.len() as u32;
                bytes[..4].copy_from_slice(&size.to_be_bytes());
                bytes[4..8].copy_from_slice(&MAGIC_V1.to_be_bytes());
            }
            if let Ok(view) = RecordView::parse(&bytes) {
                let _ = (view.verify(), view.unit(), view.to_message(), view.born_host());
            }
        }
    }
}

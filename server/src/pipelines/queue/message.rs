//! Messages for sinks and for dead letters: made of records, with the properties that are to go on.

use std::borrow::Cow;

use bytes::Bytes;
use sluice_model::{
    Compression, GroupName, Host, Message, Properties, QueueId, SysFlag, Timestamp, TopicName, key, limits, record,
};
use sluice_protocol::compress;
use sluice_runtime::{
    Record,
    ports::{DeadLetter, Outgoing, PortError, Unfit},
};

use super::trouble;
use crate::record::flag_of;

/// Properties that say how a message is to be delivered, not what it is: they end with the source.
const DELIVERY_KEYS: [&str; 8] = [
    key::DELAY,
    key::RETRY_TOPIC,
    key::ORIGIN_MESSAGE_ID,
    key::TRANSACTION_PREPARED,
    key::PRODUCER_GROUP,
    key::MAX_RECONSUME_TIMES,
    key::REAL_TOPIC,
    key::REAL_QUEUE,
];

/// What a dead letter carries besides its message's own properties.
pub const FAILURE_KEYS: [&str; 8] = [
    "SLUICE_ERROR_CODE",
    "SLUICE_ERROR",
    "SLUICE_PLUGIN",
    "SLUICE_PLUGIN_DIGEST",
    "SLUICE_SOURCE_TOPIC",
    "SLUICE_SOURCE_QUEUE",
    "SLUICE_SOURCE_OFFSET",
    "SLUICE_TRIES",
];

/// The name of the timer that a dead letter is of. It is no message of the source and is not run again.
pub const TIMER_KEY: &str = "SLUICE_TIMER";
/// Room for what the broker adds to the properties of a message: its unique key.
const ADDED: usize = 64;
/// Room for what a dead letter says besides: the reason has at most 1,024 letters.
const FAILURE_LEN: usize = 8 * 1024;
/// Longest value of a property that is kept when there is no room for all of them, bytes.
const KEPT_LEN: usize = 4 * 1024;

/// Where a dead letter's message was read, and how often it was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub topic: String,
    pub queue: QueueId,
    pub offset: u64,
    pub tries: u32,
}

/// The outputs of one record that were made last: its offset, and how many have its unique key, or one made of it.
pub type Seen = Option<(u64, u32)>;

/// A message of the pipeline with this group for a sink.
pub fn outgoing(
    group: &GroupName,
    sinks: &[TopicName],
    queue: QueueId,
    out: &Outgoing,
    seen: &mut Seen,
) -> Result<Message, PortError> {
    let topic = sinks.get(out.sink).ok_or_else(|| PortError::Failed(format!("there is no sink {}", out.sink)))?;
    let before = seen.filter(|(offset, _)| *offset == out.record.offset).map_or(0, |(_, count)| count);
    let made = made(group, &out.record, before);
    if made.as_ref().is_ok_and(|own| own.get(key::UNIQUE_KEY).is_some()) {
        *seen = Some((out.record.offset, before + 1));
    }
    Ok(message(topic.clone(), queue, &out.record, made.map_err(|error| trouble(&error.into()))?))
}

/// The properties of an output of a record of which so many were made before with its unique key: a later one is another message and needs an
/// id of its own.
fn made(group: &GroupName, record: &Record, before: u32) -> Result<Properties, sluice_model::Error> {
    if before > 0
        && let Some(unique) = Properties::parse(record.headers.clone())?.get(key::UNIQUE_KEY)
    {
        return properties(record, false)?.with(key::UNIQUE_KEY, &later_id(group, unique, before));
    }
    properties(record, true)
}

/// The unique key of an output behind the first, counted from 1, of a record that has `unique`: the same whenever the record is read. Another
/// pipeline's outputs have others, as the first ones, which keep `unique`, may be read by it.
///
/// It is longer than those that clients make, and shorter than those of clients with IPv6 addresses, which tools would take it for.
pub fn later_id(group: &GroupName, unique: &str, count: u32) -> String {
    format!("{unique}-{:08X}-{count}", record::crc(group.as_str().as_bytes()))
}

/// Why no message can be made of a record.
pub fn check(record: &Record) -> Result<(), Unfit> {
    if body(record).0.len() > limits::BODY_LEN {
        let (limit, got) = (limits::BODY_LEN, record.value.len());
        let reason = format!("the value has {got} bytes and more than {limit} when it is compressed");
        return Err(Unfit::TooLarge(reason));
    }
    let own = properties(record, true).map_err(|error| Unfit::Headers(error.to_string()))?;
    let size = own.as_bytes().len();
    if size + ADDED > limits::PROPERTIES_LEN {
        let limit = limits::PROPERTIES_LEN - ADDED;
        let reason = format!("headers, key and tag have {size} bytes together, expected at most {limit}");
        return Err(Unfit::TooLarge(reason));
    }
    // What has an id goes as it came.
    if own.get(key::UNIQUE_KEY).is_none()
        && let Some((name, _)) = own.iter().find(|pair| !is_storable(pair))
    {
        return Err(Unfit::Headers(format!("the headers hold a pair that cannot be stored again, named {name:?}")));
    }
    Ok(())
}

/// Whether a property can be set. Stored messages may have others.
fn is_storable((name, value): &(&str, &str)) -> bool {
    !name.is_empty() && !value.contains(['\u{1}', '\u{2}'])
}

/// The value as a message's body: compressed where it is, or would be too large.
fn body(record: &Record) -> (Bytes, SysFlag) {
    if record.packed == 0 && record.value.len() > limits::BODY_LEN {
        return (compress::zlib(&record.value), SysFlag::default().with_compression(Compression::Zlib));
    }
    (record.value.clone(), flag_of(record))
}

/// A message for the dead letters: what was read at `origin`, and why it failed. Headers or a body for which there is no room are left out.
pub fn dead_letter(topic: TopicName, dead: &DeadLetter, origin: &Origin) -> Result<Message, PortError> {
    let no_message = |error: sluice_model::Error| trouble(&error.into());
    let mut message = message(topic, origin.queue, &dead.record, Properties::default());
    let mut left_out = String::new();
    if message.body.len() > limits::BODY_LEN {
        left_out = format!("[its body of {} bytes is left out] ", dead.record.value.len());
        (message.body, message.sys_flag) = (Bytes::new(), SysFlag::default());
    }
    let fit = |own: &Properties| {
        own.as_bytes().len() + FAILURE_LEN <= limits::PROPERTIES_LEN && own.iter().all(|pair| is_storable(&pair))
    };
    let own = properties(&dead.record, true).ok().filter(fit).unwrap_or_else(|| {
        left_out.push_str("[its headers are left out] ");
        kept(&dead.record)
    });
    let plain = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let (queue, offset, tries) = (origin.queue.to_string(), origin.offset.to_string(), origin.tries.to_string());
    let reason = left_out.chars().chain(plain(&dead.reason).chars()).take(1024).collect::<String>();
    let (code, step) = (plain(&dead.code), plain(&dead.step));
    let values = [&code, &reason, &step, &dead.digest, &origin.topic, &queue, &offset, &tries];
    let pairs = FAILURE_KEYS.into_iter().zip(values.map(|value| Some(Cow::Borrowed(value.as_str()))));
    let timer = dead.timer.as_ref().map(|name| (TIMER_KEY, Some(Cow::Owned(plain(name)))));
    message.properties = own.changed(&pairs.chain(timer).collect::<Vec<_>>()).map_err(no_message)?;
    Ok(message)
}

/// Of a record's properties those by which it is found, as far as they can be stored.
fn kept(record: &Record) -> Properties {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let headers = Properties::parse(record.headers.clone()).unwrap_or_default();
    let (key_text, tag) = (record.key.as_ref().map(text).unwrap_or_default(), text(&record.tag));
    let unique = headers.get(key::UNIQUE_KEY).unwrap_or_default();
    let pairs = [(key::KEYS, key_text.as_str()), (key::TAGS, tag.as_str()), (key::UNIQUE_KEY, unique)];
    let fits = |pair: &(&str, &str)| (1..=KEPT_LEN).contains(&pair.1.len()) && is_storable(pair);
    Properties::from_pairs(pairs.into_iter().filter(fits)).unwrap_or_default()
}

fn message(topic: TopicName, queue: QueueId, record: &Record, properties: Properties) -> Message {
    let born_at = Timestamp(i64::try_from(record.born_at).unwrap_or(i64::MAX));
    let (body, sys_flag) = body(record);
    Message {
        born_host: Host::LOCAL,
        sys_flag,
        // One stage a queue, and one queue of a sink for it: the order within the queue is kept.
        ..Message::new(topic, queue, born_at, properties, body)
    }
}

/// The properties of a message to be sent: the headers, with the record's key and tag.
fn properties(record: &Record, keep_id: bool) -> Result<Properties, sluice_model::Error> {
    let headers = Properties::parse(record.headers.clone())?;
    if go_on(record, &headers, keep_id) {
        return Ok(headers);
    }
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let (key_text, tag) = (record.key.as_ref().map(text), text(&record.tag));
    let dropped = |name: &str| {
        DELIVERY_KEYS.contains(&name) || name == key::KEYS || name == key::TAGS || (name == key::UNIQUE_KEY && !keep_id)
    };
    // One that is to get another id could not be given it with what cannot be stored again.
    let kept = headers.iter().filter(|pair| !dropped(pair.0) && (keep_id || is_storable(pair)));
    let own = key_text.as_deref().map(|text| (key::KEYS, text)).into_iter();
    let tag = (!tag.is_empty()).then_some((key::TAGS, tag.as_str()));
    Properties::from_pairs(kept.chain(own).chain(tag))
}

/// Whether a record's headers can be the properties of a message as they are: those of one that was not changed, mostly.
fn go_on(record: &Record, headers: &Properties, keep_id: bool) -> bool {
    let (mut key, mut tag): (Option<&[u8]>, &[u8]) = (None, b"");
    for (name, value) in headers.iter() {
        match name {
            key::KEYS => key = Some(value.as_bytes()),
            key::TAGS => tag = value.as_bytes(),
            key::UNIQUE_KEY if !keep_id => return false,
            name if DELIVERY_KEYS.contains(&name) => return false,
            _ => {}
        }
    }
    record.key.as_deref() == key && record.tag == tag
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn group() -> GroupName {
        GroupName::parse("pipeline-p").unwrap()
    }

    #[test]
    fn headers_that_cannot_be_stored_again_stop_nothing() {
        let record = |headers: &'static str| Record {
            headers: headers.into(),
            key: Some("k".into()),
            tag: "t".into(),
            ..Record::default()
        };
        let topics = [TopicName::parse("t").unwrap()];
        let sent = |record: &Record, seen: Seen| {
            let out = Outgoing { record: record.clone(), sink: 0 };
            outgoing(&group(), &topics, QueueId(0), &out, &mut { seen }).unwrap().properties
        };
        for pair in ["\u{1}no name\u{2}", "a\u{1}b\u{1}c\u{2}"] {
            let own = format!("KEYS\u{1}k\u{2}TAGS\u{1}t\u{2}UNIQ_KEY\u{1}u\u{2}{pair}").leak();
            let as_it_came = record(own);
            assert_eq!(check(&as_it_came), Ok(()));
            assert_eq!(sent(&as_it_came, None).as_str(), own);
            // The second output of a record is given an id of its own.
            let second = sent(&as_it_came, Some((0, 1)));
            assert_eq!(second.get(key::UNIQUE_KEY), Some(later_id(&group(), "u", 1).as_str()));

            let changed = Record { key: Some("l".into()), ..as_it_came };
            let without_id = record(format!("KEYS\u{1}k\u{2}TAGS\u{1}t\u{2}{pair}").leak());
            for record in [changed, without_id] {
                assert!(matches!(check(&record), Err(Unfit::Headers(_))));
                let dead = letter(record, None).properties;
                assert_eq!(dead.get("SLUICE_ERROR"), Some("[its headers are left out] why"));
                assert_eq!((dead.get(key::TAGS), dead.get("SLUICE_ERROR_CODE")), (Some("t"), Some("c")));
            }
        }
        // A timer's key may be anything.
        let timer = Record { key: Some("\u{1}".into()), ..Record::default() };
        assert!(matches!(check(&timer), Err(Unfit::Headers(_))));
        assert_eq!(letter(timer, Some("wake")).properties.get(TIMER_KEY), Some("wake"));
    }

    /// Bytes that no compression makes fewer.
    fn noise(len: usize) -> Bytes {
        let mut state = 1_u64;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        };
        std::iter::repeat_with(next).take(len).collect()
    }

    pub(in super::super) fn letter(record: Record, timer: Option<&str>) -> Message {
        let (code, reason, step, digest) = ("c\u{1}".to_owned(), "why".to_owned(), "s".to_owned(), "d".to_owned());
        let timer = timer.map(str::to_owned);
        let dead = DeadLetter { record, timer, queue: 0, code, reason, step, digest, tries: 2 };
        let origin = Origin { topic: "t".to_owned(), queue: QueueId(3), offset: 9, tries: 2 };
        dead_letter(TopicName::parse("dead").unwrap(), &dead, &origin).unwrap()
    }

    #[test]
    fn outputs_of_one_record_have_ids_of_their_own_which_are_the_same_each_time() {
        let (sinks, group) = ([TopicName::parse("t").unwrap()], GroupName::parse("pipeline-p").unwrap());
        let headers = |pairs: &[(&str, &str)]| {
            Bytes::copy_from_slice(Properties::from_pairs(pairs.iter().copied()).unwrap().as_bytes())
        };
        let mut seen = None;
        let mut id = |offset, pairs: &[(&str, &str)]| {
            let out = Outgoing { record: Record { offset, headers: headers(pairs), ..Record::default() }, sink: 0 };
            let message = outgoing(&group, &sinks, QueueId(0), &out, &mut seen).unwrap();
            message.properties.get(key::UNIQUE_KEY).map(str::to_owned)
        };
        let (own, other) = (&[("UNIQ_KEY", "AC110002")][..], &[("UNIQ_KEY", "AC110003")][..]);
        // A timer's output has none, and stands before those of the record that comes next.
        assert_eq!(id(7, &[("a", "1")]), None);
        let ids = [id(7, own), id(7, own), id(7, own), id(8, other), id(8, other)].map(Option::unwrap);
        let mark = format!("{:08X}", record::crc(b"pipeline-p"));
        assert_eq!(ids[..3], ["AC110002".to_owned(), format!("AC110002-{mark}-1"), format!("AC110002-{mark}-2")]);
        assert_eq!(ids[3..], ["AC110003".to_owned(), format!("AC110003-{mark}-1")]);
        let longest = later_id(&group, &"A".repeat(32), limits::UNIT_RECORDS as u32);
        assert!(longest.len() < 2 * 28, "as long as one with an IPv6 address: {longest}");
    }

    #[test]
    fn a_large_value_is_compressed_and_one_that_stays_too_large_is_refused() {
        let large = Record { value: vec![7; limits::BODY_LEN + 1].into(), ..Record::default() };
        assert_eq!(check(&large), Ok(()));
        let out = Outgoing { record: large.clone(), sink: 0 };
        let group = GroupName::parse("pipeline-p").unwrap();
        let message = outgoing(&group, &[TopicName::parse("t").unwrap()], QueueId(0), &out, &mut None).unwrap();
        let plain = compress::decompress(&message.body, message.sys_flag.compression().unwrap(), usize::MAX >> 1);
        assert_eq!(plain.unwrap(), large.value);

        let larger = Record { value: noise(limits::BODY_LEN + 1), key: Some("k".into()), ..Record::default() };
        assert!(matches!(check(&larger), Err(Unfit::TooLarge(reason)) if reason.contains("4194305 bytes")));
        let dead = letter(larger, None);
        assert_eq!((dead.body.len(), dead.properties.get(key::KEYS)), (0, Some("k")));
        assert_eq!(dead.properties.get("SLUICE_ERROR"), Some("[its body of 4194305 bytes is left out] why"));
    }

    #[test]
    fn properties_are_the_headers_with_the_key_and_tag_and_without_what_ends_with_the_source() {
        let record = |headers: &[(&str, &str)], key: Option<&str>, tag: &str| Record {
            headers: Properties::from_pairs(headers.iter().copied()).unwrap().as_bytes().to_vec().into(),
            key: key.map(|key| key.to_owned().into()),
            tag: tag.to_owned().into(),
            ..Record::default()
        };
        let made = |record: &Record, keep_id| {
            let of = properties(record, keep_id).unwrap();
            let mut pairs: Vec<_> = of.iter().map(|(name, value)| format!("{name}={value}")).collect();
            pairs.sort();
            pairs.join(" ")
        };
        let own = [("KEYS", "k"), ("a", "1"), ("TAGS", "t"), ("UNIQ_KEY", "u")];
        let unchanged = record(&own, Some("k"), "t");
        assert_eq!(properties(&unchanged, true).unwrap().as_bytes(), &unchanged.headers[..], "as it was sent");
        assert_eq!(made(&record(&own, Some("k"), "t"), true), "KEYS=k TAGS=t UNIQ_KEY=u a=1");
        assert_eq!(made(&record(&own, Some("k"), "t"), false), "KEYS=k TAGS=t a=1");
        assert_eq!(made(&record(&own, Some("l"), "t"), true), "KEYS=l TAGS=t UNIQ_KEY=u a=1");
        assert_eq!(made(&record(&own, None, ""), true), "UNIQ_KEY=u a=1");
        assert_eq!(made(&record(&[("a", "1")], Some("k"), "t"), true), "KEYS=k TAGS=t a=1");
        assert_eq!(made(&record(&[("DELAY", "3"), ("KEYS", "k")], Some("k"), ""), true), "KEYS=k");
    }

    #[test]
    fn headers_for_which_there_is_no_room_are_refused_and_a_dead_letter_goes_without_them() {
        let headers = |len: usize| Properties::from_pairs([("h", "x".repeat(len).as_str())]).unwrap();
        let record = |len: usize| Record {
            headers: headers(len).as_bytes().to_vec().into(),
            key: Some("k".into()),
            ..Record::default()
        };
        assert_eq!(check(&record(limits::PROPERTIES_LEN - ADDED - 20)), Ok(()));
        let full = record(limits::PROPERTIES_LEN - 20);
        assert!(matches!(check(&full), Err(Unfit::TooLarge(reason)) if reason.contains("headers, key and tag")));
        let dead = letter(full, Some("wake\u{1}"));
        let said = FAILURE_KEYS.map(|name| dead.properties.get(name).unwrap());
        assert_eq!(said, ["c", "[its headers are left out] why", "s", "d", "t", "3", "9", "2"]);
        let get = |name| dead.properties.get(name);
        assert_eq!((get(key::KEYS), get("h"), get(TIMER_KEY)), (Some("k"), None, Some("wake")));
        assert_eq!(letter(record(100), None).properties.get("h").map(str::len), Some(100));
    }
}

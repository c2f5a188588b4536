//! The body of a client's batch: messages of one topic, one behind the other.
//!
//! Each: size 4 | magic 4 (0) | body crc 4 (0) | flag 4 | body length 4 | body | properties length 2 | properties.
//! Source: Apache RocketMQ `MessageDecoder.encodeMessage`.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use sluice_model::{Properties, limits};

use crate::FieldError;

/// Bytes of an item without its body and properties.
const FIXED: usize = 22;

/// One message of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub flag: i32,
    pub properties: Properties,
    pub body: Bytes,
}

/// Takes a batch apart; the bodies are slices of it.
///
/// Fails with the field `body` when an item's lengths do not add up, its properties are malformed, there is no item, or
/// there are more than [`limits::BATCH_MESSAGES`].
pub fn decode(mut batch: Bytes) -> Result<Vec<Item>, FieldError> {
    let mut items = Vec::new();
    while !batch.is_empty() {
        if items.len() == limits::BATCH_MESSAGES {
            return Err(FieldError::new("body", format!("expected at most {} messages", limits::BATCH_MESSAGES)));
        }
        let at = items.len();
        items.push(
            take(&mut batch).map_err(|what| FieldError::new("body", format!("message {at} of the batch: {what}")))?,
        );
    }
    if items.is_empty() {
        return Err(FieldError::new("body", "expected a batch of messages, got nothing"));
    }
    Ok(items)
}

fn take(batch: &mut Bytes) -> Result<Item, String> {
    let size = batch.first_chunk().map(|size| u32::from_be_bytes(*size) as usize);
    let size = size.filter(|size| (FIXED..=batch.len()).contains(size));
    let mut item = batch.split_to(size.ok_or("its size does not fit")?);
    item.advance(12);
    let flag = item.get_i32();
    let body_len = item.get_u32() as usize;
    if body_len > limits::BODY_LEN || body_len + 2 > item.len() {
        return Err(format!("its body cannot have {body_len} bytes"));
    }
    let body = item.split_to(body_len);
    let properties_len = usize::from(item.get_u16());
    if properties_len != item.len() {
        return Err(format!("its properties have {} bytes, not {properties_len}", item.len()));
    }
    let properties = Properties::parse(item).map_err(|problem| problem.to_string())?;
    Ok(Item { flag, properties, body })
}

/// The batch of `items`. Bodies and properties are within the model's limits.
pub fn encode<'a>(items: impl IntoIterator<Item = &'a Item>) -> Bytes {
    let mut out = BytesMut::new();
    for item in items {
        let properties = item.properties.as_bytes();
        out.reserve(FIXED + item.body.len() + properties.len());
        out.put_u32((FIXED + item.body.len() + properties.len()) as u32);
        out.put_u64(0);
        out.put_i32(item.flag);
        out.put_u32(item.body.len() as u32);
        out.put_slice(&item.body);
        out.put_u16(properties.len() as u16);
        out.put_slice(properties);
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_item_is_what_apache_writes() {
        let item = Item {
            flag: 7,
            properties: Properties::from_pairs([("k", "v")]).unwrap(),
            body: Bytes::from_static(b"hi"),
        };
        let bytes = b"\0\0\0\x1c\0\0\0\0\0\0\0\0\0\0\0\x07\0\0\0\x02hi\0\x04k\x01v\x02";
        assert_eq!(encode([&item]).as_ref(), bytes);
        assert_eq!(decode(Bytes::from_static(bytes)).unwrap(), [item]);
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        let good = b"\0\0\0\x1c\0\0\0\0\0\0\0\0\0\0\0\x07\0\0\0\x02hi\0\x04k\x01v\x02";
        for (at, to) in [(3, 0x1d), (3, 0x10), (0, 0xFF), (19, 9), (16, 0x7F), (23, 9)] {
            let mut bad = good.to_vec();
            bad[at] = to;
            let problem = decode(bad.into()).unwrap_err().to_string();
            assert!(problem.starts_with("body: message 0 of the batch"), "{problem}");
        }
        assert!(decode(Bytes::new()).is_err());
        let many = b"\0\0\0\x16\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".repeat(limits::BATCH_MESSAGES + 1);
        assert!(decode(many.into()).unwrap_err().to_string().contains("at most 4096"));
    }

    proptest! {
        #[test]
        fn batches_are_read_back(bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 1..20)) {
            let items: Vec<Item> = bodies.into_iter()
                .map(|body| Item { flag: 1, properties: Properties::default(), body: body.into() }).collect();
            prop_assert_eq!(decode(encode(&items)).unwrap(), items);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(bytes.into());
        }
    }
}

//! How long reading a send and writing its answer take, per message.
#![allow(clippy::disallowed_methods, reason = "a measurement needs the clock")]

use std::{hint::black_box, time::Instant};

use bytes::{Bytes, BytesMut};
use sluice_model::{GroupName, Properties, QueueId, QueueOffset, SysFlag, Timestamp, TopicName};
use sluice_protocol::{Encoding, Request, Response, decode, reply::SendReply, request::SendMessage};

const ROUNDS: u32 = 500_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let message = SendMessage {
        group: GroupName::parse("orders-producer")?,
        topic: TopicName::parse("orders")?,
        default_topic: "TBW102".to_owned(),
        default_topic_queues: 4,
        queue: 3,
        sys_flag: SysFlag(0),
        born_at: Timestamp(1_700_000_000_000),
        flag: 0,
        properties: Properties::from_pairs([
            ("KEYS", "4711"),
            ("UNIQ_KEY", "7F0000010A1B18B4AAC2000000010000"),
            ("WAIT", "true"),
        ])?,
        reconsume_times: 0,
        unit_mode: false,
        max_reconsume_times: None,
        batch: false,
        broker: Some("broker-a".to_owned()),
        body: Bytes::from_static(&[7; 100]),
    };
    let mut frame = BytesMut::new();
    message.encode().encode(&mut frame);
    let frame = frame.freeze();
    let start = Instant::now();
    for _ in 0..ROUNDS {
        let read = decode(&mut BytesMut::from(frame.clone()), 1 << 20)?;
        black_box(read.map(|frame| Request::decode(&frame)));
    }
    println!("read a send: {:?}", start.elapsed() / ROUNDS);
    let mut out = BytesMut::new();
    let start = Instant::now();
    for _ in 0..ROUNDS {
        let reply = SendReply {
            message_id: "7F00000100002A9F0000000000001234".to_owned(),
            queue: QueueId(3),
            offset: QueueOffset(123_456),
            transaction_id: None,
            region: Some("DefaultRegion".to_owned()),
            trace: Some("true".to_owned()),
            recall_handle: None,
        };
        out.clear();
        Response::ok().with_ext(reply.encode()).encode_head(1, Encoding::Json, &mut out);
        black_box(&out);
    }
    println!("write its answer: {:?}", start.elapsed() / ROUNDS);
    Ok(())
}

//! Requests and bodies: what clients send is read, what is missing or malformed is named.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]
use bytes::Bytes;
use sluice_model::{GroupName, Properties, QueueId, QueueOffset, SysFlag, Timestamp, TopicName};
use sluice_protocol::{
    Ext, FieldError, Frame, Request, RequestCode,
    body::*,
    reply::{PopReply, PoppedQueue},
    request::{PopMessage, PullMessage, RegisterBroker, RetryFlag, SendMessage},
};

fn frame(code: i32, fields: &[(&str, &str)]) -> Frame {
    let mut ext = Ext::new();
    fields.iter().for_each(|(key, value)| ext.push_str(key, value));
    Frame::request(code, ext, Bytes::from_static(b"body"))
}

fn error(code: i32, fields: &[(&str, &str)]) -> FieldError {
    Request::decode(&frame(code, fields)).unwrap_err()
}

fn message() -> SendMessage {
    SendMessage {
        group: GroupName::parse("pg").unwrap(),
        topic: TopicName::parse("orders").unwrap(),
        default_topic: "TBW102".into(),
        default_topic_queues: 4,
        queue: -1,
        sys_flag: SysFlag(4),
        born_at: Timestamp(1_700_000_000_000),
        flag: -7,
        properties: Properties::from_pairs([("KEYS", "a b")]).unwrap(),
        reconsume_times: 1,
        unit_mode: false,
        max_reconsume_times: Some(3),
        batch: false,
        broker: None,
        body: Bytes::from_static(b"body"),
    }
}

#[test]
fn both_spellings_of_a_send_are_one_request() {
    let long = [
        ("producerGroup", "pg"),
        ("topic", "orders"),
        ("defaultTopic", "TBW102"),
        ("defaultTopicQueueNums", "4"),
        ("queueId", "-1"),
        ("sysFlag", "4"),
        ("bornTimestamp", "1700000000000"),
        ("flag", "-7"),
        ("properties", "KEYS\u{1}a b\u{2}"),
        ("reconsumeTimes", "1"),
        ("unitMode", "0"),
        ("maxReconsumeTimes", "3"),
    ];
    let want = Request::SendMessage(Box::new(message()));
    assert_eq!(Request::decode(&frame(10, &long)).unwrap(), want);
    let sent = message().encode();
    assert_eq!(sent.header.code, 310);
    assert_eq!(sent.header.ext.get("b"), Some("orders"));
    assert_eq!(Request::decode(&sent).unwrap(), want);
    let batch = Request::decode(&frame(320, &long)).unwrap();
    assert_eq!(batch, Request::SendMessage(Box::new(SendMessage { batch: true, ..message() })));
}

#[test]
fn a_missing_or_malformed_field_is_named() {
    assert_eq!(
        error(310, &[]).to_string(),
        "producerGroup: expected a group of 1 to 248 letters, digits, %, |, _ and -, got nothing"
    );
    let problem = error(30, &[("topic", "t"), ("queueId", "many")]);
    assert_eq!(problem.to_string(), "queueId: expected a queue number from 0, got \"many\"");
    assert_eq!(error(30, &[("topic", "a b"), ("queueId", "0")]).field, "topic");
    assert_eq!(error(33, &[("offset", "-1")]).field, "offset");
    assert_eq!(error(34, &[]).field, "body");
    assert_eq!(
        error(222, &[("topic", "t"), ("group", "g"), ("timestamp", "1"), ("isForce", "perhaps")]).field,
        "isForce"
    );
}

#[test]
fn an_unknown_code_is_no_error() {
    assert_eq!(Request::decode(&frame(4711, &[])).unwrap(), Request::Unsupported(4711));
    assert_eq!(i32::from(RequestCode::from(4711)), 4711);
}

#[test]
fn the_flags_of_a_pull_are_its_options() {
    let fields = [
        ("consumerGroup", "g"),
        ("topic", "t"),
        ("queueId", "2"),
        ("queueOffset", "-1"),
        ("maxMsgNums", "32"),
        ("sysFlag", "6"),
        ("commitOffset", "9"),
        ("suspendTimeoutMillis", "15000"),
        ("subscription", "a||b"),
        ("subVersion", "1"),
    ];
    let Request::PullMessage(pull) = Request::decode(&frame(11, &fields)).unwrap() else { panic!() };
    assert_eq!((pull.queue, pull.offset, pull.commit, pull.suspend_ms), (QueueId(2), -1, None, Some(15000)));
    assert_eq!((pull.subscription.as_deref(), pull.lite), (Some("a||b"), false));
    let again = PullMessage { lite: true, commit: Some(9), ..*pull };
    assert_eq!(Request::decode(&again.encode()).unwrap(), Request::PullMessage(Box::new(again)));
}

#[test]
fn heartbeats_of_java_go_and_cpp_are_read() {
    let java = r#"{"clientID":"1.2.3.4@DEFAULT","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","groupName":"G","messageModel":"CLUSTERING","subscriptionDataSet":[{"classFilterMode":false,"codeSet":[2598919],"expressionType":"TAG","subString":"TagA","subVersion":1700000000000,"tagsSet":["TagA"],"topic":"T"}],"unitMode":false}],"heartbeatFingerprint":0,"producerDataSet":[{"groupName":"PG"}],"withoutSub":false}"#;
    let read = HeartbeatBody::from_json(java.as_bytes()).unwrap();
    assert_eq!(read.consumers[0].subscriptions[0], Subscription::by_tags("T", "TagA", 1_700_000_000_000));
    assert_eq!(read.to_json(), java);
    let cpp = r#"{"clientID":"c","consumerDataSet":[{"groupName":"G","consumeFromWhere":0,"consumeType":1,"messageModel":1,"subscriptionDataSet":null,"new":[[]]}]}"#;
    let read = HeartbeatBody::from_json(cpp.as_bytes()).unwrap();
    assert_eq!(
        (read.consumers[0].message_model, read.consumers[0].consume_type),
        (MessageModel::Clustering, ConsumeType::Passively)
    );
    let version = |subscriptions: &str| {
        let body = cpp.replace("null", &format!("[{subscriptions}]"));
        HeartbeatBody::from_json(body.as_bytes()).map(|read| read.consumers[0].subscriptions[0].sub_version)
    };
    assert_eq!(version(r#"{"subString":"*","subVersion":"1795440703385","topic":"T"}"#), Ok(1_795_440_703_385));
    for wrong in [r#""soon""#, r#""9223372036854775808""#, "1.5", "true"] {
        version(&format!(r#"{{"subVersion":{wrong},"topic":"T"}}"#)).unwrap_err();
    }
    let problem = HeartbeatBody::from_json(java.replace("CLUSTERING", "NOWHERE").as_bytes()).unwrap_err();
    assert!(problem.to_string().contains("BROADCASTING CLUSTERING, got \"NOWHERE\""), "{problem}");
    assert!(HeartbeatBody::from_json(b"{}").unwrap_err().to_string().contains("clientID"));
}

#[test]
fn a_route_with_unquoted_keys_is_read_and_written_compact_with_quoted_ones() {
    let old = r#"{"brokerDatas":[{"brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911"},"brokerName":"broker-a","cluster":"c"}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}"#;
    let route = RouteBody::from_json(old.as_bytes()).unwrap();
    assert_eq!(route.brokers[0].master(), Some("10.0.0.1:10911"));
    let new = r#"{"brokerDatas":[{"brokerAddrs":{"0":"10.0.0.1:10911","1":"10.0.0.2:10911"},"brokerName":"broker-a","cluster":"c","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}"#;
    assert_eq!(route.to_json(), new);
}

#[test]
fn tables_by_queue_have_object_literals_for_keys() {
    let queue = QueueRef::new("t", "b", QueueId(0));
    let bounds = QueueBounds { last_update_timestamp: 1, max_offset: 9, min_offset: 2 };
    let stats = TopicStatsBody { queues: QueueTable(vec![(queue.clone(), bounds)]), topic_put_tps: 0.0 };
    let fastjson = r#"{"offsetTable":{{"brokerName":"b","queueId":0,"topic":"t"}:{"lastUpdateTimestamp":1,"maxOffset":9,"minOffset":2}},"topicPutTps":0.0}"#;
    assert_eq!(stats.to_json(), fastjson);
    assert_eq!(TopicStatsBody::from_json(fastjson.as_bytes()).unwrap(), stats);
    let reset = ResetOffsetBody { offsets: QueueTable(vec![(queue, 5)]) };
    let as_text = r#"{"offsetTable":{"{\"brokerName\":\"b\",\"queueId\":0,\"topic\":\"t\"}":5}}"#;
    assert_eq!(ResetOffsetBody::from_json(as_text.as_bytes()).unwrap(), reset);
}

fn registration() -> RegisterBroker {
    let mut body = RegisterBrokerBody::default();
    body.topics.data_version = VersionBody { counter: 3, state_version: 0, timestamp: 1_700_000_000_000 };
    let mut topic = TopicConfigBody::new("orders", 4);
    topic.attributes.insert("message.type".into(), "FIFO".into());
    body.topics.topics.insert("orders".into(), topic);
    RegisterBroker {
        cluster: "c".into(),
        broker: "b".into(),
        address: "127.0.0.1:10911".into(),
        broker_id: 0,
        ha_address: "127.0.0.1:10912".into(),
        heartbeat_timeout_ms: Some(5000),
        acting_master: false,
        zone: None,
        body,
    }
}

#[test]
fn a_registration_is_read_plain_and_compressed_and_checked() {
    let sent = registration();
    assert_eq!(RegisterBroker::decode(&sent.encode()).unwrap(), sent);
    assert_eq!(RegisterBroker::decode(&sent.encode_compressed()).unwrap(), sent);
    let mut bad = sent.encode();
    bad.body = Bytes::from_static(b"{}");
    assert_eq!(RegisterBroker::decode(&bad).unwrap_err().field, "bodyCrc32");
    for cut in 0..40 {
        let body = sent.body.to_compressed();
        assert!(RegisterBrokerBody::from_compressed(&body[..cut.min(body.len() - 1)], 479).is_err());
    }
}

#[test]
fn config_text_is_lines_of_pairs() {
    let read = ConfigText::parse("# c\na=1\n\n b = x=y \n").unwrap();
    assert_eq!(read.to_text(), "a=1\nb=x=y\n");
    assert!(ConfigText::parse("a=1\nnonsense").unwrap_err().to_string().contains("line 2"));
}

fn popped() -> PopMessage {
    PopMessage {
        group: GroupName::parse("g").unwrap(),
        topic: TopicName::parse("t").unwrap(),
        queue: -1,
        max_messages: 32,
        invisible_ms: 60_000,
        poll_ms: 15_000,
        born_at: Timestamp(1_700_000_000_000),
        init_mode: 1,
        expression_type: Some("TAG".into()),
        expression: Some("a||b".into()),
        order: false,
        attempt: None,
    }
}

#[test]
fn a_pop_is_read_as_it_was_sent_and_what_is_missing_is_named() {
    let sent = popped().encode();
    assert_eq!((sent.header.code, sent.header.ext.get("initMode")), (200_050, Some("1")));
    assert_eq!(Request::decode(&sent).unwrap(), Request::PopMessage(Box::new(popped())));
    let must = [
        ("consumerGroup", "g"),
        ("topic", "t"),
        ("queueId", "-1"),
        ("maxMsgNums", "32"),
        ("invisibleTime", "60000"),
        ("pollTime", "15000"),
        ("initMode", "0"),
    ];
    let Request::PopMessage(read) = Request::decode(&frame(200_050, &must)).unwrap() else { panic!() };
    assert_eq!((read.expression, read.order, read.born_at), (None, false, Timestamp(0)));
    for (key, _) in must {
        let others: Vec<_> = must.into_iter().filter(|(other, _)| *other != key).collect();
        assert_eq!(error(200_050, &others).field, key);
        let broken: Vec<_> = must.into_iter().map(|(k, value)| (k, if k == key { "a b" } else { value })).collect();
        assert_eq!(error(200_050, &broken).field, key);
    }
}

#[test]
fn a_receipt_handle_has_eight_parts_or_nine() {
    let fields = |handle: &'static str| {
        [("consumerGroup", "g"), ("topic", "%RETRY%g_t"), ("queueId", "0"), ("offset", "7"), ("extraInfo", handle)]
    };
    let text = "5 1700000000000 60000 0 1 broker-a 0 7";
    let Request::AckMessage(ack) = Request::decode(&frame(200_051, &fields(text))).unwrap() else { panic!() };
    let handle = ack.handle.clone();
    assert_eq!(handle.to_string(), text);
    assert_eq!((handle.start, handle.offset, handle.retry), (QueueOffset(5), QueueOffset(7), RetryFlag::Retry));
    assert_eq!((handle.popped_at, handle.invisible_ms), (Timestamp(1_700_000_000_000), 60_000));
    assert_eq!(Request::decode(&ack.encode()).unwrap(), Request::AckMessage(ack));
    assert!(Request::decode(&frame(200_051, &fields("5 1700000000000 60000 0 1 broker-a 0 7 4711"))).is_ok());
    for bad in
        ["", "5 1 60000 0 1 broker-a 0", "5 1 60000 0 3 b 0 7", "5 1 60000 0 0 b -1 7", "5 1 60000 0 0 b 0 7 8 9"]
    {
        assert_eq!(error(200_051, &fields(bad)).field, "extraInfo", "{bad:?}");
    }
    let mut change = fields(text).to_vec();
    assert_eq!(error(200_053, &change).field, "invisibleTime");
    change.push(("invisibleTime", "10000"));
    let Request::ChangeInvisible(change) = Request::decode(&frame(200_053, &change)).unwrap() else { panic!() };
    assert_eq!((change.invisible_ms, change.handle), (10_000, handle));
}

#[test]
fn a_batch_of_acknowledgements_counts_its_messages_in_bits() {
    let java = r#"{"acks":[{"b":"gQE=","c":"g","it":60000,"pt":1700000000000,"q":3,"r":"0","rq":0,"so":10,"t":"t"}],"brokerName":"broker-a"}"#;
    let read = BatchAckBody::from_json(java.as_bytes()).unwrap();
    assert_eq!(read.acks[0].bits.iter().collect::<Vec<_>>(), [0, 7, 8]);
    assert_eq!(read.acks[0].bits, [8u16, 0, 7].into_iter().collect::<Bits>());
    let numbers = java.replace(r#""gQE=""#, "[-127,1]");
    assert_eq!(BatchAckBody::from_json(numbers.as_bytes()).unwrap(), read);
    assert_eq!(BatchAckBody::from_json(read.to_json().as_bytes()).unwrap(), read);
    let problem = BatchAckBody::from_json(java.replace("gQE=", "?").as_bytes()).unwrap_err();
    assert!(problem.to_string().contains("b: expected base64"), "{problem}");
}

#[test]
fn assignments_name_queues_that_may_be_any() {
    let query = r#"{"clientId":"c","consumerGroup":"g","messageModel":"CLUSTERING","strategyName":"AVG","topic":"t"}"#;
    let read = AssignmentQueryBody::from_json(query.as_bytes()).unwrap();
    assert_eq!((read.message_model, read.strategy_name.as_str()), (MessageModel::Clustering, "AVG"));
    let queue = AssignedQueue { broker_name: "b".into(), queue_id: -1, topic: "t".into() };
    let body = AssignmentsBody {
        message_queue_assignments: Some(vec![Assignment { message_queue: queue, mode: RequestMode::Pop }]),
    };
    let want =
        r#"{"messageQueueAssignments":[{"messageQueue":{"brokerName":"b","queueId":-1,"topic":"t"},"mode":"POP"}]}"#;
    assert_eq!(body.to_json(), want);
    assert_eq!(AssignmentsBody::default().to_json(), "{}");
    let mode = RequestModeBody::from_json(br#"{"topic":"t","consumerGroup":"g","mode":"POP"}"#).unwrap();
    assert_eq!((mode.mode, mode.pop_share_queue_num), (RequestMode::Pop, 0));
}

#[test]
fn the_answer_to_a_pop_lists_its_messages_by_queue() {
    let none = PopReply {
        popped_at: Timestamp(5),
        invisible_ms: 60_000,
        revive_queue: 0,
        rest: 2,
        starts: None,
        offsets: None,
        failures: None,
    };
    assert_eq!(none.clone().with_queues(&[]), none);
    let of = |retry, queue, start, offsets: &[u64]| PoppedQueue {
        retry,
        queue: QueueId(queue),
        start: QueueOffset(start),
        offsets: offsets.iter().copied().map(QueueOffset).collect(),
        failures: Vec::new(),
    };
    let failed = PoppedQueue { failures: vec![(QueueOffset(12), 2)], ..of(RetryFlag::Normal, 2, 10, &[10, 12]) };
    assert_eq!(none.clone().with_queues(&[failed]).failures.as_deref(), Some("0 qo2%12 2"));
    let queues = [of(RetryFlag::Normal, 2, 10, &[10, 12]), of(RetryFlag::Retry, 0, 3, &[3])];
    let reply = none.with_queues(&queues);
    assert_eq!(reply.starts.as_deref(), Some("0 2 10;1 0 3"));
    assert_eq!(reply.offsets.as_deref(), Some("0 2 10,12;1 0 3"));
    assert_eq!(PopReply::decode(&reply.encode()).unwrap(), reply);
}

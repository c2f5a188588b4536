//! A broker small enough to be read: one process, messages in memory, no durability, one queue offset per message.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use sluice_model::{
    Host, LogOffset, Message, MessageId, Properties, QueueId, QueueOffset, RecordView, SysFlag, TagCode, Timestamp,
    TopicName, Transaction, key, record,
};
use sluice_protocol::{
    Frame, Request, Response, ResponseCode, batch,
    body::{ConsumerListBody, LockedBody, RegisterBrokerBody, TopicConfigBody},
    reply::{OffsetReply, PullReply, QueryReply, SendReply},
    request::{CheckTransaction, ConsumersChanged, EndTransaction, PullMessage, RegisterBroker, SendMessage},
};
use sluice_transport::{Connection, ConnectionConfig, Handler, Limits, Responder, Session, serve};
use tokio::net::TcpListener;

pub const QUEUES: u32 = 4;
const HALF: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
const NOW: Timestamp = Timestamp(1_700_000_000_000);

#[derive(Default)]
struct State {
    /// Records by topic and queue.
    queues: BTreeMap<(String, u32), Vec<Bytes>>,
    log: Vec<Bytes>,
    offsets: HashMap<(String, String, u32), i64>,
    members: BTreeMap<String, BTreeMap<String, Session>>,
    locks: HashMap<(String, String, u32), String>,
    waiting: Vec<(PullMessage, Responder)>,
    /// Sends to be refused before one is taken.
    refusals: usize,
}

pub struct Broker {
    address: String,
    state: Mutex<State>,
    names: Mutex<Option<Connection<Nobody>>>,
}

pub struct Nobody;

impl Handler for Nobody {
    fn request(&self, _: &Session, _: Frame, responder: Responder) {
        drop(responder);
    }
}

/// Starts a name server and a broker; returns the name server's address.
pub async fn start() -> (String, Arc<Broker>) {
    let names = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let names_at = names.local_addr().unwrap().to_string();
    let run = sluice_namesrv::run(names, sluice_namesrv::Config::default(), std::future::pending());
    tokio::spawn(async { run.await.unwrap() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let broker = Arc::new(Broker { address, state: Mutex::default(), names: Mutex::default() });
    tokio::spawn(serve(listener, broker.clone(), Limits::default(), std::future::pending()));
    let connection = Connection::new(names_at.clone(), Arc::new(Nobody), ConnectionConfig::default());
    *broker.names.lock() = Some(connection.clone());
    connection.invoke(broker.registration(&["TBW102", "SELF"]).encode(), Duration::from_secs(5)).await.unwrap();
    (names_at, broker)
}

impl Broker {
    pub fn refuse_sends(&self, count: usize) {
        self.state.lock().refusals = count;
    }

    /// Asks the producer about a half message over `session`, as the broker does when no decision came.
    pub fn ask_about(&self, at: usize) {
        let state = self.state.lock();
        let record = state.queues[&(HALF.to_owned(), 0)][at].clone();
        let view = RecordView::parse(&record).unwrap();
        let (half_offset, log_offset) = (view.queue_offset(), view.log_offset());
        let ask = CheckTransaction {
            topic: None,
            half_offset,
            log_offset,
            message_id: None,
            transaction_id: None,
            stored_id: None,
            broker: Some("b".into()),
            body: record,
        };
        for members in state.members.values() {
            members.values().for_each(|session| session.send_oneway(ask.encode()).unwrap());
        }
    }

    fn registration(&self, topics: &[&str]) -> RegisterBroker {
        let mut body = RegisterBrokerBody::default();
        body.topics.data_version.counter = topics.len() as i64;
        body.topics.topics = topics.iter().map(|t| ((*t).to_owned(), TopicConfigBody::new(t, QUEUES))).collect();
        RegisterBroker {
            cluster: "c".into(),
            broker: "b".into(),
            address: self.address.clone(),
            broker_id: 0,
            ha_address: String::new(),
            heartbeat_timeout_ms: None,
            acting_master: false,
            zone: None,
            body,
        }
    }

    fn create(&self, state: &mut State, topic: &str) {
        if (0..QUEUES).all(|queue| state.queues.contains_key(&(topic.to_owned(), queue))) {
            return;
        }
        for queue in 0..QUEUES {
            state.queues.entry((topic.to_owned(), queue)).or_default();
        }
        let mut topics: Vec<_> = state.queues.keys().map(|(topic, _)| topic.as_str()).collect();
        topics.dedup();
        let request = self.registration(&topics).encode();
        let names = self.names.lock().clone().unwrap();
        tokio::spawn(async move { names.invoke(request, Duration::from_secs(5)).await });
    }

    fn store(&self, state: &mut State, message: &Message) -> MessageId {
        self.create(state, message.topic.as_str());
        let log_offset = LogOffset(state.log.len() as u64);
        let store_host = Host(self.address.parse().unwrap());
        let queue = state.queues.get_mut(&(message.topic.as_str().to_owned(), message.queue.0)).unwrap();
        let queue_offset = QueueOffset(queue.len() as u64);
        let unit = record::UnitPlace::ALONE;
        let place = record::Placement { queue_offset, log_offset, stored_at: NOW, store_host, unit };
        let mut bytes = Vec::new();
        record::encode(&mut bytes, message, &place);
        let bytes = Bytes::from(bytes);
        queue.push(bytes.clone());
        state.log.push(bytes);
        for (pull, responder) in std::mem::take(&mut state.waiting) {
            match found(state, &pull) {
                Some(answer) => responder.send(answer),
                None => state.waiting.push((pull, responder)),
            }
        }
        MessageId { broker: store_host, log_offset }
    }

    fn send(&self, request: SendMessage) -> Response {
        let mut state = self.state.lock();
        if state.refusals > 0 {
            state.refusals -= 1;
            return Response::error(ResponseCode::SystemBusy, "refused as told");
        }
        let half = request.sys_flag.transaction() == Transaction::Prepared;
        let topic = if half { TopicName::parse(HALF).unwrap() } else { request.topic.clone() };
        let queue = QueueId(if half { 0 } else { request.queue.unsigned_abs() % QUEUES });
        let items = if request.batch {
            batch::decode(request.body).unwrap()
        } else {
            vec![batch::Item { flag: request.flag, properties: request.properties, body: request.body }]
        };
        let mut ids = Vec::new();
        let mut first = None;
        for item in items {
            let mut properties = item.properties;
            if half {
                properties = properties.with(key::REAL_TOPIC, request.topic.as_str()).unwrap();
            }
            let mut message = Message::new(topic.clone(), queue, NOW, properties, item.body);
            message.sys_flag = SysFlag(request.sys_flag.0 & 1);
            ids.push(self.store(&mut state, &message).to_string());
            let len = state.queues[&(topic.as_str().to_owned(), queue.0)].len() as u64;
            first.get_or_insert(QueueOffset(len - 1));
        }
        let reply = SendReply {
            message_id: ids.join(","),
            queue,
            offset: first.unwrap(),
            transaction_id: None,
            region: None,
            trace: None,
            recall_handle: None,
        };
        Response::ok().with_ext(reply.encode())
    }

    fn end(&self, end: &EndTransaction) {
        let mut state = self.state.lock();
        let half = state.queues[&(HALF.to_owned(), 0)][end.half_offset.0 as usize].clone();
        let view = RecordView::parse(&half).unwrap();
        assert_eq!(view.log_offset(), end.log_offset);
        assert_eq!(view.property(key::PRODUCER_GROUP), Some(end.group.as_str()));
        if end.decision == 8 {
            let mut message = view.to_message().unwrap();
            message.topic = TopicName::parse(view.property(key::REAL_TOPIC).unwrap()).unwrap();
            self.store(&mut state, &message);
        }
    }

    fn send_back(&self, offset: LogOffset, group: &sluice_model::GroupName, most: i32, level: i32) {
        let mut state = self.state.lock();
        let record = state.log[offset.0 as usize].clone();
        let view = RecordView::parse(&record).unwrap();
        let mut message = view.to_message().unwrap();
        let dead = level < 0 || message.reconsume_times >= most;
        let origin = view.property(key::RETRY_TOPIC).unwrap_or(view.topic());
        message.properties = Properties::with(&message.properties, key::RETRY_TOPIC, origin).unwrap();
        message.topic = if dead { TopicName::dead_letter_of(group) } else { TopicName::retry_of(group) };
        message.queue = QueueId(0);
        message.reconsume_times += 1;
        self.store(&mut state, &message);
    }

    fn answer(&self, session: &Session, request: Request) -> Response {
        let offset = |offset: i64| Response::ok().with_ext(OffsetReply { offset }.encode());
        let mut state = self.state.lock();
        match request {
            Request::Heartbeat(beat) => {
                for consumer in &beat.body.consumers {
                    let members = state.members.entry(consumer.group_name.clone()).or_default();
                    let new = members.insert(beat.body.client_id.clone(), session.clone()).is_none();
                    let group = sluice_model::GroupName::parse(&consumer.group_name).unwrap();
                    if new {
                        let changed = ConsumersChanged { group: group.clone() }.encode();
                        members.values().for_each(|member| drop(member.send_oneway(changed.clone())));
                    }
                    self.create(&mut state, TopicName::retry_of(&group).as_str());
                }
                for producer in &beat.body.producers {
                    let members = state.members.entry(format!("producer {}", producer.group_name)).or_default();
                    members.insert(beat.body.client_id.clone(), session.clone());
                }
                Response::ok()
            }
            Request::UnregisterClient(gone) => {
                let group = gone.consumer_group.unwrap();
                let members = state.members.get_mut(group.as_str()).unwrap();
                members.remove(&gone.client_id);
                let changed = ConsumersChanged { group }.encode();
                members.values().for_each(|member| drop(member.send_oneway(changed.clone())));
                Response::ok()
            }
            Request::ConsumerList(list) => match state.members.get(list.group.as_str()) {
                Some(members) => {
                    let consumers = members.keys().cloned().collect();
                    Response::ok().with_body(ConsumerListBody { consumers }.to_json())
                }
                None => Response::error(ResponseCode::SystemError, "nobody"),
            },
            Request::QueryConsumerOffset(query) => {
                let key = (query.group.to_string(), query.topic.to_string(), query.queue.0);
                match state.offsets.get(&key) {
                    Some(at) => offset(*at),
                    None => Response::error(ResponseCode::QueryNotFound, "none"),
                }
            }
            Request::UpdateConsumerOffset(update) => {
                let key = (update.group.to_string(), update.topic.to_string(), update.queue.0);
                state.offsets.insert(key, update.offset.0 as i64);
                Response::ok()
            }
            Request::MinOffset(_) => offset(0),
            Request::MaxOffset(max) => {
                offset(state.queues.get(&(max.topic.to_string(), max.queue.0)).map_or(0, Vec::len) as i64)
            }
            Request::LockQueues(lock) => {
                let group = lock.body.consumer_group;
                let mut locked = Vec::new();
                for queue in lock.body.mq_set {
                    let key = (group.clone(), queue.topic.clone(), queue.queue_id);
                    let owner = state.locks.entry(key).or_insert_with(|| lock.body.client_id.clone());
                    if *owner == lock.body.client_id {
                        locked.push(queue);
                    }
                }
                Response::ok().with_body(LockedBody { locked }.to_json())
            }
            Request::UnlockQueues(lock) => {
                state.locks.retain(|_, owner| *owner != lock.body.client_id);
                Response::ok()
            }
            Request::CreateTopic(create) => {
                self.create(&mut state, create.topic.as_str());
                Response::ok()
            }
            Request::ViewMessage(view) => Response::ok().with_body(state.log[view.offset.0 as usize].clone()),
            Request::QueryMessage(query) => {
                let matches = |record: &&Bytes| {
                    let view = RecordView::parse(record).unwrap();
                    view.topic() == query.topic.as_str() && view.property(key::KEYS) == Some(&query.key)
                };
                let reply = QueryReply { indexed_until: NOW, indexed_offset: 0 };
                let body: sluice_protocol::Body = state.log.iter().filter(matches).cloned().collect();
                Response::ok().with_ext(reply.encode()).with_body(body.parts().concat())
            }
            other => panic!("{other:?}"),
        }
    }
}

fn found(state: &State, pull: &PullMessage) -> Option<Response> {
    let empty = Vec::new();
    let queue = state.queues.get(&(pull.topic.to_string(), pull.queue.0)).unwrap_or(&empty);
    let from = pull.offset as usize;
    let records = queue.get(from..).unwrap_or_default().iter().take(pull.max_messages as usize);
    let tags: Vec<_> =
        pull.subscription.as_deref().unwrap_or("*").split("||").map(|tag| TagCode::of(Some(tag.trim()))).collect();
    let all = tags == [TagCode::of(Some("*"))];
    let next = from + records.len();
    let wanted = |record: &&Bytes| all || tags.contains(&RecordView::parse(record).unwrap().tag_code());
    let body: sluice_protocol::Body = records.filter(wanted).cloned().collect();
    if next == from {
        return None;
    }
    let reply = PullReply {
        suggested_broker: 0,
        next_offset: next as i64,
        min_offset: 0,
        max_offset: queue.len() as i64,
        topic_sys_flag: None,
        group_sys_flag: None,
    };
    let code = if body.is_empty() { ResponseCode::PullRetryImmediately } else { ResponseCode::Success };
    Some(Response { code, ..Response::ok().with_ext(reply.encode()).with_body_parts(body) })
}

trait WithParts {
    fn with_body_parts(self, body: sluice_protocol::Body) -> Self;
}

impl WithParts for Response {
    fn with_body_parts(mut self, body: sluice_protocol::Body) -> Self {
        self.body = body;
        self
    }
}

impl Handler for Broker {
    fn request(&self, session: &Session, frame: Frame, mut responder: Responder) {
        match Request::decode(&frame).unwrap() {
            Request::SendMessage(request) => responder.send(self.send(*request)),
            Request::EndTransaction(end) => {
                self.end(&end);
                responder.send(Response::ok());
            }
            Request::SendBack(back) => {
                self.send_back(back.offset, &back.group, back.max_reconsume_times.unwrap_or(16), back.delay_level);
                responder.send(Response::ok());
            }
            Request::PullMessage(pull) => {
                let mut state = self.state.lock();
                match found(&state, &pull) {
                    Some(answer) => responder.send(answer),
                    None if pull.suspend_ms.is_some() => {
                        responder.park();
                        state.waiting.push((*pull, responder));
                    }
                    None => {
                        let reply = PullReply {
                            suggested_broker: 0,
                            next_offset: pull.offset,
                            min_offset: 0,
                            max_offset: pull.offset,
                            topic_sys_flag: None,
                            group_sys_flag: None,
                        };
                        let nothing = Response::error(ResponseCode::PullNotFound, "nothing");
                        responder.send(nothing.with_ext(reply.encode()));
                    }
                }
            }
            request => responder.send(self.answer(session, request)),
        }
    }

    fn closed(&self, session: &Session) {
        for members in self.state.lock().members.values_mut() {
            members.retain(|_, member| member.id() != session.id());
        }
    }
}

//! The name server over a real connection.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

use std::{path::Path, sync::Arc, time::Duration};

use sluice_model::TopicName;
use sluice_namesrv::{Config, run};
use sluice_protocol::{Ext, Frame, Response, ResponseCode, body::*, reply::*, request::*};
use sluice_transport::{Connection, ConnectionConfig, Handler, Responder, Session};
use tokio::net::TcpListener;

const SOON: Duration = Duration::from_secs(10);

struct Nobody;

impl Handler for Nobody {
    fn request(&self, _: &Session, _: Frame, responder: Responder) {
        responder.send(Response::ok());
    }
}

async fn start(config: Config) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { run(listener, config, std::future::pending()).await.unwrap() });
    address
}

fn connect(address: &str) -> Connection<Nobody> {
    Connection::new(address, Arc::new(Nobody), ConnectionConfig::default())
}

async fn ask(connection: &Connection<Nobody>, request: Frame) -> (ResponseCode, Frame) {
    let answer = connection.invoke(request, SOON).await.unwrap();
    (answer.header.code.into(), answer)
}

async fn told(connection: &Connection<Nobody>, request: Frame) -> Frame {
    let (code, answer) = ask(connection, request).await;
    assert_eq!(code, ResponseCode::Success, "{:?}", answer.header.remark);
    answer
}

fn registration(id: u64) -> RegisterBroker {
    let mut body = RegisterBrokerBody::default();
    body.topics.data_version.counter = 7;
    body.topics.topics =
        ["orders", "bills"].map(|topic| (topic.to_owned(), TopicConfigBody::new(topic, 4))).into_iter().collect();
    RegisterBroker {
        cluster: "c".into(),
        broker: "broker-a".into(),
        address: format!("127.0.0.1:{}", 10911 + id),
        broker_id: id,
        ha_address: "127.0.0.1:10912".into(),
        heartbeat_timeout_ms: None,
        acting_master: false,
        zone: None,
        body,
    }
}

fn route(topic: &str) -> Frame {
    Route { topic: TopicName::parse(topic).unwrap() }.encode()
}

#[tokio::test]
async fn a_broker_registers_and_a_client_finds_it_until_its_connection_is_gone() {
    let address = start(Config::default()).await;
    let (broker, client) = (connect(&address), connect(&address));
    assert_eq!(ask(&client, route("orders")).await.0, ResponseCode::TopicNotExist);
    told(&broker, registration(0).encode_compressed()).await;
    let answer = told(&client, route("orders")).await;
    let text = std::str::from_utf8(&answer.body).unwrap();
    assert!(text.contains(r#""brokerAddrs":{"0":"127.0.0.1:10911"}"#) && !text.contains(' '), "{text}");
    let cluster = ClusterBody::from_json(&told(&client, Cluster {}.encode()).await.body).unwrap();
    assert!(cluster.clusters["c"].contains("broker-a"));
    let replica = told(&client, registration(1).encode()).await;
    let reply = RegisterReply::decode(&replica.header.ext).unwrap();
    assert_eq!(reply.master_address.as_deref(), Some("127.0.0.1:10911"));
    let group = MemberGroup { cluster: "c".into(), broker: "broker-a".into() }.encode();
    let group = MemberGroupBody::from_json(&told(&client, group).await.body).unwrap();
    assert_eq!(group.members.broker_addrs.len(), 2);
    broker.close();
    let gone = async {
        while RouteBody::from_json(&told(&client, route("orders")).await.body).unwrap().brokers[0].master().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, gone).await.unwrap();
}

#[tokio::test]
async fn a_broker_that_falls_silent_expires() {
    let address = start(Config { broker_timeout: Duration::from_millis(60), ..Config::default() }).await;
    let client = connect(&address);
    told(&client, registration(0).encode()).await;
    let gone = async { while ask(&client, route("orders")).await.0 == ResponseCode::Success {} };
    tokio::time::timeout(SOON, gone).await.unwrap();
}

#[tokio::test]
async fn versions_tell_a_broker_whether_to_register_again() {
    let client = connect(&start(Config::default()).await);
    let query = |counter| {
        let version = VersionBody { counter, ..VersionBody::default() };
        let (cluster, broker, address) = ("c".into(), "broker-a".into(), "127.0.0.1:10911".into());
        QueryDataVersion { cluster, broker, address, broker_id: 0, version }.encode()
    };
    let changed = |frame: Frame| DataVersionReply::decode(&frame.header.ext).unwrap().changed;
    assert!(changed(told(&client, query(7)).await));
    told(&client, registration(0).encode()).await;
    assert!(!changed(told(&client, query(7)).await));
    assert!(changed(told(&client, query(8)).await));
}

#[tokio::test]
async fn topics_are_listed_deleted_and_barred_from_writes() {
    let client = connect(&start(Config::default()).await);
    told(&client, registration(0).encode()).await;
    let list = async |request: Frame| TopicListBody::from_json(&told(&client, request).await.body).unwrap();
    assert_eq!(list(AllTopics {}.encode()).await.topics.len(), 2);
    assert_eq!(list(TopicsOfCluster { cluster: "other".into() }.encode()).await.topics.len(), 0);
    let names = list(SystemTopicsOfNames {}.encode()).await;
    assert_eq!(names.topics.into_iter().collect::<Vec<_>>(), ["broker-a", "c"]);
    let wiped = told(&client, WipeWrite { broker: "broker-a".into() }.encode()).await;
    assert_eq!(WipeWriteReply::decode(&wiped.header.ext).unwrap().count, 2);
    let orders = RouteBody::from_json(&told(&client, route("orders")).await.body).unwrap();
    assert_eq!(orders.queues[0].perm, 4);
    told(&client, AddWrite { broker: "broker-a".into() }.encode()).await;
    told(&client, DeleteTopicRoute { topic: TopicName::parse("orders").unwrap(), cluster: None }.encode()).await;
    assert_eq!(ask(&client, route("orders")).await.0, ResponseCode::TopicNotExist);
}

#[tokio::test]
async fn values_are_kept_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = |dir: &Path| Config { data_dir: Some(dir.to_owned()), ..Config::default() };
    let client = connect(&start(config(dir.path())).await);
    let (namespace, key) = ("ORDER_TOPIC_CONFIG".to_owned(), "orders".to_owned());
    let put = PutKv { namespace: namespace.clone(), key: key.clone(), value: "broker-a:4".into() };
    told(&client, put.encode()).await;
    let client = connect(&start(config(dir.path())).await);
    let get = GetKv { namespace: namespace.clone(), key: key.clone() }.encode();
    let got = told(&client, get.clone()).await;
    assert_eq!(KvReply::decode(&got.header.ext).unwrap().value.as_deref(), Some("broker-a:4"));
    told(&client, registration(0).encode()).await;
    let orders = RouteBody::from_json(&told(&client, route("orders")).await.body).unwrap();
    assert_eq!(orders.order_topic_conf.as_deref(), Some("broker-a:4"));
    told(&client, DeleteKv { namespace: namespace.clone(), key }.encode()).await;
    assert_eq!(ask(&client, get).await.0, ResponseCode::QueryNotFound);
    assert_eq!(ask(&client, KvList { namespace }.encode()).await.0, ResponseCode::QueryNotFound);
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let client = connect(&start(Config::default()).await);
    let refused = async |request: Frame| {
        let (code, answer) = ask(&client, request).await;
        (code, answer.header.remark.unwrap())
    };
    let (code, remark) = refused(Frame::request(105, Ext::new(), "")).await;
    assert_eq!(code, ResponseCode::InvalidParameter);
    assert!(remark.starts_with("topic: expected"), "{remark}");
    let (code, remark) = refused(Frame::request(4711, Ext::new(), "")).await;
    assert_eq!(code, ResponseCode::RequestCodeNotSupported);
    assert!(remark.contains("4711"), "{remark}");
    assert_eq!(refused(BrokerRuntime {}.encode()).await.0, ResponseCode::RequestCodeNotSupported);
    let mut damaged = registration(0).encode();
    damaged.body = "{}".into();
    assert_eq!(refused(damaged).await.0, ResponseCode::SystemError);
    let config = |text: &str| UpdateNamesConfig { body: text.to_owned() }.encode();
    assert_eq!(refused(config("kvConfigPath=/")).await.0, ResponseCode::NoPermission);
    assert_eq!(refused(config("nonsense")).await.0, ResponseCode::InvalidParameter);
    assert_eq!(refused(config("enableTopicList=maybe")).await.0, ResponseCode::InvalidParameter);
    told(&client, config("enableAllTopicList=false")).await;
    assert_eq!(refused(AllTopics {}.encode()).await.0, ResponseCode::SystemError);
    let text = told(&client, NamesConfig {}.encode()).await.body;
    assert!(std::str::from_utf8(&text).unwrap().contains("enableAllTopicList=false"));
}

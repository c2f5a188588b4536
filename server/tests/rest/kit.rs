//! A server on a temporary directory, and the smallest HTTP client.

use std::{path::Path, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use sluice_protocol::Frame;
use sluice_server::{Config, Rates, Server};
use sluice_transport::{Connection, ConnectionConfig, Handler, Responder, Session};
use tokio::net::TcpListener;

/// What a RocketMQ client without callbacks makes of the broker's requests.
pub struct Nobody;

impl Handler for Nobody {
    fn request(&self, _: &Session, _: Frame, _: Responder) {}
}

pub struct World {
    pub server: Option<Server>,
    /// Where RocketMQ's clients would connect.
    pub remoting: String,
    base: String,
    client: Client<HttpConnector, Full<bytes::Bytes>>,
    pub dir: tempfile::TempDir,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: axum::http::HeaderMap,
    pub text: String,
}

impl Reply {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {:?}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// The answer, which must have this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// The problem, which must have this status, type and field.
    #[track_caller]
    pub fn problem(self, status: u16, kind: &str, field: Option<&str>) -> Value {
        let reply = self.expect(status);
        assert_eq!(reply.header("content-type"), "application/problem+json");
        let problem = reply.json();
        assert_eq!(problem["type"], format!("/problems/{kind}"), "{problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["field"].as_str(), field, "{problem}");
        for told in ["title", "detail", "hint"] {
            assert!(problem[told].as_str().is_some_and(|text| !text.is_empty()), "{told}: {problem}");
        }
        problem
    }
}

/// Another version of a ready-made plugin: the same code, which says that it is 2.0.0.
pub fn later(component: &[u8]) -> Vec<u8> {
    let mut later = component.to_vec();
    let places = component.windows(5).enumerate().filter(|(_, five)| five == b"1.0.0");
    places.for_each(|(at, _)| later[at] = b'2');
    later
}

pub fn config(data: &Path) -> Config {
    Config {
        data: data.to_owned(),
        broker: sluice_broker::Config::default(),
        store: sluice_broker::StoreConfig { segment_len: 64 << 20, allocate_step: 1 << 20, ..Default::default() },
        retention: sluice_broker::Retention::default(),
        remoting: sluice_transport::Limits::default(),
        rates: Rates::default(),
        secrets: data.join("secrets"),
        runtime: sluice_runtime::Config { instances: 32, ..Default::default() },
        name_servers: Vec::new(),
    }
}

impl World {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (server, remoting, base) = start(dir.path()).await;
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { server: Some(server), remoting, base, client, dir }
    }

    /// Stops the server and starts it again on the same files.
    pub async fn restart(&mut self) {
        self.server.take().unwrap().stop().await;
        let (server, remoting, base) = start(self.dir.path()).await;
        (self.server, self.remoting, self.base) = (Some(server), remoting, base);
    }

    /// A connection as RocketMQ's clients have one.
    pub fn connect(&self) -> Connection<Nobody> {
        Connection::new(&self.remoting, Arc::new(Nobody), ConnectionConfig::default())
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<bytes::Bytes>,
    ) -> Reply {
        let path = if path.starts_with("//") { path[1..].to_owned() } else { format!("/api/v1{path}") };
        let mut request = axum::http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let response = self.client.request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Reply { status: parts.status.as_u16(), headers: parts.headers, text }
    }

    /// A path that begins with `//` is not below `/api/v1`.
    pub async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], "").await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send("DELETE", path, &[], "").await
    }

    pub async fn put(&self, path: &str, body: impl std::fmt::Display) -> Reply {
        self.send("PUT", path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub async fn post(&self, path: &str, body: impl std::fmt::Display) -> Reply {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string()).await
    }

    /// What `path` answers as soon as it is as wanted.
    pub async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..1_000 {
            let answer = self.get(path).await.expect(200).json();
            if wanted(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not in time: {}", self.get(path).await.text);
    }

    /// An answer whose body stays open.
    pub async fn send_open(&self, path: &str) -> axum::http::Response<hyper::body::Incoming> {
        let request = axum::http::Request::get(format!("{}/api/v1{path}", self.base));
        self.client.request(request.body(Full::default()).unwrap()).await.unwrap()
    }

    /// The first bytes of a stream, until `enough` says so.
    pub async fn stream(&self, path: &str, enough: impl Fn(&str) -> bool) -> String {
        let request = axum::http::Request::get(format!("{}/api/v1{path}", self.base));
        let response = self.client.request(request.body(Full::default()).unwrap()).await.unwrap();
        let (mut body, mut text) = (response.into_body(), String::new());
        let read = async {
            while !enough(&text) {
                let frame = body.frame().await.unwrap().unwrap();
                text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
            }
        };
        tokio::time::timeout(Duration::from_secs(10), read).await.expect("the stream says enough in time");
        text
    }
}

async fn start(data: &Path) -> (Server, String, String) {
    let (remoting, rest) = (listener().await, listener().await);
    let base = format!("http://{}", rest.local_addr().unwrap());
    let address = remoting.local_addr().unwrap().to_string();
    (Server::start(config(data), remoting, rest).await.unwrap(), address, base)
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

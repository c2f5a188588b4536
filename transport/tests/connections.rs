//! Connections between a server and clients of this crate, and against raw sockets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use sluice_protocol::{Ext, Frame, Response, ResponseCode, decode};
use sluice_transport::{Connection, ConnectionConfig, Error, Handler, Limits, Responder, Session, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc, oneshot},
    task::JoinHandle,
};

const SOON: Duration = Duration::from_secs(10);

/// What the server does, by code.
const ECHO: i32 = 1;
const DROP: i32 = 2;
const HOLD: i32 = 3;
const FROM_THREAD: i32 = 4;
const ASK_BACK: i32 = 5;
const LARGE: i32 = 6;
const PARK: i32 = 7;
const HERE: i32 = 8;

struct Server {
    held: mpsc::UnboundedSender<Responder>,
    opened: AtomicUsize,
    closed: AtomicUsize,
    large: AtomicUsize,
    changed: Notify,
    sessions: Mutex<Vec<Session>>,
}

impl Handler for Server {
    fn request(&self, session: &Session, frame: Frame, mut responder: Responder) {
        match frame.header.code {
            ECHO => responder.send(Response::ok().with_body(frame.body)),
            DROP => drop(responder),
            HOLD => self.held.send(responder).unwrap(),
            PARK => {
                responder.park();
                self.held.send(responder).unwrap();
            }
            HERE => responder.send_here(Response::ok().with_body(frame.body)),
            FROM_THREAD => {
                std::thread::spawn(move || responder.send(Response::ok().with_body(frame.body)));
            }
            ASK_BACK => {
                let answer = session.invoke(Frame::request(ECHO, Ext::new(), frame.body), SOON);
                tokio::spawn(async move { responder.send(Response::ok().with_body(answer.await.unwrap().body)) });
            }
            LARGE => {
                self.large.fetch_add(1, Ordering::SeqCst);
                responder.send(Response::ok().with_body(vec![7; 1 << 20]));
            }
            other => panic!("{other}"),
        }
    }

    fn opened(&self, session: &Session) {
        self.sessions.lock().push(session.clone());
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_one();
    }

    fn closed(&self, _: &Session) {
        self.closed.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_one();
    }
}

struct Echo;

impl Handler for Echo {
    fn request(&self, _: &Session, frame: Frame, responder: Responder) {
        responder.send(Response::ok().with_body(frame.body));
    }
}

struct Running {
    address: SocketAddr,
    server: Arc<Server>,
    held: mpsc::UnboundedReceiver<Responder>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

async fn start(limits: Limits) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    start_on(listener, limits)
}

fn start_on(listener: TcpListener, limits: Limits) -> Running {
    let address = listener.local_addr().unwrap();
    let (to_held, held) = mpsc::unbounded_channel();
    let server = Arc::new(Server {
        held: to_held,
        opened: AtomicUsize::new(0),
        closed: AtomicUsize::new(0),
        large: AtomicUsize::new(0),
        changed: Notify::new(),
        sessions: Mutex::default(),
    });
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(serve(listener, server.clone(), limits, async move { drop(stopped.await) }));
    Running { address, server, held, stop: Some(stop), task }
}

impl Running {
    fn client(&self) -> Connection<Echo> {
        Connection::new(self.address.to_string(), Arc::new(Echo), ConnectionConfig::default())
    }

    async fn until(&self, done: impl Fn(&Server) -> bool) {
        let wait = async {
            while !done(&self.server) {
                self.server.changed.notified().await;
            }
        };
        tokio::time::timeout(SOON, wait).await.unwrap();
    }
}

fn request(code: i32, body: impl Into<Bytes>) -> Frame {
    Frame::request(code, Ext::new(), body)
}

async fn read_frame(stream: &mut TcpStream, buffer: &mut BytesMut) -> Option<Frame> {
    loop {
        if let Some(frame) = decode(buffer, 1 << 24).unwrap() {
            return Some(frame);
        }
        let got = tokio::time::timeout(SOON, stream.read_buf(buffer)).await.unwrap();
        if got.is_err() || got.is_ok_and(|got| got == 0) {
            return None;
        }
    }
}

fn encoded(frames: impl IntoIterator<Item = Frame>) -> BytesMut {
    let mut out = BytesMut::new();
    frames.into_iter().for_each(|frame| frame.encode(&mut out));
    out
}

fn numbered(code: i32, opaque: i32) -> Frame {
    let mut frame = request(code, "x");
    frame.header.opaque = opaque;
    frame
}

#[tokio::test]
async fn many_requests_at_once_each_find_their_answer() {
    let running = start(Limits::default()).await;
    let client = running.client();
    let calls: Vec<_> = (0..500usize)
        .map(|at| {
            let client = client.clone();
            let code = if at % 5 == 0 { FROM_THREAD } else { ECHO };
            let body = vec![at as u8; at * 37];
            tokio::spawn(async move { (client.invoke(request(code, body.clone()), SOON).await.unwrap().body, body) })
        })
        .collect();
    for call in calls {
        let (got, sent) = call.await.unwrap();
        assert_eq!(got, sent);
    }
    assert_eq!(running.server.opened.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_server_can_ask_the_client() {
    let running = start(Limits::default()).await;
    let answer = running.client().invoke(request(ASK_BACK, "there and back"), SOON).await.unwrap();
    assert_eq!(answer.body, "there and back");
}

#[tokio::test]
async fn a_request_without_an_answer_is_told_and_one_that_wants_none_hears_nothing() {
    let running = start(Limits::default()).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let oneway = [ECHO, DROP].map(|code| numbered(code, 1).oneway());
    let frames = oneway.into_iter().chain([numbered(DROP, 2), numbered(ECHO, 3)]);
    stream.write_all(&encoded(frames)).await.unwrap();
    let mut buffer = BytesMut::new();
    let dropped = read_frame(&mut stream, &mut buffer).await.unwrap();
    assert_eq!((dropped.header.opaque, dropped.header.code), (2, ResponseCode::SystemError.into()));
    assert_eq!(read_frame(&mut stream, &mut buffer).await.unwrap().header.opaque, 3);
}

#[tokio::test]
async fn a_bad_header_is_answered_and_a_bad_length_ends_the_connection() {
    let running = start(Limits::default()).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let header = br#"{"opaque":9,"code":"ten"}"#;
    let mut bytes = BytesMut::new();
    bytes.extend_from_slice(&(4 + header.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&(header.len() as u32).to_be_bytes());
    bytes.extend_from_slice(header);
    bytes.unsplit(encoded([numbered(ECHO, 10)]));
    stream.write_all(&bytes).await.unwrap();
    let mut buffer = BytesMut::new();
    let refused = read_frame(&mut stream, &mut buffer).await.unwrap();
    assert_eq!((refused.header.opaque, refused.header.code), (9, ResponseCode::SystemError.into()));
    assert!(refused.header.remark.unwrap().contains("code"));
    assert_eq!(read_frame(&mut stream, &mut buffer).await.unwrap().header.opaque, 10);
    stream.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    assert!(read_frame(&mut stream, &mut buffer).await.is_none());
    running.until(|server| server.closed.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn no_more_requests_are_read_than_may_be_in_work_and_parked_ones_do_not_count() {
    let mut running = start(Limits { in_flight: 2, ..Limits::default() }).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let codes = [PARK, PARK, HOLD, HOLD, HOLD];
    stream.write_all(&encoded(codes.into_iter().zip(0..).map(|(code, at)| numbered(code, at)))).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(tokio::time::timeout(SOON, running.held.recv()).await.unwrap().unwrap());
    }
    let fifth = tokio::time::timeout(Duration::from_millis(100), running.held.recv()).await;
    assert!(fifth.is_err(), "a third request came in");
    held.pop().unwrap().send(Response::ok());
    let fifth = tokio::time::timeout(SOON, running.held.recv()).await.unwrap().unwrap();
    assert_eq!(fifth.opaque(), 4);
    held.into_iter().for_each(|responder| responder.send(Response::ok()));
    fifth.send(Response::ok());
    let mut buffer = BytesMut::new();
    let mut answered = Vec::new();
    for _ in codes {
        answered.push(read_frame(&mut stream, &mut buffer).await.unwrap().header.opaque);
    }
    answered.sort_unstable();
    assert_eq!(answered, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn who_does_not_read_is_not_served_for_ever() {
    let idle = Duration::from_millis(200);
    let limits = Limits { outgoing_bytes: 1 << 20, idle, ..Limits::default() };
    let running = start(limits).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    // 200 MiB of answers are asked for and none is read.
    stream.write_all(&encoded((0..200).map(|at| numbered(LARGE, at)))).await.unwrap();
    running.until(|server| server.closed.load(Ordering::SeqCst) == 1).await;
    assert!(running.server.large.load(Ordering::SeqCst) < 100, "all of it was made ready to be sent");
}

#[tokio::test]
async fn who_reads_slowly_gets_everything() {
    let running = start(Limits { outgoing_bytes: 1 << 20, ..Limits::default() }).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(&encoded((0..40).map(|at| numbered(LARGE, at)))).await.unwrap();
    let mut buffer = BytesMut::new();
    for at in 0..40 {
        let answer = read_frame(&mut stream, &mut buffer).await.unwrap();
        assert_eq!((answer.header.opaque, answer.body.len()), (at, 1 << 20));
    }
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let running = start(Limits { idle: Duration::from_millis(50), ..Limits::default() }).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    assert!(read_frame(&mut stream, &mut BytesMut::new()).await.is_none());
    running.until(|server| server.closed.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn a_session_closed_by_the_server_is_gone_and_the_client_connects_again() {
    let running = start(Limits::default()).await;
    let client = running.client();
    client.invoke(request(ECHO, ""), SOON).await.unwrap();
    let session = running.server.sessions.lock()[0].clone();
    session.close();
    running.until(|server| server.closed.load(Ordering::SeqCst) == 1).await;
    assert!(matches!(session.send_oneway(request(ECHO, "")), Err(Error::Closed { .. })));
    assert!(matches!(session.invoke(request(ECHO, ""), SOON).await, Err(Error::Closed { .. })));
    // The client may learn of it only by its next request.
    if client.invoke(request(ECHO, ""), SOON).await.is_err() {
        client.invoke(request(ECHO, ""), SOON).await.unwrap();
    }
    assert_eq!(running.server.opened.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn stopping_lets_requests_in_work_end() {
    let mut running = start(Limits::default()).await;
    let client = running.client();
    let call = tokio::spawn(async move { client.invoke(request(HOLD, ""), SOON).await });
    let held = running.held.recv().await.unwrap();
    running.stop.take();
    while TcpStream::connect(running.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    held.send(Response::ok().with_body("done"));
    assert_eq!(call.await.unwrap().unwrap().body, "done");
    tokio::time::timeout(SOON, running.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn stopping_does_not_wait_for_ever() {
    let mut running = start(Limits { drain: Duration::from_millis(50), ..Limits::default() }).await;
    let client = running.client();
    let call = tokio::spawn(async move { client.invoke(request(HOLD, ""), SOON).await });
    let _held = running.held.recv().await.unwrap();
    running.stop.take();
    tokio::time::timeout(SOON, running.task).await.unwrap().unwrap();
    assert!(matches!(call.await.unwrap(), Err(Error::Closed { .. })));
}

#[tokio::test]
async fn more_connections_than_allowed_are_closed() {
    let running = start(Limits { connections: 1, ..Limits::default() }).await;
    let first = running.client();
    first.invoke(request(ECHO, ""), SOON).await.unwrap();
    let mut second = TcpStream::connect(running.address).await.unwrap();
    assert!(read_frame(&mut second, &mut BytesMut::new()).await.is_none());
    first.invoke(request(ECHO, ""), SOON).await.unwrap();
}

#[tokio::test]
async fn what_is_not_answered_times_out_and_what_cannot_be_reached_says_so() {
    let running = start(Limits::default()).await;
    let client = running.client();
    let late = client.invoke(request(HOLD, ""), Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(late, Error::Timeout { .. }), "{late}");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = Connection::new(nobody.to_string(), Arc::new(Echo), ConnectionConfig::default());
    for _ in 0..3 {
        let refused = client.invoke(request(ECHO, ""), SOON).await.unwrap_err();
        assert!(matches!(refused, Error::Connect { .. }), "{refused}");
    }
    let server = start_on(TcpListener::bind(nobody).await.unwrap(), Limits::default());
    let back = async {
        while client.invoke(request(ECHO, ""), SOON).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, back).await.unwrap();
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_written_at_once_come_whole_and_in_turn_with_queued_ones() {
    let server = start(Limits::default()).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    // More than the socket's buffers hold, so that some answers are taken in part only.
    let (count, body) = (200, vec![3u8; 100_000]);
    let sender = tokio::spawn(async move {
        for opaque in 0..count {
            let code = if opaque % 3 == 0 { ECHO } else { HERE };
            let mut frame = Frame::request(code, Ext::new(), body.clone());
            frame.header.opaque = opaque;
            let mut bytes = BytesMut::new();
            frame.encode_head(&mut bytes);
            bytes.extend_from_slice(&frame.body);
            to.write_all(&bytes).await.unwrap();
        }
        to
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut buffer = BytesMut::new();
    let mut next = 0;
    while next < count {
        match decode(&mut buffer, 1 << 24).unwrap() {
            Some(frame) => {
                assert_eq!((frame.header.opaque, frame.body.len()), (next, 100_000));
                assert!(frame.body.iter().all(|byte| *byte == 3));
                next += 1;
            }
            None => {
                let read = tokio::time::timeout(SOON, from.read_buf(&mut buffer)).await.unwrap();
                assert_ne!(read.unwrap(), 0, "the connection ended after {next} answers");
            }
        }
    }
    drop(sender.await.unwrap());
}

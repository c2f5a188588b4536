//! Small requests a second over loopback: `throughput [connections] [in flight on each] [seconds]`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sluice_protocol::{Ext, Frame, Response};
use sluice_transport::{Connection, ConnectionConfig, Handler, Limits, Responder, Session, serve};
use tokio::net::TcpListener;

struct Echo;

impl Handler for Echo {
    fn request(&self, _: &Session, frame: Frame, responder: Responder) {
        let mut ext = Ext::new();
        ext.push_str("queueOffset", "123456");
        responder.send(Response::ok().with_ext(ext).with_body(frame.body));
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|text| text.parse::<u64>().ok());
    let mut number = |default| numbers.next().unwrap_or(default);
    let (connections, in_flight, seconds) = (number(1), number(512), number(3));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(serve(listener, Arc::new(Echo), Limits::default(), std::future::pending()));
    let done = Arc::new(AtomicU64::new(0));
    for _ in 0..connections {
        let connection = Connection::new(address.clone(), Arc::new(Echo), ConnectionConfig::default());
        for _ in 0..in_flight {
            let (connection, done) = (connection.clone(), done.clone());
            tokio::spawn(async move {
                loop {
                    let mut ext = Ext::new();
                    ext.push_str("topic", "orders");
                    ext.push_str("queueId", "3");
                    let request = Frame::request(1, ext, &b"a small body"[..]);
                    if connection.invoke(request, Duration::from_secs(5)).await.is_ok() {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (from, start) = (done.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let count = done.load(Ordering::Relaxed) - from;
    println!("{:.0} requests/s", count as f64 / start.elapsed().as_secs_f64());
    Ok(())
}

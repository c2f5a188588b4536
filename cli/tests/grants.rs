//! Plugins that reach beyond their records: a real HTTP server, topics and secrets, as they are granted and audited.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod binary;
mod guests;

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use binary::{Dev, stderr, stdout};
use serde_json::{Value, json};
use sluice_client::{Client, ClientConfig, Decision, Message, Topic};

const PATIENCE: Duration = Duration::from_secs(60);

/// A server that answers `/slow…` after a while, `/never…` not at all, and the rest at once; with the heads of the requests it got.
fn server() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, tell) = (stream.unwrap(), tell.clone());
            std::thread::spawn(move || {
                let mut head = String::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while reader.read_line(&mut head).is_ok_and(|read| read > 2) {}
                let _ = tell.send(head.clone());
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                if path.starts_with("/never") {
                    std::thread::sleep(PATIENCE);
                }
                if path.starts_with("/slow") {
                    std::thread::sleep(Duration::from_millis(500));
                }
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ndone";
                let _ = stream.write_all(answer.as_bytes());
            });
        }
    });
    (url, told)
}

fn done(dev: &Dev, args: &[&str]) -> String {
    let output = dev.run(args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    stdout(&output)
}

fn put(dev: &Dev, path: &str, body: &Value) -> Value {
    let url = format!("http://127.0.0.1:{}/api/v1{path}", 8082 + dev.offset);
    let curl = ["-sS", "-X", "PUT", "-H", "content-type: application/json", "-d"];
    let output = std::process::Command::new("curl").args(curl).arg(body.to_string()).arg(url).output().unwrap();
    serde_json::from_str(&stdout(&output)).unwrap()
}

fn audit(dev: &Dev) -> Vec<Value> {
    let text = done(dev, &["audit", "--limit", "1000", "-o", "json"]);
    assert!(!text.contains("hunter2"), "{text}");
    let audit: Value = serde_json::from_str(&text).unwrap();
    audit["items"].as_array().unwrap().clone()
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Bodies of the first `count` messages of a topic, as soon as they are there.
fn consumed(dev: &Dev, topic: &str, count: usize) -> Vec<String> {
    until(topic, || {
        let text = done(dev, &["consume", topic, "--from", "earliest", "--format", "%v"]);
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count).then_some(lines)
    })
}

#[test]
fn a_transformer_looks_up_asks_a_server_and_reads_a_secret() {
    let (url, told) = server();
    let dev = Dev::start();
    guests::push_hostile(&dev);
    for topic in ["in", "out", "customers"] {
        done(&dev, &["topic", "create", topic, "--queues", "1"]);
    }
    assert!(dev.feed(&["produce", "customers", "--key", "ada"], "Ada of Rome\n").status.success());
    assert!(dev.feed(&["secret", "set", "token"], "hunter2\n").status.success());
    assert!(done(&dev, &["secret", "list"]).contains("token"));
    let step = json!({
        "plugin": "hostile",
        "config": { "mode": "reach" },
        "grants": {
            "http": [{ "url": format!("{url}v1/") }],
            "topics": ["customers"],
            "secrets": ["token"],
        },
    });
    let pipeline = json!({
        "name": "p", "source": { "topic": "in", "start": "earliest" }, "steps": [step], "sinks": ["out"],
    });
    let applied = put(&dev, "/pipelines/p", &pipeline);
    assert_eq!(applied["state"], "running", "{applied}");
    let commands = [
        "look customers ada".to_owned(),
        "look in x".to_owned(),
        format!("bearer {url}v1/x?key=hunter2 token"),
        format!("get {url}v1/../admin"),
        "secret other".to_owned(),
    ];
    assert!(dev.feed(&["produce", "in"], &(commands.join("\n") + "\n")).status.success());
    let lines = consumed(&dev, "out", 5);
    assert_eq!(lines[0], "Ada of Rome");
    assert_eq!(lines[1], "error: topic in is not granted to this plugin; granted: customers");
    assert_eq!(lines[2], "200 4 done");
    assert_eq!(lines[3], format!("error: GET {url}admin is not granted to this plugin; granted: GET {url}v1/"));
    assert_eq!(lines[4], "error: secret other is not granted to this plugin; granted: token");
    let head = told.recv_timeout(PATIENCE).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("get /v1/x?key=hunter2 ") && head.contains("authorization: bearer hunter2"), "{head}");
    assert!(told.try_recv().is_err(), "nothing else went out");

    let (set, all): (Vec<Value>, Vec<Value>) =
        audit(&dev).into_iter().partition(|entry| entry["event"] == "secret-set");
    assert_eq!((set.len(), &set[0]["secret"], &set[0]["name"]), (1, &json!("token"), &Value::Null));
    let digest = &all[0]["digest"];
    assert!(digest.as_str().unwrap().starts_with("sha256:"), "{digest}");
    assert!(all.iter().all(|entry| entry["digest"] == *digest && entry["name"] == "p"));
    let of = |event: &str| all.iter().filter(|entry| entry["event"] == event).cloned().collect::<Vec<_>>();
    assert_eq!(of("granted").len(), 1);
    let requests = of("request");
    assert_eq!((&requests[0]["url"], &requests[0]["status"]), (&json!(format!("{url}v1/x")), &json!(200)));
    assert_eq!((&requests[0]["received"], &requests[1]["status"]), (&json!(4), &Value::Null));
    let secrets: Vec<Value> = of("secret").iter().map(|entry| entry["secret"].clone()).collect();
    assert_eq!(secrets, ["token", "other"]);
    let looked = |name: &str| of("lookups").iter().filter_map(|entry| entry[name].as_u64()).sum::<u64>();
    assert_eq!((looked("count"), looked("refused")), (2, 1));
}

/// Half messages of a group whose producer says nothing more.
async fn halves(dev: &Dev, group: &str, bodies: &[String]) {
    let config = ClientConfig { instance_name: group.to_owned(), ..ClientConfig::new([dev.name_server()]) };
    let client = Client::new(config).unwrap();
    let producer = client.producer(group).unwrap().transactional(|_| Decision::Unknown);
    for body in bodies {
        producer.send(Message::new("payments", body.clone()), async |_| Decision::Unknown).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checker_awaits_an_answer_and_one_that_waits_for_ever_holds_up_no_other() {
    let (url, told) = server();
    let mut dev = Dev::start_with("transaction_timeout = '1s'\ntransaction_interval = '1s'\n");
    guests::push_hostile(&dev);
    let client = Client::new(ClientConfig::new([dev.name_server()])).unwrap();
    client.admin().create_topic(&Topic::new("payments", 1)).await.unwrap();
    for group in ["never", "slow"] {
        let spec = json!({
            "plugin": "hostile",
            "policy": "plugin-only",
            "config": { "mode": "reach" },
            "grants": { "http": [{ "url": url }] },
        });
        let bound = put(&dev, &format!("/producer-groups/{group}/checker"), &spec);
        assert_eq!(bound["grants"], json!({ "http": [{ "url": url, "methods": ["GET"] }] }), "{bound}");
    }
    let never: Vec<String> = (0..20).map(|n| format!("get {url}never/{n}")).collect();
    halves(&dev, "never", &never).await;
    until("the first group's checker waits", || told.recv_timeout(PATIENCE).ok().filter(|head| head.contains("never")));
    halves(&dev, "slow", &[format!("get {url}slow/1"), "get http://127.0.0.1:1/".to_owned()]).await;
    let committed = tokio::task::block_in_place(|| consumed(&dev, "payments", 1));
    assert_eq!(committed, [format!("get {url}slow/1")]);
    let of_slow = |answer: &str, count: u32| {
        let line = format!("sluice_checker_answers_total{{producer_group=\"slow\",answer=\"{answer}\"}} {count}\n");
        tokio::task::block_in_place(|| dev.metrics()).contains(&line)
    };
    until("a request that is not granted counts as a failure", || (!of_slow("failed", 0)).then_some(()));
    assert!(of_slow("commit", 1) && of_slow("rollback", 0));
    let requests: Vec<Value> = audit(&dev).into_iter().filter(|entry| entry["event"] == "request").collect();
    let took = requests.iter().find(|entry| entry["name"] == "slow" && entry["status"] == 200).unwrap();
    assert!(took["took_ms"].as_u64().unwrap() >= 500, "{took}");
    // Half of the first group's time has not passed by now; a stop does not wait for all of it.
    let began = Instant::now();
    assert!(dev.terminate().success());
    assert!(began.elapsed() < Duration::from_secs(18), "{:?}", began.elapsed());
}

//! What a plugin may use is what was granted to it, and no more of it than its limits.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::ports::Store;
use common::{PLUGIN, mode, records, setup};
use sluice_runtime::ports::{Audit, Hit, Http, HttpRequest, HttpResponse, Lookup, PortError, Secret, Secrets, Use};
use sluice_runtime::{
    Batch, Begin, Context, Decision, Failure, Given, Grants, HalfMessage, Instance, Limits, Plan, Policy, Setup,
    Silent, Stage, Step, Turn, UrlGrant,
};

const URL: &str = "https://api.example.com/v1/";

/// A world of one server, one topic and one secret, which remembers what it was asked.
#[derive(Default)]
struct World {
    asked: Mutex<Vec<HttpRequest>>,
    within: Mutex<Vec<Duration>>,
    secrets: Mutex<u32>,
    uses: Mutex<Vec<String>>,
    /// How long the server takes.
    slow: Duration,
    /// What it answers.
    answer: HttpResponse,
    stopping: Mutex<bool>,
}

impl Http for World {
    fn send(&self, request: &HttpRequest, within: Duration) -> Result<HttpResponse, PortError> {
        if *self.stopping.lock().unwrap() {
            return Err(PortError::Busy("the host is stopping".into()));
        }
        self.asked.lock().unwrap().push(request.clone());
        self.within.lock().unwrap().push(within);
        thread::sleep(self.slow.min(within));
        if self.slow > within { Err(PortError::Failed("it took too long".into())) } else { Ok(self.answer.clone()) }
    }
}

impl Secrets for World {
    fn read(&self, name: &str) -> Result<Secret, PortError> {
        *self.secrets.lock().unwrap() += 1;
        match name {
            "token" => Ok(Secret::new("hunter2".into())),
            _ => Err(PortError::Failed(format!("secret {name} is gone"))),
        }
    }
}

impl Lookup for World {
    fn by_key(&self, topic: &str, key: &str, _: u32) -> Result<Vec<Hit>, PortError> {
        Ok(vec![Hit { body: format!("{topic}/{key}").into(), ..Hit::default() }])
    }
}

impl Audit for World {
    fn used(&self, context: &Context, of: &Use<'_>) {
        let text = match of {
            Use::Request { method, url, outcome, sent, received, .. } => {
                format!("{method} {url} {outcome:?} {sent} {received}")
            }
            Use::Secret { name, outcome } => format!("secret {name} {outcome:?}"),
            Use::Lookups { count, refused } => format!("lookups {count} {refused}"),
        };
        self.uses.lock().unwrap().push(format!("{}: {text}", context.pipeline));
    }
}

fn answer(body: &str) -> HttpResponse {
    HttpResponse { status: 200, headers: Vec::new(), body: body.into() }
}

fn granted(world: &Arc<World>) -> Grants {
    let methods = ["GET".into(), "POST".into()];
    Grants {
        lookup: Some(world.clone()),
        topics: vec!["customers".into()],
        http: Some(world.clone()),
        urls: vec![UrlGrant::parse(URL, &methods).unwrap()],
        secrets: Some(world.clone()),
        secret_names: vec!["token".into(), "gone".into()],
        audit: Some(world.clone()),
    }
}

fn with(grants: Grants) -> Setup {
    let context = Context { pipeline: "p".into(), ..Context::default() };
    // Debug builds of a busy machine are slow; what is short is said where it matters.
    let limits =
        Limits { deadline: Duration::from_secs(5), check_deadline: Duration::from_secs(5), ..Limits::default() };
    Setup { context, grants, limits, ..setup("reach") }
}

fn tell(instance: &mut Instance, commands: &[&str]) -> Vec<String> {
    let mut batch = Batch::new(PLUGIN.manifest().needs, 3);
    records(commands).iter().for_each(|record| assert!(batch.push(record, 0)));
    let output = instance.transform(&batch, 1).unwrap();
    output.produced.into_iter().map(|made| String::from_utf8(made.value.unwrap().to_vec()).unwrap()).collect()
}

/// What comes of one command, in an instance of its own.
fn one(world: &Arc<World>, command: &str) -> String {
    tell(&mut PLUGIN.instance(with(granted(world))).unwrap(), &[command]).remove(0)
}

fn uses(world: &World) -> Vec<String> {
    std::mem::take(&mut world.uses.lock().unwrap())
}

#[test]
fn nothing_is_granted_by_default() {
    let mut instance = PLUGIN.instance(with(Grants::default())).unwrap();
    let came = tell(&mut instance, &["get https://api.example.com/v1/x?y=1", "secret token", "look customers ada"]);
    assert_eq!(
        came,
        [
            "error: GET https://api.example.com/v1/x is not granted to this plugin; granted: none",
            "error: secret token is not granted to this plugin; granted: none",
            "error: topic customers is not granted to this plugin; granted: none",
        ]
    );
}

#[test]
fn what_is_granted_is_had_and_what_is_not_is_refused_with_a_list_of_it() {
    let world = Arc::new(World { answer: answer("hello"), ..World::default() });
    assert_eq!(one(&world, "get https://API.example.com:443/v1/a/../x?y=1#z"), "200 5 hello");
    assert_eq!(world.asked.lock().unwrap()[0].url, "https://api.example.com/v1/x?y=1");
    assert_eq!(one(&world, "secret token"), "hunter2");
    assert_eq!(one(&world, "look customers ada"), "customers/ada");
    uses(&world);
    let list = "is not granted to this plugin; granted: GET|POST https://api.example.com/v1/";
    for (command, expected) in [
        (
            "get https://api.example.com.evil.net/v1/?token=x",
            format!("error: GET https://api.example.com.evil.net/v1/ {list}"),
        ),
        ("get https://api.example.com/v1/../admin", format!("error: GET https://api.example.com/admin {list}")),
        ("get https://api.example.com/v1evil", format!("error: GET https://api.example.com/v1evil {list}")),
        ("get https://api.example.com@evil.net/v1/", "error: expected a URL without user and password".into()),
        ("secret other", "error: secret other is not granted to this plugin; granted: token, gone".into()),
        ("secret gone", "error: secret gone is gone".into()),
        ("look orders ada", "error: topic orders is not granted to this plugin; granted: customers".into()),
    ] {
        assert_eq!(one(&world, command), expected);
    }
    assert_eq!(world.asked.lock().unwrap().len(), 1, "nothing else went out");
    let heard = uses(&world);
    assert_eq!(heard.len(), 7, "{heard:?}");
    assert!(heard[0].starts_with("p: GET https://api.example.com.evil.net/v1/ Err("), "{heard:?}");
    assert!(heard.iter().all(|line| !line.contains("token=x")), "{heard:?}");
    assert!(heard[3].starts_with("p: GET  Err("), "what is no URL is not written down: {heard:?}");
    assert_eq!(heard[6], "p: lookups 1 1");
}

#[test]
fn each_use_is_heard_once() {
    let world = Arc::new(World { answer: answer("hello"), ..World::default() });
    let mut instance = PLUGIN.instance(with(granted(&world))).unwrap();
    let commands = ["secret token", "secret token", "look customers a", "look customers b", "look orders c"];
    tell(&mut instance, &commands);
    assert_eq!(uses(&world), ["p: secret token Ok(())", "p: lookups 3 1"]);
    tell(&mut instance, &["secret token", "post https://api.example.com/v1/x?key=hunter2 abc"]);
    assert_eq!(uses(&world), ["p: POST https://api.example.com/v1/x Ok(200) 3 5"]);
    assert_eq!(*world.secrets.lock().unwrap(), 1, "an instance reads a secret once");
    one(&world, "secret token");
    assert_eq!(*world.secrets.lock().unwrap(), 2, "the next one reads it again");
}

#[test]
fn a_secret_in_the_path_is_not_written_down() {
    let world = Arc::new(World { answer: answer("hello"), ..World::default() });
    assert_eq!(one(&world, &format!("hook {URL} token")), "200 5 hello");
    assert_eq!(
        world.asked.lock().unwrap()[0].url,
        format!("{URL}hunter2/%68%75%6e%74%65%72%32/x"),
        "the server gets it"
    );
    let place = "[secret token]/[secret token]/x";
    assert_eq!(uses(&world), ["p: secret token Ok(())", &format!("p: GET {URL}{place} Ok(200) 0 5")]);
    let refused = one(&world, "hook https://evil.net/ token");
    assert!(refused.starts_with(&format!("error: GET https://evil.net/{place} is not granted")), "{refused}");
    let heard = uses(&world);
    assert!(heard[1].starts_with(&format!("p: GET https://evil.net/{place} Err(")), "{heard:?}");
    assert!(heard.iter().all(|line| !line.contains("hunter2") && !line.contains("%68")), "{heard:?}");
    // Nor is a part of it where a long URL is cut.
    one(&world, &format!("hook {URL}{}/ token", "x".repeat(470)));
    let heard = uses(&world);
    assert!(heard[1].contains("xxx/[sec") && !heard[1].contains("hunt"), "{heard:?}");
}

#[test]
fn while_it_is_configured_a_plugin_has_nothing() {
    let world = Arc::new(World::default());
    let refused = PLUGIN.instance(Setup { config: mode("start-secret"), ..with(granted(&world)) }).err().unwrap();
    assert!(refused.to_string().contains("secret token is not granted"), "{refused}");
}

#[test]
fn headers_of_the_hosts_own_and_too_many_are_refused() {
    let world = Arc::new(World { answer: answer("hello"), ..World::default() });
    assert_eq!(one(&world, &format!("headers {URL} x-one=1;accept=text/plain")), "200 5 hello");
    assert_eq!(world.asked.lock().unwrap()[0].headers[1], ("accept".into(), "text/plain".into()));
    for name in ["Host", "content-length", "Transfer-Encoding", "connection", "TE", "Upgrade", "Proxy-Authorization"] {
        let came = one(&world, &format!("headers {URL} {name}=x"));
        assert_eq!(came, format!("error: the header {name} is set by the host alone"));
    }
    let many: Vec<String> = (0..65).map(|n| format!("x-{n}=1")).collect();
    let came = one(&world, &format!("headers {URL} {}", many.join(";")));
    assert!(came.contains("at most 64 headers"), "{came}");
    let came = one(&world, &format!("headers {URL} x-long={}", "y".repeat(17 << 10)));
    assert!(came.contains("of 16384 bytes"), "{came}");
    let came = one(&world, &format!("big {URL} {}", (1 << 20) + 1));
    assert!(came.contains("at most 1048576 bytes"), "{came}");
    assert_eq!(one(&world, &format!("big {URL} {}", 1 << 20)), "200 5 hello");
}

#[test]
fn an_answer_larger_than_it_may_be_is_none() {
    let huge = World { answer: answer(&"x".repeat((1 << 20) + 1)), ..World::default() };
    assert_eq!(one(&Arc::new(huge), &format!("get {URL}")), "error: the answer is larger than it may be");
    let largest = World { answer: answer(&"x".repeat(1 << 20)), ..World::default() };
    assert!(one(&Arc::new(largest), &format!("get {URL}")).starts_with("200 1048576 xxx"));
    let headers = (0..65).map(|n| (format!("x-{n}"), "1".into())).collect();
    let many = World { answer: HttpResponse { headers, ..answer("") }, ..World::default() };
    assert_eq!(one(&Arc::new(many), &format!("get {URL}")), "error: the answer is larger than it may be");
}

#[test]
fn ten_thousand_requests_of_one_call_are_two_hundred_and_fifty_six() {
    let world = Arc::new(World { answer: answer("hello"), ..World::default() });
    assert_eq!(one(&world, &format!("flood {URL} 10000")), "256 more than 256 requests in one call");
    assert_eq!((world.asked.lock().unwrap().len(), uses(&world).len()), (256, 256));
    assert!(one(&world, "flood https://evil.net/ 10000").starts_with("0 more than 256 requests"));
    assert_eq!((world.asked.lock().unwrap().len(), uses(&world).len()), (256, 16), "the audit is not filled");
}

#[test]
fn the_time_of_waiting_is_not_the_calls_own_and_has_an_end() {
    let world = Arc::new(World { slow: Duration::from_millis(400), answer: answer("late"), ..World::default() });
    let limits = Limits { deadline: Duration::from_millis(20), ..Limits::default() };
    let mut instance = PLUGIN.instance(Setup { limits, ..with(granted(&world)) }).unwrap();
    assert_eq!(tell(&mut instance, &[&format!("get {URL}")]), ["200 4 late"], "20 times its deadline later");

    let world = Arc::new(World { slow: Duration::from_secs(3600), ..World::default() });
    let start = Instant::now();
    let came = one(&world, &format!("flood {URL} 20"));
    assert_eq!(came, "0 this call has waited for 10 s already, which is all that it may");
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    let within = world.within.lock().unwrap();
    assert!(
        within[0] == Duration::from_secs(5) && within.iter().sum::<Duration>() <= Duration::from_secs(11),
        "{within:?}"
    );
}

#[test]
fn who_waited_still_has_a_deadline() {
    let world = Arc::new(World { slow: Duration::from_millis(50), answer: answer(""), ..World::default() });
    let limits = Limits { deadline: Duration::from_millis(20), ..Limits::default() };
    let mut instance = PLUGIN.instance(Setup { limits, ..with(granted(&world)) }).unwrap();
    let mut batch = Batch::new(PLUGIN.manifest().needs, 3);
    records(&[&format!("get-and-spin {URL}")]).iter().for_each(|record| assert!(batch.push(record, 0)));
    assert_eq!(instance.transform(&batch, 1), Err(Failure::Deadline { limit: Duration::from_millis(20) }));
}

#[test]
fn a_checker_awaits_an_answer() {
    let world = Arc::new(World { slow: Duration::from_millis(200), answer: answer("paid"), ..World::default() });
    let mut instance = PLUGIN.instance(with(granted(&world))).unwrap();
    let half = |body: &str| HalfMessage { body: body.into(), ..HalfMessage::default() };
    assert_eq!(instance.check(&half(&format!("get {URL}"))), Ok(Decision::Commit));
    let refused = instance.check(&half("get https://evil.net/")).unwrap_err().to_string();
    assert!(refused.contains("is not granted to this plugin"), "{refused}");
    *world.stopping.lock().unwrap() = true;
    let later = instance.check(&half(&format!("get {URL}")));
    assert_eq!(later, Err(Failure::Unavailable("the host is stopping".into())));
}

#[test]
fn a_stage_that_asks_servers_takes_short_turns_and_commits_nothing_of_one_that_is_stopped() {
    let world = Arc::new(World { answer: answer("hello"), ..World::default() });
    let plan = Plan {
        pipeline: "p".into(),
        queue: 3,
        input_topic: "in".into(),
        sinks: vec!["out".into()],
        steps: vec![Step {
            name: "reach".into(),
            plugin: PLUGIN.clone(),
            config: mode("reach"),
            prefilter: None,
            grants: granted(&world),
        }],
        policy: Policy::default(),
        limits: Limits { deadline: Duration::from_secs(5), ..Limits::default() },
        batch_records: 256,
        batch_bytes: 1 << 20,
        observer: Arc::new(Silent),
        state: None,
    };
    let command = format!("get {URL}");
    let records = records(&vec![command.as_str(); 200]);
    let mut source = Given { records: &records, next: 200 };
    let mut sink = Store::default();
    let mut stage = Stage::open(plan, &mut Begin(0)).unwrap();
    *world.stopping.lock().unwrap() = true;
    assert!(matches!(stage.turn(&mut source, &mut sink, 1), Turn::Wait(_)));
    assert!(sink.units.is_empty() && stage.counters().traps == 0 && stage.position() == 0);
    *world.stopping.lock().unwrap() = false;
    assert_eq!(stage.turn(&mut source, &mut sink, 1), Turn::Progressed { read: 64, sent: 64, failed: 0, wait: None });
    assert_eq!(sink.units[0].outputs[63].record.value, "200 5 hello");
}

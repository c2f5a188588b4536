//! Orders through the pipeline.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;
use sluice_client::{Client, Message, PullConsumer, Received};

use super::{account::Account, screen::Screen};
use crate::{ask::topic::all, output::say, rest::Rest, stream::send_some};

pub const PIPELINE: &str = "paid-orders";
pub const PIPELINE_YAML: &str = include_str!("../../../examples/orders/pipeline.yaml");
const SAMPLE: &str = include_str!("../../../examples/orders/orders.ndjson");
const SOURCE: &str = "orders";
const SINK: &str = "paid-orders";
/// Topics with their types.
pub const TOPICS: &[(&str, &str)] = &[(SOURCE, "normal"), (SINK, "normal")];

/// Times that the sample is sent.
const ROUNDS: usize = 5;
/// Sends at a time.
const BURST: usize = 50;
const PATIENCE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(100);

/// What was sent, by what must become of it.
pub struct Orders {
    sent: u64,
    paid: Vec<String>,
    broken: Vec<String>,
}

impl Orders {
    /// Sends the sample, round after round.
    pub async fn send(client: &Client, rest: &Rest) -> anyhow::Result<Self> {
        let producer = client.producer("demo-orders")?;
        let mut orders = Self { sent: 0, paid: Vec::new(), broken: Vec::new() };
        let mut screen = Screen::new();
        let lines: Vec<(String, &str)> = (1..=ROUNDS)
            .flat_map(|round| SAMPLE.lines().enumerate().map(move |(at, line)| (format!("{}-{round}", at + 1), line)))
            .collect();
        for burst in lines.chunks(BURST) {
            let messages = burst.iter().map(|(key, line)| orders.message(key, line)).collect();
            send_some(&producer, messages).await?;
            orders.sent += burst.len() as u64;
            screen.show(&orders.counts(&state(rest)?))?;
        }
        screen.end(&format!("orders     {} sent", orders.sent))?;
        Ok(orders)
    }

    fn message(&mut self, key: &str, line: &str) -> Message {
        match serde_json::from_str::<Value>(line) {
            Err(_) => self.broken.push(key.to_owned()),
            Ok(order) if order["status"] == "paid" => self.paid.push(key.to_owned()),
            Ok(_) => {}
        }
        Message::new(SOURCE, line.to_owned()).key(key)
    }

    /// Waits until the pipeline is done with all of them, and compares.
    pub async fn settle(&self, client: &Client, rest: &Rest, account: &mut Account) -> anyhow::Result<()> {
        let mut screen = Screen::new();
        let until = Instant::now() + PATIENCE;
        let state = loop {
            let state = state(rest)?;
            screen.show(&self.counts(&state))?;
            if count(&state, "in") >= self.sent || standing(&state).is_some() || Instant::now() > until {
                break state;
            }
            tokio::time::sleep(LOOK).await;
        };
        screen.end(&self.counts(&state))?;
        self.compare(&state, client, rest, account).await
    }

    async fn compare(&self, state: &Value, client: &Client, rest: &Rest, account: &mut Account) -> anyhow::Result<()> {
        if let Some(reason) = standing(state) {
            account.problem(format!("the pipeline stands still: {reason}"));
        }
        let delivered = read(client, SINK).await?;
        let dead = dead_letters(rest)?;
        let filtered = self.sent - (self.paid.len() + self.broken.len()) as u64;
        account.compare(SINK, &self.paid, &keys(&delivered));
        account.compare("dead letters", &self.broken, &dead);
        account.equal("orders filtered out", filtered, count(state, "dropped"));
        for order in &delivered {
            if !is_masked(order) {
                account.problem(format!(
                    "{SINK}: order {} shows its card's number",
                    keys(std::slice::from_ref(order)).concat()
                ));
            }
        }
        account.line(format!(
            "orders     {} sent = {} delivered + {} filtered out + {} dead letters",
            self.sent,
            delivered.len(),
            count(state, "dropped"),
            dead.len()
        ));
        say("\nThe first that came out:")?;
        for order in delivered.iter().take(3) {
            say(format!("  {}", String::from_utf8_lossy(&order.body)))?;
        }
        Ok(())
    }

    fn counts(&self, state: &Value) -> String {
        format!(
            "orders     {} sent, {} read, {} delivered, {} filtered out, {} dead letters",
            self.sent,
            count(state, "in"),
            count(state, "out"),
            count(state, "dropped"),
            count(state, "dead_lettered"),
        )
    }
}

fn state(rest: &Rest) -> anyhow::Result<Value> {
    tokio::task::block_in_place(|| rest.get(&format!("/pipelines/{PIPELINE}")))
}

/// Why a queue of the pipeline stands still, if one does.
fn standing(state: &Value) -> Option<&str> {
    state["queues"].as_array()?.iter().find_map(|queue| queue["stopped"].as_str())
}

fn count(state: &Value, name: &str) -> u64 {
    state.get(name).and_then(Value::as_u64).unwrap_or(0)
}

fn is_masked(order: &Received) -> bool {
    let body: Option<Value> = serde_json::from_slice(&order.body).ok();
    body.is_some_and(|body| body["card"]["number"] == "***" && body["channel"] == "web")
}

fn dead_letters(rest: &Rest) -> anyhow::Result<Vec<String>> {
    let answer = tokio::task::block_in_place(|| all(rest, &format!("/pipelines/{PIPELINE}/dlq?limit=256")))?;
    let items = answer["items"].as_array().context("dead letters: the server answered no list")?;
    Ok(items.iter().map(|item| item["key"].as_str().unwrap_or("?").to_owned()).collect())
}

pub fn keys(messages: &[Received]) -> Vec<String> {
    messages.iter().map(|message| message.keys().collect::<Vec<_>>().join(" ")).collect()
}

/// Everything that a topic holds now.
pub async fn read(client: &Client, topic: &str) -> anyhow::Result<Vec<Received>> {
    let consumer: PullConsumer = client.pull_consumer("demo-reader")?;
    let mut all = Vec::new();
    for queue in consumer.queues(topic).await? {
        let (mut offset, until) = (consumer.min_offset(&queue).await?, consumer.max_offset(&queue).await?);
        while offset < until {
            let pulled = consumer.pull(&queue, "*", offset, 160, Duration::from_secs(1)).await?;
            offset = pulled.next_offset;
            all.extend(pulled.messages);
        }
    }
    Ok(all)
}

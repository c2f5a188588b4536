//! Payments as transactions whose producer falls silent, so that the checker decides.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sluice_client::{Client, ClientConfig, Decision, Message};

use super::{
    account::Account,
    orders::{keys, read},
    screen::Screen,
};
use crate::{output::say, rest::Rest};

pub const GROUP: &str = "demo-payments";
pub const CHECKER_JSON: &str = include_str!("../../../examples/orders/checker.json");
const TOPIC: &str = "payments";
const LEDGER: &str = "ledger";
/// Topics with their types.
pub const TOPICS: &[(&str, &str)] = &[(TOPIC, "transaction"), (LEDGER, "normal")];

const PATIENCE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(200);

/// What the ledger says of a payment, and the amount there.
type Entry = Option<(&'static str, f64)>;

/// A payment's key, its amount, and its entry in the ledger.
const PAYMENTS: [(&str, f64, Entry); 6] = [
    ("pay-1", 89.0, Some(("committed", 89.0))),
    ("pay-2", 24.9, Some(("paid", 24.9))),
    ("pay-3", 119.0, Some(("cancelled", 119.0))),
    ("pay-4", -5.0, None),
    ("pay-5", 54.0, Some(("committed", 45.0))),
    ("pay-6", 18.2, Some(("paid", 18.2))),
];
/// Those that must come out; of the others one was cancelled, one is no amount, one differs from the ledger.
const COMMITTED: [&str; 3] = ["pay-1", "pay-2", "pay-6"];

pub struct Payments;

impl Payments {
    /// Sends half messages from a client that then goes away without a decision.
    pub async fn send(name_server: SocketAddr, client: &Client) -> anyhow::Result<Self> {
        let ledger = client.producer("demo-ledger")?;
        let mut config = ClientConfig::new([name_server.to_string()]);
        config.instance_name = "demo-silent".to_owned();
        let silent = Client::new(config)?;
        let producer = silent.producer(GROUP)?.transactional(|_| Decision::Unknown);
        for (key, amount, entry) in PAYMENTS {
            if let Some((state, amount)) = entry {
                let entry = json!({"state": state, "amount": amount}).to_string();
                ledger.send(Message::new(LEDGER, entry).key(key)).await?;
            }
            let payment = Message::new(TOPIC, json!({"id": key, "amount": amount}).to_string()).key(key);
            producer.send(payment, async |_| Decision::Unknown).await?;
        }
        say(format!("payments   {} half messages sent; their producer is gone", PAYMENTS.len()))?;
        Ok(Self)
    }

    /// Waits until nothing is undecided, and compares.
    pub async fn settle(&self, client: &Client, rest: &Rest, account: &mut Account) -> anyhow::Result<()> {
        let mut screen = Screen::new();
        let until = Instant::now() + PATIENCE;
        let undecided = loop {
            let undecided = undecided(rest)?;
            screen.show(&format!("payments   {undecided} of {} wait for the checker", PAYMENTS.len()))?;
            if undecided == 0 || Instant::now() > until {
                break undecided;
            }
            tokio::time::sleep(LOOK).await;
        };
        screen.end(&format!("payments   {} decided", PAYMENTS.len() as u64 - undecided))?;
        let committed = read(client, TOPIC).await?;
        account.equal("payments undecided", 0, undecided);
        account.compare(TOPIC, &COMMITTED.map(str::to_owned), &keys(&committed));
        account.line(format!(
            "payments   {} half messages = {} committed + {} rolled back by the checker",
            PAYMENTS.len(),
            committed.len(),
            (PAYMENTS.len() as u64).saturating_sub(undecided + committed.len() as u64)
        ));
        Ok(())
    }
}

fn undecided(rest: &Rest) -> anyhow::Result<u64> {
    let answer = tokio::task::block_in_place(|| rest.get(&format!("/transactions?producer_group={GROUP}")))?;
    Ok(answer.get("items").and_then(Value::as_array).map_or(0, |items| items.len() as u64))
}

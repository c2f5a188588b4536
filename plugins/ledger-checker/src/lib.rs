use sluice_sdk::field::Pointer;
use sluice_sdk::json::Value;
use sluice_sdk::lookup::{self, Hit};
use sluice_sdk::{Config, Decision, HalfMessage, check_transaction};

/// How a transaction is decided. The newest entry of the ledger topic with the transaction's key wins; without one, the message's own
/// content; without that, the number of checks.
#[derive(Config)]
#[config(check = Ledger::check)]
struct Ledger {
    /// Topic with the ledger's entries, as JSON, each under the transaction's key. It must be granted to the plugin.
    topic: String,
    /// JSON Pointer (RFC 6901) of the key in the message; without it, the message's own key.
    key: Option<Pointer>,
    /// JSON Pointer of the state in an entry, `/state` when left out.
    state: Option<Pointer>,
    /// States that commit.
    #[config(default = vec!["committed".into(), "paid".into()])]
    commit: Vec<String>,
    /// States that roll back.
    #[config(default = vec!["rolled-back".into(), "cancelled".into()])]
    rollback: Vec<String>,
    /// JSON Pointer of an amount in the message. A message whose amount is not a number above 0 is rolled back at once.
    amount: Option<Pointer>,
    /// JSON Pointer of the amount in an entry. It must be the message's own, or the transaction is rolled back.
    #[config(rename = "entry-amount")]
    entry_amount: Option<Pointer>,
    /// Milliseconds until the next question while the ledger says nothing; without it, the broker's own schedule.
    #[config(rename = "ask-again-ms")]
    ask_again_ms: Option<u64>,
    /// Roll back at the last check if the ledger still says nothing.
    #[config(rename = "give-up", default = true)]
    give_up: bool,
}

impl Ledger {
    fn check(&self) -> Result<(), String> {
        if self.entry_amount.is_some() && self.amount.is_none() {
            return Err("`entry-amount` needs `amount`".into());
        }
        if let Some(both) = self.commit.iter().find(|state| self.rollback.contains(state)) {
            return Err(format!("the state {both:?} both commits and rolls back"));
        }
        Ok(())
    }

    fn key_of(&self, message: &HalfMessage, body: &Value) -> Option<String> {
        let Some(pointer) = &self.key else { return message.key.clone() };
        match body.pointer(pointer)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    fn judge(&self, entry: &Hit, amount: Option<f64>) -> Option<Decision> {
        let entry = entry.json().ok()?;
        let state = entry.pointer(self.state.as_deref().unwrap_or("/state"))?.as_str()?;
        if self.rollback.iter().any(|s| s == state) {
            return Some(Decision::Rollback(format!("the ledger says {state}")));
        }
        if !self.commit.iter().any(|s| s == state) {
            return None;
        }
        let booked = self.entry_amount.as_ref().map(|pointer| entry.pointer(pointer).and_then(Value::as_f64));
        match booked {
            Some(booked) if booked != amount => {
                let text = |amount: Option<f64>| amount.map_or("none".into(), |amount| amount.to_string());
                let (ours, theirs) = (text(amount), text(booked));
                Some(Decision::Rollback(format!("the ledger has amount {theirs}, the message {ours}")))
            }
            _ => Some(Decision::Commit),
        }
    }
}

/// Decides half messages by their own content and by what a ledger topic says.
#[check_transaction]
fn ledger_checker(message: &HalfMessage, cfg: &Ledger) -> Result<Decision, String> {
    let Ok(body) = message.json() else {
        return Ok(Decision::Rollback("the body is no JSON".into()));
    };
    let amount = cfg.amount.as_ref().map(|pointer| body.pointer(pointer).and_then(Value::as_f64));
    if amount.is_some_and(|amount| !amount.is_some_and(|amount| amount > 0.0)) {
        return Ok(Decision::Rollback("the amount is not a number above 0".into()));
    }
    let Some(key) = cfg.key_of(message, &body) else {
        return Ok(Decision::Rollback("the message has no key to look up".into()));
    };
    let entries = lookup::by_key(&cfg.topic, &key, 10)?;
    if let Some(decision) = entries.iter().find_map(|entry| cfg.judge(entry, amount.flatten())) {
        return Ok(decision);
    }
    if cfg.give_up && message.attempt + 1 >= message.max_attempts {
        return Ok(Decision::Rollback(format!(
            "{} says nothing of {key} after {} checks",
            cfg.topic,
            message.attempt + 1
        )));
    }
    Ok(cfg.ask_again_ms.map_or(Decision::Unknown, Decision::AskAgainAfter))
}

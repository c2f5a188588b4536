//! Decides half messages by the amount in their bodies.

use sluice_sdk::{Config, Decision, HalfMessage, check_transaction};

/// What a checker's binding may write under `config:`.
#[derive(Config)]
struct Settings {
    /// Larger amounts are rolled back.
    max: u64,
}

/// Whether a half message stands, when its producer does not say.
#[check_transaction]
fn decide(message: &HalfMessage, cfg: &Settings) -> Result<Decision, String> {
    let Ok(body) = message.json() else {
        return Ok(Decision::Rollback("the body is no JSON".into()));
    };
    Ok(match body["amount"].as_u64() {
        Some(amount) if amount <= cfg.max => Decision::Commit,
        Some(amount) => Decision::Rollback(format!("{amount} is more than {}", cfg.max)),
        None => Decision::Unknown,
    })
}

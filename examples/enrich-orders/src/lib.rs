//! What grants are for: a look-up in a topic, a request to a server, a secret.

use sluice_sdk::json::Value;
use sluice_sdk::{Config, Emit, Failure, Out, Record, http, lookup, secrets, transform};

/// Where customers are known. All of it has to be granted to the step.
#[derive(Config)]
struct Sources {
    /// Topic with a message for each customer, JSON, under the customer's id.
    topic: String,
    /// API that is asked about those that the topic does not have: this URL with the customer's id at its end.
    api: Option<String>,
    /// Secret that is the API's bearer token.
    token: Option<String>,
}

impl Sources {
    fn customer(&self, id: &str) -> Result<Value, Failure> {
        if let Some(newest) = lookup::by_key(&self.topic, id, 1).map_err(later)?.first() {
            return Ok(newest.json()?);
        }
        let Some(api) = &self.api else { return Err(Failure::dead_letter("unknown-customer", id)) };
        let mut request = http::get(format!("{api}{id}"));
        if let Some(token) = &self.token {
            request = request.header("authorization", &format!("Bearer {}", secrets::get(token).map_err(later)?));
        }
        let answer = request.send().map_err(later)?;
        match answer.status {
            200 => Ok(answer.json()?),
            404 => Err(Failure::dead_letter("unknown-customer", id)),
            status => Err(later(format!("the API answered {status}"))),
        }
    }
}

/// For what may pass: the pipeline's own policy tries again.
fn later(reason: String) -> Failure {
    Failure::retry("unavailable", reason)
}

/// Adds to each order what is known of its customer.
#[transform(needs(value))]
fn enrich(r: Record<'_>, cfg: &Sources, out: &mut Out<'_>) -> Result<(), Failure> {
    let mut order = r.json()?;
    let plain = |id: &&str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let Some(id) = order["customer"].as_str().filter(plain) else {
        return Err(Failure::dead_letter("no-customer", "expected an id of letters, digits and - in /customer"));
    };
    order["customer"] = cfg.customer(id)?;
    out.send(Emit::same().value(order.to_string()));
    Ok(())
}

//! How a version that is tried is shown to people.

use serde_json::{Value, json};

/// Letters of a value that an example shows.
const VALUE_LETTERS: usize = 60;

/// The answer with the two versions side by side, and each difference in a line.
pub fn view(answer: &Value) -> Value {
    let mut view = json!({});
    for field in ["mode", "revision", "since", "plugins"] {
        view[field] = answer[field].clone();
    }
    for field in ["same", "different"] {
        if let Some(count) = answer["comparison"].get(field) {
            view[field] = count.clone();
        }
    }
    view["versions"] = ["live", "candidate"].map(|side| version(side, &answer[side])).into();
    for field in ["queues", "examples"] {
        let rows = answer["comparison"][field].as_array().map(Vec::as_slice).unwrap_or_default();
        view[field] = rows.iter().map(|row| if field == "examples" { example(row) } else { row.clone() }).collect();
    }
    view
}

fn version(side: &str, counts: &Value) -> Value {
    let mut row = json!({ "version": side });
    for field in ["in", "out", "dropped", "failed", "cpu_us_per_1000_records"] {
        row[field] = counts[field].clone();
    }
    row
}

fn example(of: &Value) -> Value {
    json!({
        "queue": of["queue"],
        "offset": of["offset"],
        "live": became(&of["live"]),
        "candidate": became(&of["candidate"]),
    })
}

/// What a record became: `dropped`, why it failed, or its first output.
fn became(of: &Value) -> String {
    if let Some(code) = of["failed"]["code"].as_str() {
        return format!("failed: {code}");
    }
    let (count, first) = (of["count"].as_u64().unwrap_or(0), &of["outputs"][0]);
    let value = first["value"].as_str().unwrap_or("(bytes)");
    let value: String = value.chars().take(VALUE_LETTERS).collect();
    let port = first["port"].as_str().unwrap_or_default();
    match count {
        0 => "dropped".to_owned(),
        1 => format!("{port}: {value}"),
        more => format!("{port}: {value} and {} more", more - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_one_line() {
        let made = json!({ "count": 2, "outputs": [{ "port": "out", "value": "x".repeat(100) }] });
        assert_eq!(became(&made), format!("out: {} and 1 more", "x".repeat(60)));
        assert_eq!(became(&json!({ "count": 0, "outputs": [] })), "dropped");
        assert_eq!(became(&json!({ "count": 0, "outputs": [], "failed": { "code": "trap" } })), "failed: trap");
    }
}

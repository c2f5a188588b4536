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
    if let Some(reason) = answer["stopped"].as_str() {
        view["stopped"] = reason.into();
    }
    for field in ["same", "different"] {
        if let Some(count) = answer["comparison"].get(field) {
            view[field] = count.clone();
        }
    }
    view["versions"] = ["live", "candidate"].map(|side| version(side, &answer[side])).into();
    // A canary has nothing to compare, and its queues are just named.
    view["queues"] = answer["comparison"].get("queues").unwrap_or(&answer["queues"]).clone();
    let examples = answer["comparison"]["examples"].as_array().map(Vec::as_slice).unwrap_or_default();
    view["examples"] = examples.iter().map(example).collect();
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
    let (live, mut candidate) = (became(&of["live"]), became(&of["candidate"]));
    if live == candidate {
        candidate = format!("{candidate} ({})", difference(&of["live"], &of["candidate"]));
    }
    json!({ "queue": of["queue"], "offset": of["offset"], "live": live, "candidate": candidate })
}

/// Where two of them differ that look alike in a line.
fn difference(live: &Value, candidate: &Value) -> String {
    let columns = |names: &[&str], live: &Value, candidate: &Value| {
        let differ = names.iter().filter(|name| live[**name] != candidate[**name]);
        differ.map(|name| name.trim_end_matches("_base64")).collect::<Vec<_>>().join(", ")
    };
    if live["failed"].is_object() {
        return format!("other {}", columns(&["step", "reason"], &live["failed"], &candidate["failed"]));
    }
    let outputs = |of: &Value| of["outputs"].as_array().cloned().unwrap_or_default();
    let pairs = outputs(live).into_iter().zip(outputs(candidate)).enumerate();
    match pairs.into_iter().find(|(_, (live, candidate))| live != candidate) {
        Some((at, (live, candidate))) => {
            let names = columns(&["port", "key", "tag", "headers", "value", "value_base64"], &live, &candidate);
            if at == 0 { format!("other {names}") } else { format!("other {names} in output {}", at + 1) }
        }
        None => "other behind what is kept of it".to_owned(),
    }
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

    #[test]
    fn what_looks_alike_says_where_it_differs() {
        let cells = |live: Value, candidate: Value| {
            let row = example(&json!({ "queue": 0, "offset": 7, "live": live, "candidate": candidate }));
            (row["live"].as_str().unwrap().to_owned(), row["candidate"].as_str().unwrap().to_owned())
        };
        let made = |outputs: Value| json!({ "count": outputs.as_array().unwrap().len(), "outputs": outputs });
        let out =
            |key: &str, value: &str| json!({ "port": "out", "key": key, "headers": { "a": key }, "value": value });
        let (live, candidate) = cells(made(json!([out("k", "v")])), made(json!([out("l", "v")])));
        assert_eq!((live.as_str(), candidate.as_str()), ("out: v", "out: v (other key, headers)"));
        let (one, other) = (format!("{}1", "x".repeat(60)), format!("{}2", "x".repeat(60)));
        let (_, candidate) = cells(made(json!([out("k", &one)])), made(json!([out("k", &other)])));
        assert!(candidate.ends_with("x (other value)"), "{candidate}");
        let second = |key| made(json!([out("k", "v"), out(key, "v")]));
        assert_eq!(cells(second("k"), second("l")).1, "out: v and 1 more (other key, headers in output 2)");
        assert_eq!(cells(second("k"), second("k")).1, "out: v and 1 more (other behind what is kept of it)");
        let failed = |reason| json!({ "failed": { "code": "trap", "step": "s", "reason": reason } });
        assert_eq!(cells(failed("a"), failed("b")).1, "failed: trap (other reason)");
        assert_eq!(cells(made(json!([])), made(json!([out("k", "v")]))).1, "out: v");
    }

    #[test]
    fn a_canary_shows_its_queues() {
        let answer = json!({ "mode": "canary", "queues": [0, 3], "live": {}, "candidate": {}, "comparison": null });
        assert_eq!(view(&answer)["queues"], json!([0, 3]));
        assert_eq!(view(&answer).get("stopped"), None);
        let stopped = json!({ "mode": "canary", "queues": [0], "stopped": "no plugin", "comparison": null });
        assert_eq!(view(&stopped)["stopped"], "no plugin");
        let answer = json!({ "queues": [], "comparison": { "queues": [{ "queue": 1 }] } });
        assert_eq!(view(&answer)["queues"], json!([{ "queue": 1 }]));
    }
}

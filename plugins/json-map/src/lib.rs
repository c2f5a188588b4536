use sluice_sdk::field::Pointer;
use sluice_sdk::json::{self, Map, Value};
use sluice_sdk::{Config, Emit, Failure, Out, Record, transform};

/// What is done to each body, in this order: rename, set, remove, redact. A body that nothing changes passes on as it is, byte for byte.
#[derive(Config)]
#[config(check = Changes::check)]
struct Changes {
    /// New places by old place, both JSON Pointers (RFC 6901). What is not there is not moved.
    #[config(default = Vec::new())]
    rename: Vec<(String, String)>,
    /// Values by place. Objects on the way are made.
    #[config(default = Vec::new())]
    set: Vec<(String, Value)>,
    /// Places to remove.
    #[config(default = Vec::new())]
    remove: Vec<String>,
    /// Places whose value is replaced by `mask`, where there is one.
    #[config(default = Vec::new())]
    redact: Vec<String>,
    /// What stands in place of a redacted value.
    #[config(default = "***".into())]
    mask: String,
}

impl Changes {
    fn check(&self) -> Result<(), String> {
        let renamed = self.rename.iter().flat_map(|(from, to)| [from, to]);
        let places = renamed.chain(self.set.iter().map(|(place, _)| place)).chain(&self.remove).chain(&self.redact);
        let mut any = false;
        for place in places {
            any = true;
            if Pointer::new(place)?.is_empty() {
                return Err(
                    "a place is a JSON Pointer below the whole body: it begins with `/`, got an empty one".into()
                );
            }
        }
        if any { Ok(()) } else { Err("give at least one of rename, set, remove, redact".into()) }
    }

    /// Whether anything changed.
    fn apply(&self, body: &mut Value) -> Result<bool, Failure> {
        let mut changed = false;
        for (from, to) in &self.rename {
            if let Some(value) = take(body, from) {
                put(body, to, value)?;
                changed = true;
            }
        }
        for (place, value) in &self.set {
            if body.pointer(place) != Some(value) {
                put(body, place, value.clone())?;
                changed = true;
            }
        }
        for place in &self.remove {
            changed |= take(body, place).is_some();
        }
        for place in &self.redact {
            if let Some(value) = body.pointer_mut(place) {
                *value = Value::String(self.mask.clone());
                changed = true;
            }
        }
        Ok(changed)
    }
}

/// The parent of a place and its last name.
fn split(place: &str) -> (&str, String) {
    let (parent, name) = place.rsplit_once('/').unwrap_or(("", place));
    (parent, unescape(name))
}

fn unescape(name: &str) -> String {
    name.replace("~1", "/").replace("~0", "~")
}

fn take(body: &mut Value, place: &str) -> Option<Value> {
    let (parent, name) = split(place);
    match body.pointer_mut(parent)? {
        Value::Object(fields) => fields.remove(&name),
        Value::Array(items) => {
            let index: usize = name.parse().ok()?;
            (index < items.len()).then(|| items.remove(index))
        }
        _ => None,
    }
}

fn put(body: &mut Value, place: &str, value: Value) -> Result<(), Failure> {
    let mut at = body;
    for name in place.split('/').skip(1).map(unescape) {
        at = match at {
            Value::Object(fields) => fields.entry(name).or_insert_with(|| Value::Object(Map::new())),
            Value::Array(items) => {
                name.parse::<usize>().ok().and_then(|index| items.get_mut(index)).ok_or_else(|| {
                    Failure::dead_letter("no-such-place", format!("{place}: the array has no item {name}"))
                })?
            }
            _ => return Err(Failure::dead_letter("no-such-place", format!("{place}: {name} is inside of a value"))),
        };
    }
    *at = value;
    Ok(())
}

/// Sets, removes, renames and redacts fields of JSON bodies.
#[transform(needs(value))]
fn json_map(r: Record<'_>, cfg: &Changes, out: &mut Out<'_>) -> Result<(), Failure> {
    let mut body = r.json().map_err(|e| Failure::dead_letter("not-json", e.to_string()))?;
    if cfg.apply(&mut body)? {
        out.send(Emit::same().value(json::to_vec(&body)?));
    } else {
        out.pass();
    }
    Ok(())
}

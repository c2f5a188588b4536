use sluice_sdk::field::Pointer;
use sluice_sdk::json::Value;
use sluice_sdk::{Config, ConfigValue, Failure, Record, filter};

/// Which records are kept: those whose field at `path` passes every test that is given.
#[derive(Config)]
#[config(check = Test::check)]
struct Test {
    /// JSON Pointer (RFC 6901) of the field, as `/status` or `/items/0/price`; empty for the whole body.
    path: Pointer,
    /// The field equals this value. Numbers are compared as numbers.
    equals: Option<Value>,
    /// The field exists and is another value.
    #[config(rename = "not-equals")]
    not_equals: Option<Value>,
    /// The field is a number greater than this.
    greater: Option<f64>,
    /// The field is a number less than this.
    less: Option<f64>,
    /// The field is a number not less than this.
    #[config(rename = "at-least")]
    at_least: Option<f64>,
    /// The field is a number not greater than this.
    #[config(rename = "at-most")]
    at_most: Option<f64>,
    /// The field is a string that holds this text, or an array that holds this value.
    contains: Option<Value>,
    /// The field is a string that begins with this.
    #[config(rename = "starts-with")]
    starts_with: Option<String>,
    /// The field equals one of these values.
    #[config(rename = "one-of")]
    one_of: Option<Vec<Value>>,
    /// The field is there (true) or not (false).
    exists: Option<bool>,
    /// What becomes of a body that is no JSON.
    #[config(rename = "on-invalid", default = OnInvalid::DeadLetter)]
    on_invalid: OnInvalid,
}

#[derive(Clone, Copy)]
enum OnInvalid {
    Drop,
    Keep,
    DeadLetter,
}

impl ConfigValue for OnInvalid {
    fn schema() -> Value {
        sluice_sdk::json::json!({"type": "string", "enum": ["drop", "keep", "dead-letter"]})
    }

    fn read(value: Value) -> Result<OnInvalid, String> {
        match value.as_str() {
            Some("drop") => Ok(OnInvalid::Drop),
            Some("keep") => Ok(OnInvalid::Keep),
            Some("dead-letter") => Ok(OnInvalid::DeadLetter),
            _ => Err(format!("expected drop, keep or dead-letter, got {value}")),
        }
    }
}

impl Test {
    fn check(&self) -> Result<(), String> {
        let tests = [
            self.equals.is_some(),
            self.not_equals.is_some(),
            self.greater.is_some(),
            self.less.is_some(),
            self.at_least.is_some(),
            self.at_most.is_some(),
            self.contains.is_some(),
            self.starts_with.is_some(),
            self.one_of.is_some(),
            self.exists.is_some(),
        ];
        if tests.contains(&true) {
            return Ok(());
        }
        Err("give at least one of equals, not-equals, greater, less, at-least, at-most, contains, starts-with, one-of, exists".into())
    }

    fn passes(&self, field: Option<&Value>) -> bool {
        if self.exists.is_some_and(|expected| expected != field.is_some()) {
            return false;
        }
        let Some(field) = field else {
            // `exists: false` is all that an absent field can pass.
            return self.exists == Some(false) && !self.has_value_test();
        };
        let number = field.as_f64();
        let compares = |limit: Option<f64>, holds: fn(f64, f64) -> bool| {
            limit.is_none_or(|limit| number.is_some_and(|number| holds(number, limit)))
        };
        self.equals.as_ref().is_none_or(|other| same(field, other))
            && self.not_equals.as_ref().is_none_or(|other| !same(field, other))
            && compares(self.greater, |a, b| a > b)
            && compares(self.less, |a, b| a < b)
            && compares(self.at_least, |a, b| a >= b)
            && compares(self.at_most, |a, b| a <= b)
            && self.contains.as_ref().is_none_or(|part| contains(field, part))
            && self.starts_with.as_ref().is_none_or(|start| field.as_str().is_some_and(|text| text.starts_with(start)))
            && self.one_of.as_ref().is_none_or(|options| options.iter().any(|option| same(field, option)))
    }

    fn has_value_test(&self) -> bool {
        let values = [&self.equals, &self.not_equals, &self.contains];
        let numbers = [self.greater, self.less, self.at_least, self.at_most];
        values.iter().any(|v| v.is_some())
            || numbers.iter().any(Option::is_some)
            || self.starts_with.is_some()
            || self.one_of.is_some()
    }
}

/// 1 and 1.0 are the same number.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        _ => a == b,
    }
}

fn contains(field: &Value, part: &Value) -> bool {
    match (field, part) {
        (Value::String(text), Value::String(part)) => text.contains(part.as_str()),
        (Value::Array(items), part) => items.iter().any(|item| same(item, part)),
        _ => false,
    }
}

/// Keeps the records whose JSON body passes a test.
#[filter(needs(value))]
fn json_filter(r: Record<'_>, cfg: &Test) -> Result<bool, Failure> {
    match (r.json_at(&cfg.path), cfg.on_invalid) {
        (Ok(field), _) => Ok(cfg.passes(field.as_ref())),
        (Err(_), OnInvalid::Drop) => Ok(false),
        (Err(_), OnInvalid::Keep) => Ok(true),
        (Err(e), OnInvalid::DeadLetter) => Err(Failure::dead_letter("not-json", e.to_string())),
    }
}

//! One field of a JSON text, without making values of the rest.

mod scan;

use std::fmt;
use std::ops::Deref;

use serde_core::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use crate::config::ConfigValue;

/// A JSON Pointer (RFC 6901), as `/items/0/price`, for a [`crate::Config`]; an empty one is the whole text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pointer(String);

impl Pointer {
    /// # Errors
    /// It is neither empty nor begins with `/`.
    pub fn new(text: impl Into<String>) -> Result<Pointer, String> {
        let text = text.into();
        if text.is_empty() || text.starts_with('/') {
            return Ok(Pointer(text));
        }
        Err(format!("a JSON Pointer begins with `/`, got {text:?}; write \"/{text}\""))
    }
}

impl Deref for Pointer {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ConfigValue for Pointer {
    fn schema() -> Value {
        json!({"type": "string"})
    }

    fn read(value: Value) -> Result<Pointer, String> {
        String::read(value).and_then(Pointer::new)
    }
}

/// A value as text, for a key or to be compared: a string as it is, anything else as its JSON text, `None` for null.
#[must_use]
pub fn text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

/// The field at a JSON Pointer (RFC 6901), as [`Value::pointer`] finds it; an empty pointer is the whole text.
///
/// # Errors
/// It is no JSON. Of what is passed over, numbers may be larger and values nested deeper than a [`Value`] can hold.
pub fn at(json: &[u8], pointer: &str) -> Result<Option<Value>, serde_json::Error> {
    match scan::find(json, pointer) {
        Some(None) => Ok(None),
        Some(Some(found)) => value(found).map_or_else(|| by_library(json, pointer), |found| Ok(Some(found))),
        None => by_library(json, pointer),
    }
}

/// The value of a JSON text; `None` if it is none.
fn value(text: &[u8]) -> Option<Value> {
    whole_number(text).map_or_else(|| serde_json::from_slice(text).ok(), |number| Some(number.into()))
}

/// Of a JSON text that is digits only, and no more of them than any 64 bits hold.
fn whole_number(text: &[u8]) -> Option<u64> {
    if text.len() > 19 {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| number * 10 + u64::from(digit))
    })
}

fn by_library(json: &[u8], pointer: &str) -> Result<Option<Value>, serde_json::Error> {
    let Ok(text) = str::from_utf8(json) else {
        // It names the place.
        return serde_json::from_slice::<Value>(json).map(|body| body.pointer(pointer).cloned());
    };
    let mut reader = serde_json::Deserializer::from_str(text);
    let found = if pointer.is_empty() || pointer.starts_with('/') {
        At(pointer).deserialize(&mut reader)?
    } else {
        reader.deserialize_ignored_any(IgnoredAny).map(|_| None)?
    };
    reader.end()?;
    Ok(found)
}

/// What is left of a pointer below the value at hand.
struct At<'p>(&'p str);

impl<'p> At<'p> {
    /// The first token, as it is written, and what is below it.
    fn split(&self) -> (&'p str, At<'p>) {
        let path = &self.0[1..];
        let end = path.find('/').unwrap_or(path.len());
        (&path[..end], At(&path[end..]))
    }
}

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Value>, D::Error> {
        if self.0.is_empty() {
            serde_core::Deserialize::deserialize(deserializer).map(Some)
        } else {
            deserializer.deserialize_any(self)
        }
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Value>, A::Error> {
        let (token, below) = self.split();
        let mut found = None;
        while let Some(is_it) = map.next_key_seed(Is(token))? {
            if is_it {
                // The last one of a name stands.
                found = map.next_value_seed(At(below.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Option<Value>, A::Error> {
        let (token, below) = self.split();
        let plain = !token.starts_with('+') && (token == "0" || !token.starts_with('0'));
        let wanted = if plain { token.parse().ok() } else { None };
        let mut index = 0_usize;
        let mut found = None;
        loop {
            if Some(index) == wanted {
                match items.next_element_seed(At(below.0))? {
                    Some(field) => found = field,
                    None => return Ok(None),
                }
            } else if items.next_element::<IgnoredAny>()?.is_none() {
                return Ok(found);
            }
            index += 1;
        }
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }
}

/// Whether a name is that of the pointer's token.
struct Is<'p>(&'p str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<bool, E> {
        let token = self.0;
        Ok(name == token || (token.contains('~') && name == token.replace("~1", "/").replace("~0", "~")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#" {"a":{"b":[1,{"c":"x"},[null]],"~/":-2.5},"a/b":true,"":"empty","e\"":"\u00e9","n":1e2,"twice":1,"twice":{"b":2},"0":"zero"} "#;

    #[test]
    fn a_field_is_found_as_in_the_whole() {
        let pointers = "|/|//|/a|/a/b|/a/b/0|/a/b/1/c|/a/b/2/0|/a/b/3|/a/b/01|/a/b/+1|/a/b/-|/a/b/0/0|/a/~0~1|/a~1b|/a/c|/e\"|/n|/n/x|/twice|/twice/b|/0|/missing|a|/a/b/1/c/d";
        let whole: Value = serde_json::from_str(TEXT).unwrap();
        for pointer in pointers.split('|') {
            assert_eq!(at(TEXT.as_bytes(), pointer).unwrap(), whole.pointer(pointer).cloned(), "{pointer}");
        }
        assert_eq!(at(b"[[1,2],3]", "/0/1").unwrap(), Some(Value::from(2)));
    }

    #[test]
    fn a_pointer_is_empty_or_begins_with_a_slash() {
        for good in ["", "/", "/a/b"] {
            assert_eq!(&*Pointer::new(good).unwrap(), good);
        }
        let said = "a JSON Pointer begins with `/`, got \"a/b\"; write \"/a/b\"";
        assert_eq!(Pointer::read("a/b".into()).unwrap_err(), said);
        assert_eq!(Pointer::read(Value::from(1)).unwrap_err(), "expected a string, got 1");
    }

    #[test]
    fn a_value_as_text_has_no_quotes_and_null_is_none() {
        let texts =
            [(json!("x"), Some("x")), (json!(1.5), Some("1.5")), (json!([1]), Some("[1]")), (Value::Null, None)];
        for (value, expected) in texts {
            assert_eq!(text(value).as_deref(), expected);
        }
    }

    #[test]
    fn what_is_no_json_is_refused_wherever_it_breaks() {
        for end in 1..TEXT.trim().len() {
            let cut = &TEXT.trim().as_bytes()[..end];
            assert!(at(cut, "/a/b").is_err(), "{}", String::from_utf8_lossy(cut));
        }
        for text in ["{} x", "{\"a\":1,}", "{\"b\":01}", "{\"b\":\"\n\"}", "", "{\"a\":1e999}"] {
            assert!(at(text.as_bytes(), "/a").is_err(), "{text}");
            assert!(text.contains('a') || at(text.as_bytes(), "a").is_err(), "{text}");
        }
        let error = at(b"{\"b\":\"\xff\"}", "/a").unwrap_err().to_string();
        assert!(error.starts_with("invalid unicode code point"), "{error}");
    }
}

//! Reading JSON as RocketMQ's peers write it, which is not always JSON: fastjson leaves integer keys of maps unquoted
//! (`{0:"a"}`) and writes keys that are objects as object literals (`{{"topic":"t"}:1}`).

use bytes::{BufMut, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Number, Value};

use crate::FieldError;

/// Deepest nesting that is read.
const DEPTH: usize = 64;

type Result<T> = std::result::Result<T, String>;

/// A place in a JSON text.
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// Whether the next element of the innermost object or array is its first.
    first: bool,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, first: false }
    }

    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    fn wrong<T>(&mut self, expected: &str) -> Result<T> {
        let found = self.peek().map_or_else(|| "the end".to_owned(), |byte| format!("{:?}", char::from(byte)));
        Err(format!("expected {expected} at byte {}, found {found}", self.at))
    }

    fn expect(&mut self, byte: u8, name: &str) -> Result<()> {
        if self.peek() != Some(byte) {
            return self.wrong(name);
        }
        self.at += 1;
        Ok(())
    }

    /// Enters an object.
    pub fn open(&mut self) -> Result<()> {
        self.first = true;
        self.expect(b'{', "an object")
    }

    /// Whether another key follows in the object; leaves it when not.
    pub fn more(&mut self) -> Result<bool> {
        self.next_in(b'}')
    }

    fn next_in(&mut self, close: u8) -> Result<bool> {
        let first = std::mem::replace(&mut self.first, false);
        match self.peek() {
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            Some(b',') if !first => {
                self.at += 1;
                Ok(true)
            }
            Some(_) if first => Ok(true),
            _ => self.wrong("a comma or the closing bracket"),
        }
    }

    pub fn colon(&mut self) -> Result<()> {
        self.expect(b':', "a colon")
    }

    /// Calls `field` for every key of an object; it must read the value.
    pub fn object(&mut self, mut field: impl FnMut(&mut Self, &str) -> Result<()>) -> Result<()> {
        self.open()?;
        let mut key = String::new();
        while self.more()? {
            key.clear();
            self.string_into(&mut key)?;
            self.colon()?;
            field(self, &key)?;
        }
        Ok(())
    }

    /// Fails unless nothing but blanks follows.
    pub fn end(&mut self) -> Result<()> {
        if self.peek().is_some() { self.wrong("the end") } else { Ok(()) }
    }

    /// Takes `null` when it stands here.
    pub fn null(&mut self) -> bool {
        let null = self.peek() == Some(b'n') && self.text[self.at..].starts_with("null");
        if null {
            self.at += 4;
        }
        null
    }

    /// Appends the text of a string.
    pub fn string_into(&mut self, out: &mut String) -> Result<()> {
        self.expect(b'"', "a string")?;
        let bytes = self.text.as_bytes();
        loop {
            let from = self.at;
            let run = bytes[from..].iter().position(|byte| matches!(byte, b'"' | b'\\'));
            let Some(run) = run else { return Err(format!("the string at byte {from} does not end")) };
            self.at = from + run + 1;
            out.push_str(&self.text[from..from + run]);
            if bytes[from + run] == b'"' {
                return Ok(());
            }
            self.escape(out)?;
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<()> {
        let escape = self.text.as_bytes().get(self.at).copied();
        self.at += 1;
        out.push(match escape {
            Some(byte @ (b'"' | b'\\' | b'/' | b'\'')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => self.unicode()?,
            _ => return Err(format!("expected an escape at byte {}", self.at - 1)),
        });
        Ok(())
    }

    fn unicode(&mut self) -> Result<char> {
        let unit = self.hex4()?;
        if !(0xD800..0xDC00).contains(&unit) {
            return Ok(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let before = self.at;
        if self.text.as_bytes()[self.at..].starts_with(b"\\u") {
            self.at += 2;
            let low = self.hex4()?;
            if (0xDC00..0xE000).contains(&low) {
                let point = 0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
                return Ok(char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = before;
        }
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hex4(&mut self) -> Result<u32> {
        let digits = self.text.get(self.at..self.at + 4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let unit = unit.ok_or_else(|| format!("expected four hex digits at byte {}", self.at))?;
        self.at += 4;
        Ok(unit)
    }

    /// The letters, digits and signs that stand here, without quotes.
    fn bare(&mut self) -> Result<&'a str> {
        self.peek();
        let rest = &self.text[self.at..];
        let len =
            rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.' | b'_')).count();
        if len == 0 {
            return self.wrong("a value");
        }
        self.at += len;
        Ok(&rest[..len])
    }

    /// Appends the text of a string, number, true or false.
    pub fn scalar_into(&mut self, out: &mut String) -> Result<()> {
        if self.peek() == Some(b'"') {
            return self.string_into(out);
        }
        out.push_str(self.bare()?);
        Ok(())
    }

    /// The text of a string, number, true or false; `None` for null.
    pub fn scalar(&mut self) -> Result<Option<String>> {
        if self.null() {
            return Ok(None);
        }
        let mut out = String::new();
        self.scalar_into(&mut out)?;
        Ok(Some(out))
    }

    /// An integer of 32 bits.
    pub fn i32(&mut self, name: &str) -> Result<i32> {
        let text = self.bare().map_err(|problem| format!("{name}: {problem}"))?;
        text.parse().map_err(|_| format!("{name}: expected an integer of 32 bits, got {text:?}"))
    }

    /// Passes over a value.
    pub fn skip(&mut self) -> Result<()> {
        self.value(0).map(drop)
    }

    /// Reads a value; what is null in an object is left out.
    fn value(&mut self, depth: usize) -> Result<Value> {
        if depth > DEPTH {
            return Err(format!("expected at most {DEPTH} nested brackets"));
        }
        match self.peek() {
            Some(b'{') => self.map(depth),
            Some(b'[') => {
                self.at += 1;
                self.first = true;
                let mut items = Vec::new();
                while self.next_in(b']')? {
                    items.push(self.value(depth + 1)?);
                }
                Ok(Value::Array(items))
            }
            Some(b'"') => {
                let mut text = String::new();
                self.string_into(&mut text)?;
                Ok(Value::String(text))
            }
            _ => self.word(),
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value> {
        self.open()?;
        let mut map = Map::new();
        while self.more()? {
            let key = match self.peek() {
                Some(b'{') => self.value(depth + 1)?.to_string(),
                Some(b'"') => {
                    let mut key = String::new();
                    self.string_into(&mut key)?;
                    key
                }
                _ => self.bare()?.to_owned(),
            };
            self.colon()?;
            let value = self.value(depth + 1)?;
            if !value.is_null() {
                map.insert(key, value);
            }
        }
        Ok(Value::Object(map))
    }

    fn word(&mut self) -> Result<Value> {
        let at = self.at;
        let word = self.bare()?;
        Ok(match word {
            "null" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => {
                let number = match (word.parse::<i64>(), word.parse::<f64>()) {
                    (Ok(whole), _) => Some(Number::from(whole)),
                    (_, Ok(fraction)) => Number::from_f64(fraction),
                    _ => None,
                };
                Value::Number(number.ok_or_else(|| format!("expected a value at byte {at}, got {word:?}"))?)
            }
        })
    }
}

/// Reads `bytes` as a `T`; the error names the field `field`.
pub(crate) fn from_slice<T: DeserializeOwned>(field: &'static str, bytes: &[u8]) -> std::result::Result<T, FieldError> {
    let text = std::str::from_utf8(bytes).map_err(|_| FieldError::new(field, "expected UTF-8"))?;
    let mut scan = Scanner::new(text);
    let value = scan.value(0).and_then(|value| scan.end().map(|()| value));
    let value = value.map_err(|problem| FieldError::new(field, problem))?;
    serde_json::from_value(value).map_err(|problem| FieldError::new(field, problem.to_string()))
}

/// Compact JSON of a body of ours, which always has such a form.
pub(crate) fn to_string<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Appends `text` as a JSON string.
pub(crate) fn write_string(out: &mut BytesMut, text: &str) {
    out.put_u8(b'"');
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.put_slice(&bytes[from..at]);
        from = at + 1;
        match byte {
            b'"' => out.put_slice(b"\\\""),
            b'\\' => out.put_slice(b"\\\\"),
            b'\n' => out.put_slice(b"\\n"),
            control => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.put_slice(b"\\u00");
                out.put_u8(HEX[usize::from(control >> 4)]);
                out.put_u8(HEX[usize::from(control & 15)]);
            }
        }
    }
    out.put_slice(&bytes[from..]);
    out.put_u8(b'"');
}

//! How `sluice consume` writes a message.

use std::{io::Write, str::FromStr};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};
use sluice_client::Received;
use sluice_model::Timestamp;

/// One line per message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    Json,
    /// The body as it is.
    Raw,
    Parts(Vec<Part>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Topic,
    Queue,
    Offset,
    Key,
    Tag,
    Body,
    Id,
    StoredAt,
    Properties,
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "raw" => Ok(Self::Raw),
            _ => parts(text).map(Self::Parts),
        }
    }
}

fn parts(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        let part = match (letter, letter == '%' || letter == '\\') {
            (_, false) => {
                plain.push(letter);
                continue;
            }
            ('\\', _) => {
                plain.push(match letters.next() {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('\\') => '\\',
                    _ => return Err(format!("expected \\n, \\t or \\\\ behind a backslash in {text:?}")),
                });
                continue;
            }
            _ => match letters.next() {
                Some('%') => {
                    plain.push('%');
                    continue;
                }
                Some('t') => Part::Topic,
                Some('q') => Part::Queue,
                Some('o') => Part::Offset,
                Some('k') => Part::Key,
                Some('T') => Part::Tag,
                Some('v') => Part::Body,
                Some('i') => Part::Id,
                Some('d') => Part::StoredAt,
                Some('p') => Part::Properties,
                _ => {
                    return Err(format!(
                        "expected json, raw, or text with %t topic, %q queue, %o offset, %k key, %T tag, %v body, %i id, \
                         %d time, %p properties, %%; got {text:?}"
                    ));
                }
            },
        };
        if !plain.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut plain)));
        }
        parts.push(part);
    }
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(parts)
}

impl Pattern {
    /// Writes a message and the end of the line.
    pub fn write(&self, message: &Received, out: &mut impl Write) -> std::io::Result<()> {
        match self {
            Self::Json => serde_json::to_writer(&mut *out, &to_json(message))?,
            Self::Raw => out.write_all(&message.body)?,
            Self::Parts(parts) => {
                for part in parts {
                    part.write(message, out)?;
                }
            }
        }
        out.write_all(b"\n")
    }
}

impl Part {
    fn write(&self, message: &Received, out: &mut impl Write) -> std::io::Result<()> {
        match self {
            Self::Text(text) => write!(out, "{text}"),
            Self::Topic => write!(out, "{}", message.topic),
            Self::Queue => write!(out, "{}", message.queue.queue_id),
            Self::Offset => write!(out, "{}", message.offset.0),
            Self::Key => write!(out, "{}", message.keys().collect::<Vec<_>>().join(" ")),
            Self::Tag => write!(out, "{}", message.tag().unwrap_or_default()),
            Self::Body => out.write_all(&message.body),
            Self::Id => write!(out, "{}", message.message_id),
            Self::StoredAt => write!(out, "{}", time(message.stored_at)),
            Self::Properties => write!(out, "{}", Value::Object(properties(message))),
        }
    }
}

fn to_json(message: &Received) -> Value {
    let mut value = json!({
        "topic": message.topic,
        "queue": message.queue.queue_id,
        "offset": message.offset.0,
        "id": message.message_id,
        "key": message.keys().collect::<Vec<_>>().join(" "),
        "tag": message.tag(),
        "properties": properties(message),
        "born": time(message.born_at),
        "stored": time(message.stored_at),
    });
    match std::str::from_utf8(&message.body) {
        Ok(text) => value["body"] = text.into(),
        Err(_) => value["body_base64"] = BASE64_STANDARD.encode(&message.body).into(),
    }
    value
}

fn properties(message: &Received) -> Map<String, Value> {
    message.properties.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect()
}

/// RFC 3339, UTC.
fn time(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| at.0.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_text_with_places() {
        let parsed: Pattern = r"%k=%v\t100%%".parse().unwrap();
        let text = |text: &str| Part::Text(text.to_owned());
        assert_eq!(parsed, Pattern::Parts(vec![Part::Key, text("="), Part::Body, text("\t100%")]));
        assert!("%z".parse::<Pattern>().unwrap_err().contains("%o offset"));
        assert!("%".parse::<Pattern>().is_err() && "\\".parse::<Pattern>().is_err());
    }
}

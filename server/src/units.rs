//! Durations, sizes and times as users write and read them: `10ms`, `1s`, `5m`, `2h`, `3d`; `512`, `64KiB`, `16MiB`, `1GiB`; RFC 3339.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};
use sluice_model::Timestamp;

const DURATIONS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// Fails with what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    parse(text, &DURATIONS)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("expected a duration as 10ms, 1s, 5m, 2h or 3d, got {text:?}"))
}

/// Fails with what was expected.
pub fn parse_size(text: &str) -> Result<u64, String> {
    if let Ok(bytes) = text.parse() {
        return Ok(bytes);
    }
    parse(text, &SIZES).ok_or_else(|| format!("expected a size as 512, 64KiB, 16MiB or 1GiB, got {text:?}"))
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The shortest text that [`parse_duration`] reads as the same.
pub fn duration_text(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let unit = DURATIONS.iter().rev().find(|(_, factor)| ms >= *factor && ms.is_multiple_of(*factor));
    unit.map_or_else(|| format!("{ms}ms"), |(name, factor)| format!("{}{name}", ms / factor))
}

/// The shortest text that [`parse_size`] reads as the same, in the binary units.
pub fn size_text(bytes: u64) -> String {
    let binary = SIZES.iter().take(3).rev();
    let unit = binary.clone().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    unit.map_or_else(|| bytes.to_string(), |(name, factor)| format!("{}{name}", bytes / factor))
}

/// For serde fields.
pub fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(from)?).map_err(D::Error::custom)
}

/// For serde fields; takes a plain number of bytes as well.
pub fn size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Bytes(u64),
        Text(String),
    }
    match Form::deserialize(from)? {
        Form::Bytes(bytes) => Ok(bytes),
        Form::Text(text) => parse_size(&text).map_err(D::Error::custom),
    }
}

/// RFC 3339, UTC, with milliseconds.
pub fn time_text(time: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(time.0).map_or_else(|_| time.to_string(), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_and_written() {
        for text in ["10ms", "1s", "90s", "5m", "2h", "3d"] {
            assert_eq!(duration_text(parse_duration(text).unwrap()), text);
        }
        assert_eq!(parse_size("16MiB"), Ok(16 << 20));
        assert_eq!(parse_size("7"), Ok(7));
        for text in ["512", "64KiB", "16MiB", "1GiB"] {
            assert_eq!(size_text(parse_size(text).unwrap()), text);
        }
        for bad in ["", "s", "1 fortnight", "-1s", "99999999999999999999s", "18446744073709551615d"] {
            assert!(parse_duration(bad).unwrap_err().contains("expected a duration"), "{bad}");
        }
        assert!(parse_size("12 parsecs").is_err());
    }
}

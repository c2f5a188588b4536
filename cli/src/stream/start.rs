//! Where `sluice consume` begins: `earliest`, `latest`, `@time`, `queue:offset`.

use std::str::FromStr;

use sluice_client::{PullConsumer, QueueRef};
use sluice_model::Timestamp;
use sluice_server::units;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
    At(Timestamp),
    /// One queue only.
    Offset {
        queue: u32,
        offset: i64,
    },
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || format!("expected earliest, latest, @2026-01-31T12:00:00Z, @-15m or queue:offset as 0:42, got {text:?}");
        match text {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        if let Some(time) = text.strip_prefix('@') {
            return parse_time(time).map(Self::At).ok_or_else(expected);
        }
        let (queue, offset) = text.split_once(':').ok_or_else(expected)?;
        match (queue.parse(), offset.parse()) {
            (Ok(queue), Ok(offset)) if offset >= 0 => Ok(Self::Offset { queue, offset }),
            _ => Err(expected()),
        }
    }
}

/// A time, or how long ago it was.
fn parse_time(text: &str) -> Option<Timestamp> {
    let now = jiff::Timestamp::now().as_millisecond();
    if let Some(ago) = text.strip_prefix('-') {
        let ago = units::parse_duration(ago).ok()?;
        return Some(Timestamp(now.saturating_sub(i64::try_from(ago.as_millis()).ok()?)));
    }
    Some(Timestamp(text.parse::<jiff::Timestamp>().ok()?.as_millisecond()))
}

impl Start {
    /// The offset in a queue; `None` when this queue is not to be read.
    pub async fn offset(self, consumer: &PullConsumer, queue: &QueueRef) -> Result<Option<i64>, sluice_client::Error> {
        Ok(match self {
            Self::Earliest => Some(consumer.min_offset(queue).await?),
            Self::Latest => Some(consumer.max_offset(queue).await?),
            Self::At(time) => Some(consumer.offset_at(queue, time).await?),
            Self::Offset { queue: wanted, offset } => (queue.queue_id == wanted).then_some(offset),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_words_times_and_places() {
        assert_eq!("earliest".parse(), Ok(Start::Earliest));
        assert_eq!("3:42".parse(), Ok(Start::Offset { queue: 3, offset: 42 }));
        assert_eq!("@1970-01-01T00:00:01Z".parse(), Ok(Start::At(Timestamp(1000))));
        assert!(matches!("@-15m".parse(), Ok(Start::At(_))));
        for bad in ["", "yesterday", "@soon", "1:-1", ":"] {
            assert!(bad.parse::<Start>().unwrap_err().contains("queue:offset"), "{bad}");
        }
    }
}

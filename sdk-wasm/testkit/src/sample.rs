use bytes::Bytes;
use sluice_runtime::{HalfMessage, Record, state::Timer};

/// A record to test with. Born and stored at 1 700 000 000 000 unless said otherwise.
#[derive(Clone, Debug)]
pub struct Sample(pub(crate) Record);

const TIME: u64 = 1_700_000_000_000;

/// A record with this body.
pub fn record(value: impl Into<Bytes>) -> Sample {
    Sample(Record { value: value.into(), born_at: TIME, stored_at: TIME, ..Record::default() })
}

impl Sample {
    #[must_use]
    pub fn key(mut self, key: &str) -> Sample {
        self.0.key = Some(Bytes::copy_from_slice(key.as_bytes()));
        self
    }

    #[must_use]
    pub fn tag(mut self, tag: &str) -> Sample {
        self.0.tag = Bytes::copy_from_slice(tag.as_bytes());
        self
    }

    /// Adds a property.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Sample {
        let mut raw = self.0.headers.to_vec();
        raw.extend_from_slice(format!("{name}\u{1}{value}\u{2}").as_bytes());
        self.0.headers = raw.into();
        self
    }

    /// Producer's time, milliseconds since 1970. The broker's is then no earlier.
    #[must_use]
    pub fn born_at(mut self, time: u64) -> Sample {
        self.0.born_at = time;
        self.0.stored_at = self.0.stored_at.max(time);
        self
    }

    /// Broker's time, milliseconds since 1970. The newest of a batch is what the plugin sees as now.
    #[must_use]
    pub fn stored_at(mut self, time: u64) -> Sample {
        self.0.stored_at = time;
        self
    }

    /// What a timer counts as: its key and nothing else.
    pub(crate) fn of_timer(timer: Timer) -> Sample {
        Sample(Record { key: Some(timer.key.into()), ..Record::default() })
    }

    #[must_use]
    pub fn into_record(self) -> Record {
        self.0
    }
}

/// A half message with this key and body, at its first of 15 checks.
#[must_use]
pub fn half(key: &str, body: &str) -> HalfMessage {
    HalfMessage {
        transaction_id: format!("tx-{key}"),
        topic: "payments".into(),
        producer_group: "shop".into(),
        key: Some(key.into()),
        body: body.into(),
        born_at: TIME,
        max_attempts: 15,
        now: TIME + 60_000,
        ..HalfMessage::default()
    }
}

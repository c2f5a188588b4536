//! Look-ups of plugins in topics.

use sluice_broker::Reader;
use sluice_model::{RecordView, Timestamp, TopicName, limits};
use sluice_protocol::compress;
use sluice_runtime::ports::{Hit, Lookup, PortError};

use crate::priority;

/// Bytes of messages after which a look-up finds no more: what a plugin's memory holds at the most.
const HITS_BYTES: usize = 16 * 1024 * 1024;

/// Reads messages of topics by key.
pub struct ByKey {
    reader: Reader,
}

impl ByKey {
    pub fn new(reader: Reader) -> Self {
        Self { reader }
    }
}

impl Lookup for ByKey {
    fn by_key(&self, topic: &str, key: &str, limit: u32) -> std::result::Result<Vec<Hit>, PortError> {
        let failed = |error: sluice_broker::Error| PortError::Failed(error.to_string());
        let topic = TopicName::parse(topic).map_err(|error| failed(error.into()))?;
        let ever = (Timestamp(0), Timestamp(i64::MAX));
        let find = || self.reader.by_key(&topic, key, ever, limit as usize);
        let found = priority::upright(find).map_err(failed)?;
        let (mut hits, mut bytes) = (Vec::with_capacity(found.len()), 0);
        for record in &found {
            let hit = to_hit(record)?;
            bytes += hit.body.len();
            if bytes > HITS_BYTES && !hits.is_empty() {
                break;
            }
            hits.push(hit);
        }
        Ok(hits)
    }
}

fn to_hit(stored: &[u8]) -> std::result::Result<Hit, PortError> {
    let view = RecordView::parse(stored).map_err(|error| PortError::Failed(error.to_string()))?;
    let body = match view.sys_flag().compression() {
        None => view.body().to_vec(),
        Some(compression) => compress::decompress(view.body(), compression, limits::SYSTEM_BODY_LEN)
            .map_err(|error| PortError::Failed(error.to_string()))?,
    };
    Ok(Hit {
        queue: view.queue().0,
        offset: view.queue_offset().0,
        stored_at: u64::try_from(view.stored_at().0).unwrap_or(0),
        headers: view.own_properties().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        body: body.into(),
    })
}

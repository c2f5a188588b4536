//! Looking messages and offsets up.

use sluice_broker::Boundary;
use sluice_model::{QueueOffset, RecordView, Timestamp};
use sluice_protocol::{
    Response, ResponseCode, reply,
    request::{EarliestStoreTime, MaxOffset, MinOffset, QueryMessage, SearchOffset, ViewMessage},
};

use super::{Door, answer, client::offset_response};
use crate::failure::{Failure, Result};

/// Offsets are signed on the wire.
pub(super) fn signed(offset: QueueOffset) -> i64 {
    i64::try_from(offset.0).unwrap_or(i64::MAX)
}

impl Door {
    pub(super) fn query_message(&self, request: QueryMessage) -> Response {
        answer(self.query(&request))
    }

    fn query(&self, request: &QueryMessage) -> Result<Response> {
        let most = usize::try_from(request.max_messages).unwrap_or(0).max(1);
        let times = (request.begin, request.end);
        let mut found = self.parts.shell.reader.by_key(&request.topic, &request.key, times, most)?;
        if found.is_empty() {
            return Ok(Response::error(
                ResponseCode::QueryNotFound,
                format!("no message has the key {:?}", request.key),
            ));
        }
        found.reverse();
        let last = found.last().and_then(|record| RecordView::parse(record).ok().map(|record| record.stored_at()));
        let header = reply::QueryReply {
            indexed_until: last.unwrap_or(Timestamp(0)),
            indexed_offset: i64::try_from(self.parts.shell.reader.store().readable().0).unwrap_or(i64::MAX),
        };
        let mut response = Response::ok().with_ext(header.encode());
        response.body = found.into_iter().collect();
        Ok(response)
    }

    pub(super) fn view_message(&self, request: ViewMessage) -> Response {
        match self.parts.shell.reader.record_at(request.offset) {
            Ok(record) => Response::ok().with_body(record),
            Err(error) => Response::error(ResponseCode::SystemError, format!("offset: {error}")),
        }
    }

    pub(super) fn max_offset(&self, request: MaxOffset) -> Response {
        let checked = self.parts.shell.reader.check_queue(&request.topic, request.queue).map_err(Failure::from);
        answer(checked.map(|()| offset_response(self.parts.shell.reader.bounds(&request.topic, request.queue).1)))
    }

    pub(super) fn min_offset(&self, request: MinOffset) -> Response {
        let checked = self.parts.shell.reader.check_queue(&request.topic, request.queue).map_err(Failure::from);
        answer(checked.map(|()| offset_response(self.parts.shell.reader.bounds(&request.topic, request.queue).0)))
    }

    pub(super) fn search_offset(&self, request: SearchOffset) -> Response {
        answer(self.search(&request))
    }

    fn search(&self, request: &SearchOffset) -> Result<Response> {
        let boundary = match request.boundary.as_deref() {
            None | Some("" | "LOWER" | "lower") => Boundary::Lower,
            Some("UPPER" | "upper") => Boundary::Upper,
            Some(other) => {
                let text = format!("boundaryType: expected LOWER or UPPER, got {other:?}");
                return Err(Failure::invalid("boundaryType", text));
            }
        };
        let found = self.parts.shell.reader.offset_at_time(&request.topic, request.queue, request.time, boundary)?;
        Ok(offset_response(found))
    }

    pub(super) fn earliest_store_time(&self, request: EarliestStoreTime) -> Response {
        let reader = &self.parts.shell.reader;
        let checked = reader.check_queue(&request.topic, request.queue).map_err(Failure::from);
        answer(checked.map(|()| {
            let (min, _) = reader.bounds(&request.topic, request.queue);
            let time = reader.stored_at(&request.topic, request.queue, min).unwrap_or(Timestamp(-1));
            Response::ok().with_ext(reply::TimeReply { time }.encode())
        }))
    }
}

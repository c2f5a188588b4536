//! The remoting door: RocketMQ clients and tools. Parses once, calls the broker, maps the answer.

mod admin;
mod assign;
mod bodies;
mod client;
mod codes;
mod pop;
mod pull;
mod query;
mod recall;
mod relay;
mod reply;
mod send;
mod sessions;

use sluice_protocol::{FieldError, Frame, Request, Response, ResponseCode};
use sluice_transport::{Handler, Responder, Session};

pub(crate) use bodies::{of_topic, version};
pub use pull::Pulls;
pub use sessions::Sessions;

use crate::{failure::Failure, server::Parts};

/// The door itself.
pub struct Door {
    pub parts: Parts,
}

impl Handler for Door {
    fn caught_up(&self) {
        self.parts.shell.work();
    }

    fn opened(&self, session: &Session) {
        self.parts.sessions.add(session);
    }

    fn closed(&self, session: &Session) {
        self.parts.sessions.remove(session);
        self.parts.flow.connection_closed(session.id());
        self.parts.pulls.drop_session(&self.parts.shell.reader, session.id());
        let changed = self.parts.shell.reader.session_closed(sessions::id(session));
        self.parts.sessions.tell(changed);
    }

    fn request(&self, session: &Session, frame: Frame, responder: Responder) {
        match Request::decode(&frame) {
            Ok(request) => self.dispatch(session, &frame, request, responder),
            Err(error) => responder.send(malformed(&error)),
        }
    }
}

impl Door {
    /// One arm a request. Arms that wait for the log or for messages keep the responder; the others answer at once.
    fn dispatch(&self, session: &Session, frame: &Frame, request: Request, responder: Responder) {
        let answer = match request {
            Request::SendMessage(r) => return self.send(session, *r, responder),
            Request::SendBack(r) => return self.send_back(*r, responder),
            Request::EndTransaction(r) => return self.end_transaction(*r, responder),
            Request::SendReply(r) => return self.send_reply(session, r.0, responder),
            Request::ConsumerRunning(r) => return self.consumer_running(*r, responder),
            Request::ConsumeDirectly(r) => return self.consume_directly(*r, responder),
            Request::RecallMessage(r) => return self.recall(*r, responder),
            Request::PullMessage(r) => return self.pull(session, *r, responder),
            Request::PopMessage(r) => return self.pop(session, *r, responder),
            Request::AckMessage(r) => return self.ack(*r, responder),
            Request::BatchAck(r) => return self.batch_ack(*r, responder),
            Request::ChangeInvisible(r) => return self.change_invisible(*r, responder),
            Request::Notification(r) => return self.notification(session, *r, responder),
            Request::QueryAssignment(r) => return self.query_assignment(*r, responder),
            Request::SetRequestMode(r) => return self.set_request_mode(*r, responder),
            Request::Heartbeat(r) => return self.heartbeat(session, frame, *r, responder),
            Request::CreateTopic(r) => return self.create_topic(*r, responder),
            Request::CreateTopics(r) => return self.create_topics(*r, responder),
            Request::DeleteTopic(r) => return self.delete_topic(*r, responder),
            Request::UpdateGroup(r) => return self.update_groups(vec![r.body], responder),
            Request::UpdateGroups(r) => return self.update_groups(r.body.groups, responder),
            Request::DeleteGroup(r) => return self.delete_group(*r, responder),
            Request::PollingCount(r) => self.polling_count(&r),
            Request::UnregisterClient(r) => self.unregister_client(*r),
            Request::ConsumerList(r) => self.consumer_list(*r),
            Request::CheckClientConfig(r) => self.check_client_config(*r),
            Request::LockQueues(r) => self.lock_queues(*r),
            Request::UnlockQueues(r) => self.unlock_queues(*r),
            Request::QueryConsumerOffset(r) => self.query_consumer_offset(*r),
            Request::UpdateConsumerOffset(r) => self.update_consumer_offset(*r),
            Request::ResetOffset(r) => self.reset_offset(*r),
            Request::CloneOffsets(r) => self.clone_offsets(*r),
            Request::AllConsumerOffsets(_) => self.all_consumer_offsets(),
            Request::QueryMessage(r) => self.query_message(*r),
            Request::ViewMessage(r) => self.view_message(*r),
            Request::MaxOffset(r) => self.max_offset(*r),
            Request::MinOffset(r) => self.min_offset(*r),
            Request::SearchOffset(r) => self.search_offset(*r),
            Request::EarliestStoreTime(r) => self.earliest_store_time(*r),
            Request::AllTopicConfigs(r) => self.all_topic_configs(*r),
            Request::TopicConfig(r) => self.topic_config(*r),
            Request::TopicStats(r) => self.topic_stats(*r),
            Request::SystemTopics(_) => self.system_topics(),
            Request::GroupsOfTopic(r) => self.groups_of_topic(*r),
            Request::AllGroups(r) => self.all_groups(*r),
            Request::GroupConfig(r) => self.group_config(*r),
            Request::ConsumeStats(r) => self.consume_stats(*r),
            Request::ConsumeTimeSpan(r) => self.consume_time_span(*r),
            Request::ConsumerConnections(r) => self.consumer_connections(*r),
            Request::ProducerConnections(r) => self.producer_connections(*r),
            Request::TopicsOfConsumer(r) => self.topics_of_consumer(*r),
            Request::SubscriptionOfConsumer(r) => self.subscription_of_consumer(*r),
            Request::BrokerConfig(_) => self.broker_config(),
            Request::BrokerRuntime(_) => self.broker_runtime(),
            _ => unsupported(frame.header.code),
        };
        responder.send(answer);
    }
}

fn unsupported(code: i32) -> Response {
    Response::error(ResponseCode::RequestCodeNotSupported, format!("request code {code} is not supported"))
}

fn malformed(error: &FieldError) -> Response {
    let code = match error.field.as_ref() {
        "properties" | "body" => ResponseCode::MessageIllegal,
        _ => ResponseCode::InvalidParameter,
    };
    Response::error(code, error.to_string())
}

/// The answer that tells a client of a failure.
pub(crate) fn failed(failure: &Failure) -> Response {
    Response::error(codes::of(failure), codes::remark(failure))
}

/// The answer to a request that failed or not.
pub(crate) fn answer(result: Result<Response, Failure>) -> Response {
    result.unwrap_or_else(|failure| failed(&failure))
}

//! Requests, one struct each, and [`Request`], which is any of them.

mod admin;
mod client;
mod offset;
mod pop;
mod pull;
mod route;
mod send;

pub use admin::*;
pub use client::*;
pub use offset::*;
pub use pop::*;
pub use pull::*;
pub use route::*;
pub use send::*;

use crate::{FieldError, Frame, RequestCode};

macro_rules! any_request {
    ($($name:ident: $($code:ident)|+),* $(,)?) => {
        /// Any request that Sluice knows.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Request {
            $($name(Box<$name>),)*
            /// A code that this table does not know.
            Unsupported(i32),
        }

        impl Request {
            /// Reads the fields and the body of a request. An unknown code is [`Request::Unsupported`], not an error.
            pub fn decode(frame: &Frame) -> Result<Self, FieldError> {
                Ok(match RequestCode::from(frame.header.code) {
                    $($(RequestCode::$code)|+ => Self::$name(Box::new($name::decode(frame)?)),)*
                    _ => Self::Unsupported(frame.header.code),
                })
            }
        }
    };
}

any_request! {
    SendMessage: SendMessage | SendMessageShort | SendBatch,
    PullMessage: PullMessage | LitePull,
    QueryMessage: QueryMessage,
    QueryConsumerOffset: QueryConsumerOffset,
    UpdateConsumerOffset: UpdateConsumerOffset,
    CreateTopic: CreateTopic,
    CreateTopics: CreateTopics,
    AllTopicConfigs: AllTopicConfigs,
    UpdateBrokerConfig: UpdateBrokerConfig,
    BrokerConfig: BrokerConfig,
    BrokerRuntime: BrokerRuntime,
    SearchOffset: SearchOffset,
    MaxOffset: MaxOffset,
    MinOffset: MinOffset,
    EarliestStoreTime: EarliestStoreTime,
    ViewMessage: ViewMessage,
    Heartbeat: Heartbeat,
    UnregisterClient: UnregisterClient,
    SendBack: SendBack,
    EndTransaction: EndTransaction,
    SendReply: SendReply | SendReplyShort,
    PushReply: PushReply,
    RecallMessage: RecallMessage,
    ConsumerList: ConsumerList,
    CheckTransaction: CheckTransaction,
    ConsumersChanged: ConsumersChanged,
    LockQueues: LockQueues,
    UnlockQueues: UnlockQueues,
    AllConsumerOffsets: AllConsumerOffsets,
    CheckClientConfig: CheckClientConfig,
    PutKv: PutKv,
    GetKv: GetKv,
    DeleteKv: DeleteKv,
    RegisterBroker: RegisterBroker,
    UnregisterBroker: UnregisterBroker,
    Route: Route,
    Cluster: Cluster,
    UpdateGroup: UpdateGroup,
    AllGroups: AllGroups,
    TopicStats: TopicStats,
    ConsumerConnections: ConsumerConnections,
    ProducerConnections: ProducerConnections,
    WipeWrite: WipeWrite,
    AllTopics: AllTopics,
    DeleteGroup: DeleteGroup,
    ConsumeStats: ConsumeStats,
    DeleteTopic: DeleteTopic,
    DeleteTopicRoute: DeleteTopicRoute,
    RegisterTopicRoute: RegisterTopicRoute,
    KvList: KvList,
    ResetConsumer: ResetConsumer,
    ResetOffset: ResetOffset,
    CloneOffsets: CloneOffsets,
    TopicsOfCluster: TopicsOfCluster,
    UpdateGroups: UpdateGroups,
    GroupsOfTopic: GroupsOfTopic,
    ConsumeTimeSpan: ConsumeTimeSpan,
    SystemTopicsOfNames: SystemTopicsOfNames,
    SystemTopics: SystemTopics,
    ConsumerRunning: ConsumerRunning,
    ConsumeDirectly: ConsumeDirectly,
    UpdateNamesConfig: UpdateNamesConfig,
    NamesConfig: NamesConfig,
    QueryDataVersion: QueryDataVersion,
    AddWrite: AddWrite,
    TopicsOfConsumer: TopicsOfConsumer,
    SubscriptionOfConsumer: SubscriptionOfConsumer,
    TopicConfig: TopicConfig,
    GroupConfig: GroupConfig,
    MemberGroup: MemberGroup,
    BrokerHeartbeat: BrokerHeartbeat,
    QueryAssignment: QueryAssignment,
    SetRequestMode: SetRequestMode,
    PopMessage: PopMessage,
    AckMessage: AckMessage,
    BatchAck: BatchAck,
    ChangeInvisible: ChangeInvisible,
    Notification: Notification,
    PollingCount: PollingCount,
}

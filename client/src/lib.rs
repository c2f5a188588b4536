//! A client for any broker that speaks RocketMQ's remoting protocol, Apache's or Sluice's.
//!
//! ```no_run
//! use sluice_client::{Client, ClientConfig, Message, Outcome};
//!
//! # async fn example() -> Result<(), sluice_client::Error> {
//! let client = Client::new(ClientConfig::new(["127.0.0.1:9876"]))?;
//!
//! let producer = client.producer("orders-producer")?;
//! let sent = producer.send(Message::new("orders", "a body").tag("paid").key("4711")).await?;
//! println!("stored as {} at {} of {}", sent.message_id, sent.offset, sent.queue);
//!
//! let consumer = client
//!     .push_consumer("orders-consumer")
//!     .subscribe("orders", "paid || refunded")
//!     .start(|messages| async move {
//!         for message in &messages {
//!             println!("{}: {} bytes", message.message_id, message.body.len());
//!         }
//!         Outcome::Done
//!     })
//!     .await?;
//! consumer.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] shares its connections, routes and heartbeats among all producers and consumers made from it. Everything
//! runs on the tokio runtime in which the client was made.

mod admin;
mod callbacks;
mod client;
mod config;
mod error;
mod filter;
mod id;
mod lock;
mod message;
mod producer;
mod pull;
mod push;
mod received;
mod transaction;

pub use admin::{Admin, Topic};
pub use client::Client;
pub use config::ClientConfig;
pub use error::Error;
pub use filter::Filter;
pub use message::Message;
pub use producer::{Producer, Sent, Status};
pub use pull::{Found, PullConsumer, Pulled};
pub use push::{Outcome, PushConsumer, PushConsumerBuilder, Start};
pub use received::Received;
pub use sluice_protocol::body::{MessageModel, QueueRef};
pub use transaction::{Decision, TransactionProducer};

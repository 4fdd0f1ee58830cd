//! FlowKit's transport on Apache Kafka.
//!
//! | stream | topic | partition |
//! |---|---|---|
//! | a shard's | `{prefix}.shards.v1` | the shard |
//! | an inbox | `{prefix}.inboxes.v1` | the inbox |
//! | announcements | `{prefix}.announcements.v1` | 0 |
//!
//! Partitions are assigned by hand at the offset that the caller names: no consumer group, no
//! committed offset. Appends go through one idempotent producer in the order in which they were asked
//! for; ends of logs are asked from the broker every time, since leases expire by them.
//!
//! **Cancel safety.** A dropped append may or may not be in the stream. A dropped read loses nothing:
//! the next one names its offset again.

mod consumer;
mod error;
mod fit;
mod log;
mod off_thread;
mod producer;
mod reader;
mod settings;
mod topics;
mod transport;

pub use error::OpenError;
pub use settings::KafkaSettings;
pub use transport::KafkaTransport;

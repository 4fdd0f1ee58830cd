//! What a client's error means for the caller, decided in this one place.

use flowkit_core::port::{ErrorKind, PortError};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Why a transport cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No broker answers.
    #[error(
        "Kafka at {bootstrap} cannot be reached: {reason}; is it running, and is the address right?"
    )]
    Unreachable {
        /// The brokers asked.
        bootstrap: String,
        /// What the client says.
        reason: String,
    },
    /// The client does not take the settings.
    #[error("the Kafka client refuses its settings: {0}; TLS needs a build with the feature `tls`")]
    Settings(String),
    /// A topic is not as the deployment needs it.
    #[error("topic {topic} has {what} {found}, but {wanted} is needed: {cure}")]
    Topic {
        /// The topic.
        topic: String,
        /// What differs.
        what: &'static str,
        /// As found.
        found: String,
        /// As needed.
        wanted: String,
        /// What to do.
        cure: &'static str,
    },
    /// A topic cannot be created or looked at.
    #[error("topic {topic}: {reason}")]
    Refused {
        /// The topic.
        topic: String,
        /// What the broker says.
        reason: String,
    },
}

/// An error of something that changes nothing.
pub(crate) fn of_read(op: &str, error: &KafkaError) -> PortError {
    let kind = match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::OffsetOutOfRange
            | RDKafkaErrorCode::AutoOffsetReset
            | RDKafkaErrorCode::InvalidArgument,
        ) => ErrorKind::Invalid,
        _ => ErrorKind::Retry,
    };
    PortError::new(kind, op, error.to_string())
}

/// An error of an append; `sent` = it was handed to the client.
pub(crate) fn of_append(error: &KafkaError, sent: bool) -> PortError {
    let kind = match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            ErrorKind::Invalid
        }
        // It never left the queue, or was never in it.
        Some(RDKafkaErrorCode::QueueFull | RDKafkaErrorCode::PurgeQueue) => ErrorKind::Retry,
        _ if sent => ErrorKind::Unknown,
        _ => ErrorKind::Retry,
    };
    PortError::new(kind, "append", error.to_string())
}

//! What a client's error means for the caller, decided in this one place.

use flowkit_core::port::{ErrorKind, PortError};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaConfRes;

use crate::KafkaSettings;

/// Why a transport cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No broker answers.
    #[error(
        "Kafka at {bootstrap} cannot be reached: {reason}; is it running, is the address right, and \
         does its listener speak the security.protocol {protocol}?"
    )]
    Unreachable {
        /// The brokers asked.
        bootstrap: String,
        /// How the client speaks to them.
        protocol: String,
        /// What the client says.
        reason: String,
    },
    /// The brokers know no such user, or another password.
    #[error(
        "Kafka at {bootstrap} refuses the login: {reason}; check the properties sasl.mechanism, \
         sasl.username and sasl.password, or leave them and security.protocol out where the \
         listener knows no logins"
    )]
    Credentials {
        /// The brokers asked.
        bootstrap: String,
        /// What they say.
        reason: String,
    },
    /// The client does not take the settings.
    #[error("the Kafka client refuses its settings: {0}")]
    Settings(String),
    /// The properties ask for TLS, and this build has none.
    #[error(
        "the property {property} needs TLS, which this build does not have: build \
         flowkit-transport-kafka with its cargo feature `tls`"
    )]
    TlsMissing {
        /// The property that asks for it.
        property: String,
    },
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
    #[error(
        "topic {topic} cannot be created or looked at: {reason}; the client needs the rights to \
         create and describe it, or somebody who has them creates it"
    )]
    Refused {
        /// The topic.
        topic: String,
        /// What the broker says.
        reason: String,
    },
}

/// What an error says, without the value of any property: one of them may be a password.
pub(crate) fn text_of(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _, name, _) => {
            format!("it knows no property {name}")
        }
        KafkaError::ClientConfig(_, _, name, _) => format!("the value of {name} is refused"),
        other => other.to_string(),
    }
}

/// An error of making a client.
pub(crate) fn of_settings(settings: &KafkaSettings, error: &KafkaError) -> OpenError {
    OpenError::Settings(settings.without_values(&text_of(error)))
}

/// An error of something that changes nothing.
pub(crate) fn of_read(op: &str, error: &KafkaError) -> PortError {
    let kind = match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset) => {
            ErrorKind::Invalid
        }
        _ => ErrorKind::Retry,
    };
    PortError::new(kind, op, text_of(error))
}

/// An error of an append; `sent` = it was handed to the client.
pub(crate) fn of_append(error: &KafkaError, sent: bool) -> PortError {
    let kind = match error.rdkafka_error_code() {
        // Checked before anything is written.
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            ErrorKind::Invalid
        }
        // Even one that is purged from the client's queue may have been sent: it returns there to be
        // sent again.
        _ if sent => ErrorKind::Unknown,
        _ => ErrorKind::Retry,
    };
    PortError::new(kind, "append", text_of(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(code: RDKafkaErrorCode, sent: bool) -> ErrorKind {
        of_append(&KafkaError::MessageProduction(code), sent).kind
    }

    #[test]
    fn a_message_that_was_handed_over_may_have_arrived_whatever_the_error() {
        for code in [
            RDKafkaErrorCode::PurgeQueue,
            RDKafkaErrorCode::PurgeInflight,
            RDKafkaErrorCode::MessageTimedOut,
            RDKafkaErrorCode::Fatal,
            RDKafkaErrorCode::QueueFull,
        ] {
            assert_eq!(kind(code, true), ErrorKind::Unknown, "{code:?}");
        }
        assert_eq!(kind(RDKafkaErrorCode::QueueFull, false), ErrorKind::Retry);
        assert_eq!(kind(RDKafkaErrorCode::Fatal, false), ErrorKind::Retry);
        for sent in [false, true] {
            let too_large = kind(RDKafkaErrorCode::MessageSizeTooLarge, sent);
            assert_eq!(too_large, ErrorKind::Invalid);
        }
    }

    #[test]
    fn a_refused_property_is_named_without_its_value() {
        for code in [
            RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN,
            RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
        ] {
            let error =
                KafkaError::ClientConfig(code, "no \"x\"".into(), "name".into(), "x".into());
            let text = of_settings(&KafkaSettings::new("k:1"), &error).to_string();
            assert!(text.contains("name") && !text.contains('x'), "{text}");
        }
    }
}

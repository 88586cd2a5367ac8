//! What librdkafka says, in Herald's words.

use rdkafka::{config::RDKafkaLogLevel, error::KafkaError, types::RDKafkaErrorCode};
use tracing::{debug, error, info, warn};

use crate::BrokerError;

/// An error of a call that is about no topic in particular.
pub(super) fn failed(what: &str, error: &KafkaError) -> BrokerError {
    match error.rdkafka_error_code() {
        Some(code) => of_code(what, code),
        None => match error {
            KafkaError::ClientConfig(_, why, name, _) => {
                BrokerError::Fatal(format!("{name}: {why}"))
            }
            KafkaError::ClientCreation(why) => BrokerError::Fatal(format!("{what}: {why}")),
            other => BrokerError::Unavailable(format!("{what}: {other}")),
        },
    }
}

/// An error of a call that is about a topic.
pub(super) fn failed_for(topic: &str, error: &KafkaError) -> BrokerError {
    match error.rdkafka_error_code() {
        Some(code) if is_unknown_topic(code) => BrokerError::UnknownTopic(topic.to_owned()),
        _ => failed(topic, error),
    }
}

pub(super) fn is_unknown_topic(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::InvalidTopic
    )
}

/// Trying again helps but where we are refused, or wrong. A failed TLS handshake is none of these:
/// it is also what a broker that is just ending looks like.
pub(super) fn of_code(what: &str, code: RDKafkaErrorCode) -> BrokerError {
    let text = format!("{what}: {code}");
    match code {
        RDKafkaErrorCode::Authentication
        | RDKafkaErrorCode::SaslAuthenticationFailed
        | RDKafkaErrorCode::UnsupportedSASLMechanism
        | RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::GroupAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed
        | RDKafkaErrorCode::InvalidArgument
        | RDKafkaErrorCode::InvalidConfig
        | RDKafkaErrorCode::InvalidGroupId
        | RDKafkaErrorCode::InvalidPartitions
        | RDKafkaErrorCode::InvalidRecord
        | RDKafkaErrorCode::InvalidReplicationFactor
        | RDKafkaErrorCode::InvalidSessionTimeout
        | RDKafkaErrorCode::InvalidTopic
        | RDKafkaErrorCode::InconsistentGroupProtocol
        | RDKafkaErrorCode::PolicyViolation
        | RDKafkaErrorCode::UnsupportedVersion => BrokerError::Fatal(text),
        _ => BrokerError::Unavailable(text),
    }
}

/// A line of librdkafka's log.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, text: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => error!(facility, "kafka: {text}"),
        RDKafkaLogLevel::Warning => warn!(facility, "kafka: {text}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => info!(facility, "kafka: {text}"),
        RDKafkaLogLevel::Debug => debug!(facility, "kafka: {text}"),
    }
}

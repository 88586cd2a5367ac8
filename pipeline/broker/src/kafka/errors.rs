//! What librdkafka says, in Herald's words.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use rdkafka::{config::RDKafkaLogLevel, error::KafkaError, types::RDKafkaErrorCode};
use tracing::{debug, error, info, warn};

use crate::BrokerError;

/// How often it is said that brokers are away: each client would, whenever it tries.
const AWAY_EVERY_MS: u64 = 5_000;

/// An error that a client reports by itself, about no call of ours.
pub(super) fn reported(client: &str, error: &KafkaError, reason: &str) {
    /// When it was last said that brokers are away, in milliseconds of this process; for all
    /// clients, as it is one cluster.
    static SAID: AtomicU64 = AtomicU64::new(0);
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let is_away = matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::Resolve
        )
    );
    if is_away {
        let now = START.elapsed().as_millis() as u64 + AWAY_EVERY_MS;
        let said = SAID.load(Ordering::Relaxed);
        let is_due = now.saturating_sub(said) >= AWAY_EVERY_MS;
        let (order, other) = (Ordering::Relaxed, Ordering::Relaxed);
        if !is_due || SAID.compare_exchange(said, now, order, other).is_err() {
            debug!(%error, "kafka {client}: {reason}");
            return;
        }
    }
    warn!(%error, "kafka {client}: {reason}");
}

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

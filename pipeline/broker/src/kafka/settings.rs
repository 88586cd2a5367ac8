//! What the brokers are told about us, and why each setting is as it is.

use std::{fmt, time::Duration};

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};

use crate::Start;

/// How long a member may not listen before its partitions go to others.
pub(super) const POLL_WITHIN: Duration = Duration::from_secs(300);
/// How long a record may wait for its ack.
pub(super) const ACKED_WITHIN: Duration = Duration::from_secs(30);
/// How much a consumer fetches ahead, in all its partitions, and how many records: each takes a few
/// hundred bytes besides its own. What one request brings comes on top of it.
const AHEAD_BYTES: usize = 32 * 1024 * 1024;
const AHEAD_RECORDS: usize = 100_000;
/// The largest record a client hands over at all; what a topic takes is less.
const LARGEST_BYTES: usize = 64 * 1024 * 1024;

/// How to reach Kafka.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// Brokers to begin with, `host:port,host:port`.
    pub brokers: String,
    /// Encrypts, where it is given.
    pub tls: Option<Tls>,
    /// Logs in, where it is given.
    pub sasl: Option<Sasl>,
    /// How many copies of a record new topics keep; -1: as many as the brokers are set to.
    pub replication_factor: i32,
    /// How long a silent member of a group keeps its partitions.
    pub session_timeout: Duration,
}

/// How the connection is encrypted. Files are PEM.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// A file of the certificates to trust; none: the system's.
    pub ca: Option<String>,
    /// A file with the client's certificate.
    pub certificate: Option<String>,
    /// A file with the client's key.
    pub key: Option<String>,
}

/// Who logs in.
#[derive(Clone)]
pub struct Sasl {
    /// PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
    pub mechanism: String,
    /// The user's name.
    pub user: String,
    /// The password; never shown.
    pub password: String,
}

impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sasl")
            .field("mechanism", &self.mechanism)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl KafkaSettings {
    /// No encryption, no login, the brokers' replication factor.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            tls: None,
            sasl: None,
            replication_factor: -1,
            session_timeout: Duration::from_secs(10),
        }
    }

    /// What every client has in common.
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "herald")
            .set("security.protocol", self.protocol())
            .set("socket.timeout.ms", "10000")
            .set("socket.keepalive.enable", "true")
            // A broker that is back is noticed within a second, not ten.
            .set("reconnect.backoff.max.ms", "1000")
            .set("log.connection.close", "false")
            .set_log_level(RDKafkaLogLevel::Warning);
        if let Some(tls) = &self.tls {
            let files = [
                ("ssl.certificate.location", tls.certificate.as_deref()),
                ("ssl.key.location", tls.key.as_deref()),
                // The OpenSSL that is linked in does not know where this system keeps them.
                (
                    "ssl.ca.location",
                    Some(tls.ca.as_deref().unwrap_or("probe")),
                ),
            ];
            for (name, file) in files {
                if let Some(file) = file {
                    config.set(name, file);
                }
            }
        }
        if let Some(sasl) = &self.sasl {
            config
                .set("sasl.mechanism", &sasl.mechanism)
                .set("sasl.username", &sasl.user)
                .set("sasl.password", &sasl.password);
        }
        config
    }

    fn protocol(&self) -> &'static str {
        match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        }
    }

    /// Makes topics. Nobody reads this client's log, so it keeps none.
    pub(super) fn admin(&self) -> ClientConfig {
        let mut config = self.client();
        config.set_log_level(RDKafkaLogLevel::Emerg);
        config
    }

    /// Asks about topics and offsets.
    pub(super) fn asking(&self, group: Option<&str>) -> ClientConfig {
        let mut config = self.client();
        if let Some(group) = group {
            config
                .set("group.id", group)
                .set("enable.auto.commit", "false");
        }
        config
    }

    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            // Acked by all replicas, in order, and once however often it is sent.
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // As the Java client does, and `herald_schemas::ids::partition_of`.
            .set("partitioner", "murmur2_random")
            .set("compression.type", "lz4")
            // Batches are formed before they come here: waiting longer would gain nothing.
            .set("linger.ms", "1")
            // Below what any topic takes, so that only a record that is too large by itself is
            // refused, never a small one that shares its batch.
            .set("batch.size", (256 * 1024).to_string())
            .set("message.max.bytes", LARGEST_BYTES.to_string())
            .set("message.timeout.ms", millis(ACKED_WITHIN))
            // How much is in flight is bounded by what `enqueue` lets in.
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", "2097151")
            // Topics were looked up before: one that is unknown after that is gone.
            .set("topic.metadata.propagation.max.ms", "5000");
        config
    }

    /// A member of `group` that may get as many as these partitions.
    pub(super) fn consumer(&self, group: &str, start: Start, partitions: usize) -> ClientConfig {
        let ahead = Ahead::shared_by(partitions);
        let mut config = self.asking(Some(group));
        let reset = match start {
            Start::Earliest => "earliest",
            Start::Latest => "latest",
        };
        config
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", reset)
            // Eager: with every rebalance all partitions are let go and dealt anew, so that what is
            // owned is always one list. Round robin, because `range` would give the first members
            // the odd partition of every topic.
            .set("partition.assignment.strategy", "roundrobin")
            .set("session.timeout.ms", millis(self.session_timeout))
            .set("heartbeat.interval.ms", millis(self.heartbeat()))
            .set(
                "max.poll.interval.ms",
                millis(POLL_WITHIN.max(self.session_timeout)),
            )
            // Each partition has a queue of its own, and these bound each of them.
            .set("queued.max.messages.kbytes", ahead.kbytes.to_string())
            .set("queued.min.messages", ahead.records.to_string())
            .set("fetch.message.max.bytes", ahead.request_bytes.to_string())
            .set("fetch.max.bytes", (16 * 1024 * 1024).to_string())
            // By default a queue that was full stays unfilled for a second.
            .set("fetch.queue.backoff.ms", "5")
            // A partition that was just assigned or sought waits for the request that is under way.
            .set("fetch.wait.max.ms", "100");
        config
    }

    fn heartbeat(&self) -> Duration {
        (self.session_timeout / 4).clamp(Duration::from_millis(100), Duration::from_secs(3))
    }
}

/// A partition's share of what is fetched ahead.
#[derive(Debug, PartialEq, Eq)]
struct Ahead {
    kbytes: usize,
    records: usize,
    /// Compressed. Not much less than a producer's batch: a larger one comes only when its partition
    /// is the first of a request.
    request_bytes: usize,
}

impl Ahead {
    fn shared_by(partitions: usize) -> Self {
        let kbytes = (AHEAD_BYTES / 1024 / partitions.max(1)).clamp(128, 2 * 1024);
        Self {
            kbytes,
            records: (AHEAD_RECORDS / partitions.max(1)).clamp(100, 10_000),
            request_bytes: (kbytes * 1024).min(512 * 1024),
        }
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let settings = KafkaSettings {
            sasl: Some(Sasl {
                mechanism: "PLAIN".to_owned(),
                user: "somebody".to_owned(),
                password: "hidden".to_owned(),
            }),
            ..KafkaSettings::new("127.0.0.1:9092")
        };
        let shown = format!("{settings:?}");
        assert!(
            shown.contains("somebody") && !shown.contains("hidden"),
            "{shown}"
        );
    }

    #[test]
    fn what_is_fetched_ahead_does_not_grow_with_the_partitions() {
        let few = Ahead::shared_by(12);
        assert_eq!((few.kbytes, few.request_bytes), (2 * 1024, 512 * 1024));
        for partitions in [0, 1, 36, 216] {
            let each = Ahead::shared_by(partitions);
            assert!(each.kbytes * 1024 * partitions <= AHEAD_BYTES, "{each:?}");
            assert!(each.records * partitions <= AHEAD_RECORDS, "{each:?}");
        }
        let many = Ahead::shared_by(100_000);
        assert!(many.records > 0 && many.kbytes > 0, "{many:?}");
    }

    #[test]
    fn the_protocol_follows_from_what_is_given() {
        let mut settings = KafkaSettings::new("127.0.0.1:9092");
        assert_eq!(settings.protocol(), "plaintext");
        settings.tls = Some(Tls::default());
        assert_eq!(settings.protocol(), "ssl");
        settings.sasl = Some(Sasl {
            mechanism: "PLAIN".to_owned(),
            user: String::new(),
            password: String::new(),
        });
        assert_eq!(settings.protocol(), "sasl_ssl");
        settings.tls = None;
        assert_eq!(settings.protocol(), "sasl_plaintext");
    }
}

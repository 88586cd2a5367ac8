//! Topics: made where they are missing, checked and brought up to date where they are not.

use std::{collections::HashMap, sync::Arc, time::Duration};

use rdkafka::{
    admin::{
        AdminOptions, AlterConfig, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier,
        TopicReplication,
    },
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::time::{Instant, sleep, timeout};
use tracing::info;

use super::{
    cluster::{ANSWER_WITHIN, Cluster},
    errors::{failed, of_code},
};
use crate::{BrokerError, TopicSpec};

/// How long the cluster may take to make topics and to tell everyone.
const MADE_WITHIN: Duration = Duration::from_secs(30);
/// How often it is asked whether it has.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// What a batch and its records need besides keys and values.
const OVERHEAD_BYTES: usize = 64 * 1024;

const MAX_BYTES: &str = "max.message.bytes";
const RETENTION: &str = "retention.ms";
const CLEANUP: &str = "cleanup.policy";

impl Cluster {
    pub(super) async fn setup(&self, topics: &[TopicSpec]) -> Result<(), BrokerError> {
        let mut there = Vec::new();
        let mut missing = Vec::new();
        for spec in topics {
            match self.partitions(&spec.name).await {
                Ok(have) => {
                    // Before anything is made or grown: neither can be taken back.
                    check_fixed(spec, have)?;
                    there.push(spec);
                }
                Err(BrokerError::UnknownTopic(_)) => missing.push(spec),
                Err(error) => return Err(error),
            }
        }
        // Those that another one makes meanwhile are looked at like those that were there.
        there.extend(self.make(&missing).await?);
        for spec in topics {
            self.visible(&spec.name).await?;
        }
        for spec in there {
            self.check_partitions(spec).await?;
            self.update(spec).await?;
        }
        for spec in topics {
            self.forget(&spec.name);
        }
        Ok(())
    }

    /// Makes topics; those that were there after all are returned.
    async fn make<'a>(&self, specs: &[&'a TopicSpec]) -> Result<Vec<&'a TopicSpec>, BrokerError> {
        if specs.is_empty() {
            return Ok(Vec::new());
        }
        let wanted: Vec<_> = specs.iter().map(|spec| wanted(spec)).collect();
        let replication = self.settings.replication_factor;
        let new: Vec<_> = specs
            .iter()
            .zip(&wanted)
            .map(|(spec, wanted)| {
                let copies = TopicReplication::Fixed(replication);
                let topic = NewTopic::new(&spec.name, spec.partitions, copies);
                wanted
                    .iter()
                    .fold(topic, |topic, (name, value)| topic.set(name, value))
            })
            .collect();
        let making = self.admin.create_topics(&new, &options(MADE_WITHIN));
        let mut there = Vec::new();
        for made in answered("cannot make topics", making).await? {
            match made {
                Ok(name) => info!(topic = name, "topic made"),
                Err((name, RDKafkaErrorCode::TopicAlreadyExists)) => {
                    there.extend(specs.iter().filter(|spec| spec.name == name));
                }
                Err((name, code)) => return Err(of_code(&format!("cannot make {name}"), code)),
            }
        }
        Ok(there)
    }

    /// Waits until the cluster knows a topic and all its partitions have a leader.
    async fn visible(&self, topic: &str) -> Result<(), BrokerError> {
        let until = Instant::now() + MADE_WITHIN;
        loop {
            match self.partitions(topic).await {
                Ok(_) => return Ok(()),
                Err(error @ BrokerError::Fatal(_)) => return Err(error),
                Err(error) if Instant::now() > until => {
                    return Err(BrokerError::Unavailable(format!(
                        "{topic} was made, but: {error}"
                    )));
                }
                Err(_) => sleep(ASK_EVERY).await,
            }
        }
    }

    /// More partitions where that is allowed; fewer cannot be had.
    async fn check_partitions(&self, spec: &TopicSpec) -> Result<(), BrokerError> {
        let have = self.partitions(&spec.name).await?;
        check_fixed(spec, have)?;
        if have >= spec.partitions {
            return Ok(());
        }
        let more = [NewPartitions::new(&spec.name, spec.partitions as usize)];
        let growing = self.admin.create_partitions(&more, &options(MADE_WITHIN));
        for grown in answered("cannot add partitions", growing).await? {
            match grown {
                Ok(_) => info!(
                    topic = spec.name,
                    from = have,
                    to = spec.partitions,
                    "grown"
                ),
                // Another one did the same at the same time.
                Err((_, RDKafkaErrorCode::InvalidPartitions)) => {}
                Err((name, code)) => return Err(of_code(&format!("cannot grow {name}"), code)),
            }
        }
        let until = Instant::now() + MADE_WITHIN;
        while self.partitions(&spec.name).await? < spec.partitions {
            if Instant::now() > until {
                let text = format!("{} did not grow", spec.name);
                return Err(BrokerError::Unavailable(text));
            }
            sleep(ASK_EVERY).await;
        }
        Ok(())
    }

    /// Brings the settings of a topic to what is needed. What is larger already stays: somebody
    /// wanted it so.
    async fn update(&self, spec: &TopicSpec) -> Result<(), BrokerError> {
        let have = self.settings_of(&spec.name).await?;
        let change: Vec<_> = wanted(spec)
            .into_iter()
            .filter(|(name, value)| {
                have.get(*name)
                    .is_some_and(|(have, _)| !is_enough(name, have, value))
            })
            .collect();
        if change.is_empty() {
            return Ok(());
        }
        // All that were set for this topic: the request drops those that it does not name.
        let own = have.iter().filter(|(_, (_, is_own))| *is_own);
        let kept = own.map(|(name, (value, _))| (name.as_str(), value.as_str()));
        let mut alter = AlterConfig::new(ResourceSpecifier::Topic(&spec.name));
        alter.entries.extend(kept);
        for (name, value) in &change {
            info!(topic = spec.name, name, value, "setting changed");
            alter.entries.insert(name, value);
        }
        let altering = self.admin.alter_configs([&alter], &options(ANSWER_WITHIN));
        for altered in answered("cannot change topics", altering).await? {
            if let Err((_, code)) = altered {
                return Err(of_code(&format!("cannot change {}", spec.name), code));
            }
        }
        Ok(())
    }

    /// The largest record that a topic takes; where we may not ask, the brokers will say.
    pub(super) async fn largest_record(&self, topic: &Arc<str>) -> Result<usize, BrokerError> {
        let settings = self.settings_of(topic).await?;
        let largest = settings
            .get(MAX_BYTES)
            .and_then(|(value, _)| value.parse::<usize>().ok());
        Ok(largest.map_or(usize::MAX, |bytes| bytes.saturating_sub(OVERHEAD_BYTES)))
    }

    /// The settings of a topic, and whether each is its own and not the cluster's. Empty where we
    /// may not ask.
    async fn settings_of(
        &self,
        topic: &str,
    ) -> Result<HashMap<String, (String, bool)>, BrokerError> {
        let resource = [ResourceSpecifier::Topic(topic)];
        let asking = self
            .admin
            .describe_configs(&resource, &options(ANSWER_WITHIN));
        let described = match answered("cannot read topics", asking).await {
            Ok(described) => described,
            Err(BrokerError::Fatal(_)) => return Ok(HashMap::new()),
            Err(error) => return Err(error),
        };
        let entries = described
            .into_iter()
            .filter_map(Result::ok)
            .flat_map(|resource| resource.entries);
        Ok(entries
            .filter_map(|entry| {
                let is_own = entry.source == ConfigSource::DynamicTopic;
                Some((entry.name, (entry.value?, is_own)))
            })
            .collect())
    }
}

fn check_fixed(spec: &TopicSpec, have: i32) -> Result<(), BrokerError> {
    if have == spec.partitions || !spec.fixed_partitions {
        return Ok(());
    }
    Err(BrokerError::Topic {
        topic: spec.name.clone(),
        what: format!(
            "has {have} partitions, asked for {}: it cannot be changed any more",
            spec.partitions
        ),
    })
}

fn wanted(spec: &TopicSpec) -> Vec<(&'static str, String)> {
    let largest = (spec.max_record_bytes + OVERHEAD_BYTES).to_string();
    let mut wanted = vec![(MAX_BYTES, largest)];
    match spec.retention {
        Some(retention) => {
            wanted.push((CLEANUP, "delete".to_owned()));
            wanted.push((RETENTION, retention.as_millis().to_string()));
        }
        None => wanted.push((CLEANUP, "compact".to_owned())),
    }
    wanted
}

/// Whether what a topic has serves as well as what was asked for.
fn is_enough(name: &str, have: &str, wanted: &str) -> bool {
    if name == CLEANUP {
        return have == wanted;
    }
    match (have.parse::<i64>(), wanted.parse::<i64>()) {
        // Kept for ever.
        (Ok(-1), _) if name == RETENTION => true,
        (Ok(have), Ok(wanted)) => have >= wanted,
        _ => false,
    }
}

fn options(within: Duration) -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(within))
        .operation_timeout(Some(within))
}

async fn answered<T>(
    what: &str,
    answer: impl Future<Output = Result<T, KafkaError>>,
) -> Result<T, BrokerError> {
    match timeout(MADE_WITHIN, answer).await {
        Ok(answer) => answer.map_err(|error| failed(what, &error)),
        Err(_) => Err(BrokerError::Unavailable(format!("{what}: no answer"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_larger_than_asked_for_stays() {
        assert!(is_enough(RETENTION, "-1", "1000"));
        assert!(is_enough(RETENTION, "2000", "1000"));
        assert!(!is_enough(RETENTION, "999", "1000"));
        assert!(is_enough(MAX_BYTES, "1000", "1000"));
        assert!(!is_enough(MAX_BYTES, "999", "1000"));
        assert!(is_enough(CLEANUP, "compact", "compact"));
        assert!(!is_enough(CLEANUP, "delete", "compact"));
    }
}

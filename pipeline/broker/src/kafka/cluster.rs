//! Questions to the cluster. librdkafka's calls for them block, so each runs on a thread for that
//! and has a deadline.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use herald_telemetry::{Operation, RoundTrips};
use rdkafka::{
    ClientConfig, ClientContext, Offset, TopicPartitionList,
    admin::AdminClient,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::task::spawn_blocking;

use super::{
    errors::{self, failed, failed_for, is_unknown_topic, of_code},
    lock,
    settings::KafkaSettings,
};
use crate::{BrokerError, Offsets, Partition, round_trips};

/// How long an answer may take.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// For how many groups a client is kept.
const GROUPS: usize = 32;

/// A client that asks and never reads.
type Asking = BaseConsumer<Logged>;

/// What goes to our log of what a client reports.
pub(super) struct Logged;

impl ClientContext for Logged {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        errors::log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        errors::reported("client", &error, reason);
    }
}

impl ConsumerContext for Logged {}

/// What is timed.
pub(super) struct Trips {
    pub(super) all: RoundTrips,
    pub(super) produce: Operation,
    pub(super) commit: Operation,
    metadata: Operation,
    offsets: Operation,
    committed: Operation,
}

impl Trips {
    fn new() -> Result<Self, BrokerError> {
        let all = round_trips()?;
        Ok(Self {
            produce: all.operation("produce"),
            commit: all.operation("commit"),
            metadata: all.operation("metadata"),
            offsets: all.operation("offsets"),
            committed: all.operation("committed"),
            all,
        })
    }
}

/// The cluster, for everyone who has questions.
pub(super) struct Cluster {
    pub(super) settings: KafkaSettings,
    pub(super) admin: AdminClient<Logged>,
    pub(super) trips: Trips,
    asking: Arc<Asking>,
    /// Offsets of a group are asked for in its name.
    groups: Mutex<HashMap<String, Arc<Asking>>>,
    /// Topics that were seen to exist, with the largest record they take.
    known: Mutex<HashMap<Arc<str>, usize>>,
}

impl Cluster {
    pub(super) fn new(settings: KafkaSettings) -> Result<Self, BrokerError> {
        let admin = settings
            .admin()
            .create_with_context(Logged)
            .map_err(|error| failed("cannot make a client", &error))?;
        Ok(Self {
            trips: Trips::new()?,
            admin,
            asking: Arc::new(asking(&settings.asking(None))?),
            settings,
            groups: Mutex::default(),
            known: Mutex::default(),
        })
    }

    pub(super) async fn partitions(&self, topic: &str) -> Result<i32, BrokerError> {
        let (client, topic) = (Arc::clone(&self.asking), topic.to_owned());
        let asked = blocking(move || {
            drain(&client);
            partitions(&client, &topic)
        });
        self.trips.metadata.time(asked).await
    }

    /// Whether a broker answers, whatever it says.
    pub(super) async fn ping(&self, within: Duration) -> Result<(), BrokerError> {
        let client = Arc::clone(&self.asking);
        let asked = blocking(move || {
            drain(&client);
            // Of one topic that every cluster has: of all of them, the answer may be long.
            match client.fetch_metadata(Some("__consumer_offsets"), within) {
                Ok(_) => Ok(()),
                Err(error) => Err(failed("no broker answers", &error)),
            }
        });
        self.trips.metadata.time(asked).await
    }

    /// The first or the next offset of each partition: one request for each broker that leads some.
    pub(super) async fn offsets(
        &self,
        partitions: &[Partition],
        which: Offset,
    ) -> Result<Offsets, BrokerError> {
        if partitions.is_empty() {
            return Ok(Offsets::new());
        }
        let mut topics: Vec<&Arc<str>> = partitions.iter().map(|one| &one.topic).collect();
        topics.sort();
        topics.dedup();
        for topic in topics {
            self.largest(topic).await?;
        }
        self.offsets_there(partitions, which).await
    }

    /// As [`Cluster::offsets`], of partitions that are known to be there.
    pub(super) async fn offsets_there(
        &self,
        partitions: &[Partition],
        which: Offset,
    ) -> Result<Offsets, BrokerError> {
        if partitions.is_empty() {
            return Ok(Offsets::new());
        }
        let (client, partitions) = (Arc::clone(&self.asking), partitions.to_vec());
        let asked = blocking(move || {
            drain(&client);
            let list = list(partitions.iter().map(|partition| (partition, which)))?;
            let answer = client
                .offsets_for_times(list, ANSWER_WITHIN)
                .map_err(|error| failed("cannot read offsets", &error))?;
            taken(&partitions, &answer, |partition, error| {
                Err(failed_for(&partition.topic, &error))
            })
        });
        self.trips.offsets.time(asked).await
    }

    pub(super) async fn committed(
        &self,
        group: &str,
        partitions: &[Partition],
    ) -> Result<Offsets, BrokerError> {
        if partitions.is_empty() {
            return Ok(Offsets::new());
        }
        let client = self.group(group)?;
        let partitions = partitions.to_vec();
        let asked = blocking(move || {
            drain(&client);
            committed(&*client, &partitions)
        });
        self.trips.committed.time(asked).await
    }

    /// As [`Cluster::committed`], asked by a member of the group itself: no other client is needed. It
    /// is kept alive no longer than the question lasts, since it leaves its group by its end.
    pub(super) async fn committed_by<C: ConsumerContext + 'static>(
        &self,
        member: Weak<BaseConsumer<C>>,
        partitions: Vec<Partition>,
    ) -> Result<Offsets, BrokerError> {
        if partitions.is_empty() {
            return Ok(Offsets::new());
        }
        let asked = blocking(move || match member.upgrade() {
            Some(member) => committed(&*member, &partitions),
            None => Err(BrokerError::Unavailable(
                "the consumer has ended".to_owned(),
            )),
        });
        self.trips.committed.time(asked).await
    }

    fn group(&self, group: &str) -> Result<Arc<Asking>, BrokerError> {
        let mut groups = lock(&self.groups);
        if let Some(client) = groups.get(group) {
            return Ok(Arc::clone(client));
        }
        if groups.len() >= GROUPS {
            groups.clear();
        }
        let client = Arc::new(asking(&self.settings.asking(Some(group)))?);
        groups.insert(group.to_owned(), Arc::clone(&client));
        Ok(client)
    }

    /// The largest record that a topic takes. Looked up once: it makes sure that the topic is there,
    /// which a producer must not try out, because that may create it.
    pub(super) async fn largest(&self, topic: &Arc<str>) -> Result<usize, BrokerError> {
        if let Some(largest) = lock(&self.known).get(topic) {
            return Ok(*largest);
        }
        self.partitions(topic).await?;
        let asked = self.largest_record(topic);
        let largest = self.trips.metadata.time(asked).await?;
        lock(&self.known).insert(Arc::clone(topic), largest);
        Ok(largest)
    }

    /// What was known of a topic turned out to be wrong: it is looked up again.
    pub(super) fn forget(&self, topic: &str) {
        lock(&self.known).remove(topic);
    }
}

/// Runs what blocks where it may.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BrokerError> + Send + 'static,
) -> Result<T, BrokerError> {
    let ended = spawn_blocking(work).await;
    ended.map_err(|_| BrokerError::Unavailable("stopped".to_owned()))?
}

fn asking(config: &ClientConfig) -> Result<Asking, BrokerError> {
    Asking::from_config_and_context(config, Logged)
        .map_err(|error| failed("cannot make a client", &error))
}

/// Takes what the client has to report, so that it does not pile up.
fn drain(client: &Asking) {
    while client.poll(Duration::ZERO).is_some() {}
}

fn partitions(client: &Asking, topic: &str) -> Result<i32, BrokerError> {
    let metadata = client
        .fetch_metadata(Some(topic), ANSWER_WITHIN)
        .map_err(|error| failed_for(topic, &error))?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return Err(BrokerError::UnknownTopic(topic.to_owned()));
    };
    match found.error().map(RDKafkaErrorCode::from) {
        None => {}
        Some(code) if is_unknown_topic(code) => {
            return Err(BrokerError::UnknownTopic(topic.to_owned()));
        }
        Some(code) => return Err(of_code(topic, code)),
    }
    if found
        .partitions()
        .iter()
        .any(|partition| partition.leader() < 0)
    {
        return Err(BrokerError::Unavailable(format!(
            "{topic}: a partition has no leader"
        )));
    }
    Ok(found.partitions().len() as i32)
}

fn committed<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &[Partition],
) -> Result<Offsets, BrokerError> {
    let list = list(partitions.iter().map(|one| (one, Offset::Invalid)))?;
    let answer = client
        .committed_offsets(list, ANSWER_WITHIN)
        .map_err(|error| failed("cannot read committed offsets", &error))?;
    taken(partitions, &answer, |_, error| {
        // Nothing was committed for what is not there.
        match error.rdkafka_error_code() {
            Some(code) if is_unknown_topic(code) => Ok(()),
            _ => Err(failed("cannot read committed offsets", &error)),
        }
    })
}

/// Partitions with offsets, as librdkafka takes them.
pub(super) fn list<'a>(
    partitions: impl Iterator<Item = (&'a Partition, Offset)>,
) -> Result<TopicPartitionList, BrokerError> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in partitions {
        list.add_partition_offset(&partition.topic, partition.index, offset)
            .map_err(|error| failed("wrong offset", &error))?;
    }
    Ok(list)
}

/// The offsets of an answer; `refused` judges those that came with an error.
fn taken(
    partitions: &[Partition],
    answer: &TopicPartitionList,
    refused: impl Fn(&Partition, KafkaError) -> Result<(), BrokerError>,
) -> Result<Offsets, BrokerError> {
    let mut offsets = Offsets::with_capacity(partitions.len());
    for partition in partitions {
        let Some(found) = answer.find_partition(&partition.topic, partition.index) else {
            continue;
        };
        if let Err(error) = found.error() {
            refused(partition, error)?;
        } else if let Offset::Offset(offset) = found.offset() {
            offsets.insert(partition.clone(), offset);
        }
    }
    Ok(offsets)
}

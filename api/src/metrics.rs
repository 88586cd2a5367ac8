//! Figures for operators: what waits, what became of notifications, how long sending takes. Exact,
//! and of this moment: materialize counts as it writes.

use std::{collections::BTreeMap, fmt::Write};

use herald_broker::Partition;
use herald_runtime::{stage::Stage, worker::now};
use herald_schemas::{
    rows::Tally,
    words::{Channel, Priority, Status},
};
use herald_store::Counted;
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    payload::{Json, PlainText},
};

use crate::{Api, Parts, Tag, fault::Fault, keys::Reader};

/// Over how many hours the latency is averaged.
const HOURS: i32 = 24;

/// How many wait, by lane.
#[derive(Object)]
struct Queues {
    /// To be rendered or delivered first.
    high: i64,
    /// To be rendered or delivered.
    normal: i64,
    /// To be rendered or delivered last.
    low: i64,
    /// Dead letters that were not requeued.
    dead: i64,
}

/// What waits, what became of notifications, and how long it took.
#[derive(Object)]
struct Metrics {
    /// Records that no worker has taken yet.
    queues: Queues,
    /// How many notifications are in each status.
    status_counts: BTreeMap<String, i64>,
    /// How many dead letters there are.
    dead_letter_count: i64,
    /// By channel: `open` while a worker leaves one of its providers alone since that fails, else
    /// `closed`.
    circuit_breaker: BTreeMap<String, String>,
    /// From accepted to sent, on the average of the last 24 hours; null when nothing was sent.
    #[oai(nullable)]
    avg_latency_seconds: Option<f64>,
}

#[derive(ApiResponse)]
enum Text {
    /// In Prometheus' text format.
    #[oai(status = 200, content_type = "text/plain; version=0.0.4")]
    Text(PlainText<String>),
}

pub(crate) struct Routes;

#[OpenApi(prefix_path = "/v1", tag = "Tag::Operations")]
impl Routes {
    /// Shows what waits, what became of notifications, and how long it took.
    #[oai(path = "/metrics", method = "get")]
    async fn metrics(&self, _reader: Reader, api: Parts<'_>) -> Result<Json<Metrics>, Fault> {
        let figures = Figures::read(&api).await?;
        let [high, normal, low] = figures.waiting;
        Ok(Json(Metrics {
            queues: Queues {
                high,
                normal,
                low,
                dead: figures.open_letters(),
            },
            avg_latency_seconds: figures.avg_latency_seconds(),
            status_counts: figures
                .statuses
                .into_iter()
                .map(|(status, number)| (status.to_string(), number))
                .collect(),
            dead_letter_count: figures.dead_letters,
            circuit_breaker: figures
                .breakers
                .iter()
                .map(|(channel, is_open)| {
                    let state = if *is_open { "open" } else { "closed" };
                    (channel.to_string(), state.to_owned())
                })
                .collect(),
        }))
    }

    /// The same for Prometheus.
    #[oai(path = "/metrics/prometheus", method = "get")]
    async fn prometheus(&self, _reader: Reader, api: Parts<'_>) -> Result<Text, Fault> {
        let figures = Figures::read(&api).await?;
        Ok(Text::Text(PlainText(text(&figures))))
    }
}

/// Whether any worker's breaker is open, for the channels that a provider may be called for.
fn breakers(api: &Api) -> Vec<(Channel, bool)> {
    let members = api.peers.members();
    let is_open = |channel: &Channel| {
        let mut members = members.values();
        members.any(|one| one.heartbeat.open_breakers.contains_key(channel))
    };
    let channels = Channel::ALL.iter();
    let channels = channels.filter(|channel| **channel != Channel::Log);
    channels
        .map(|channel| (*channel, is_open(channel)))
        .collect()
}

#[derive(Debug, Default)]
struct Figures {
    /// By lane.
    waiting: [i64; 3],
    /// In the order of their ways; those that no notification is in are left out.
    statuses: Vec<(Status, i64)>,
    /// Of each channel, whether one is open.
    breakers: Vec<(Channel, bool)>,
    dead_letters: i64,
    requeued: i64,
    /// In the last hours, and how many milliseconds those took together.
    sent: i64,
    sent_ms: i64,
}

impl Figures {
    async fn read(api: &Api) -> Result<Self, Fault> {
        let (mut figures, hour) = (Self::default(), Tally::hour(now()));
        for (index, lane) in Priority::ALL.iter().enumerate() {
            figures.waiting[index] = waiting(api, *lane).await?;
        }
        let mut statuses: BTreeMap<u8, (Status, i64)> = BTreeMap::new();
        for shard in 0..api.store.layout().await?.status_shards {
            let totals = api.store.totals(Counted::Status(shard as i32)).await?;
            for (key, number) in totals.counts {
                let (_, sum) = statuses.entry(key.status as u8).or_insert((key.status, 0));
                *sum += number;
            }
            figures.tally(&totals.tallies, hour);
        }
        let letters = api.topics.dead_letters();
        for partition in 0..api.broker.partitions(&letters).await? {
            let totals = api.store.totals(Counted::DeadLetters(partition)).await?;
            figures.tally(&totals.tallies, hour);
        }
        let statuses = statuses.into_values().filter(|(_, number)| *number != 0);
        figures.statuses = statuses.collect();
        figures.breakers = breakers(api);
        Ok(figures)
    }

    fn tally(&mut self, tallies: &[(Tally, i64)], hour: i32) {
        for (tally, number) in tallies {
            match tally {
                Tally::Sent(at) if *at > hour - HOURS => self.sent += number,
                Tally::SentMs(at) if *at > hour - HOURS => self.sent_ms += number,
                Tally::Sent(_) | Tally::SentMs(_) => {}
                Tally::Requeued(_) => self.requeued += number,
                Tally::DeadLetters(_) => self.dead_letters += number,
            }
        }
    }

    fn open_letters(&self) -> i64 {
        (self.dead_letters - self.requeued).max(0)
    }

    fn avg_latency_seconds(&self) -> Option<f64> {
        (self.sent > 0).then(|| self.sent_ms as f64 / 1_000.0 / self.sent as f64)
    }
}

/// How many records of a lane no worker has taken: to be rendered, or to be delivered.
async fn waiting(api: &Api, lane: Priority) -> Result<i64, Fault> {
    let render = vec![api.topics.notifications(lane)];
    let deliver = Channel::ALL
        .iter()
        .map(|channel| api.topics.deliveries(*channel, lane))
        .collect();
    Ok(lag(api, Stage::Render, render).await? + lag(api, Stage::Deliver, deliver).await?)
}

/// How many records of these topics a stage has yet to finish.
async fn lag(api: &Api, stage: Stage, topics: Vec<String>) -> Result<i64, Fault> {
    let mut partitions = Vec::new();
    for topic in topics {
        let count = api.broker.partitions(&topic).await?;
        partitions.extend((0..count).map(|index| Partition::new(topic.as_str(), index)));
    }
    let ends = api.broker.end_offsets(&partitions).await?;
    let group = api.topics.group(stage.as_str());
    let done = api.broker.committed(&group, &partitions).await?;
    let of = |partition: &Partition| {
        let end = ends.get(partition).copied().unwrap_or(0);
        (end - done.get(partition).copied().unwrap_or(0)).max(0)
    };
    Ok(partitions.iter().map(of).sum())
}

/// Prometheus' text format, version 0.0.4.
fn text(figures: &Figures) -> String {
    let mut text = String::new();
    let mut metric = |name: &str, help: &str, samples: &[(String, String)]| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let [high, normal, low] = figures.waiting;
    let queues = [
        ("high", high),
        ("normal", normal),
        ("low", low),
        ("dead", figures.open_letters()),
    ];
    let labelled = |label: &str, word: &str, value: i64| {
        (format!("{{{label}=\"{word}\"}}"), value.to_string())
    };
    metric(
        "notification_queue_depth",
        "Number of jobs waiting in each queue.",
        &queues.map(|(queue, number)| labelled("queue", queue, number)),
    );
    let statuses = figures.statuses.iter();
    let statuses: Vec<_> = statuses
        .map(|(status, number)| labelled("status", status.as_str(), *number))
        .collect();
    metric(
        "notification_status_total",
        "Count of notifications by status.",
        &statuses,
    );
    metric(
        "notification_dead_letter_total",
        "Total dead-letter notifications.",
        &[(String::new(), figures.dead_letters.to_string())],
    );
    let states = figures.breakers.iter();
    let states: Vec<_> = states
        .map(|(channel, is_open)| labelled("channel", channel.as_str(), i64::from(*is_open)))
        .collect();
    metric(
        "notification_circuit_breaker_state",
        "Circuit breaker state by channel (1=open, 0=closed).",
        &states,
    );
    let latency = figures.avg_latency_seconds();
    let latency = latency.map_or_else(|| "NaN".to_owned(), |seconds| seconds.to_string());
    metric(
        "notification_avg_latency_seconds",
        "Average time between created and sent.",
        &[(String::new(), latency)],
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_prometheus_own() {
        let figures = Figures {
            waiting: [0, 2, 0],
            statuses: vec![(Status::Pending, 2), (Status::Sent, 10)],
            breakers: vec![(Channel::Sms, true), (Channel::Push, false)],
            dead_letters: 3,
            requeued: 1,
            sent: 4,
            sent_ms: 5_000,
        };
        let text = text(&figures);
        for line in [
            "# HELP notification_queue_depth Number of jobs waiting in each queue.",
            "# TYPE notification_queue_depth gauge",
            "notification_queue_depth{queue=\"normal\"} 2",
            "notification_queue_depth{queue=\"dead\"} 2",
            "notification_status_total{status=\"sent\"} 10",
            "notification_dead_letter_total 3",
            "notification_circuit_breaker_state{channel=\"sms\"} 1",
            "notification_circuit_breaker_state{channel=\"push\"} 0",
            "notification_avg_latency_seconds 1.25",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
        assert!(super::text(&Figures::default()).ends_with("_seconds NaN\n"));
    }

    #[test]
    fn what_is_older_than_a_day_is_no_longer_averaged() {
        let mut figures = Figures::default();
        let tallies = [
            (Tally::Sent(100), 2),
            (Tally::SentMs(100), 3_000),
            (Tally::Sent(76), 9),
            (Tally::SentMs(76), 9_000_000),
            (Tally::DeadLetters(4), 1),
        ];
        figures.tally(&tallies, 100);
        assert_eq!(figures.avg_latency_seconds(), Some(1.5));
        assert_eq!(figures.dead_letters, 1);
    }
}

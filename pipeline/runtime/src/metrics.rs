//! What a process counts about its stages. `docs/metrics.md` says what each figure means.
//!
//! Labels are few and known: stages, channels, the configured providers. What a stage counts for
//! each batch is resolved once, when the stage first counts anything; so a process shows the stages
//! that it runs and no others.

#[cfg(target_os = "linux")]
mod process;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use herald_schemas::{ids::UnixMs, words::Channel};
use herald_stages::Output;
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::{complaints::Complaints, stage::Stage, worker::now};

/// Figures of one process; shared by its stages.
pub struct Metrics {
    registry: Registry,
    families: Families,
    stages: [OnceLock<OfStage>; Stage::ALL.len()],
    failed_calls: Complaints,
}

struct Families {
    records_in: IntCounterVec,
    records_out: IntCounterVec,
    dead_letters: IntCounterVec,
    restarts: IntCounterVec,
    in_flight: IntGaugeVec,
    up: IntGaugeVec,
    unread: IntGaugeVec,
    lag: Lag,
    retries: IntCounterVec,
    provider_latency: HistogramVec,
}

/// The figures of one stage.
struct OfStage {
    records_in: IntCounter,
    records_out: IntCounter,
    dead_letters: IntCounter,
    restarts: IntCounter,
    in_flight: IntGauge,
    up: IntGauge,
    unread: IntGauge,
    /// Whether an operator wants it not to run.
    is_stopped: AtomicBool,
}

/// How it is with a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It reads its topics.
    Running,
    /// It has not begun to, or is between two runs.
    Down,
    /// An operator has stopped it.
    Stopped,
}

/// What a stage wrote; counted once it is acked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    records: u64,
    dead_letters: u64,
    retries: [u64; Channel::ALL.len()],
}

impl Written {
    /// What these outputs are, once they are acked.
    pub(crate) fn of(outputs: &[Output]) -> Self {
        let mut written = Self::default();
        written.add(outputs);
        written
    }

    /// And these as well.
    pub(crate) fn add(&mut self, outputs: &[Output]) {
        self.records += outputs.len() as u64;
        for output in outputs {
            match output {
                Output::DeadLetter(_) => self.dead_letters += 1,
                Output::Retry { delivery, .. } => {
                    self.retries[delivery.identity.channel as usize] += 1;
                }
                _ => {}
            }
        }
    }
}

impl Metrics {
    /// Counters at zero, in a registry of their own.
    pub fn new() -> Result<Arc<Self>, prometheus::Error> {
        let registry = Registry::new();
        let families = Families::new(&registry)?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(process::OfProcess::new()?))?;
        Ok(Arc::new(Self {
            registry,
            families,
            stages: Default::default(),
            failed_calls: Complaints::new("calls to a provider fail"),
        }))
    }

    /// The registry, for whoever has something to add to it.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// All figures as of now, in Prometheus' text format.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// How it is with a stage in this process.
    pub fn state(&self, stage: Stage) -> State {
        let figures = self.stages[stage as usize].get();
        match figures.map(|figures| (figures.up.get(), figures.is_stopped.load(Relaxed))) {
            Some((1, _)) => State::Running,
            Some((_, true)) => State::Stopped,
            _ => State::Down,
        }
    }

    fn of(&self, stage: Stage) -> &OfStage {
        self.stages[stage as usize].get_or_init(|| self.families.of(stage))
    }

    /// Whether a stage is to run.
    pub(crate) fn wanted(&self, stage: Stage, is_wanted: bool) {
        self.of(stage).is_stopped.store(!is_wanted, Relaxed);
    }

    /// A stage reads its topics from now on.
    pub(crate) fn started(&self, stage: Stage) {
        self.of(stage).up.set(1);
    }

    /// A run of a stage has ended: nothing is in its hands.
    pub(crate) fn stopped(&self, stage: Stage) {
        self.of(stage).up.set(0);
        self.of(stage).in_flight.set(0);
    }

    pub(crate) fn restarted(&self, stage: Stage) {
        self.of(stage).restarts.inc();
    }

    pub(crate) fn read(&self, stage: Stage, records: usize) {
        self.of(stage).records_in.inc_by(records as u64);
    }

    /// What a stage wrote to the log is acked.
    pub(crate) fn wrote(&self, stage: Stage, written: &Written) {
        let figures = self.of(stage);
        figures.records_out.inc_by(written.records);
        figures.dead_letters.inc_by(written.dead_letters);
        for (channel, retries) in Channel::ALL.iter().zip(written.retries) {
            if retries > 0 {
                let of_channel = self.families.retries.with_label_values(&[channel.as_str()]);
                of_channel.inc_by(retries);
            }
        }
    }

    /// A stage has put records into the store.
    pub(crate) fn stored(&self, stage: Stage, records: usize) {
        self.of(stage).records_out.inc_by(records as u64);
    }

    pub(crate) fn holds(&self, stage: Stage, records: usize) {
        self.of(stage).in_flight.set(records as i64);
    }

    /// How many records wait in the partitions that are this worker's.
    pub(crate) fn unread(&self, stage: Stage, records: i64) {
        self.of(stage).unread.set(records);
    }

    /// Since when the oldest thing waits that a stage has yet to finish.
    pub(crate) fn behind(&self, stage: Stage, since: UnixMs) {
        self.of(stage);
        self.families.lag.set(stage, since);
    }

    /// As [`Metrics::behind`], by what a stage has in hand. A stage with nothing in hand has caught
    /// up only when it finds nothing to read either: between two batches of many it is as far behind
    /// as it was.
    pub(crate) fn lags(&self, stage: Stage, oldest_in_hand: Option<UnixMs>, is_idle: bool) {
        match oldest_in_hand {
            Some(since) => self.behind(stage, since),
            None if is_idle => self.caught_up(stage),
            None => {}
        }
    }

    /// A stage has finished everything there is.
    pub(crate) fn caught_up(&self, stage: Stage) {
        self.behind(stage, CAUGHT_UP);
    }

    /// A call failed; who looks into the log is told so, if not of each.
    pub(crate) fn call_failed(&self, provider: &str, reason: &str) {
        self.failed_calls.note(provider, reason);
    }

    pub(crate) fn called(
        &self,
        channel: Channel,
        provider: &str,
        outcome: &str,
        latency: Duration,
    ) {
        self.families
            .provider_latency
            .with_label_values(&[channel.as_str(), provider, outcome])
            .observe(latency.as_secs_f64());
    }
}

impl Families {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, label: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["stage"])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let latency = HistogramOpts::new(
            "herald_provider_latency_seconds",
            "How long a call to a provider took.",
        )
        .buckets(vec![
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0,
        ]);
        let provider_latency = HistogramVec::new(latency, &["channel", "provider", "outcome"])?;
        registry.register(Box::new(provider_latency.clone()))?;
        let lag = Lag::new()?;
        registry.register(Box::new(lag.clone()))?;
        Ok(Self {
            records_in: counter(
                "herald_records_in_total",
                "Records read by a stage.",
                "stage",
            )?,
            records_out: counter(
                "herald_records_out_total",
                "Records written by a stage: acked by the log, or (materialize) in the store.",
                "stage",
            )?,
            dead_letters: counter(
                "herald_dead_letters_total",
                "Dead letters written by a stage.",
                "stage",
            )?,
            restarts: counter(
                "herald_stage_restarts_total",
                "Restarts of a stage after a failure.",
                "stage",
            )?,
            retries: counter(
                "herald_retries_total",
                "Deliveries put off for another attempt.",
                "channel",
            )?,
            in_flight: gauge(
                "herald_in_flight",
                "Records that a stage has taken up and not finished.",
            )?,
            up: gauge(
                "herald_stage_up",
                "1: the stage is running; 0: it is between two runs.",
            )?,
            unread: gauge(
                "herald_lag_records",
                "Records not read yet of the partitions that this worker has.",
            )?,
            lag,
            provider_latency,
        })
    }

    fn of(&self, stage: Stage) -> OfStage {
        if stage == Stage::Deliver {
            // At zero from the start, so that the first retry is seen as one.
            for channel in Channel::ALL {
                self.retries.with_label_values(&[channel.as_str()]);
            }
        }
        self.lag.start(stage);
        let label = [stage.as_str()];
        OfStage {
            records_in: self.records_in.with_label_values(&label),
            records_out: self.records_out.with_label_values(&label),
            dead_letters: self.dead_letters.with_label_values(&label),
            restarts: self.restarts.with_label_values(&label),
            in_flight: self.in_flight.with_label_values(&label),
            up: self.up.with_label_values(&label),
            unread: self.unread.with_label_values(&label),
            is_stopped: AtomicBool::new(false),
        }
    }
}

/// Not yet counted by: shows nothing.
const NOT_STARTED: UnixMs = UnixMs::MIN;
const CAUGHT_UP: UnixMs = UnixMs::MAX;

/// How old the oldest thing is that each stage has yet to finish. Kept as the time since when, and
/// worked out when it is asked for: of a stage that hangs it grows.
#[derive(Clone)]
struct Lag {
    gauges: GaugeVec,
    since: Arc<[AtomicI64; Stage::ALL.len()]>,
}

impl Lag {
    fn new() -> Result<Self, prometheus::Error> {
        let help = "Age of the oldest thing that a stage has yet to finish; 0: it has caught up.";
        Ok(Self {
            gauges: GaugeVec::new(Opts::new("herald_lag_seconds", help), &["stage"])?,
            since: Arc::new(Stage::ALL.map(|_| AtomicI64::new(NOT_STARTED))),
        })
    }

    fn start(&self, stage: Stage) {
        let since = &self.since[stage as usize];
        let _ = since.compare_exchange(NOT_STARTED, CAUGHT_UP, Relaxed, Relaxed);
    }

    fn set(&self, stage: Stage, since: UnixMs) {
        self.since[stage as usize].store(since, Relaxed);
    }

    fn refresh(&self, now: UnixMs) {
        for stage in Stage::ALL {
            let since = self.since[stage as usize].load(Relaxed);
            if since != NOT_STARTED {
                let gauge: Gauge = self.gauges.with_label_values(&[stage.as_str()]);
                gauge.set(now.saturating_sub(since).max(0) as f64 / 1_000.0);
            }
        }
    }
}

impl Collector for Lag {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.refresh(now());
        self.gauges.collect()
    }
}

#[cfg(test)]
mod tests {
    use herald_schemas::words::Priority;

    use super::*;
    use crate::deliver::tests::delivery;

    #[test]
    fn a_process_shows_the_stages_that_it_runs_and_what_hangs_grows_old() {
        let metrics = Metrics::new().unwrap();
        let text = || metrics.text().unwrap();
        assert!(!text().contains("stage="), "{}", text());
        metrics.started(Stage::Match);
        assert!(text().contains("herald_lag_seconds{stage=\"match\"} 0\n"));
        assert_eq!(metrics.state(Stage::Match), State::Running);
        assert_eq!(metrics.state(Stage::Render), State::Down);
        let lag = &metrics.families.lag;
        metrics.behind(Stage::Match, 1_000);
        for (now, seconds) in [(1_500, 0.5), (61_000, 60.0), (900, 0.0)] {
            lag.refresh(now);
            assert_eq!(lag.gauges.with_label_values(&["match"]).get(), seconds);
        }
        metrics.stopped(Stage::Match);
        metrics.started(Stage::Match);
        lag.refresh(2_000);
        let gauge = lag.gauges.with_label_values(&["match"]);
        assert_eq!(gauge.get(), 1.0, "a new run has not caught up by itself");
        assert!(!text().contains("render"), "{}", text());
        metrics.stopped(Stage::Match);
        assert_eq!(metrics.state(Stage::Match), State::Down);
        metrics.wanted(Stage::Match, false);
        assert_eq!(metrics.state(Stage::Match), State::Stopped);
    }

    #[test]
    fn what_was_written_is_counted_by_what_it_is() {
        let retry = |channel| Output::Retry {
            tier: 0,
            delivery: delivery(channel, Priority::Low, "r"),
        };
        let first = delivery(Channel::Sms, Priority::Low, "r");
        let outputs = [
            retry(Channel::Sms),
            retry(Channel::Push),
            retry(Channel::Sms),
            Output::Deliver(first),
        ];
        let metrics = Metrics::new().unwrap();
        metrics.wrote(Stage::Deliver, &Written::of(&outputs));
        let text = metrics.text().unwrap();
        for line in [
            "herald_retries_total{channel=\"sms\"} 2",
            "herald_retries_total{channel=\"push\"} 1",
            "herald_retries_total{channel=\"email\"} 0",
            "herald_records_out_total{stage=\"deliver\"} 4",
            "herald_dead_letters_total{stage=\"deliver\"} 0",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
    }
}

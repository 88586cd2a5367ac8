//! What a process counts about its stages.

use std::{sync::Arc, time::Duration};

use herald_schemas::words::Channel;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::{complaints::Complaints, stage::Stage};

/// Counters of one process; shared by its stages.
pub struct Metrics {
    registry: Registry,
    records_in: IntCounterVec,
    records_out: IntCounterVec,
    dead_letters: IntCounterVec,
    restarts: IntCounterVec,
    in_flight: IntGaugeVec,
    provider_latency: HistogramVec,
    failed_calls: Complaints,
}

impl Metrics {
    /// Counters at zero, in a registry of their own.
    pub fn new() -> Result<Arc<Self>, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| -> Result<IntCounterVec, prometheus::Error> {
            let counter = IntCounterVec::new(Opts::new(name, help), &["stage"])?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let records_in = counter("herald_records_in_total", "Records read by a stage.")?;
        let records_out = counter("herald_records_out_total", "Records written by a stage.")?;
        let dead_letters = counter("herald_dead_letters_total", "Records a stage gave up.")?;
        let restarts = counter(
            "herald_stage_restarts_total",
            "Restarts of a stage after a failure.",
        )?;
        let in_flight = IntGaugeVec::new(
            Opts::new("herald_in_flight", "Records a stage has in hand."),
            &["stage"],
        )?;
        registry.register(Box::new(in_flight.clone()))?;
        let latency = HistogramOpts::new(
            "herald_provider_latency_seconds",
            "How long a call to a provider took.",
        )
        .buckets(vec![
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0,
        ]);
        let provider_latency = HistogramVec::new(latency, &["channel", "provider", "outcome"])?;
        registry.register(Box::new(provider_latency.clone()))?;
        Ok(Arc::new(Self {
            registry,
            records_in,
            records_out,
            dead_letters,
            restarts,
            in_flight,
            provider_latency,
            failed_calls: Complaints::new("calls to a provider fail"),
        }))
    }

    /// The registry, for whoever shows it.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn read(&self, stage: Stage, records: usize) {
        self.records_in
            .with_label_values(&[stage.as_str()])
            .inc_by(records as u64);
    }

    pub(crate) fn written(&self, stage: Stage, records: usize) {
        self.records_out
            .with_label_values(&[stage.as_str()])
            .inc_by(records as u64);
    }

    pub(crate) fn gave_up(&self, stage: Stage, records: usize) {
        self.dead_letters
            .with_label_values(&[stage.as_str()])
            .inc_by(records as u64);
    }

    pub(crate) fn restarted(&self, stage: Stage) {
        self.restarts.with_label_values(&[stage.as_str()]).inc();
    }

    pub(crate) fn holds(&self, stage: Stage, records: usize) {
        self.in_flight
            .with_label_values(&[stage.as_str()])
            .set(records as i64);
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
        self.provider_latency
            .with_label_values(&[channel.as_str(), provider, outcome])
            .observe(latency.as_secs_f64());
    }
}

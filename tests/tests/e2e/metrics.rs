//! The admin port of every process: figures for Prometheus, health for Kubernetes, no key.

use std::{fs, time::Duration};

use herald_e2e::{
    Client, Engine, Exposition, Provider, Reply, SOON, System, eventually, herald, workspace,
};
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use crate::scheduled::from_now;

crate::on_the_embedded_engine!(
    every_stage_shows_what_went_through_it,
    a_second_process_is_told_that_its_port_is_taken,
);
herald_e2e::on_real_servers!(
    every_stage_shows_what_went_through_it,
    a_worker_is_alive_at_once_and_ready_when_its_stages_run,
);

const STAGES: [&str; 6] = [
    "match",
    "render",
    "schedule",
    "deliver",
    "retry",
    "materialize",
];

async fn every_stage_shows_what_went_through_it(engine: Engine) {
    let provider = Provider::scripted(|request| {
        let is_first = request.body["attempt"] == 1;
        match request.text("content") {
            "bad" => Reply::status(400),
            "late" if is_first => Reply::status(503),
            _ => Reply::ok(),
        }
    })
    .await;
    let settings = [("HERALD_RETRY_DELAYS", "100ms,200ms")];
    let mut system = System::start(&engine, &provider, &settings);
    let client = system.client();
    let item = |content: &str| json!({ "recipient": "+905551234567", "channel": "sms", "content": content });
    let (_, soon) = from_now(Duration::from_secs(2), 0);
    let mut scheduled = item("scheduled");
    scheduled["scheduled_at"] = soon.into();
    let batch = ["a", "b", "c", "bad", "bad", "late"].map(item);
    client.notify(json!(batch)).await;
    client.notify(json!([scheduled])).await;
    make_a_rule(&client).await;
    let event = client
        .event("order", &json!({ "to": "+905557654321" }))
        .await;
    client.matched_event(&event).await;
    client.until_count("sent", 6).await;
    client.until_count("failed", 2).await;
    client.dead_letters(2).await;

    eventually(SOON, async || all_as_expected(&figures(&system).await)).await;
    let shown = figures(&system).await;
    for stage in STAGES {
        let of = [("stage", stage)];
        assert!(shown.has("herald_lag_records", &of), "{stage}");
        assert_eq!(shown.sum("herald_stage_restarts_total", &of), 0.0);
        assert_eq!(shown.sum("herald_stage_up", &of), 1.0, "{stage}");
    }
    for trip in [
        ("herald_broker_round_trip_seconds_count", "produce"),
        ("herald_store_round_trip_seconds_count", "read"),
        ("herald_store_round_trip_seconds_count", "write"),
    ] {
        let of = |outcome| [("operation", trip.1), ("outcome", outcome)];
        assert!(shown.sum(trip.0, &of("ok")) > 0.0, "{trip:?}");
        assert_eq!(shown.sum(trip.0, &of("error")), 0.0, "{trip:?}");
    }
    for process in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert!(shown.sum(process, &[]) > 0.0, "{process}");
    }
    let page = fs::read_to_string(workspace().join("docs/metrics.md")).unwrap();
    for name in shown.families() {
        assert!(
            page.contains(&format!("`{name}`")),
            "{name} is not explained"
        );
    }
    system.stop();
}

/// Everything that was asked of the system, as its stages tell of it.
fn all_as_expected(shown: &Exposition) -> Result<(), String> {
    let mut wrong = Vec::new();
    let mut check = |name: &str, labels: &[(&str, &str)], expected: f64| {
        let is = shown.sum(name, labels);
        if is != expected {
            wrong.push(format!("{name}{labels:?} is {is}, not {expected}"));
        }
    };
    for (stage, read, wrote, gave_up) in [
        // An event; what was said of it, a request and its status.
        ("match", 1.0, 3.0, 0.0),
        // Eight requests, a delivery of each.
        ("render", 8.0, 8.0, 0.0),
        // One that is early goes on, and is pending.
        ("schedule", 1.0, 2.0, 0.0),
        // Nine attempts: six sent, two given up with a status each, one put off with its status.
        ("deliver", 9.0, 12.0, 2.0),
        ("retry", 1.0, 1.0, 0.0),
    ] {
        let of = [("stage", stage)];
        check("herald_records_in_total", &of, read);
        check("herald_records_out_total", &of, wrote);
        check("herald_dead_letters_total", &of, gave_up);
    }
    let of = [("stage", "materialize")];
    let stored = shown.sum("herald_records_in_total", &of);
    check("herald_records_out_total", &of, stored);
    for stage in STAGES {
        check("herald_in_flight", &[("stage", stage)], 0.0);
        check("herald_lag_seconds", &[("stage", stage)], 0.0);
        check("herald_lag_records", &[("stage", stage)], 0.0);
    }
    check("herald_retries_total", &[("channel", "sms")], 1.0);
    check("herald_retries_total", &[], 1.0);
    for (outcome, calls) in [("accepted", 6.0), ("permanent", 2.0), ("transient", 1.0)] {
        let of = [("channel", "sms"), ("outcome", outcome)];
        check("herald_provider_latency_seconds_count", &of, calls);
    }
    let made = [
        ("method", "POST"),
        ("route", "/api/v1/notifications"),
        ("status", "201"),
    ];
    check("herald_http_requests_total", &made, 2.0);
    check("herald_http_request_seconds_count", &made[..2], 2.0);
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("\n")),
    }
}

async fn make_a_rule(client: &Client) {
    client.source("order").await;
    let template = json!({ "name": "thanks", "channel": "sms", "content": "Thanks" });
    let template = client.template(&template).await;
    client
        .rule(&json!({
            "name": "thank", "event": "order", "template_id": template, "recipient": "{{to}}",
        }))
        .await;
}

/// What all processes of a system show together.
async fn figures(system: &System) -> Exposition {
    let mut all = Exposition::default();
    for process in system.admin() {
        all.add(Exposition::read(&process.text("/metrics").await));
    }
    all
}

async fn a_worker_is_alive_at_once_and_ready_when_its_stages_run(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::prepare(&engine, &provider, &[]);
    system.launch();
    let [api, worker] = &system.admin()[..] else {
        panic!("an API and a worker")
    };
    for process in [api, worker] {
        eventually(SOON, async || {
            let asked = process.try_send(Method::GET, "/healthz", "").await;
            let answer = asked.map_err(|error| error.to_string())?;
            assert_eq!(
                (answer.status, &answer.body),
                (200, &json!({ "status": "ok" }))
            );
            Ok(())
        })
        .await;
        let waiting = process.get("/readyz").await;
        assert_eq!(waiting.status, 503, "nothing is set up yet");
        assert_eq!(waiting.headers["retry-after"], "1");
        Exposition::read(&process.text("/metrics").await);
    }
    let mut setup = system.spawn("setup", &["setup"]);
    assert!(setup.ended(SOON).is_some_and(|status| status.success()));
    system.until_ready();
    let all: serde_json::Map<_, _> = STAGES
        .iter()
        .map(|stage| ((*stage).to_owned(), json!("ok")))
        .collect();
    eventually(SOON, async || {
        let answer = worker.get("/readyz").await;
        let expected = json!({ "status": "ok", "stages": all });
        match answer.status == 200 && answer.body == expected {
            true => Ok(()),
            false => Err(format!("{} {:#}", answer.status, answer.body)),
        }
    })
    .await;
    let ready = api.get("/readyz").await.expect(200);
    let expected = json!({ "status": "ok", "broker": "ok", "database": "ok" });
    assert_eq!(ready, expected);
    system.stop();
}

async fn a_second_process_is_told_that_its_port_is_taken(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let elsewhere = TempDir::new().unwrap();
    let mut second = herald();
    second
        .args(["dev", "--listen", "127.0.0.1:0", "--data"])
        .arg(elsewhere.path())
        .env("HERALD_ADMIN_LISTEN", system.admin_address());
    let ended = second.output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(
        told.contains("set HERALD_ADMIN_LISTEN to another"),
        "{told}"
    );
    let ready = system.admin()[0].get("/readyz").await.expect(200);
    assert_eq!(
        (&ready["broker"], &ready["stages"]["deliver"]),
        (&json!("ok"), &json!("ok"))
    );
    system.stop();
}

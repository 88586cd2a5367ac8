//! `herald setup`: what it makes, and that it can be run by anyone at any time.

use std::collections::BTreeMap;

use herald_e2e::{Engine, Process, Provider, SOON, Servers, System, python, python_script};
use serde_json::{Value, json};

herald_e2e::on_real_servers!(
    setup_runs_several_times_at_once_and_again_and_makes_the_same,
    setup_with_other_partitions_is_refused_and_changes_nothing,
);

const PARTITIONS: u64 = 2;
/// A topic a lane for requests, a topic a channel and lane for deliveries, one a retry tier, and
/// events, matches, batches, scheduled, status, dead-letters and control.
const TOPICS: usize = 3 + 6 * 3 + 3 + 7;

async fn setup_runs_several_times_at_once_and_again_and_makes_the_same(engine: Engine) {
    let Engine::Real(servers) = &engine else {
        return;
    };
    let provider = Provider::start().await;
    let mut system = System::prepare(&engine, &provider, &[]);
    let at_once: Vec<Process> = (0..3)
        .map(|n| start(&system, &format!("setup-{n}")))
        .collect();
    for process in at_once {
        succeeded(process);
    }
    let Some(topics) = topics(&system, servers) else {
        return;
    };
    check(&system, &topics);
    let schemas = schemas(servers, &topics).await;
    for (topic, versions) in &schemas {
        // Whether one that comes several times at once is one version is up to the registry.
        let same = versions.windows(2).all(|two| two[0] == two[1]);
        assert!(same && !versions.is_empty(), "{topic}: {versions:#?}");
    }

    succeeded(start(&system, "setup-again"));
    assert_eq!(topics_of(&system, servers), topics);
    assert_eq!(self::schemas(servers, &topics).await, schemas);

    system.resume();
    let client = system.client();
    let item = json!([{ "recipient": "token", "channel": "push", "content": "x" }]);
    let ids = client.notify(item).await;
    client.with_status(&ids[0], "sent").await;
    succeeded(start(&system, "setup-beside"));
    assert_eq!(topics_of(&system, servers), topics);
    assert_eq!(client.count(Some("sent")).await, 1);
    system.stop();
}

/// Rows lie by some topics' partitions; and a topic that has grown cannot shrink again.
async fn setup_with_other_partitions_is_refused_and_changes_nothing(engine: Engine) {
    let Engine::Real(servers) = &engine else {
        return;
    };
    let provider = Provider::start().await;
    let mut system = System::prepare(&engine, &provider, &[]);
    succeeded(start(&system, "setup"));
    let Some(before) = topics(&system, servers) else {
        return;
    };
    system.set("HERALD_TOPICS_PARTITIONS", "3");
    let mut refused = start(&system, "setup-3");
    let status = refused.ended(SOON).expect("it ends");
    assert!(!status.success(), "{}", refused.tail());
    let told = refused.output();
    assert!(told.contains("has 2 partitions, asked for 3"), "{told}");
    assert_eq!(topics_of(&system, servers), before);
}

fn start(system: &System, name: &str) -> Process {
    system.spawn(name, &["setup"])
}

fn succeeded(mut setup: Process) {
    let status = setup.ended(SOON);
    assert!(
        status.is_some_and(|status| status.success()),
        "{status:?}\n{}",
        setup.tail()
    );
    let output = setup.output();
    assert!(output.contains("are as they must be"), "{output}");
    assert!(!output.contains("panicked at"), "{output}");
}

/// The system's topics by name; none where Python cannot be had.
fn topics(system: &System, servers: &Servers) -> Option<Value> {
    let mut python = python("topics as setup makes them")?;
    python.arg(python_script("topics.py"));
    python.args(["--brokers", servers.kafka()]);
    python.args(["--prefix", system.topics_prefix()]);
    let output = tokio::task::block_in_place(|| python.output()).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn topics_of(system: &System, servers: &Servers) -> Value {
    topics(system, servers).expect("as before")
}

fn check(system: &System, topics: &Value) {
    let topics = topics.as_object().unwrap();
    assert_eq!(topics.len(), TOPICS, "{topics:#?}");
    let control = format!("{}control", system.topics_prefix());
    let days = |topic: &Value| {
        let retention = topic["settings"]["retention.ms"].as_str().unwrap_or("0");
        retention.parse::<u64>().unwrap() / 86_400_000
    };
    for (name, topic) in topics {
        let cleanup = topic["settings"]["cleanup.policy"].as_str();
        if *name == control {
            assert_eq!(
                (&topic["partitions"], cleanup),
                (&json!(1), Some("compact"))
            );
            continue;
        }
        assert_eq!(topic["partitions"], PARTITIONS, "{name}");
        assert_eq!(cleanup, Some("delete"), "{name}");
        assert!(days(topic) >= 7, "{name}: {topic:#}");
        let largest = topic["settings"]["max.message.bytes"].as_str().unwrap();
        assert!(
            largest.parse::<u64>().unwrap() > 1 << 20,
            "{name}: {topic:#}"
        );
    }
}

/// The schemas of the topics' values that are registered, each in all its versions.
async fn schemas(servers: &Servers, topics: &Value) -> BTreeMap<String, Vec<Value>> {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = async |path: String| -> Value {
        let url = format!("{}{path}", servers.registry());
        let answer = http.get(url).send().await.unwrap().bytes().await.unwrap();
        serde_json::from_slice(&answer).unwrap()
    };
    let mut schemas = BTreeMap::new();
    for topic in topics.as_object().unwrap().keys() {
        let versions = format!("/subjects/{topic}-value/versions");
        let numbers = get(versions.clone()).await;
        let mut registered = Vec::new();
        for number in numbers
            .as_array()
            .unwrap_or_else(|| panic!("{topic}: {numbers}"))
        {
            registered.push(get(format!("{versions}/{number}")).await["schema"].clone());
        }
        schemas.insert(topic.clone(), registered);
    }
    schemas
}

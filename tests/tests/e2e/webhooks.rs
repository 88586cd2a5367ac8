//! Real GitHub webhook bodies, hundreds of them, through rules and templates of the kind that people
//! write. What must come of each is worked out in [`cases`], in plain Rust.

mod cases;

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use herald_e2e::{Client, Engine, Provider, System, npm_package};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use cases::{Case, Message, Outcome, cases};

herald_e2e::on_both_engines!(github_webhooks_become_exactly_the_notifications_they_should);

const PACKAGE: (&str, &str) = ("@octokit/webhooks-examples", "7.6.1");
/// What is in the package of that version.
const PAYLOADS: usize = 726;
const EVENTS: usize = 64;
/// How many requests are under way at once.
const CLIENTS: usize = 8;

/// A body and the event it was sent with.
struct Webhook {
    event: String,
    payload: Value,
}

async fn github_webhooks_become_exactly_the_notifications_they_should(engine: Engine) {
    let (name, version) = PACKAGE;
    let Some(package) = npm_package("GitHub webhooks", name, version) else {
        return;
    };
    let webhooks = webhooks(&package);
    let cases = cases();
    let mut events: Vec<&str> = webhooks.iter().map(|one| one.event.as_str()).collect();
    events.sort_unstable();
    events.dedup();
    assert_eq!((webhooks.len(), events.len()), (PAYLOADS, EVENTS));

    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    for event in &events {
        client.source(event).await;
    }
    for case in &cases {
        make(&client, case, &events).await;
    }
    let ids = send(&client, &webhooks).await;

    let (messages, failures) = expected(&webhooks, &cases);
    client.until_count("sent", messages.len() as u64).await;
    client.until_count("failed", failures.len() as u64).await;
    assert_eq!(
        client.count(None).await,
        (messages.len() + failures.len()) as u64
    );
    let received = received(&provider);
    assert_eq!(received.len(), messages.len());
    for (message, expected) in received.iter().zip(&messages) {
        assert_eq!(message, expected);
    }
    let letters = client.dead_letters(failures.len()).await;
    let mut codes: Vec<&str> = letters
        .iter()
        .map(|letter| letter["error_code"].as_str().unwrap())
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, failures);

    for (webhook, id) in webhooks.iter().zip(&ids) {
        check(&client.matched_event(id).await, webhook, &cases);
    }
    system.stop();
}

/// All bodies of the package, of GitHub itself and of each version of GitHub Enterprise.
fn webhooks(package: &Path) -> Vec<Arc<Webhook>> {
    let mut webhooks = Vec::new();
    for edition in fs::read_dir(package).unwrap() {
        let file = edition.unwrap().path().join("index.json");
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        let events: Vec<Value> = serde_json::from_str(&text).unwrap();
        for event in &events {
            let name = event["name"].as_str().unwrap();
            for payload in event["examples"].as_array().unwrap() {
                webhooks.push(Arc::new(Webhook {
                    event: name.to_owned(),
                    payload: payload.clone(),
                }));
            }
        }
    }
    webhooks
}

async fn make(client: &Client, case: &Case, events: &[&str]) {
    let mut template = case.template.clone();
    template["name"] = json!(case.name);
    let template = client.template(&template).await;
    for event in events.iter().filter(|event| case.is_of(event)) {
        let mut rule = case.rule.clone();
        rule["name"] = json!(case.rule_name(event));
        rule["event"] = json!(event);
        rule["template_id"] = json!(template);
        client.rule(&rule).await;
    }
}

/// The events' ids, in the order of the bodies.
async fn send(client: &Client, webhooks: &[Arc<Webhook>]) -> Vec<String> {
    let mut waiting = webhooks.iter().enumerate();
    let mut running = JoinSet::new();
    let mut ids = BTreeMap::new();
    loop {
        while running.len() < CLIENTS
            && let Some((number, webhook)) = waiting.next()
        {
            let (client, webhook) = (client.clone(), Arc::clone(webhook));
            running.spawn(async move {
                let id = client.event(&webhook.event, &webhook.payload).await;
                (number, id)
            });
        }
        let Some(sent) = running.join_next().await else {
            return ids.into_values().collect();
        };
        let (number, id) = sent.expect("no panic");
        ids.insert(number, id);
    }
}

/// The messages that must arrive and the codes of those that must fail, sorted.
fn expected(webhooks: &[Arc<Webhook>], cases: &[Case]) -> (Vec<Message>, Vec<&'static str>) {
    let (mut messages, mut failures) = (Vec::new(), Vec::new());
    for case in cases {
        let before = (messages.len(), failures.len());
        for webhook in webhooks.iter().filter(|webhook| case.is_of(&webhook.event)) {
            match (case.outcome)(&webhook.payload) {
                Some(Outcome::Sent(message)) => messages.push(message),
                Some(Outcome::Failed(code)) => failures.push(code),
                None => {}
            }
        }
        let counts = (messages.len() - before.0, failures.len() - before.1);
        // An expectation that nothing meets would prove nothing.
        assert_eq!(counts, case.counts, "{}", case.name);
    }
    messages.sort();
    failures.sort_unstable();
    (messages, failures)
}

fn received(provider: &Provider) -> Vec<Message> {
    let requests = provider.requests();
    let message = |request: &herald_e2e::Received| Message {
        channel: request.text("channel").to_owned(),
        to: request.text("to").to_owned(),
        subject: request.body["subject"].as_str().map(str::to_owned),
        content: request.text("content").to_owned(),
    };
    let mut messages: Vec<Message> = requests.iter().map(message).collect();
    messages.sort();
    messages
}

/// An event is shown as it was sent, with what each of its rules said.
fn check(shown: &Value, webhook: &Webhook, cases: &[Case]) {
    assert_eq!(shown["event"], webhook.event.as_str());
    assert_eq!(shown["payload"], webhook.payload);
    let verdicts = shown["rules"].as_array().unwrap().iter().map(|rule| {
        assert_eq!(
            rule["reason"].is_null(),
            rule["matched"] == true,
            "{rule:#}"
        );
        let name = rule["name"].as_str().unwrap().to_owned();
        (name, rule["matched"] == true)
    });
    let of_event = cases.iter().filter(|case| case.is_of(&webhook.event));
    let expected: BTreeMap<String, bool> = of_event
        .map(|case| {
            let matches = (case.outcome)(&webhook.payload).is_some();
            (case.rule_name(&webhook.event), matches)
        })
        .collect();
    assert_eq!(
        verdicts.collect::<BTreeMap<_, _>>(),
        expected,
        "{}",
        webhook.event
    );
}

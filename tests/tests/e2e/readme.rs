//! What the README shows is run as it stands there, but for the addresses.

use std::{
    fs,
    process::{Command, Output},
};

use herald_e2e::{Engine, KEY, Provider, SOON, System, python, workspace};
use serde_json::{Value, json};

crate::on_the_embedded_engine!(the_first_notification_comes_of_the_lines_that_the_readme_has);
herald_e2e::on_real_servers!(the_readmes_producers_in_python_reach_the_provider);

async fn the_first_notification_comes_of_the_lines_that_the_readme_has(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let lines = [
        block("sh", "thank the customer"),
        block("sh", "+905551234567"),
    ]
    .join("\n");
    let lines = replaced(lines, "local-dev-key", KEY);
    let lines = replaced(lines, "127.0.0.1:8000", system.address());
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", &lines]);
    let shown = run(shell);

    let client = system.client();
    client.until_count("sent", 2).await;
    let request = provider.expect(1, SOON).await.remove(0);
    assert_eq!(
        (request.text("to"), request.text("content")),
        ("+905551234567", "Hello!")
    );
    let output = system.output();
    assert!(output.contains("Thank you, Ada!"), "{output}");
    // The event is shown at once; what was made of it may take a moment longer.
    let shown: Vec<Value> = shown
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let [.., event, _, _] = &shown[..] else {
        panic!("{shown:#?}")
    };
    let event = client.matched_event(event["id"].as_str().unwrap()).await;
    assert_eq!(event["rules"][0]["name"], "thank the customer");
    assert_eq!(event["rules"][0]["matched"], true);
    assert_eq!(event["notifications"][0]["recipient"], "ada@example.com");
    system.stop();
}

async fn the_readmes_producers_in_python_reach_the_provider(engine: Engine) {
    let Engine::Real(servers) = &engine else {
        return;
    };
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    client.source("order_created").await;
    let template = json!({ "name": "thanks", "channel": "email",
        "content": "Thank you, {{customer.name}}!" });
    let template = client.template(&template).await;
    let rule = json!({ "name": "thank the customer", "event": "order_created",
        "template_id": template, "recipient": "{{customer.email}}",
        "conditions": { "paid": true } });
    client.rule(&rule).await;
    // The workers know the rule once they have matched an event that was sent after it was made.
    let seen = client
        .event("order_created", &json!({ "paid": false }))
        .await;
    client.matched_event(&seen).await;

    for distinctive in ["AvroSerializer", "schemaless_writer"] {
        let Some(mut python) = python("the README's producers") else {
            system.stop();
            return;
        };
        let code = block("python", distinctive);
        let code = replaced(code, "localhost:9094", servers.kafka());
        let code = replaced(code, "\"herald.", &format!("\"{}", system.topics_prefix()));
        let registry = "http://localhost:8081/apis/ccompat/v7";
        let code = code.replace(registry, servers.registry());
        python.args(["-c", &code]).current_dir(workspace());
        run(python);
    }
    let requests = provider.expect(2, SOON).await;
    let by_content = |content: &str| {
        let found = requests.iter().find(|one| one.text("content") == content);
        found.unwrap_or_else(|| panic!("no {content}: {requests:#?}"))
    };
    let thanks = by_content("Thank you, Ada!");
    assert_eq!(thanks.text("to"), "ada@example.com");
    assert_eq!(thanks.text("correlation_id"), "checkout-4711");
    assert_eq!(thanks.headers["x-correlation-id"], "checkout-4711");
    let reminder = by_content("It is due tomorrow.");
    assert_eq!(reminder.text("to"), "ada@example.com");
    assert_eq!(reminder.text("subject"), "Your invoice");
    client.until_count("sent", 2).await;
    system.stop();
}

/// The README's only block of code in a language that has this text in it.
fn block(language: &str, distinctive: &str) -> String {
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    let fence = format!("```{language}\n");
    let blocks = readme.split(&fence).skip(1);
    let blocks = blocks.filter_map(|rest| Some(rest.split_once("```")?.0));
    let mut found = blocks.filter(|block| block.contains(distinctive));
    let block = found.next();
    assert!(found.next().is_none(), "{distinctive} is in two blocks");
    block
        .unwrap_or_else(|| panic!("no block of {language} with {distinctive}"))
        .to_owned()
}

/// The text with an address of this run in the place of the README's, which is there.
fn replaced(text: String, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from} in {text}");
    text.replace(from, to)
}

/// What the command writes; it succeeds.
fn run(mut command: Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = tokio::task::block_in_place(|| command.output()).unwrap();
    let errors = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{status}: {errors}");
    String::from_utf8_lossy(&stdout).into_owned()
}

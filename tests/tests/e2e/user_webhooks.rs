//! The channel webhook: URLs that users give.

use herald_e2e::{Engine, Provider, System};
use serde_json::json;

const SIGNED: [(&str, &str); 2] = [
    ("HERALD_CHANNELS_WEBHOOK", "standard_webhooks"),
    (
        "HERALD_WEBHOOK_SECRETS",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw,whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    ),
];

crate::on_the_embedded_engine!(
    what_only_its_network_reaches_is_not_called,
    herald_dev_sends_to_its_own_machine_and_says_so,
);

async fn what_only_its_network_reaches_is_not_called(engine: Engine) {
    let (provider, inside) = (Provider::start().await, Provider::start().await);
    let mut settings = SIGNED.to_vec();
    settings.push(("HERALD_WEBHOOK_ALLOW_CIDRS", "10.0.0.0/8"));
    let mut system = System::start(&engine, &provider, &settings);
    let client = system.client();
    let by_name = inside.url().replace("127.0.0.1", "localhost");
    for recipient in [inside.url(), &by_name] {
        let item = json!([{ "recipient": recipient, "channel": "webhook", "content": "x" }]);
        let ids = client.notify(item).await;
        let shown = client.with_status(&ids[0], "failed").await;
        assert_eq!(shown["error_code"], "blocked_address");
        assert_eq!(shown["attempts"], 1);
    }
    assert!(inside.requests().is_empty());
    system.stop();
}

async fn herald_dev_sends_to_its_own_machine_and_says_so(engine: Engine) {
    let (provider, receiver) = (Provider::start().await, Provider::start().await);
    let mut system = System::start(&engine, &provider, &SIGNED);
    let told = system.output();
    assert!(
        told.contains("public addresses and 127.0.0.0/8, ::1/128"),
        "{told}"
    );
    let client = system.client();
    let item = json!({ "recipient": receiver.url(), "channel": "webhook",
        "content": r#"{"order":17}"#, "metadata": { "type": "order.created" } });
    let ids = client.notify(json!([item])).await;
    client.with_status(&ids[0], "sent").await;

    let requests = receiver.requests();
    let [request] = requests.as_slice() else {
        panic!("{requests:?}");
    };
    assert_eq!(request.headers["webhook-id"], ids[0]);
    let signatures = &request.headers["webhook-signature"];
    assert_eq!(signatures.matches("v1,").count(), 2, "{signatures}");
    assert_eq!(request.body["type"], "order.created");
    assert_eq!(request.body["data"], json!({ "order": 17 }));
    system.stop();
}

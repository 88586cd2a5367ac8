//! What operators ask: how much waits, what became of it, whether everything is there.

use herald_e2e::{Engine, Provider, Reply, System};
use serde_json::{Value, json};

herald_e2e::on_both_engines!(figures_are_exact_and_survive_a_kill);

const REFUSED: &str = "+905551230000";

async fn figures_are_exact_and_survive_a_kill(engine: Engine) {
    let provider = Provider::scripted(|request| match request.text("to") {
        REFUSED => Reply::status(400),
        _ => Reply::ok(),
    })
    .await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    let health = client.get("/api/v1/health").await.expect(200);
    assert_eq!(health["status"], "ok");
    for name in ["database", "broker"] {
        assert_eq!(health["dependencies"][name], "ok");
    }
    let empty = client.get("/api/v1/metrics").await.expect(200);
    assert_eq!(empty["status_counts"], json!({}));
    assert_eq!(empty["avg_latency_seconds"], Value::Null);

    let item = |to: &str| json!({ "recipient": to, "channel": "sms", "content": "x" });
    let mut items: Vec<Value> = (1..=5).map(|n| item(&format!("+90555123456{n}"))).collect();
    items.extend([item(REFUSED), item(REFUSED)]);
    client.notify(Value::Array(items)).await;
    client.until_count("sent", 5).await;
    client.until_count("failed", 2).await;
    client.dead_letters(2).await;
    check(&client.get("/api/v1/metrics").await.expect(200));
    system.kill();
    system.resume();
    check(&client.get("/api/v1/metrics").await.expect(200));
    let text = client.get("/api/v1/metrics/prometheus").await;
    assert_eq!(text.headers["content-type"], "text/plain; version=0.0.4");
    assert_eq!(text.status, 200);
    system.stop();
}

fn check(metrics: &Value) {
    assert_eq!(metrics["status_counts"], json!({ "sent": 5, "failed": 2 }));
    assert_eq!(metrics["dead_letter_count"], 2);
    assert_eq!(metrics["queues"]["dead"], 2);
    let latency = metrics["avg_latency_seconds"].as_f64().unwrap();
    assert!((0.0..60.0).contains(&latency), "{metrics:#}");
    for channel in ["sms", "email", "push"] {
        assert_eq!(metrics["circuit_breaker"][channel], "closed");
    }
}

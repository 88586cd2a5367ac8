//! Several workers on the same servers.

use std::time::{Duration, Instant};

use herald_e2e::{Engine, Provider, SOON, System};
use tokio::time::sleep;

use crate::{
    alone,
    limits::{check, number, send},
};

herald_e2e::on_real_servers!(the_limit_holds_for_all_workers_together);

async fn the_limit_holds_for_all_workers_together(engine: Engine) {
    let _alone = alone().await;
    let provider = Provider::start().await;
    let settings = [
        ("HERALD_RATE_LIMITS_SMS", "100"),
        ("HERALD_TOPICS_PARTITIONS", "6"),
    ];
    let mut system = System::start(&engine, &provider, &settings);
    let client = system.client();
    send(&client, 9_000, "normal", number).await;
    provider.expect(1, SOON).await;
    let alone = Instant::now();
    sleep(Duration::from_secs(10)).await;
    let joined = Instant::now();
    system.another_worker();
    sleep(Duration::from_secs(20)).await;
    check(&provider, alone, Instant::now());
    let two = Instant::now();
    system.another_worker();
    sleep(Duration::from_secs(30)).await;
    let three = Instant::now();
    check(&provider, joined, two + (two - joined));
    check(&provider, two, three);
    // All three have a part in it.
    let workers = client.get("/api/v1/workers").await.expect(200);
    let workers = workers["data"].as_array().unwrap().clone();
    assert_eq!(workers.len(), 3, "{workers:#?}");
    for worker in &workers {
        let limited = &worker["channels"]["sms"]["limited_partitions"];
        assert!(limited.as_u64().unwrap() > 0, "{workers:#?}");
    }
    system.stop();
}

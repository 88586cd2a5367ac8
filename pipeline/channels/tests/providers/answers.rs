//! What every provider makes of an answer that is not as it should be.

use std::time::{Duration, Instant};

use herald_channels::{
    Provider,
    http::Deadlines,
    provider_webhook::{ProviderWebhook, Settings},
};
use herald_schemas::words::Channel;

use crate::{Answer, Server, accepted, call, delivery, refusal};

fn provider(url: &str) -> ProviderWebhook {
    ProviderWebhook::new(Settings {
        name: "primary".to_owned(),
        url: url.parse().unwrap(),
        idempotency_header: "X-Idempotency-Key".parse().unwrap(),
        deadlines: Deadlines {
            connect: Duration::from_secs(2),
            total: Duration::from_millis(500),
        },
    })
    .unwrap()
}

#[tokio::test]
async fn a_body_that_trickles_on_ends_with_the_deadline_and_the_status_stands() {
    let call = call(delivery(Channel::Sms, "+905551234567", "Hello"));
    let server = Server::answering(Answer::new(200, "{").trickling()).await;
    let started = Instant::now();
    let reply = provider(server.url()).send(&call).await;
    assert_eq!(reply.outcome, accepted(None));
    assert!(started.elapsed() < Duration::from_secs(3));
    assert!(reply.response.unwrap().len() < 2_048);

    server.answers(Answer::new(429, "x").header("Retry-After", "9").trickling());
    let reply = provider(server.url()).send(&call).await;
    let expected = ("transient".to_owned(), "http_429".to_owned(), Some(9));
    assert_eq!(refusal(&reply), expected);
}

#[tokio::test]
async fn retry_after_may_be_a_date() {
    let call = call(delivery(Channel::Sms, "+905551234567", "Hello"));
    let answer = Answer::new(503, "").header("Retry-After", "Fri, 31 Dec 2100 23:59:59 GMT");
    let server = Server::answering(answer).await;
    let reply = provider(server.url()).send(&call).await;
    // As long as anybody may ask for.
    assert_eq!(refusal(&reply).2, Some(24 * 3_600));
}

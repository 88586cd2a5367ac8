//! The registry's answers, from a server of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use herald_registry::{BasicAuth, Registry, RegistryError};
use herald_schemas::codec::{RECORDS, WriterIds};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// Answers every request with `status` and `body`; tells the requests it saw.
async fn server(
    status: &'static str,
    body: &'static str,
) -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
    server_in_turn(vec![(status, body)]).await
}

/// Answers the first request as the first of `answers` says and so on, the rest as the last does.
async fn server_in_turn(
    answers: Vec<(&'static str, &'static str)>,
) -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/apis/ccompat/v7/", listener.local_addr().unwrap());
    let (seen, requests) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut answers = answers.into_iter();
        let (mut status, mut body) = ("", "");
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 64 * 1_024];
            let mut read = 0;
            loop {
                read += socket.read(&mut bytes[read..]).await.unwrap();
                let text = String::from_utf8_lossy(&bytes[..read]).to_ascii_lowercase();
                let Some((head, rest)) = text.split_once("\r\n\r\n") else {
                    continue;
                };
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "));
                if rest.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                    break;
                }
            }
            seen.send(String::from_utf8_lossy(&bytes[..read]).into_owned())
                .unwrap();
            if let Some(next) = answers.next() {
                (status, body) = next;
            }
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n\
                 content-length: {length}\r\n\r\n{body}"
            );
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, requests)
}

#[tokio::test]
async fn a_schema_is_found_by_its_id() {
    let (url, mut requests) = server("200 OK", r#"{"schema": "\"string\""}"#).await;
    let auth = BasicAuth {
        user: "u".to_owned(),
        password: "p".to_owned(),
    };
    let registry = Registry::new(&url, Some(&auth)).unwrap();
    assert_eq!(
        registry.schema(7).await.unwrap().as_deref(),
        Some("\"string\"")
    );
    let request = requests.recv().await.unwrap().to_ascii_lowercase();
    assert!(
        request.starts_with("get /apis/ccompat/v7/schemas/ids/7"),
        "{request}"
    );
    assert!(request.contains("authorization: basic dtpw"), "{request}");
    assert!(!format!("{auth:?}").contains("\"p\""));
}

#[tokio::test]
async fn an_id_that_the_registry_does_not_know_is_none() {
    let body = r#"{"error_code": 40403, "message": "Schema not found"}"#;
    let (url, _requests) = server("404 Not Found", body).await;
    assert_eq!(
        Registry::new(&url, None).unwrap().schema(7).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn only_the_registry_itself_says_that_it_does_not_know_an_id() {
    for body in [
        "<html>no such page</html>",
        "",
        r#"{"error_code": 404, "message": "HTTP 404 Not Found"}"#,
    ] {
        let (url, _requests) = server("404 Not Found", body).await;
        let answer = Registry::new(&url, None).unwrap().schema(7).await;
        assert!(
            matches!(answer, Err(RegistryError::Unavailable(_))),
            "{body}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn a_login_is_not_shown() {
    let auth = BasicAuth {
        user: "u".to_owned(),
        password: "hunter2".to_owned(),
    };
    let registry = Registry::new("http://u:hunter2@127.0.0.1:1", Some(&auth)).unwrap();
    let away = registry.ping().await;
    let wrong = Registry::new("ftp://u:hunter2@127.0.0.1:1", None);
    let shown = format!("{registry:?} {away:?} {wrong:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn a_schema_of_another_kind_is_no_failure_of_the_registry() {
    for body in [
        r#"{"schema": "{}", "schemaType": "JSON"}"#,
        r#"{"schema": "message M {}", "schemaType": "PROTOBUF"}"#,
    ] {
        let (url, _requests) = server("200 OK", body).await;
        let answer = Registry::new(&url, None).unwrap().schema(7).await;
        assert!(
            matches!(&answer, Err(RegistryError::Unusable(why)) if why.contains("not Avro")),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn a_registry_that_is_away_or_broken_may_come_back() {
    let (url, _requests) = server("500 Internal Server Error", "{}").await;
    let broken = Registry::new(&url, None).unwrap().schema(7).await;
    assert!(
        matches!(broken, Err(RegistryError::Unavailable(_))),
        "{broken:?}"
    );
    let away = Registry::new("http://127.0.0.1:1", None)
        .unwrap()
        .ping()
        .await;
    assert!(
        matches!(away, Err(RegistryError::Unavailable(_))),
        "{away:?}"
    );
}

#[tokio::test]
async fn a_schema_that_is_refused_stays_refused() {
    let body = r#"{"error_code": 409, "message": "incompatible"}"#;
    let (url, _requests) = server("409 Conflict", body).await;
    let subject = ("herald.events-value".to_owned(), RECORDS[0].name);
    let refused = Registry::new(&url, None)
        .unwrap()
        .register(&[subject])
        .await;
    assert!(
        matches!(refused, Err(RegistryError::Refused(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn whoever_loses_a_race_to_register_finds_what_the_winner_did() {
    let (url, mut requests) = server_in_turn(vec![
        (
            "409 Conflict",
            r#"{"error_code": 409, "message": "already exists"}"#,
        ),
        ("200 OK", r#"{"id": 5}"#),
    ])
    .await;
    let subjects: Vec<(String, &'static str)> = RECORDS
        .iter()
        .map(|record| (format!("{}-value", record.name), record.name))
        .collect();
    let registry = Registry::new(&url, None).unwrap();
    let ids = registry.register(&subjects).await.unwrap();
    assert_eq!(ids, WriterIds(vec![5; RECORDS.len()]));
    let twice = requests.recv().await.unwrap();
    assert_eq!(requests.recv().await.unwrap(), twice);
}

#[tokio::test]
async fn registering_posts_each_subject_and_answers_the_ids() {
    let (url, mut requests) = server("200 OK", r#"{"id": 5}"#).await;
    let subjects: Vec<(String, &'static str)> = RECORDS
        .iter()
        .map(|record| (format!("{}-value", record.name), record.name))
        .collect();
    let ids = Registry::new(&url, None)
        .unwrap()
        .register(&subjects)
        .await
        .unwrap();
    assert_eq!(ids, WriterIds(vec![5; RECORDS.len()]));
    let first = requests.recv().await.unwrap();
    assert!(
        first.starts_with("POST /apis/ccompat/v7/subjects/Event-value/versions"),
        "{first}"
    );
    assert!(first.contains(r#""schemaType":"AVRO""#), "{first}");
}

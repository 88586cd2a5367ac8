//! A mail server by SMTP.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use herald_channels::{
    Call, Provider, Secret,
    email::{
        message::Sender,
        smtp::{Encryption, Settings, Smtp},
    },
    http::Deadlines,
};
use herald_e2e::at_once;
use herald_schemas::{records::DeliveryReady, words::Channel};
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpListener};

use crate::{
    TRACEPARENT, accepted, call, delivery,
    mail_server::{MailServer, certificate, header},
    refusal,
};

fn deadlines() -> Deadlines {
    Deadlines {
        connect: Duration::from_secs(10),
        total: Duration::from_secs(30),
    }
}

fn settings(port: u16) -> Settings {
    Settings {
        host: "localhost".to_owned(),
        port,
        encryption: Encryption::None,
        login: None,
        connections: 4,
        sender: Sender::new("Herald <herald@example.com>", "help@example.com").unwrap(),
        deadlines: deadlines(),
    }
}

fn smtp(settings: Settings) -> Smtp {
    Smtp::new(settings).unwrap()
}

fn mail() -> DeliveryReady {
    delivery(Channel::Email, "ada@example.net", "Hello, Ada!")
}

fn message() -> Call {
    call(mail())
}

fn message_id(call: &Call) -> String {
    format!("{}@example.com", call.delivery.identity.id)
}

fn login(password: &str) -> Option<(String, Secret)> {
    Some(("herald".to_owned(), Secret::new(password)))
}

#[tokio::test]
async fn a_message_arrives_with_both_its_parts_and_all_its_headers() {
    let Some(mut server) = MailServer::start("a message by SMTP", &[]) else {
        return;
    };
    let mut mail = mail();
    let text = "Grüße, Ada!\r\n.\r\nA line with a dot alone\n..and two\rlast";
    let html = "<p>Grüße, <b>Ada</b>!</p>\n".repeat(50);
    mail.message.content = text.to_owned();
    mail.message.html = Some(html.clone());
    mail.message.subject = Some("Sipariş #17, Ada’ya 🎉\n".to_owned());
    let unsubscribe = "https://example.com/u?token=a b&x=<1>";
    mail.message.metadata = Some(json!({ "unsubscribe_url": unsubscribe }).to_string());
    let call = call(mail);
    let reply = smtp(settings(server.port)).send(&call).await;
    assert_eq!(reply.outcome, accepted(Some(&message_id(&call))));
    let response = reply.response.unwrap();
    assert_eq!(response, "250 2.0.0 Ok: queued as 4FZ1");

    let seen = server.seen().message();
    assert_eq!(seen["from"], "herald@example.com");
    assert_eq!(seen["to"], json!(["ada@example.net"]));
    assert_eq!(seen["type"], "multipart/alternative");
    assert_eq!(seen["defects"], json!([]));
    assert_eq!(seen["ascii"], true);
    let expected = "Grüße, Ada!\n.\nA line with a dot alone\n..and two\nlast";
    let received = seen["text"].as_str().unwrap().replace("\r\n", "\n");
    assert_eq!(received.trim_end(), expected);
    let received = seen["html"].as_str().unwrap().replace("\r\n", "\n");
    assert_eq!(received.trim_end(), html.trim_end());

    let id = format!("<{}>", message_id(&call));
    for (name, value) in [
        ("From", "Herald <herald@example.com>"),
        ("To", "ada@example.net"),
        ("Reply-To", "help@example.com"),
        ("Subject", "Sipariş #17, Ada’ya 🎉"),
        ("Message-ID", id.as_str()),
        ("X-Correlation-Id", "demo-123"),
        ("traceparent", TRACEPARENT),
        (
            "List-Unsubscribe",
            "<https://example.com/u?token=a%20b&x=%3C1%3E>",
        ),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
    ] {
        assert_eq!(header(&seen, name), Some(value), "{name}");
    }
    assert!(header(&seen, "Date").is_some());
}

#[tokio::test]
async fn a_text_alone_is_no_multipart_and_unsubscribes_nobody() {
    let Some(mut server) = MailServer::start("a text by SMTP", &[]) else {
        return;
    };
    let reply = smtp(settings(server.port)).send(&message()).await;
    assert_eq!(reply.outcome, accepted(Some(&message_id(&message()))));
    let seen = server.seen().message();
    assert_eq!(seen["type"], "text/plain");
    assert_eq!(seen["text"].as_str().unwrap().trim_end(), "Hello, Ada!");
    assert_eq!(header(&seen, "List-Unsubscribe"), None);
    assert_eq!((&seen["tls"], &seen["user"]), (&json!(false), &json!(null)));
}

#[tokio::test]
async fn both_ways_of_tls_are_spoken_with_a_server_that_is_known_and_with_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("server.pem");
    let trusted = certificate(&file);
    let stranger = certificate(&directory.path().join("other.pem"));
    for way in ["starttls", "tls"] {
        let path = file.to_str().unwrap();
        let arguments = ["--tls", way, "--certificate", path, "--login", "herald:pw"];
        let Some(mut server) = MailServer::start("SMTP over TLS", &arguments) else {
            return;
        };
        let encrypted = |trusted: Option<&[u8]>| {
            let trusted = trusted.map(<[u8]>::to_vec);
            Settings {
                encryption: match way {
                    "tls" => Encryption::Tls(trusted),
                    _ => Encryption::StartTls(trusted),
                },
                login: login("pw"),
                ..settings(server.port)
            }
        };
        // Beside another, as in a bundle.
        let bundle = [stranger.clone(), trusted.clone()].concat();
        let provider = smtp(encrypted(Some(&bundle)));
        let untrusting = [
            smtp(encrypted(Some(&stranger))),
            smtp(encrypted(None)),
            smtp(Settings {
                host: "127.0.0.1".to_owned(),
                ..encrypted(Some(&trusted))
            }),
        ];
        let reply = provider.send(&message()).await;
        assert_eq!(
            reply.outcome,
            accepted(Some(&message_id(&message()))),
            "{way}"
        );
        let seen = server.seen().message();
        assert_eq!(
            (&seen["tls"], &seen["user"]),
            (&json!(true), &json!("herald"))
        );

        for provider in untrusting {
            let reply = provider.send(&message()).await;
            let expected = ("transient".to_owned(), "connection_error".to_owned(), None);
            assert_eq!(refusal(&reply), expected, "{way}");
        }
        assert!(server.seen().messages.is_empty());
    }
}

#[tokio::test]
async fn without_the_tls_that_is_asked_for_nothing_is_said() {
    let Some(mut server) = MailServer::start("SMTP without STARTTLS", &["--login", "herald:pw"])
    else {
        return;
    };
    let provider = smtp(Settings {
        encryption: Encryption::StartTls(None),
        login: login("pw"),
        ..settings(server.port)
    });
    let reply = provider.send(&message()).await;
    let expected = ("transient".to_owned(), "smtp_no_starttls".to_owned(), None);
    assert_eq!(refusal(&reply), expected);
    assert!(server.seen().messages.is_empty());
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_shown_to_nobody() {
    let Some(server) = MailServer::start("SMTP login", &["--login", "herald:pw"]) else {
        return;
    };
    let right = Settings {
        login: login("pw"),
        ..settings(server.port)
    };
    let wrong = Settings {
        login: login("hunter2"),
        ..right.clone()
    };
    assert!(!format!("{wrong:?}").contains("hunter2"));
    let reply = smtp(right).send(&message()).await;
    assert_eq!(reply.outcome, accepted(Some(&message_id(&message()))));
    let reply = smtp(wrong).send(&message()).await;
    let expected = ("permanent".to_owned(), "smtp_535".to_owned(), None);
    assert_eq!(refusal(&reply), expected);
    assert!(!format!("{reply:?}").contains("hunter2"), "{reply:?}");

    let Some(server) = MailServer::start("SMTP login", &[]) else {
        return;
    };
    let nowhere = Settings {
        login: login("hunter2"),
        ..settings(server.port)
    };
    let reply = smtp(nowhere).send(&message()).await;
    assert_eq!(refusal(&reply).1, "smtp_no_login");
}

#[tokio::test]
async fn a_refusal_at_each_stage_is_told_and_the_connection_serves_the_next() {
    let Some(mut server) = MailServer::start("SMTP refusals", &[]) else {
        return;
    };
    let provider = smtp(settings(server.port));
    for (stage, answer, kind, code) in [
        ("MAIL", "451 4.3.0 Try again", "transient", "smtp_451"),
        (
            "MAIL",
            "553 5.7.1 Not your address",
            "permanent",
            "smtp_553",
        ),
        ("RCPT", "450 4.2.0 Greylisted", "transient", "smtp_450"),
        ("RCPT", "452 4.2.2 Mailbox full", "transient", "smtp_452"),
        ("RCPT", "550 5.1.1 No such user", "permanent", "smtp_550"),
        ("DATA", "451 4.7.1 Later", "transient", "smtp_451"),
        ("DATA", "554 5.7.1 Spam", "permanent", "smtp_554"),
    ] {
        server.answers(json!({ stage: answer }));
        let reply = provider.send(&message()).await;
        let expected = (kind.to_owned(), code.to_owned(), None);
        assert_eq!(refusal(&reply), expected, "{stage} {answer}");
        assert_eq!(reply.response.as_deref(), Some(answer));
        server.answers(json!({}));
        let reply = provider.send(&message()).await;
        assert_eq!(
            reply.outcome,
            accepted(Some(&message_id(&message()))),
            "{stage}"
        );
        assert_eq!(server.seen().connections, 1, "{stage}");
    }
    // Whoever says that the server closes is not spoken to again.
    server.answers(json!({ "MAIL": "421 4.3.2 Closing" }));
    assert_eq!(refusal(&provider.send(&message()).await).1, "smtp_421");
    server.answers(json!({}));
    provider.send(&message()).await;
    assert_eq!(server.seen().connections, 2);
}

#[tokio::test]
async fn one_who_hangs_is_given_up_within_the_deadline_and_spoils_no_other_message() {
    let Some(mut server) = MailServer::start("a hanging mail server", &[]) else {
        return;
    };
    let provider = smtp(Settings {
        deadlines: Deadlines {
            connect: Duration::from_secs(1),
            total: Duration::from_secs(1),
        },
        ..settings(server.port)
    });
    for (number, stage) in ["MAIL", "RCPT", "DATA"].into_iter().enumerate() {
        server.answers(json!({ stage: "hang" }));
        let started = Instant::now();
        let reply = provider.send(&message()).await;
        let expected = ("transient".to_owned(), "connection_error".to_owned(), None);
        assert_eq!(refusal(&reply), expected, "{stage}");
        assert!(started.elapsed() < Duration::from_secs(5), "{stage}");
        server.answers(json!({}));
        let reply = provider.send(&message()).await;
        assert_eq!(
            reply.outcome,
            accepted(Some(&message_id(&message()))),
            "{stage}"
        );
        let connections = server.seen().connections;
        assert_eq!(
            connections,
            number as u64 + 2,
            "{stage}: the old one is not used again"
        );
    }
}

#[tokio::test]
async fn of_kept_connections_that_went_silent_one_is_waited_for() {
    let Some(mut server) = MailServer::start("silent SMTP connections", &[]) else {
        return;
    };
    let provider = Arc::new(smtp(Settings {
        deadlines: Deadlines {
            connect: Duration::from_secs(1),
            total: Duration::from_secs(4),
        },
        ..settings(server.port)
    }));
    let send = |_| {
        let provider = Arc::clone(&provider);
        async move { provider.send(&message()).await }
    };
    at_once(4, 0..4, send).await;
    server.answers(json!({ "RSET": "hang" }));
    let reply = provider.send(&message()).await;
    assert_eq!(reply.outcome, accepted(Some(&message_id(&message()))));
}

#[tokio::test]
async fn a_greeting_that_is_a_refusal_is_told() {
    for (greeting, kind, code) in [
        ("421 4.3.2 Too many connections", "transient", "smtp_421"),
        ("554 5.7.1 Nothing for you", "permanent", "smtp_554"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let greeted = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let line = format!("{greeting}\r\n");
            stream.write_all(line.as_bytes()).await.unwrap();
        });
        let reply = smtp(settings(port)).send(&message()).await;
        let expected = (kind.to_owned(), code.to_owned(), None);
        assert_eq!(refusal(&reply), expected);
        assert_eq!(reply.response.as_deref(), Some(greeting));
        greeted.await.unwrap();
    }
}

#[tokio::test]
async fn silence_and_a_closed_port_are_connection_errors() {
    // It accepts by the operating system, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let soon = Deadlines {
        connect: Duration::from_millis(300),
        total: Duration::from_millis(600),
    };
    let provider = smtp(Settings {
        deadlines: soon,
        ..settings(port)
    });
    let started = Instant::now();
    let expected = ("transient".to_owned(), "connection_error".to_owned(), None);
    assert_eq!(refusal(&provider.send(&message()).await), expected);
    assert!(started.elapsed() < Duration::from_secs(3));
    drop(silent);
    assert_eq!(refusal(&provider.send(&message()).await), expected);
}

#[tokio::test]
async fn connections_are_reused_and_no_more_are_made_than_are_allowed() {
    let Some(mut server) = MailServer::start("SMTP connections", &[]) else {
        return;
    };
    let provider = Arc::new(smtp(settings(server.port)));
    for round in 1..=3 {
        let send = |_| {
            let provider = Arc::clone(&provider);
            async move { provider.send(&message()).await }
        };
        for reply in at_once(20, 0..20, send).await {
            assert_eq!(reply.outcome, accepted(Some(&message_id(&message()))));
        }
        let seen = server.seen();
        assert_eq!(seen.messages.len(), 20, "{round}");
        assert!(seen.connections <= 4, "{round}: {}", seen.connections);
    }
}

#[tokio::test]
async fn a_server_that_closed_its_connections_is_connected_to_anew() {
    let Some(mut server) = MailServer::start("closed SMTP connections", &[]) else {
        return;
    };
    let provider = smtp(settings(server.port));
    let reply = provider.send(&message()).await;
    assert_eq!(reply.outcome, accepted(Some(&message_id(&message()))));
    server.answers(json!({ "close": true }));
    let reply = provider.send(&message()).await;
    assert_eq!(reply.outcome, accepted(Some(&message_id(&message()))));
    assert_eq!(server.seen().connections, 2);
}

#[tokio::test]
async fn addresses_beyond_ascii_are_for_servers_that_take_them() {
    let to = |recipient: &str| call(delivery(Channel::Email, recipient, "Hello"));
    let Some(mut server) = MailServer::start("SMTPUTF8", &[]) else {
        return;
    };
    let provider = smtp(settings(server.port));
    let domain = to("ada@bücher.example");
    let reply = provider.send(&domain).await;
    assert_eq!(reply.outcome, accepted(Some(&message_id(&domain))));
    let seen = server.seen().message();
    assert_eq!(seen["to"], json!(["ada@xn--bcher-kva.example"]));
    assert_eq!(seen["options"], json!([]));

    let local = to("jürgen@example.net");
    let reply = provider.send(&local).await;
    assert_eq!(reply.outcome, accepted(Some(&message_id(&local))));
    let seen = server.seen().message();
    assert_eq!(seen["to"], json!(["jürgen@example.net"]));
    assert_eq!(seen["options"], json!(["BODY=8BITMIME", "SMTPUTF8"]));

    let Some(mut server) = MailServer::start("no SMTPUTF8", &["--ascii"]) else {
        return;
    };
    let provider = smtp(settings(server.port));
    let reply = provider.send(&local).await;
    let expected = ("permanent".to_owned(), "smtp_no_smtputf8".to_owned(), None);
    assert_eq!(refusal(&reply), expected);
    let reply = provider.send(&domain).await;
    assert_eq!(reply.outcome, accepted(Some(&message_id(&domain))));
    let seen = server.seen();
    assert_eq!((seen.messages.len(), seen.connections), (1, 1));
}

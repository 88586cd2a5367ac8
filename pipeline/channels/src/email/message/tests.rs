use super::*;
use crate::tests::call;

fn sender() -> Sender {
    Sender::new("Herald <herald@example.com>", "").unwrap()
}

/// A call with another delivery than usual.
fn changed(change: impl FnOnce(&mut herald_schemas::records::DeliveryReady)) -> Call {
    let mut delivery = call("ada@example.net").delivery.as_ref().clone();
    change(&mut delivery);
    Call {
        delivery: delivery.into(),
        attempt: 1,
    }
}

fn text(call: &Call) -> String {
    String::from_utf8(Mail::new(&sender(), call).unwrap().bytes).unwrap()
}

fn code(call: &Call) -> String {
    Mail::new(&sender(), call).unwrap_err().code
}

fn head(mail: &str) -> &str {
    mail.split_once("\r\n\r\n").unwrap().0
}

#[test]
fn the_same_call_again_has_the_same_id_and_another_has_not() {
    let first = Mail::new(&sender(), &call("ada@example.net")).unwrap();
    let again = Mail::new(&sender(), &call("ada@example.net")).unwrap();
    assert_eq!(first.id, again.id);
    assert!(head(&String::from_utf8(first.bytes).unwrap()).contains(&format!("<{}>", first.id)));
    let other = changed(|delivery| {
        delivery.identity.id = herald_schemas::ids::NotificationId::derived(1, &[b"other"]);
    });
    assert_ne!(Mail::new(&sender(), &other).unwrap().id, again.id);
}

#[test]
fn an_address_that_would_end_a_line_or_a_command_is_none() {
    for recipient in [
        "",
        "ada",
        "@example.net",
        "ada@",
        "ada@example.net\r\nRCPT TO:<eve@example.net>",
        "ada@example.net\nBcc: eve@example.net",
        "ada@example.net\0",
        "\"ada\r\nDATA\"@example.net",
        "\"ada eve\"@example.net",
        "ada@example.net>\t",
        "ada@example.net> SIZE=1 <x@y",
        "ada@example.net, eve@example.net",
        "<ada@example.net>",
        "Ada <ada@example.net>",
        "ada@bücher/evil",
        "ada@bücher:25",
    ] {
        assert_eq!(code(&call(recipient)), "invalid_recipient", "{recipient:?}");
    }
}

#[test]
fn a_subject_is_one_line() {
    let with =
        |subject: &str| changed(|delivery| delivery.message.subject = Some(subject.to_owned()));
    for subject in [
        "Hi\r\nBcc: eve@example.net",
        "Hi\nBcc: eve@example.net",
        "Hi\rBcc: eve@example.net",
        "Hi\u{0}",
        "Hi\u{85}there",
    ] {
        assert_eq!(code(&with(subject)), "invalid_subject", "{subject:?}");
    }
    assert!(text(&with(" Hi there\n")).contains("Subject: Hi there\r\n"));
    // Folded where it is long, and nowhere else.
    let long = text(&with(&"word ".repeat(400)));
    for line in head(&long).lines() {
        assert!(line.len() <= 998 && !line.trim().is_empty(), "{line:?}");
    }
}

#[test]
fn what_no_header_can_carry_is_left_out() {
    for value in ["a\r\nBcc: eve@example.net", "a\nb", &"a".repeat(1_000)] {
        let mail = text(&changed(|delivery| {
            delivery.identity.correlation_id = Some(value.to_owned());
            delivery.identity.traceparent = Some(value.to_owned());
        }));
        assert!(!mail.contains("X-Correlation-Id"), "{value:?}");
        assert!(!mail.contains("traceparent"), "{value:?}");
        assert!(!mail.contains("eve"), "{value:?}");
    }
}

#[test]
fn unsubscribing_is_by_https_or_the_message_is_none() {
    let with =
        |metadata: &str| changed(|delivery| delivery.message.metadata = Some(metadata.to_owned()));
    for metadata in [
        r#"{"unsubscribe_url":"http://example.com/u"}"#,
        r#"{"unsubscribe_url":"mailto:u@example.com"}"#,
        r#"{"unsubscribe_url":"javascript:alert(1)"}"#,
        r#"{"unsubscribe_url":"example.com/u"}"#,
        r#"{"unsubscribe_url":17}"#,
        &format!(
            r#"{{"unsubscribe_url":"https://example.com/{}"}}"#,
            "u".repeat(900)
        ),
    ] {
        assert_eq!(
            code(&with(metadata)),
            "invalid_unsubscribe_url",
            "{metadata}"
        );
    }
    for metadata in [r#"{"unsubscribe_url":null}"#, r#"{"a":1}"#, "[]", "no JSON"] {
        let mail = text(&with(metadata));
        assert!(!mail.contains("List-Unsubscribe"), "{metadata}");
    }
    let injected = r#"{"unsubscribe_url":"https://example.com/u>\r\nBcc: <eve@example.net"}"#;
    let mail = text(&with(injected));
    assert!(
        head(&mail)
            .contains("List-Unsubscribe: <https://example.com/u%3EBcc:%20%3Ceve@example.net>\r\n"),
        "{mail}"
    );
}

#[test]
fn a_body_ends_lines_in_one_way_and_no_message() {
    let mail = text(&changed(|delivery| {
        delivery.message.content = "a\r.\r\n.\n\rb\u{0}c".to_owned();
    }));
    let body = mail.split_once("\r\n\r\n").unwrap().1;
    let bare = body.replace("\r\n", "");
    assert!(!bare.contains(['\r', '\n']), "{body:?}");
}

#[test]
fn a_sender_that_is_none_is_named() {
    for (from, reply_to, named) in [
        ("", "", "from"),
        ("herald", "", "from"),
        ("Herald <herald@example.com", "", "from"),
        ("Her\nald <herald@example.com>", "", "from"),
        ("herald@example.com", "x", "reply_to"),
    ] {
        let error = Sender::new(from, reply_to).unwrap_err();
        assert!(error.starts_with(named), "{error}");
    }
    let sender = Sender::new("\"Müller, Ada\" <ada@bücher.example>", "").unwrap();
    assert_eq!(sender.domain(), "xn--bcher-kva.example");
}

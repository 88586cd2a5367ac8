//! Whether a recipient can be one of its channel.

use std::borrow::Cow;

use herald_schemas::words::Channel;
use serde::Deserialize;

/// The longest phone number or address.
const SHORT: usize = 255;
/// The longest URL, token or subscription.
pub(crate) const LONG: usize = 4_096;

/// Whether `recipient` can be one of `channel`; else what it should be.
pub fn check(channel: Channel, recipient: &str) -> Result<(), &'static str> {
    if recipient.is_empty() {
        return Err("is empty");
    }
    // They end up in headers and command lines of other protocols.
    if recipient.contains(char::is_control) {
        return Err("has control characters");
    }
    let limit = match channel {
        Channel::Sms | Channel::Email => SHORT,
        Channel::Push | Channel::Slack | Channel::Webhook | Channel::Log => LONG,
    };
    if recipient.len() > limit {
        return Err("is too long");
    }
    match channel {
        Channel::Sms if !is_e164(recipient) => {
            Err("is no phone number in E.164, such as +905551234567")
        }
        Channel::Email if !is_address(recipient) => Err("is no e-mail address"),
        Channel::Push if !is_token(recipient) && !is_subscription(recipient) => {
            Err("is neither a device token nor a Web Push subscription")
        }
        Channel::Webhook if !is_url(recipient) => Err("is no http or https URL"),
        Channel::Slack if !is_url(recipient) && !is_slack_name(recipient) => {
            Err("is neither a webhook URL nor a Slack channel")
        }
        _ => Ok(()),
    }
}

/// ITU-T E.164: a plus and up to fifteen digits, the first of them no zero.
fn is_e164(text: &str) -> bool {
    let Some(digits) = text.strip_prefix('+') else {
        return false;
    };
    (7..=15).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0')
}

/// The addresses that people have: RFC 5321 without quoted local parts and address literals.
fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else {
        return false;
    };
    let word = |c: char| !c.is_whitespace() && !"()<>[]:;@\\,\"".contains(c);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    (1..=64).contains(&local.len())
        && local.chars().all(word)
        && local.split('.').all(|part| !part.is_empty())
        && domain.len() <= 253
        && domain.split('.').all(label)
}

fn is_url(text: &str) -> bool {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        !host.is_empty() && !text.contains(char::is_whitespace)
    })
}

/// Whatever a platform makes up, but for what would be a subscription.
fn is_token(text: &str) -> bool {
    !text.starts_with('{') && !text.contains(char::is_whitespace)
}

/// What a browser gives a page that wants to send: RFC 8291's public key, a point of 65 bytes, and
/// its secret of 16.
fn is_subscription(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Subscription<'a> {
        #[serde(borrow)]
        endpoint: Cow<'a, str>,
        #[serde(borrow)]
        keys: Keys<'a>,
    }
    #[derive(Deserialize)]
    struct Keys<'a> {
        #[serde(borrow)]
        p256dh: Cow<'a, str>,
        #[serde(borrow)]
        auth: Cow<'a, str>,
    }
    let is_base64 = |text: &str, length: usize| {
        let digits = text.trim_end_matches('=');
        digits.len() == length
            && digits
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    serde_json::from_str(text).is_ok_and(|it: Subscription<'_>| {
        is_url(&it.endpoint) && is_base64(&it.keys.p256dh, 87) && is_base64(&it.keys.auth, 22)
    })
}

/// `#general`, `@user`, or an id such as C024BE91L.
fn is_slack_name(text: &str) -> bool {
    let name = text.strip_prefix(['#', '@']).unwrap_or(text);
    (1..=80).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_channel_has_its_own_kind_of_recipient() {
        for (channel, good, bad) in [
            (Channel::Sms, "+905551234567", "905551234567"),
            (Channel::Sms, "+12025550123", "+02025550123"),
            (Channel::Email, "a.b+c@mail.example.com", "a..b@example.com"),
            (Channel::Email, "root@localhost", "a b@example.com"),
            (Channel::Email, "ü@example.com", "a@-example.com"),
            (Channel::Email, "x@y", "x@"),
            (
                Channel::Webhook,
                "https://example.com/hook",
                "ftp://example.com",
            ),
            (Channel::Webhook, "http://127.0.0.1:1/", "https:///x"),
            (Channel::Slack, "#general", "# general"),
            (Channel::Slack, "https://hooks.slack.com/x", ""),
            (Channel::Push, "token:abc", ""),
            (Channel::Push, "dXyz_-1:APA91b", "two words"),
            (Channel::Log, "anyone at all", "two\r\nlines"),
        ] {
            assert_eq!(check(channel, good), Ok(()), "{channel} {good}");
            assert!(check(channel, bad).is_err(), "{channel} {bad}");
        }
    }

    #[test]
    fn a_browsers_subscription_is_a_recipient_of_push_and_half_of_one_is_none() {
        let of = |endpoint: &str, p256dh: &str, auth: &str| {
            let keys = format!(r#"{{"p256dh":"{p256dh}","auth":"{auth}"}}"#);
            format!(r#"{{"endpoint":"{endpoint}","expirationTime":null,"keys":{keys}}}"#)
        };
        let (endpoint, key, auth) = ("https://push.example/x", "B".repeat(87), "a".repeat(22));
        let good = [
            of(endpoint, &key, &auth),
            of(endpoint, &format!("{key}="), &format!("{auth}==")),
        ];
        for good in good {
            assert_eq!(check(Channel::Push, &good), Ok(()), "{good}");
        }
        for bad in [
            of("push.example", &key, &auth),
            of(endpoint, &key[1..], &auth),
            of(endpoint, &key, "a+/a"),
            r#"{"endpoint":"https://push.example/x"}"#.to_owned(),
            "{}".to_owned(),
            "{".to_owned(),
        ] {
            assert!(check(Channel::Push, &bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn length_goes_by_channel() {
        let long = format!("{}@example.com", "a".repeat(300));
        assert_eq!(check(Channel::Email, &long), Err("is too long"));
        assert_eq!(check(Channel::Push, &"t".repeat(4_096)), Ok(()));
        assert_eq!(check(Channel::Push, &"t".repeat(4_097)), Err("is too long"));
    }
}

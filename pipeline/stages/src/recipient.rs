//! Whether a recipient can be one of its channel.

use herald_schemas::words::Channel;

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
            (Channel::Log, "anyone at all", "two\r\nlines"),
        ] {
            assert_eq!(check(channel, good), Ok(()), "{channel} {good}");
            assert!(check(channel, bad).is_err(), "{channel} {bad}");
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

//! Settings that are texts with a form of their own: times and addresses.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de};

/// A span of time, written as `500ms`, `10s`, `5m`, `1h` or `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no time: expected a number and ms, s, m, h or d");
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
        let unit_ms: u64 = match &text[digits..] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let ms = number
            .checked_mul(unit_ms)
            .filter(|ms| *ms < 1 << 45)
            .ok_or_else(wrong)?;
        Ok(Self(Duration::from_millis(ms)))
    }
}

/// Where something listens; an empty text: nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen(pub(crate) Option<SocketAddr>);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let wrong = |_| format!("{text:?} is no address: expected IP:port, or nothing for none");
        Ok(Self(Some(text.parse().map_err(wrong)?)))
    }
}

/// Where the log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BrokerUrl {
    /// Kafka, as `host:port,host:port`.
    Kafka(String),
    /// The embedded log, in a directory.
    Embedded(PathBuf),
}

impl FromStr for BrokerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        without_login(text)?;
        if let Some(hosts) = text.strip_prefix("kafka://") {
            return Ok(Self::Kafka(hosts_of(text, hosts)?));
        }
        match text.strip_prefix("embedded:") {
            Some(directory) if !directory.is_empty() => Ok(Self::Embedded(directory.into())),
            _ => Err(format!(
                "{text:?} is no broker: expected kafka://host:port,… or embedded:DIR"
            )),
        }
    }
}

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoreUrl {
    /// ScyllaDB or Cassandra: nodes and keyspace.
    Scylla {
        nodes: Vec<String>,
        keyspace: String,
    },
    /// A SQLite file.
    Sqlite(PathBuf),
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is no store: expected scylla://host:port,…/keyspace or sqlite:FILE")
        };
        without_login(text)?;
        if let Some(rest) = text.strip_prefix("scylla://") {
            let (hosts, keyspace) = rest.split_once('/').ok_or_else(wrong)?;
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let first = keyspace
                .chars()
                .next()
                .is_some_and(|c| c.is_ascii_alphabetic());
            if !first || !keyspace.chars().all(word) || keyspace.len() > 48 {
                return Err(wrong());
            }
            let nodes = hosts_of(text, hosts)?
                .split(',')
                .map(str::to_owned)
                .collect();
            return Ok(Self::Scylla {
                nodes,
                keyspace: keyspace.to_owned(),
            });
        }
        match text.strip_prefix("sqlite:") {
            Some(file) if !file.is_empty() => Ok(Self::Sqlite(file.into())),
            _ => Err(wrong()),
        }
    }
}

/// An error about an address repeats it, so it must not hold a password.
fn without_login(text: &str) -> Result<(), String> {
    if text.contains("://") && text.contains('@') {
        return Err("a login is no part of an address: set user and password".to_owned());
    }
    Ok(())
}

fn hosts_of(whole: &str, hosts: &str) -> Result<String, String> {
    for host in hosts.split(',') {
        let port = host
            .rsplit_once(':')
            .and_then(|(name, port)| (!name.is_empty()).then(|| port.parse::<u16>().ok())?);
        if port.is_none() {
            return Err(format!("{whole:?}: {host:?} is not host:port"));
        }
    }
    Ok(hosts.to_owned())
}

macro_rules! deserialize_from_text {
    ($($name:ident),+) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )+};
}

deserialize_from_text!(Span, Listen, BrokerUrl, StoreUrl);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_a_number_and_a_unit() {
        for (text, ms) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(ms))));
        }
        for text in [
            "",
            "s",
            "10",
            "-1s",
            "1.5s",
            "1y",
            "99999999999999999999s",
            "9999999999999d",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn where_to_listen_may_be_nowhere() {
        assert_eq!("".parse(), Ok(Listen(None)));
        let address = "127.0.0.1:9464".parse().unwrap();
        assert_eq!("127.0.0.1:9464".parse(), Ok(Listen(Some(address))));
        assert!("9464".parse::<Listen>().unwrap_err().contains("IP:port"));
    }

    #[test]
    fn addresses_say_what_is_wrong_with_them() {
        assert_eq!(
            "kafka://a:9092,b:9092".parse(),
            Ok(BrokerUrl::Kafka("a:9092,b:9092".to_owned()))
        );
        assert_eq!(
            "embedded:x/y".parse(),
            Ok(BrokerUrl::Embedded("x/y".into()))
        );
        assert!(
            "kafka://a"
                .parse::<BrokerUrl>()
                .unwrap_err()
                .contains("\"a\" is not host:port")
        );
        assert!("embedded:".parse::<BrokerUrl>().is_err());
        for login in [
            "kafka://me:hunter2@a:9092",
            "scylla://me:hunter2@a:9042/k",
            "scylla://me:hunter2@a:9042",
            "x://me:hunter2@a",
        ] {
            let broker = login.parse::<BrokerUrl>().map(drop);
            let store = login.parse::<StoreUrl>().map(drop);
            let told: String = [broker, store]
                .into_iter()
                .filter_map(Result::err)
                .collect();
            assert!(told.contains("set user and password"), "{told}");
            assert!(!told.contains("hunter2"), "{told}");
        }
        let nodes = vec!["a:9042".to_owned(), "b:9042".to_owned()];
        assert_eq!(
            "scylla://a:9042,b:9042/herald".parse(),
            Ok(StoreUrl::Scylla {
                nodes,
                keyspace: "herald".to_owned()
            })
        );
        for wrong in [
            "scylla://a:9042",
            "scylla://a:9042/",
            "scylla://a:9042/x;y",
            "sqlite:",
            "x",
        ] {
            assert!(wrong.parse::<StoreUrl>().is_err(), "{wrong}");
        }
    }
}

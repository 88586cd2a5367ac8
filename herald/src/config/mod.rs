//! The configuration: what may be set, and what it must look like.
//!
//! `config/herald.toml` holds every key with its default and its reason. Where a value comes from
//! is decided in [`layers`]; here it is given its type, and what it says is checked.

mod carriers;
mod layers;
mod seeds;
mod text;

use std::{ffi::OsString, fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use herald_schemas::words::Channel;
use serde::Deserialize;

pub(crate) use carriers::{Email, Mailgun, Ses, Smtp, SmtpTls, Webhook};
pub(crate) use herald_channels::Secret;
pub(crate) use layers::DEFAULTS;
pub(crate) use text::{BrokerUrl, Listen, Span, StoreUrl};

/// All settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) api: Api,
    pub(crate) admin: Admin,
    pub(crate) broker: Broker,
    pub(crate) store: Store,
    pub(crate) schema_registry: SchemaRegistry,
    pub(crate) topics: Topics,
    pub(crate) delivery: Delivery,
    pub(crate) rate_limits: RateLimits,
    pub(crate) breaker: Breaker,
    pub(crate) failover: Failover,
    pub(crate) retry: Retry,
    pub(crate) channels: Channels,
    pub(crate) provider: Provider,
    pub(crate) twilio: Twilio,
    pub(crate) vonage: Vonage,
    pub(crate) email: Email,
    pub(crate) smtp: Smtp,
    pub(crate) mailgun: Mailgun,
    pub(crate) ses: Ses,
    pub(crate) webhook: Webhook,
    pub(crate) fcm: Fcm,
    pub(crate) web_push: WebPush,
    pub(crate) slack: Slack,
    pub(crate) limits: Limits,
    pub(crate) log: Log,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Api {
    pub(crate) listen: SocketAddr,
    pub(crate) keys: Vec<Secret>,
    pub(crate) rate_limit_per_minute: u32,
    pub(crate) max_body_bytes: usize,
    pub(crate) idempotency_ttl: Span,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Admin {
    pub(crate) listen: Listen,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Broker {
    pub(crate) url: BrokerUrl,
    pub(crate) replication_factor: i32,
    pub(crate) tls: bool,
    pub(crate) tls_ca: String,
    pub(crate) tls_certificate: String,
    pub(crate) tls_key: String,
    pub(crate) sasl_mechanism: String,
    pub(crate) user: String,
    pub(crate) password: Secret,
    pub(crate) session_timeout: Span,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Store {
    pub(crate) url: StoreUrl,
    pub(crate) user: String,
    pub(crate) password: Secret,
    pub(crate) tls: bool,
    pub(crate) tls_ca: String,
    pub(crate) replication_factor: u32,
    pub(crate) bucket_minutes: u32,
    pub(crate) retention_days: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SchemaRegistry {
    pub(crate) url: String,
    pub(crate) user: String,
    pub(crate) password: Secret,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Topics {
    pub(crate) prefix: String,
    pub(crate) partitions: u32,
    pub(crate) retention: Span,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Delivery {
    pub(crate) max_calls: usize,
    pub(crate) time_to_live: Span,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retry {
    pub(crate) policy: RetryPolicy,
    pub(crate) delays: Vec<String>,
    pub(crate) base: Span,
    pub(crate) cap: Span,
    pub(crate) jitter_percent: u32,
    pub(crate) max_attempts: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RateLimits {
    sms: u32,
    email: u32,
    push: u32,
    slack: u32,
    webhook: u32,
    log: u32,
}

impl RateLimits {
    /// How many a second; 0: as many as may be.
    pub(crate) fn of(&self, channel: Channel) -> u32 {
        match channel {
            Channel::Sms => self.sms,
            Channel::Email => self.email,
            Channel::Push => self.push,
            Channel::Slack => self.slack,
            Channel::Webhook => self.webhook,
            Channel::Log => self.log,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Breaker {
    pub(crate) failures: usize,
    pub(crate) window: Span,
    pub(crate) open_for: Span,
    pub(crate) probe_every: Span,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failover {
    pub(crate) failures: usize,
    pub(crate) window: Span,
    pub(crate) unhealthy_for: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RetryPolicy {
    Delays,
    Exponential,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Channels {
    sms: String,
    sms_fallback: String,
    email: String,
    email_fallback: String,
    push: String,
    push_fallback: String,
    slack: String,
    slack_fallback: String,
    webhook: String,
    webhook_fallback: String,
    pub(crate) timeout: Span,
    pub(crate) connect_timeout: Span,
}

impl Channels {
    /// The names of a channel's provider and of its fallback, where they can be chosen.
    pub(crate) fn of(&self, channel: Channel) -> Option<(&str, &str)> {
        let (primary, fallback) = match channel {
            Channel::Sms => (&self.sms, &self.sms_fallback),
            Channel::Email => (&self.email, &self.email_fallback),
            Channel::Push => (&self.push, &self.push_fallback),
            Channel::Slack => (&self.slack, &self.slack_fallback),
            Channel::Webhook => (&self.webhook, &self.webhook_fallback),
            Channel::Log => return None,
        };
        Some((primary, fallback))
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Provider {
    pub(crate) url: String,
    pub(crate) fallback_url: String,
    pub(crate) timeout: Span,
    pub(crate) connect_timeout: Span,
    pub(crate) idempotency_header: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Twilio {
    pub(crate) url: String,
    pub(crate) account_sid: String,
    pub(crate) auth_token: Secret,
    pub(crate) api_key: String,
    pub(crate) api_key_secret: Secret,
    pub(crate) from: String,
    pub(crate) messaging_service_sid: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vonage {
    pub(crate) url: String,
    pub(crate) api_key: String,
    pub(crate) api_secret: Secret,
    pub(crate) from: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fcm {
    pub(crate) url: String,
    pub(crate) service_account: Secret,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebPush {
    pub(crate) private_key: Secret,
    pub(crate) subject: String,
    pub(crate) time_to_live: Span,
    pub(crate) endpoints: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Slack {
    pub(crate) default_webhook: Secret,
    pub(crate) webhooks: Vec<String>,
    pub(crate) url: String,
    pub(crate) bot_token: Secret,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) sms: usize,
    pub(crate) email: usize,
    pub(crate) push: usize,
    pub(crate) slack: usize,
    pub(crate) webhook: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) level: String,
    pub(crate) format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl Config {
    /// The settings of this process.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self> {
        let text = match file {
            Some(path) => Some(
                fs::read_to_string(path)
                    .with_context(|| format!("configuration file {}", path.display()))?,
            ),
            None => None,
        };
        let path = file
            .map(|path| path.display().to_string())
            .unwrap_or_default();
        Self::from_layers(
            text.as_deref().map(|text| (path.as_str(), text)),
            environment(std::env::vars_os())?.into_iter(),
        )
    }

    /// A configuration of a file alone, for tests.
    #[cfg(test)]
    pub(crate) fn from_text(file: &str) -> Result<Self> {
        Self::from_layers(Some(("test.toml", file)), std::iter::empty())
    }

    fn from_layers(
        file: Option<(&str, &str)>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self> {
        let table = layers::merge(file, environment)?;
        let mut sections = typed(table)?;
        sections.check()?;
        Ok(sections)
    }

    fn check(&mut self) -> Result<()> {
        let between = |name: &str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                bail!("{name} is {value}, expected {low} to {high}")
            }
        };
        between(
            "partitions in [topics]",
            self.topics.partitions.into(),
            1,
            1_000,
        )?;
        between(
            "connections in [smtp]",
            self.smtp.connections as u64,
            1,
            1_000,
        )?;
        between(
            "max_calls in [delivery]",
            self.delivery.max_calls as u64,
            1,
            10_000,
        )?;
        between(
            "replication_factor in [store]",
            self.store.replication_factor.into(),
            1,
            10,
        )?;
        between(
            "bucket_minutes in [store]",
            self.store.bucket_minutes.into(),
            1,
            1_440,
        )?;
        between(
            "retention_days in [store]",
            self.store.retention_days.into(),
            1,
            3_650,
        )?;
        between(
            "jitter_percent in [retry]",
            self.retry.jitter_percent.into(),
            0,
            100,
        )?;
        between(
            "max_attempts in [retry]",
            self.retry.max_attempts.into(),
            0,
            1_000,
        )?;
        between(
            "session_timeout in [broker], in seconds,",
            self.broker.session_timeout.0.as_secs(),
            1,
            1_800,
        )?;
        if self.topics.retention.0 < self.delivery.time_to_live.0.max(Duration::from_secs(3_600)) {
            bail!(
                "retention in [topics] is shorter than an hour, or than time_to_live in [delivery]: \
                 what waits would be dropped"
            );
        }
        self.broker.tls |=
            !self.broker.tls_ca.is_empty() || !self.broker.tls_certificate.is_empty();
        self.store.tls |= !self.store.tls_ca.is_empty();
        self.api.keys.retain(|key| !key.is_empty());
        Ok(())
    }
}

/// The variables that may be settings. One of ours that is no text is an error, else it would count
/// as not set.
fn environment(all: impl Iterator<Item = (OsString, OsString)>) -> Result<Vec<(String, String)>> {
    let mut texts = Vec::new();
    for (name, value) in all {
        let Ok(name) = name.into_string() else {
            continue;
        };
        match value.into_string() {
            Ok(value) => texts.push((name, value)),
            Err(_) if layers::may_be_a_setting(&name) => {
                bail!("environment variable {name} is no UTF-8 text")
            }
            Err(_) => {}
        }
    }
    Ok(texts)
}

/// Section by section, so that an error names where it is.
fn typed(table: toml::Table) -> Result<Config> {
    fn section<T: for<'de> Deserialize<'de>>(table: &toml::Table, name: &str) -> Result<T> {
        let value = table
            .get(name)
            .cloned()
            .unwrap_or(toml::Value::Table(toml::Table::new()));
        value.try_into().map_err(|error: toml::de::Error| {
            anyhow::anyhow!(
                "section [{name}]: {}",
                error.to_string().trim().replace('\n', " ")
            )
        })
    }
    Ok(Config {
        api: section(&table, "api")?,
        admin: section(&table, "admin")?,
        broker: section(&table, "broker")?,
        store: section(&table, "store")?,
        schema_registry: section(&table, "schema_registry")?,
        topics: section(&table, "topics")?,
        delivery: section(&table, "delivery")?,
        rate_limits: section(&table, "rate_limits")?,
        breaker: section(&table, "breaker")?,
        failover: section(&table, "failover")?,
        retry: section(&table, "retry")?,
        channels: section(&table, "channels")?,
        provider: section(&table, "provider")?,
        twilio: section(&table, "twilio")?,
        vonage: section(&table, "vonage")?,
        email: section(&table, "email")?,
        smtp: section(&table, "smtp")?,
        mailgun: section(&table, "mailgun")?,
        ses: section(&table, "ses")?,
        webhook: section(&table, "webhook")?,
        fcm: section(&table, "fcm")?,
        web_push: section(&table, "web_push")?,
        slack: section(&table, "slack")?,
        limits: section(&table, "limits")?,
        log: section(&table, "log")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str) -> Result<Config> {
        Config::from_text(file)
    }

    fn error(file: &str) -> String {
        format!("{:#}", load(file).unwrap_err())
    }

    #[test]
    fn the_commented_file_is_a_whole_configuration() {
        let config = load(DEFAULTS).unwrap();
        assert_eq!(config.api.listen.to_string(), "127.0.0.1:8000");
        assert_eq!(config.retry.delays, ["1m", "5m", "15m"]);
        assert_eq!(config.topics.prefix, "herald.");
    }

    /// The keys that may stand right below another.
    const SHARING: &[&str] = &[
        "user",
        "password",
        "tls_key",
        "base",
        "cap",
        "jitter_percent",
        "connect_timeout",
        "api_secret",
        "api_key_secret",
        "email",
        "push",
        "slack",
        "webhook",
        "sms_fallback",
        "email_fallback",
        "push_fallback",
        "slack_fallback",
        "webhook_fallback",
    ];

    #[test]
    fn every_key_of_the_commented_file_says_why() {
        let mut commented = false;
        for line in DEFAULTS.lines() {
            if line.starts_with('#') {
                commented = true;
            } else if line.is_empty() || line.starts_with('[') {
                commented = false;
            } else if !commented {
                // A key right below a commented one shares its comment.
                assert!(
                    SHARING
                        .iter()
                        .any(|key| line.starts_with(&format!("{key} "))),
                    "{line} has no reason"
                );
            }
        }
    }

    #[test]
    fn a_secret_does_not_print() {
        let config =
            load("[api]\nkeys = [\"hunter2\"]\n[store]\npassword = \"hunter2\"\n").unwrap();
        assert_eq!(config.api.keys[0].reveal(), "hunter2");
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_variable_of_ours_that_is_no_text_is_named() {
        use std::os::unix::ffi::OsStringExt;
        let no_text = || OsString::from_vec(vec![0xff]);
        let ours = [(OsString::from("HERALD_BROKER_PASSWORD"), no_text())];
        let error = environment(ours.into_iter()).unwrap_err().to_string();
        assert!(error.contains("HERALD_BROKER_PASSWORD"), "{error}");
        let others = [("LS_COLORS".into(), no_text()), (no_text(), "x".into())];
        assert!(environment(others.into_iter()).unwrap().is_empty());
    }

    #[test]
    fn a_wrong_value_is_named_with_its_section() {
        for (file, expected) in [
            ("[api]\nlisten = \"here\"\n", "section [api]"),
            (
                "[topics]\npartitions = 0\n",
                "partitions in [topics] is 0, expected 1 to 1000",
            ),
            ("[retry]\npolicy = \"never\"\n", "section [retry]"),
            ("[broker]\nsession_timeout = \"0s\"\n", "session_timeout in"),
            ("[topics]\nretention = \"2h\"\n", "retention in [topics]"),
            ("[delivery]\ntime_to_live = \"soon\"\n", "\"soon\""),
            ("[broker]\nurl = \"amqp://x\"\n", "amqp://x"),
        ] {
            let error = error(file);
            assert!(error.contains(expected), "{error}");
        }
    }
}

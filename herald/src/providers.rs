//! The providers that the settings name.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use herald_channels::{
    LogProvider, Provider,
    http::Deadlines,
    provider_webhook::{ProviderWebhook, Settings as WebhookSettings},
};
use herald_runtime::providers::Providers;
use herald_schemas::words::Channel;

use crate::config::Config;

/// The names, in [channels], of those that any channel may have.
const LOG: &str = "log";
const PROVIDER_WEBHOOK: &str = "provider";

/// A provider that one channel may have.
struct Known {
    channel: Channel,
    /// Its name in [channels].
    name: &'static str,
    make: Make,
}

type Make = fn(&Config) -> Result<Arc<dyn Provider>>;

/// All of them. To add one, give it a line here, a function that makes it, and a section of
/// settings.
const KNOWN: &[Known] = &[];

/// For each channel those that [channels] names; else the provider webhook where it has a URL, or
/// the log.
pub(crate) fn providers(config: &Config) -> Result<Providers> {
    let log: Arc<dyn Provider> = Arc::new(LogProvider);
    let webhooks = provider_webhooks(config)?;
    let named = |channel: Channel, name: &str| match name {
        LOG => Ok(vec![Arc::clone(&log)]),
        PROVIDER_WEBHOOK if webhooks.is_empty() => bail!("url in [provider] is not set"),
        PROVIDER_WEBHOOK => Ok(webhooks.clone()),
        name => Ok(vec![known(channel, name)?(config)?]),
    };
    let unnamed = match webhooks.is_empty() {
        true => LOG,
        false => PROVIDER_WEBHOOK,
    };
    let mut providers = Providers::default();
    for &channel in Channel::ALL {
        let (primary, fallback) = config.channels.of(channel).unwrap_or((LOG, ""));
        let of_key = |key: &str, name: &str| {
            named(channel, name).with_context(|| format!("{key} in [channels] is {name:?}"))
        };
        let primary = match primary {
            "" => unnamed,
            name => name,
        };
        let mut chosen = of_key(channel.as_str(), primary)?;
        if !fallback.is_empty() {
            if fallback == primary {
                bail!("{channel} and {channel}_fallback in [channels] are both {primary:?}");
            }
            chosen.extend(of_key(&format!("{channel}_fallback"), fallback)?);
        }
        providers.set(channel, chosen);
    }
    Ok(providers)
}

fn known(channel: Channel, name: &str) -> Result<Make> {
    let of_channel = || KNOWN.iter().filter(|known| known.channel == channel);
    if let Some(known) = of_channel().find(|known| known.name == name) {
        return Ok(known.make);
    }
    let mut names: Vec<_> = of_channel().map(|known| known.name).collect();
    names.extend([PROVIDER_WEBHOOK, LOG]);
    bail!("expected one of {}", names.join(", "))
}

/// The provider webhook, and its own fallback behind it.
fn provider_webhooks(config: &Config) -> Result<Vec<Arc<dyn Provider>>> {
    let settings = &config.provider;
    let mut webhooks: Vec<Arc<dyn Provider>> = Vec::new();
    for (name, key, url) in [
        ("primary", "url", &settings.url),
        ("fallback", "fallback_url", &settings.fallback_url),
    ] {
        if url.is_empty() {
            continue;
        }
        let in_section = || format!("{key} in [provider]");
        let of_webhook = WebhookSettings {
            name: name.to_owned(),
            url: http_url(url).with_context(in_section)?,
            idempotency_header: settings
                .idempotency_header
                .parse()
                .context("idempotency_header in [provider]")?,
            deadlines: Deadlines {
                connect: at_least(settings.connect_timeout.0),
                total: at_least(settings.timeout.0),
            },
        };
        let webhook = ProviderWebhook::new(of_webhook).with_context(in_section)?;
        webhooks.push(Arc::new(webhook));
    }
    Ok(webhooks)
}

/// A URL of the operator's. An error does not repeat it: it may hold a token.
fn http_url(text: &str) -> Result<herald_channels::http::Url> {
    let url: herald_channels::http::Url = text.parse().map_err(|error| anyhow!("{error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        // Such as localhost:9999, whose scheme is `localhost`.
        bail!("expected http://… or https://…");
    }
    Ok(url)
}

/// A deadline of nothing would fail every call.
fn at_least(timeout: Duration) -> Duration {
    timeout.max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(file: &str, channel: Channel) -> Vec<String> {
        let providers = providers(&Config::from_text(file).unwrap()).unwrap();
        let of_channel = providers.of(channel);
        let names = of_channel.iter().map(|provider| provider.name().to_owned());
        names.collect()
    }

    fn error(file: &str) -> String {
        let config = Config::from_text(file).unwrap();
        format!("{:#}", providers(&config).err().unwrap())
    }

    const WEBHOOKS: &str = "[provider]\nurl = \"http://a/\"\nfallback_url = \"http://b/\"\n";

    #[test]
    fn what_is_not_said_is_the_provider_webhooks_or_the_logs() {
        assert_eq!(names("", Channel::Sms), ["log"]);
        assert_eq!(names(WEBHOOKS, Channel::Sms), ["primary", "fallback"]);
        assert_eq!(names(WEBHOOKS, Channel::Log), ["log"]);
    }

    #[test]
    fn a_fallback_comes_after_the_providers_own() {
        let file = format!("{WEBHOOKS}[channels]\nsms_fallback = \"log\"\nemail = \"log\"\n");
        assert_eq!(names(&file, Channel::Sms), ["primary", "fallback", "log"]);
        assert_eq!(names(&file, Channel::Email), ["log"]);
        let file = format!("{WEBHOOKS}[channels]\nsms = \"log\"\nsms_fallback = \"provider\"\n");
        assert_eq!(names(&file, Channel::Sms), ["log", "primary", "fallback"]);
    }

    #[test]
    fn what_cannot_be_made_is_named_with_what_is_missing() {
        for (file, expected) in [
            (
                "[channels]\nsms = \"provider\"\n",
                "sms in [channels] is \"provider\": url in [provider] is not set",
            ),
            (
                "[channels]\nemail_fallback = \"pigeon\"\n",
                "email_fallback in [channels] is \"pigeon\": expected one of ",
            ),
            (
                "[channels]\nsms_fallback = \"log\"\n",
                "sms and sms_fallback in [channels] are both \"log\"",
            ),
            (
                "[provider]\nurl = \"localhost:1/hunter2\"\n",
                "url in [provider]: expected http://… or https://…",
            ),
        ] {
            let error = error(file);
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}

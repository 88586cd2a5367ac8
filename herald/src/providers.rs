//! The providers that the settings name.

mod email;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use herald_channels::{
    LogProvider, Provider, Secret,
    allowed::Allowed,
    by_recipient::ByRecipient,
    guard::Guard,
    http::{Client, Deadlines, Url},
    provider_webhook::{ProviderWebhook, Settings as WebhookSettings},
    push::{
        fcm::{self, Fcm},
        service_account::ServiceAccount,
        vapid::Vapid,
        web_push::{self, WebPush},
    },
    slack::{
        chat_post_message::{self, ChatPostMessage},
        incoming_webhook::{self, IncomingWebhook},
    },
    sms::{
        twilio::{self, Twilio},
        vonage::{self, Vonage},
    },
    webhook::standard_webhooks::{self, Secrets, StandardWebhooks},
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
    /// Which of the channel's recipients are for it; empty: all of them.
    recipients: &'static str,
    make: Make,
}

type Make = fn(&Config) -> Result<Arc<dyn Provider>>;

/// All of them. To add one, give it a line here, a function that makes it, and a section of
/// settings.
const KNOWN: &[Known] = &[
    of(Channel::Sms, "twilio", twilio),
    of(Channel::Sms, "vonage", vonage),
    of(Channel::Email, "smtp", email::smtp),
    of(Channel::Email, "mailgun", email::mailgun),
    of(Channel::Email, "ses", email::ses),
    of(Channel::Push, "fcm", fcm).only_for("device tokens"),
    of(Channel::Push, "web_push", web_push).only_for("subscriptions"),
    of(Channel::Slack, "slack_webhook", slack_webhook).only_for("webhooks"),
    of(Channel::Slack, "slack_bot", slack_bot).only_for("channels and users"),
    of(Channel::Webhook, "standard_webhooks", standard_webhooks),
];

const fn of(channel: Channel, name: &'static str, make: Make) -> Known {
    Known {
        channel,
        name,
        recipients: "",
        make,
    }
}

impl Known {
    const fn only_for(self, recipients: &'static str) -> Self {
        Self { recipients, ..self }
    }
}

/// For each channel those that [channels] names; else the provider webhook where it has a URL, or
/// the log.
pub(crate) fn providers(config: &Config) -> Result<Providers> {
    let log: Arc<dyn Provider> = Arc::new(LogProvider);
    let webhooks = provider_webhooks(config)?;
    let named = |channel: Channel, name: &str| match name {
        LOG => Ok(vec![Arc::clone(&log)]),
        PROVIDER_WEBHOOK if webhooks.is_empty() => bail!("url in [provider] is not set"),
        PROVIDER_WEBHOOK => Ok(webhooks.clone()),
        names => Ok(vec![made(&known(channel, names)?, config)?]),
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
            same_recipients(channel, primary, fallback)?;
        }
        providers.set(channel, chosen);
    }
    Ok(providers)
}

/// Who carries what, for people.
pub(crate) fn described(providers: &Providers) -> String {
    let mut by_names: Vec<(String, Vec<&str>)> = Vec::new();
    for &channel in Channel::ALL {
        let route = providers.of(channel);
        let names: Vec<_> = route.iter().map(|one| one.name()).collect();
        let names = names.join(", then ");
        match by_names.iter_mut().find(|(known, _)| *known == names) {
            Some((_, channels)) => channels.push(channel.as_str()),
            None => by_names.push((names, vec![channel.as_str()])),
        }
    }
    let described: Vec<_> = by_names
        .iter()
        .map(|(names, channels)| format!("{} by {names}", channels.join(", ")))
        .collect();
    described.join("; ")
}

/// Those that a value of [channels] names: one, or several with a plus between them, for recipients
/// of different kinds.
fn known(channel: Channel, names: &str) -> Result<Vec<&'static Known>> {
    let of_channel = || KNOWN.iter().filter(|known| known.channel == channel);
    let find = |name: &str| of_channel().find(|known| known.name == name);
    if let Some(known) = names.split('+').map(find).collect() {
        return Ok(known);
    }
    let mut expected: Vec<_> = of_channel().map(|known| known.name).collect();
    expected.extend([PROVIDER_WEBHOOK, LOG]);
    bail!("expected one of {}", expected.join(", "))
}

/// One provider of what may be several.
fn made(known: &[&Known], config: &Config) -> Result<Arc<dyn Provider>> {
    let makes = known.iter().map(|known| (known.make)(config));
    let mut made = makes.collect::<Result<Vec<_>>>()?;
    match made.len() {
        1 => Ok(made.remove(0)),
        _ => Ok(Arc::new(ByRecipient::new(made.remove(0), made))),
    }
}

/// A fallback is asked alone while its primary is left alone: it must not refuse what that has.
fn same_recipients(channel: Channel, primary: &str, fallback: &str) -> Result<()> {
    let (Ok(first), Ok(second)) = (known(channel, primary), known(channel, fallback)) else {
        // One that any channel may have.
        return Ok(());
    };
    let kinds =
        |known: &[&Known]| -> BTreeSet<_> { known.iter().map(|it| it.recipients).collect() };
    if kinds(&first) == kinds(&second) {
        return Ok(());
    }
    bail!(
        "{channel} and {channel}_fallback in [channels] have different recipients: for all of \
         them, {channel} = \"{primary}+{fallback}\""
    )
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

fn twilio(config: &Config) -> Result<Arc<dyn Provider>> {
    let settings = &config.twilio;
    let set = |key, value: &str| required("twilio", key, value);
    let login = match settings.api_key.is_empty() {
        true => twilio::Login::AuthToken(secret("twilio", "auth_token", &settings.auth_token)?),
        false => twilio::Login::ApiKey {
            key: settings.api_key.clone(),
            secret: secret("twilio", "api_key_secret", &settings.api_key_secret)?,
        },
    };
    let sender = match settings.messaging_service_sid.as_str() {
        "" => twilio::Sender::From(set("from", &settings.from)?),
        service => twilio::Sender::MessagingService(service.to_owned()),
    };
    Ok(Arc::new(Twilio::new(twilio::Settings {
        url: http_url(&settings.url).context("url in [twilio]")?,
        account_sid: set("account_sid", &settings.account_sid)?,
        login,
        sender,
        deadlines: deadlines(config),
    })?))
}

fn vonage(config: &Config) -> Result<Arc<dyn Provider>> {
    let settings = &config.vonage;
    let set = |key, value: &str| required("vonage", key, value);
    Ok(Arc::new(Vonage::new(vonage::Settings {
        url: http_url(&settings.url).context("url in [vonage]")?,
        api_key: set("api_key", &settings.api_key)?,
        api_secret: secret("vonage", "api_secret", &settings.api_secret)?,
        from: set("from", &settings.from)?,
        deadlines: deadlines(config),
    })?))
}

fn fcm(config: &Config) -> Result<Arc<dyn Provider>> {
    let settings = &config.fcm;
    let account = secret("fcm", "service_account", &settings.service_account)?;
    let account = ServiceAccount::from_json(&account)
        .map_err(|wrong| anyhow!("service_account in [fcm] {wrong}"))?;
    Ok(Arc::new(Fcm::new(fcm::Settings {
        url: http_url(&settings.url).context("url in [fcm]")?,
        account,
        deadlines: deadlines(config),
    })?))
}

fn web_push(config: &Config) -> Result<Arc<dyn Provider>> {
    let settings = &config.web_push;
    let key = secret("web_push", "private_key", &settings.private_key)?;
    let subject = required("web_push", "subject", &settings.subject)?;
    let vapid = Vapid::new(&key, &subject).map_err(|wrong| anyhow!("[web_push]: {wrong}"))?;
    let allowed = allowed("endpoints in [web_push]", &settings.endpoints)?;
    let settings = web_push::Settings {
        vapid,
        time_to_live: settings.time_to_live.0,
        allowed,
    };
    Ok(Arc::new(WebPush::new(settings, client_of_users(config)?)))
}

fn slack_webhook(config: &Config) -> Result<Arc<dyn Provider>> {
    let settings = &config.slack;
    let default = &settings.default_webhook;
    let default = match default.is_empty() {
        true => None,
        false => Some(http_url(default.reveal()).context("default_webhook in [slack]")?),
    };
    let settings = incoming_webhook::Settings {
        default,
        allowed: allowed("webhooks in [slack]", &settings.webhooks)?,
        deadlines: deadlines(config),
    };
    let webhook = IncomingWebhook::new(settings, client_of_users(config)?)?;
    Ok(Arc::new(webhook))
}

fn slack_bot(config: &Config) -> Result<Arc<dyn Provider>> {
    let settings = &config.slack;
    let bot = ChatPostMessage::new(chat_post_message::Settings {
        url: http_url(&settings.url).context("url in [slack]")?,
        token: secret("slack", "bot_token", &settings.bot_token)?,
        deadlines: deadlines(config),
    })?;
    Ok(Arc::new(bot))
}

fn standard_webhooks(config: &Config) -> Result<Arc<dyn Provider>> {
    let secrets = &config.webhook.secrets;
    if secrets.is_empty() {
        bail!("secrets in [webhook] is not set");
    }
    let secrets =
        Secrets::new(secrets).map_err(|wrong| anyhow!("secrets in [webhook]: {wrong}"))?;
    let settings = standard_webhooks::Settings {
        secrets,
        guard: guard(config)?,
        deadlines: deadlines(config),
    };
    Ok(Arc::new(StandardWebhooks::new(settings)?))
}

/// For URLs that users gave.
fn client_of_users(config: &Config) -> Result<Client> {
    Ok(guard(config)?.client(deadlines(config))?)
}

fn guard(config: &Config) -> Result<Guard> {
    Guard::new(&config.webhook.allow_cidrs)
        .map_err(|wrong| anyhow!("allow_cidrs in [webhook]: {wrong}"))
}

fn deadlines(config: &Config) -> Deadlines {
    Deadlines {
        connect: at_least(config.channels.connect_timeout.0),
        total: at_least(config.channels.timeout.0),
    }
}

/// A text that a provider cannot do without.
fn required(section: &str, key: &str, value: &str) -> Result<String> {
    if value.is_empty() {
        bail!("{key} in [{section}] is not set");
    }
    Ok(value.to_owned())
}

/// A secret that a provider cannot do without.
fn secret(section: &str, key: &str, value: &Secret) -> Result<Secret> {
    required(section, key, value.reveal()).map(|_| value.clone())
}

fn allowed(of: &str, bases: &[String]) -> Result<Allowed> {
    Allowed::new(bases).map_err(|wrong| anyhow!("{of}: {wrong}"))
}

/// A URL of the operator's. An error does not repeat it: it may hold a token.
fn http_url(text: &str) -> Result<Url> {
    let url: Url = text.parse().map_err(|error| anyhow!("{error}"))?;
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
mod tests;

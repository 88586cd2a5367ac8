//! Those who carry e-mail.

use std::{fs, sync::Arc};

use anyhow::{Context, Result, anyhow};
use herald_channels::{
    Provider,
    email::{
        mailgun::{self, Mailgun},
        message::Sender,
        ses::{self, Ses},
        smtp::{self, Encryption, Smtp},
    },
};

use super::{deadlines, http_url, required, secret};
use crate::config::{Config, SmtpTls};

pub(super) fn smtp(config: &Config) -> Result<Arc<dyn Provider>> {
    let settings = &config.smtp;
    let encryption = match settings.tls {
        SmtpTls::None => Encryption::None,
        SmtpTls::StartTls => Encryption::StartTls(trusted(&settings.tls_ca)?),
        SmtpTls::Tls => Encryption::Tls(trusted(&settings.tls_ca)?),
    };
    let login = match settings.user.is_empty() {
        true => None,
        false => {
            let password = secret("smtp", "password", &settings.password)?;
            Some((settings.user.clone(), password))
        }
    };
    let smtp = Smtp::new(smtp::Settings {
        host: required("smtp", "host", &settings.host)?,
        port: settings.port,
        encryption,
        login,
        connections: settings.connections,
        sender: sender(config)?,
        deadlines: deadlines(config),
    });
    Ok(Arc::new(
        smtp.map_err(|wrong| anyhow!("tls_ca in [smtp]: {wrong}"))?,
    ))
}

/// The certificates to trust; none: the system's.
fn trusted(path: &str) -> Result<Option<Vec<u8>>> {
    if path.is_empty() {
        return Ok(None);
    }
    let pem = fs::read(path).with_context(|| format!("tls_ca in [smtp]: {path}"))?;
    Ok(Some(pem))
}

pub(super) fn mailgun(config: &Config) -> Result<Arc<dyn Provider>> {
    let settings = &config.mailgun;
    Ok(Arc::new(Mailgun::new(mailgun::Settings {
        url: http_url(&settings.url).context("url in [mailgun]")?,
        domain: required("mailgun", "domain", &settings.domain)?,
        api_key: secret("mailgun", "api_key", &settings.api_key)?,
        sender: sender(config)?,
        deadlines: deadlines(config),
    })?))
}

pub(super) fn ses(config: &Config) -> Result<Arc<dyn Provider>> {
    let settings = &config.ses;
    let set = |key, value: &str| required("ses", key, value);
    let region = set("region", &settings.region)?;
    let url = match settings.url.as_str() {
        "" => format!("https://email.{region}.amazonaws.com"),
        url => url.to_owned(),
    };
    Ok(Arc::new(Ses::new(ses::Settings {
        url: http_url(&url).context("url in [ses]")?,
        region,
        access_key_id: set("access_key_id", &settings.access_key_id)?,
        secret_access_key: secret("ses", "secret_access_key", &settings.secret_access_key)?,
        session_token: settings.session_token.clone(),
        configuration_set: settings.configuration_set.clone(),
        sender: sender(config)?,
        deadlines: deadlines(config),
    })?))
}

fn sender(config: &Config) -> Result<Sender> {
    let settings = &config.email;
    let from = required("email", "from", &settings.from)?;
    Sender::new(&from, &settings.reply_to).map_err(|wrong| anyhow!("[email]: {wrong}"))
}

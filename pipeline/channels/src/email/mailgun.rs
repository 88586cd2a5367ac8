//! Mailgun, by the Messages resource of its API, version 3, in its MIME form: the message goes as it
//! is, and Mailgun adds its signature.
//!
//! It knows no idempotency key: a call that is made again after a timeout is a second message, but
//! under the same Message-ID.

use async_trait::async_trait;
use herald_schemas::records::Failure;
use reqwest::{
    Client, Url,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::Deserialize;

use crate::{
    Call, Provider, Reply, Secret,
    email::message::{Mail, Sender},
    http::{self, Answer, Deadlines, IDEMPOTENCY_KEY},
    permanent,
};

/// The user that every key belongs to.
const USER: &str = "api";

/// How to reach Mailgun.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `https://api.mailgun.net`, `https://api.eu.mailgun.net`, or what stands for it.
    pub url: Url,
    /// The domain that sends, as it is called there.
    pub domain: String,
    /// A key that may send.
    pub api_key: Secret,
    /// Whom messages come from.
    pub sender: Sender,
    /// The deadlines of a call.
    pub deadlines: Deadlines,
}

/// Mailgun.
pub struct Mailgun {
    settings: Settings,
    messages: Url,
    client: Client,
}

impl Mailgun {
    /// Mailgun, at a URL that the operator set.
    pub fn new(settings: Settings) -> Result<Self, reqwest::Error> {
        let path = ["v3", &settings.domain, "messages.mime"];
        Ok(Self {
            messages: http::below(&settings.url, &path),
            client: http::client(settings.deadlines)?,
            settings,
        })
    }

    async fn ask(&self, call: &Call) -> Result<Answer, Failure> {
        let mail = Mail::new(&self.settings.sender, call)?;
        let boundary = format!(
            "herald-{:016x}{:016x}",
            fastrand::u64(..),
            fastrand::u64(..)
        );
        let form_type = format!("multipart/form-data; boundary={boundary}");
        let form_type = HeaderValue::try_from(form_type)
            .map_err(|error| permanent("unencodable", error.to_string()))?;
        let request = self
            .client
            .post(self.messages.clone())
            .basic_auth(USER, Some(self.settings.api_key.reveal()))
            .header(CONTENT_TYPE, form_type)
            .body(form(&mail, &boundary));
        http::ask(http::with_context(request, call, &IDEMPOTENCY_KEY)).await
    }
}

/// Whom it is for, and the message as a file: Mailgun takes it as nothing else.
fn form(mail: &Mail, boundary: &str) -> Vec<u8> {
    let to: Vec<&str> = mail.envelope.to().iter().map(AsRef::as_ref).collect();
    let to = to.join(",");
    let disposition = "Content-Disposition: form-data; name=";
    let head = format!(
        "--{boundary}\r\n{disposition}\"to\"\r\n\r\n{to}\r\n\
         --{boundary}\r\n{disposition}\"message\"; filename=\"message.eml\"\r\n\
         Content-Type: message/rfc822\r\n\r\n"
    );
    let end = format!("\r\n--{boundary}--\r\n");
    [head.as_bytes(), &mail.bytes, end.as_bytes()].concat()
}

#[derive(Deserialize)]
struct Queued {
    id: String,
}

#[derive(Deserialize)]
struct Fault {
    message: String,
}

#[async_trait]
impl Provider for Mailgun {
    fn name(&self) -> &str {
        "mailgun"
    }

    async fn send(&self, call: &Call) -> Reply {
        match self.ask(call).await {
            Ok(answer) if answer.status.is_success() => {
                let queued = answer.json::<Queued>();
                // Without the angle brackets, as its callbacks have it.
                let id = queued.as_ref().map(|queued| {
                    let id = queued.id.trim();
                    id.trim_start_matches('<').trim_end_matches('>')
                });
                Reply::accepted(id, &answer)
            }
            Ok(answer) => Reply::refused(failure(&answer), &answer),
            Err(failure) => Reply::unanswered(failure),
        }
    }
}

/// Mailgun has no codes but the statuses; its message says the rest.
fn failure(answer: &Answer) -> Failure {
    let of_status = http::status_failure(answer.status);
    match answer.json::<Fault>() {
        Some(fault) => http::failure_of(
            http::may_pass(answer.status),
            of_status.code,
            format!("Mailgun: {}", fault.message),
        ),
        None => of_status,
    }
}

//! Twilio, by the Messages resource of its API 2010-04-01.
//!
//! A form is posted, with basic auth; Twilio splits the text into segments itself. It knows no
//! idempotency key: a call that is made again after a timeout is a second message.

use async_trait::async_trait;
use herald_schemas::records::Failure;
use reqwest::{Client, Url};
use serde::Deserialize;

use crate::{
    Call, Provider, Reply, Secret,
    http::{self, Answer, Deadlines, IDEMPOTENCY_KEY},
    sms::within,
};

/// The longest body, in characters.
const CONTENT_LIMIT: usize = 1_600;

/// How to reach Twilio.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `https://api.twilio.com`, or what stands for it.
    pub url: Url,
    /// The account that sends.
    pub account_sid: String,
    /// Who says so.
    pub login: Login,
    /// Whom the message comes from.
    pub sender: Sender,
    /// The deadlines of a call.
    pub deadlines: Deadlines,
}

/// The two kinds of credentials.
#[derive(Debug, Clone)]
pub enum Login {
    /// The account's own token.
    AuthToken(Secret),
    /// An API key of the account's, which can be revoked alone.
    ApiKey {
        /// Its SID.
        key: String,
        /// Its secret.
        secret: Secret,
    },
}

/// Whom a message comes from.
#[derive(Debug, Clone)]
pub enum Sender {
    /// A number or an alphanumeric sender.
    From(String),
    /// A messaging service, which chooses a sender.
    MessagingService(String),
}

/// Twilio.
pub struct Twilio {
    settings: Settings,
    messages: Url,
    client: Client,
}

impl Twilio {
    /// Twilio, at a URL that the operator set.
    pub fn new(settings: Settings) -> Result<Self, reqwest::Error> {
        let path = [
            "2010-04-01",
            "Accounts",
            &settings.account_sid,
            "Messages.json",
        ];
        Ok(Self {
            messages: http::below(&settings.url, &path),
            client: http::client(settings.deadlines)?,
            settings,
        })
    }

    async fn ask(&self, call: &Call) -> Result<Answer, Failure> {
        let content = &call.delivery.message.content;
        within(CONTENT_LIMIT, content)?;
        let (user, password) = match &self.settings.login {
            Login::AuthToken(token) => (&self.settings.account_sid, token),
            Login::ApiKey { key, secret } => (key, secret),
        };
        let sender = match &self.settings.sender {
            Sender::From(from) => ("From", from.as_str()),
            Sender::MessagingService(sid) => ("MessagingServiceSid", sid.as_str()),
        };
        let request = self
            .client
            .post(self.messages.clone())
            .basic_auth(user, Some(password.reveal()));
        let request = http::with_context(request, call, &IDEMPOTENCY_KEY);
        let to = ("To", call.delivery.identity.recipient.as_str());
        http::ask_form(request, &[to, sender, ("Body", content)]).await
    }
}

#[derive(Deserialize)]
struct Created {
    sid: String,
}

#[derive(Deserialize)]
struct Fault {
    code: u32,
    #[serde(default)]
    message: String,
}

#[async_trait]
impl Provider for Twilio {
    fn name(&self) -> &str {
        "twilio"
    }

    async fn send(&self, call: &Call) -> Reply {
        match self.ask(call).await {
            Ok(answer) if answer.status.is_success() => {
                let created: Option<Created> = answer.json();
                let sid = created.as_ref().map(|created| created.sid.as_str());
                Reply::accepted(sid, &answer)
            }
            Ok(answer) => Reply::refused(failure(&answer), &answer),
            Err(failure) => Reply::unanswered(failure),
        }
    }
}

/// Twilio's codes say more than its statuses, which go for those that are not known to pass.
fn failure(answer: &Answer) -> Failure {
    let Some(fault) = answer.json::<Fault>() else {
        return http::status_failure(answer.status);
    };
    http::failure_of(
        is_passing(fault.code) || http::may_pass(answer.status),
        format!("twilio_{}", fault.code),
        format!("Twilio: {}", fault.message),
    )
}

/// Codes of what is too much at the moment, or broken at Twilio, whatever the status is.
fn is_passing(code: u32) -> bool {
    matches!(
        code,
        // More messages a second than are allowed.
        14107
        // Too many requests, at once or altogether.
        | 20429
        // Internal errors, and a service that is down.
        | 20500 | 20503 | 20504
        // The sender's queue is full.
        | 21611
    )
}

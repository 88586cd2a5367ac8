//! Amazon SES, by SendEmail of its API, version 2, with the message as it is; signed by Amazon's own
//! crate for Signature Version 4.
//!
//! It knows no idempotency key, and gives messages a Message-ID of its own: a call that is made again
//! after a timeout is a second message.

use std::time::SystemTime;

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4::SigningParams,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use herald_schemas::records::Failure;
use reqwest::{
    Client, RequestBuilder, Url,
    header::{CONTENT_TYPE, HeaderName},
};
use serde::{Deserialize, Serialize};

use crate::{
    Call, Provider, Reply, Secret, code,
    email::message::{Mail, Sender},
    http::{self, Answer, Deadlines, IDEMPOTENCY_KEY},
    permanent,
};

const SERVICE: &str = "ses";
const JSON: &str = "application/json";
/// Says which of its errors it is, and perhaps, after a colon, where that is described.
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// How to reach Amazon SES.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `https://email.eu-central-1.amazonaws.com`, with the region's name, or what stands for it.
    pub url: Url,
    /// The region's name.
    pub region: String,
    /// An access key that may send, and its secret.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: Secret,
    /// What comes with a key that was given for a time; else empty.
    pub session_token: Secret,
    /// The configuration set to send by; empty: the account's.
    pub configuration_set: String,
    /// Whom messages come from.
    pub sender: Sender,
    /// The deadlines of a call.
    pub deadlines: Deadlines,
}

/// Amazon SES.
pub struct Ses {
    settings: Settings,
    emails: Url,
    client: Client,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Body<'a> {
    destination: Destination<'a>,
    content: Content,
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration_set_name: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Destination<'a> {
    to_addresses: Vec<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Content {
    raw: Raw,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Raw {
    data: String,
}

impl Ses {
    /// Amazon SES, at a URL that the operator set.
    pub fn new(settings: Settings) -> Result<Self, reqwest::Error> {
        Ok(Self {
            emails: http::below(&settings.url, &["v2", "email", "outbound-emails"]),
            client: http::client(settings.deadlines)?,
            settings,
        })
    }

    async fn ask(&self, call: &Call) -> Result<Answer, Failure> {
        let mail = Mail::new(&self.settings.sender, call)?;
        let set = self.settings.configuration_set.as_str();
        let body = Body {
            destination: Destination {
                to_addresses: mail.envelope.to().iter().map(AsRef::as_ref).collect(),
            },
            content: Content {
                raw: Raw {
                    data: STANDARD.encode(&mail.bytes),
                },
            },
            configuration_set_name: (!set.is_empty()).then_some(set),
        };
        let unsigned = |error: &dyn std::error::Error| permanent("unencodable", error.to_string());
        let json = serde_json::to_vec(&body).map_err(|error| unsigned(&error))?;
        let request = self
            .signed(&json, SystemTime::now())
            .map_err(|error| unsigned(error.as_ref()))?;
        let request = request.body(json);
        http::ask(http::with_context(request, call, &IDEMPOTENCY_KEY)).await
    }

    /// A request for this body, with its signature; what is added to it is not signed.
    fn signed(
        &self,
        json: &[u8],
        now: SystemTime,
    ) -> Result<RequestBuilder, Box<dyn std::error::Error>> {
        let settings = &self.settings;
        let token = settings.session_token.reveal();
        let identity = Credentials::new(
            &settings.access_key_id,
            settings.secret_access_key.reveal(),
            (!token.is_empty()).then(|| token.to_owned()),
            None,
            "settings",
        )
        .into();
        let parameters = SigningParams::builder()
            .identity(&identity)
            .region(&settings.region)
            .name(SERVICE)
            .time(now)
            .settings(SigningSettings::default())
            .build()?
            .into();
        let headers = [(CONTENT_TYPE.as_str(), JSON)].into_iter();
        let body = SignableBody::Bytes(json);
        let signable = SignableRequest::new("POST", self.emails.as_str(), headers, body)?;
        let (instructions, _) = sign(signable, &parameters)?.into_parts();
        let request = self.client.post(self.emails.clone());
        let request = request.header(CONTENT_TYPE, JSON);
        Ok(instructions
            .headers()
            .fold(request, |request, (name, value)| {
                request.header(name, value)
            }))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Sent {
    message_id: String,
}

#[derive(Deserialize)]
struct Fault {
    #[serde(rename = "__type")]
    kind: Option<String>,
    #[serde(alias = "Message", default)]
    message: String,
}

#[async_trait]
impl Provider for Ses {
    fn name(&self) -> &str {
        "ses"
    }

    async fn send(&self, call: &Call) -> Reply {
        match self.ask(call).await {
            Ok(answer) if answer.status.is_success() => {
                let sent = answer.json::<Sent>();
                let id = sent.as_ref().map(|sent| sent.message_id.as_str());
                Reply::accepted(id, &answer)
            }
            Ok(answer) => Reply::refused(failure(&answer), &answer),
            Err(failure) => Reply::unanswered(failure),
        }
    }
}

fn failure(answer: &Answer) -> Failure {
    let fault = answer.json::<Fault>();
    let told = answer.header(&ERROR_TYPE);
    let told = told.or_else(|| fault.as_ref()?.kind.as_deref());
    let word = told.map(word);
    let Some((word, code)) = word.and_then(|word| Some((word, code("ses", &snake(word))?))) else {
        return http::status_failure(answer.status);
    };
    let message = fault.as_ref().map_or("", |fault| &fault.message);
    http::failure_of(
        is_passing(word) || http::may_pass(answer.status),
        code,
        format!("Amazon SES: {word}: {message}"),
    )
}

/// The name alone, of `namespace#TooManyRequestsException:https://…`.
fn word(told: &str) -> &str {
    let name = told.split(':').next().unwrap_or_default();
    let name = name.rsplit('#').next().unwrap_or_default();
    name.strip_suffix("Exception").unwrap_or(name)
}

/// `TooManyRequests` as `too_many_requests`.
fn snake(word: &str) -> String {
    let mut snake = String::with_capacity(word.len() + 8);
    for letter in word.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// What is too much at the moment, or held back until somebody looks at it, whatever the status is.
fn is_passing(word: &str) -> bool {
    matches!(
        word,
        "TooManyRequests"
            | "LimitExceeded"
            | "Throttling"
            | "RequestTimeout"
            | "ServiceUnavailable"
            | "InternalFailure"
            | "SendingPaused"
    )
}

//! Slack's incoming webhooks, and whatever else takes the same JSON.
//!
//! The recipient is a webhook's URL, if it is one of Slack's own or lies where the operator says;
//! any other recipient is served by the operator's default webhook, which posts to the channel that
//! it was made for. The answer is a word in plain text, and has no id.

use async_trait::async_trait;
use herald_schemas::records::Failure;
use reqwest::{Client, Url};
use serde_json::json;

use crate::{
    Call, Provider, Reply,
    allowed::Allowed,
    http::{self, Answer, Deadlines, IDEMPOTENCY_KEY},
    not_allowed, not_for_it,
    slack::failure,
};

/// How to reach the webhooks.
#[derive(Clone)]
pub struct Settings {
    /// Where recipients that are no URL are written to. Whoever knows it can write there, too.
    pub default: Option<Url>,
    /// Where recipients that are a URL may lead.
    pub allowed: Allowed,
    /// The deadlines of a call.
    pub deadlines: Deadlines,
}

/// Incoming webhooks.
pub struct IncomingWebhook {
    default: Option<Url>,
    allowed: Allowed,
    of_operator: Client,
    of_users: Client,
}

impl IncomingWebhook {
    /// The client is for URLs that users gave: it may refuse addresses that the operator's may have.
    pub fn new(settings: Settings, of_users: Client) -> Result<Self, reqwest::Error> {
        Ok(Self {
            default: settings.default,
            allowed: settings.allowed,
            of_operator: http::client(settings.deadlines)?,
            of_users,
        })
    }

    /// Where a message to `recipient` is posted, and by whom.
    fn target(&self, recipient: &str) -> Result<(&Client, Url), Failure> {
        if recipient.contains("://") {
            let url = self.allowed.url(recipient);
            let url =
                url.ok_or_else(|| not_allowed("the recipient is a URL that is no Slack webhook"))?;
            return Ok((&self.of_users, url));
        }
        let default = self.default.clone().ok_or_else(|| {
            not_for_it("the recipient is no webhook URL, and there is no default one")
        })?;
        Ok((&self.of_operator, default))
    }

    async fn ask(&self, call: &Call) -> Result<Answer, Failure> {
        let (client, url) = self.target(&call.delivery.identity.recipient)?;
        let request = http::with_context(client.post(url), call, &IDEMPOTENCY_KEY);
        http::ask_json(request, &json!({ "text": call.delivery.message.content })).await
    }
}

#[async_trait]
impl Provider for IncomingWebhook {
    fn name(&self) -> &str {
        "slack_webhook"
    }

    async fn send(&self, call: &Call) -> Reply {
        match self.ask(call).await {
            Ok(answer) if answer.status.is_success() => Reply::accepted(None, &answer),
            Ok(answer) => {
                let text = answer.text().unwrap_or_default();
                let failure = failure(text.trim(), answer.status);
                let failure = failure.unwrap_or_else(|| http::status_failure(answer.status));
                Reply::refused(failure, &answer)
            }
            Err(failure) => Reply::unanswered(failure),
        }
    }
}

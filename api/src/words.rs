//! The closed sets of words, as the document shows them in what clients send.

use herald_schemas::words::Scope;
use poem_openapi::Enum;

/// How a notification reaches its recipient.
#[derive(Enum)]
#[oai(rename_all = "lowercase")]
#[allow(dead_code, reason = "documents bodies, which are taken apart by hand")]
pub(crate) enum ChannelWord {
    /// A text message; the recipient is a phone number in E.164.
    Sms,
    /// A mail; the recipient is an address.
    Email,
    /// A push message; the recipient is a device token or a subscription.
    Push,
    /// A Slack message; the recipient is a webhook URL or a channel.
    Slack,
    /// A POST; the recipient is a URL.
    Webhook,
    /// A line in the log; the recipient is any text.
    Log,
}

/// Which lane a notification takes.
#[derive(Enum)]
#[oai(rename_all = "lowercase")]
#[allow(dead_code, reason = "documents bodies, which are taken apart by hand")]
pub(crate) enum PriorityWord {
    /// Before everything else.
    High,
    /// The default.
    Normal,
    /// Whenever there is room.
    Low,
}

/// What an API key is good for.
#[derive(PartialEq, Eq, Hash, Enum)]
#[oai(rename_all = "lowercase")]
pub(crate) enum ScopeWord {
    /// To send notifications and events, and to cancel what was sent.
    Send,
    /// To see what became of them, and the catalog; to try templates and rules.
    Read,
    /// To change the catalog, and to requeue dead letters.
    Manage,
    /// All of that, and the API keys themselves.
    Admin,
}

impl From<Scope> for ScopeWord {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Send => Self::Send,
            Scope::Read => Self::Read,
            Scope::Manage => Self::Manage,
            Scope::Admin => Self::Admin,
        }
    }
}

//! The closed sets of words, as the document shows them in what clients send.

use herald_schemas::words::{Channel, Priority, Scope};
use poem_openapi::Enum;

/// How a notification reaches its recipient.
#[derive(Enum)]
#[oai(rename_all = "lowercase")]
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

impl From<Channel> for ChannelWord {
    fn from(channel: Channel) -> Self {
        match channel {
            Channel::Sms => Self::Sms,
            Channel::Email => Self::Email,
            Channel::Push => Self::Push,
            Channel::Slack => Self::Slack,
            Channel::Webhook => Self::Webhook,
            Channel::Log => Self::Log,
        }
    }
}

impl From<Priority> for PriorityWord {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::High => Self::High,
            Priority::Normal => Self::Normal,
            Priority::Low => Self::Low,
        }
    }
}

/// A stage of the pipeline.
#[derive(PartialEq, Eq, Hash, Enum)]
#[oai(rename_all = "lowercase")]
#[allow(dead_code, reason = "documents bodies, which are taken apart by hand")]
pub(crate) enum StageWord {
    /// Events become notifications.
    Match,
    /// Notifications become messages.
    Render,
    /// Messages go to providers.
    Deliver,
    /// What failed goes again when its time has come.
    Retry,
    /// What is scheduled goes on when its time has come.
    Schedule,
    /// What happened is written down.
    Materialize,
}

//! The closed sets of words: channels, priorities, statuses.
//!
//! On the wire and in the store they are plain strings, so that a new word needs no new schema; a
//! word that is not known here is an error that names it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A word outside its set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {set} {word:?}: expected one of {expected}")]
pub struct UnknownWord {
    /// The name of the set, such as `channel`.
    pub set: &'static str,
    /// What stood there instead.
    pub word: String,
    /// The words of the set, separated by commas.
    pub expected: &'static str,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $set:literal, $expected:literal,
     { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every word of the set, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;
            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord {
                        set: $set,
                        word: word.chars().take(64).collect(),
                        expected: $expected,
                    }),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Word;
                impl de::Visitor<'_> for Word {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("a ", $set))
                    }
                    fn visit_str<E: de::Error>(self, word: &str) -> Result<$name, E> {
                        word.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Word)
            }
        }
    };
}

words!(
    /// How a notification reaches its recipient.
    Channel, "channel", "sms, email, push, slack, webhook, log",
    {
        /// A text message; the recipient is a phone number in E.164.
        Sms = "sms",
        /// A mail; the recipient is an address.
        Email = "email",
        /// A push message; the recipient is a device token or a subscription.
        Push = "push",
        /// A Slack message; the recipient is a webhook URL or a channel.
        Slack = "slack",
        /// A signed POST; the recipient is a URL.
        Webhook = "webhook",
        /// A line in the log; the recipient is any text.
        Log = "log",
    }
);

words!(
    /// Which lane a notification takes.
    Priority, "priority", "high, normal, low",
    {
        /// Before everything else.
        High = "high",
        /// The default.
        Normal = "normal",
        /// Whenever there is room, and always a little.
        Low = "low",
    }
);

words!(
    /// Where a notification is on its way.
    Status, "status", "pending, scheduled, processing, retrying, sent, failed, cancelled",
    {
        /// Accepted, waiting for its turn.
        Pending = "pending",
        /// Accepted, waiting for its time.
        Scheduled = "scheduled",
        /// In the hands of a worker.
        Processing = "processing",
        /// An attempt failed in a way that may pass; another follows.
        Retrying = "retrying",
        /// The provider has it.
        Sent = "sent",
        /// Given up; a dead letter says why.
        Failed = "failed",
        /// Withdrawn before it was sent.
        Cancelled = "cancelled",
    }
);

words!(
    /// What an API key is good for.
    Scope, "scope", "send, read, manage, admin",
    {
        /// To send notifications and events, and to cancel what was sent.
        Send = "send",
        /// To see what became of them, and the catalog; to try templates and rules.
        Read = "read",
        /// To change the catalog, and to requeue dead letters.
        Manage = "manage",
        /// All of that, and the API keys themselves.
        Admin = "admin",
    }
);

impl Status {
    /// Whether nothing comes after it.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Sent | Self::Failed | Self::Cancelled)
    }

    /// The order of the statuses of one attempt: the higher one stands. Among terminal ones, what
    /// reached the provider outweighs what was given up, and that what was withdrawn.
    pub const fn rank(self) -> u8 {
        match self {
            Self::Scheduled => 0,
            Self::Pending => 1,
            Self::Processing => 2,
            Self::Retrying => 3,
            Self::Cancelled => 4,
            Self::Failed => 5,
            Self::Sent => 6,
        }
    }
}

impl Priority {
    /// As an index into an array of the three lanes.
    pub const fn index(self) -> usize {
        match self {
            Self::High => 0,
            Self::Normal => 1,
            Self::Low => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back_as_itself() {
        for channel in Channel::ALL {
            assert_eq!(channel.as_str().parse(), Ok(*channel));
        }
        for status in Status::ALL {
            assert_eq!(status.as_str().parse(), Ok(*status));
        }
        for priority in Priority::ALL {
            assert_eq!(priority.as_str().parse(), Ok(*priority));
        }
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(*scope));
        }
    }

    #[test]
    fn an_unknown_word_is_named_with_what_was_expected() {
        let error = "fax".parse::<Channel>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown channel \"fax\": expected one of sms, email, push, slack, webhook, log"
        );
        let json = serde_json::from_str::<Channel>("\"fax\"").unwrap_err();
        assert!(
            json.to_string().contains("unknown channel \"fax\""),
            "{json}"
        );
    }
}

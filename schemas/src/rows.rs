//! The materialized answer to "what happened to my notification?", as the store keeps it and the
//! API reads it.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{DeadLetterId, EventId, NotificationId, UnixMs},
    records::{Attempt, DeadLetter, EventMatched, Failure, Identity, Message},
    words::{Channel, Priority, Status},
};

/// A notification as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotificationRow {
    /// Who and whence.
    pub identity: Identity,
    /// What is said; none until the stage that renders it has reported.
    pub message: Option<Message>,
    /// Where it is.
    pub status: Status,
    /// How many attempts were made.
    pub attempts: i32,
    /// When the status last changed.
    pub updated_at: UnixMs,
    /// When the provider took it.
    pub sent_at: Option<UnixMs>,
    /// When it was withdrawn.
    pub cancelled_at: Option<UnixMs>,
    /// The provider's own id of the message.
    pub provider_message_id: Option<String>,
    /// Why the last attempt failed.
    pub last_error: Option<Failure>,
    /// What the provider reported later: `delivered`, `bounced`, …
    pub delivery_status: Option<String>,
}

impl NotificationRow {
    /// The notification.
    pub fn id(&self) -> NotificationId {
        self.identity.id
    }
}

/// A row to write, and what of it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowWrite {
    /// The row as it is to be.
    pub row: NotificationRow,
    /// Whether there was no row before, or one of another identity: then everything is written,
    /// index rows included.
    pub is_new: bool,
    /// Whether the message is new in it.
    pub writes_message: bool,
    /// The calls to add to its log.
    pub calls: Vec<Attempt>,
}

/// An event and what the rules made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// The event.
    pub id: EventId,
    /// Its name.
    pub event: String,
    /// Its payload, a JSON object.
    pub payload: String,
    /// When it happened.
    pub occurred_at: UnixMs,
    /// Ties together what belongs to one request.
    pub correlation_id: Option<String>,
    /// What the rules said; none until match has seen it.
    pub matched: Option<EventMatched>,
}

/// What a list shows of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventHead {
    /// The event.
    pub id: EventId,
    /// Its name.
    pub event: String,
    /// When it happened.
    pub occurred_at: UnixMs,
    /// Ties together what belongs to one request.
    pub correlation_id: Option<String>,
}

/// Which events a list shows. All that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only those of this name.
    pub event: Option<String>,
    /// Only those of this correlation id.
    pub correlation_id: Option<String>,
    /// Whose ids are of this time or later.
    pub from: Option<UnixMs>,
    /// Whose ids are of before this time.
    pub until: Option<UnixMs>,
}

impl EventFilter {
    /// Whether it lets an event through.
    pub fn shows(&self, head: &EventHead) -> bool {
        let at = head.id.unix_ms();
        (self.event.as_ref()).is_none_or(|wanted| head.event == *wanted)
            && (self.correlation_id.as_ref())
                .is_none_or(|wanted| head.correlation_id.as_ref() == Some(wanted))
            && self.from.is_none_or(|from| at >= from)
            && self.until.is_none_or(|until| at < until)
    }
}

/// Which notifications a list shows. All that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this status.
    pub status: Option<Status>,
    /// Only this channel.
    pub channel: Option<Channel>,
    /// Only this priority.
    pub priority: Option<Priority>,
    /// Only those indexed under this.
    pub index: Option<Index>,
    /// Accepted at or after this time.
    pub from: Option<UnixMs>,
    /// Accepted before this time.
    pub until: Option<UnixMs>,
}

/// What notifications can be found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Index {
    /// The batch's id.
    Batch(String),
    /// The event's id.
    Event(String),
    /// The recipient, exactly.
    Recipient(String),
    /// The correlation id, exactly.
    Correlation(String),
}

impl Index {
    /// As the store writes it: the name of the index and the value.
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Batch(value) => ("batch", value),
            Self::Event(value) => ("event", value),
            Self::Recipient(value) => ("recipient", value),
            Self::Correlation(value) => ("correlation", value),
        }
    }

    /// Every index entry that a notification has.
    pub fn of(identity: &Identity) -> Vec<Self> {
        let mut entries = vec![Self::Recipient(identity.recipient.clone())];
        entries.extend(identity.batch_id.map(|id| Self::Batch(id.to_string())));
        entries.extend(identity.event_id.map(|id| Self::Event(id.to_string())));
        entries.extend(identity.correlation_id.clone().map(Self::Correlation));
        entries
    }
}

/// One page of a list, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<Item, Id = NotificationId> {
    /// The items.
    pub items: Vec<Item>,
    /// Where the next page starts; none when this is the last.
    pub next: Option<Id>,
}

/// A dead letter as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterRow {
    /// The letter; in a list without its key, its bytes and its headers.
    pub letter: DeadLetter,
    /// The notification that was made of it again.
    pub requeued_as: Option<NotificationId>,
}

/// Which dead letters a list shows. All that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LetterFilter {
    /// Only this channel.
    pub channel: Option<Channel>,
    /// Only this [`Failure::kind`].
    pub error_type: Option<String>,
    /// Only this [`Failure::code`].
    pub error_code: Option<String>,
    /// Of records of this time or later.
    pub from: Option<UnixMs>,
    /// Of records before this time.
    pub until: Option<UnixMs>,
    /// Only those that were not requeued.
    pub open_only: bool,
}

impl LetterFilter {
    /// Whether it lets a letter through.
    pub fn shows(&self, row: &DeadLetterRow) -> bool {
        let DeadLetterRow {
            letter,
            requeued_as,
        } = row;
        let at = letter.id.unix_ms();
        let channel = letter.identity.as_ref().map(|identity| identity.channel);
        self.channel.is_none_or(|wanted| channel == Some(wanted))
            && (self.error_type.as_ref()).is_none_or(|wanted| letter.error.kind == *wanted)
            && (self.error_code.as_ref()).is_none_or(|wanted| letter.error.code == *wanted)
            && self.from.is_none_or(|from| at >= from)
            && self.until.is_none_or(|until| at < until)
            && !(self.open_only && requeued_as.is_some())
    }
}

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The newest first.
    Newest,
    /// The oldest first.
    Oldest,
}

/// One cell of the exact counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CountKey {
    /// Days since 1970-01-01, of the notification's id.
    pub day: i32,
    /// The status they are in.
    pub status: Status,
    /// Their channel.
    pub channel: Channel,
    /// Their lane.
    pub priority: Priority,
}

impl CountKey {
    /// Where a row counts.
    pub fn of(row: &NotificationRow) -> Self {
        Self {
            day: (row.id().unix_ms() / DAY_MS) as i32,
            status: row.status,
            channel: row.identity.channel,
            priority: row.identity.priority,
        }
    }
}

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Longer than anything waits; whoever says that a notification is older has a wrong clock.
const LONGEST_MS: i64 = 3_650 * DAY_MS;

/// What is counted besides where notifications are; by hours or days since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tally {
    /// Notifications that were sent in this hour.
    Sent(i32),
    /// How many milliseconds those took together, from being accepted to being sent.
    SentMs(i32),
    /// Notifications of this day that repeat one of a dead letter.
    Requeued(i32),
    /// Dead letters of this day.
    DeadLetters(i32),
}

impl Tally {
    /// The hour of a time.
    pub fn hour(at: UnixMs) -> i32 {
        at.div_euclid(HOUR_MS) as i32
    }

    /// What a row adds to the tallies.
    pub fn of(row: &NotificationRow) -> [Option<(Self, i64)>; 3] {
        let identity = &row.identity;
        let hour = row.sent_at.map(Self::hour);
        let took = row.sent_at.map(|at| at.saturating_sub(identity.created_at));
        let took = took.map(|ms| ms.clamp(0, LONGEST_MS));
        // A producer may name what it repeats; only the API requeues a letter.
        let requeued = identity.requeued_from.is_some() && identity.source.is_none();
        let day = (row.id().unix_ms() / DAY_MS) as i32;
        [
            hour.map(|hour| (Self::Sent(hour), 1)),
            hour.zip(took).map(|(hour, ms)| (Self::SentMs(hour), ms)),
            requeued.then_some((Self::Requeued(day), 1)),
        ]
    }

    /// Where a dead letter counts.
    pub fn of_letter(id: DeadLetterId) -> Self {
        Self::DeadLetters((id.unix_ms() / DAY_MS) as i32)
    }

    /// As the store writes it: a word, and the hour or the day.
    pub const fn parts(self) -> (&'static str, i32) {
        match self {
            Self::Sent(hour) => ("sent_in_hour", hour),
            Self::SentMs(hour) => ("sent_ms_in_hour", hour),
            Self::Requeued(day) => ("requeued_on_day", day),
            Self::DeadLetters(day) => ("dead_letters_of_day", day),
        }
    }

    /// What [`Tally::parts`] says.
    pub fn from_parts(word: &str, at: i32) -> Option<Self> {
        let all = [
            Self::Sent(at),
            Self::SentMs(at),
            Self::Requeued(at),
            Self::DeadLetters(at),
        ];
        all.into_iter().find(|tally| tally.parts().0 == word)
    }
}

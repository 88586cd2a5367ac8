//! Answers that are not what was asked for: always JSON, always with a `message`.

use std::{collections::BTreeMap, time::Duration};

use herald_broker::BrokerError;
use herald_runtime::outbox::OutboxError;
use herald_schemas::words::Scope;
use herald_store::StoreError;
use poem_openapi::{ApiResponse, Object, payload::Json};
use tracing::{error, warn};

/// What went wrong.
#[derive(Debug, Clone, Object)]
pub(crate) struct Problem {
    /// What went wrong, for people.
    #[oai(validator(min_length = 1))]
    pub(crate) message: String,
}

/// Why something is not in a state for what is asked, with what the client needs to go on.
#[derive(Debug, Clone, Default, Object)]
pub(crate) struct Conflict {
    /// What stands against it, for people.
    pub(crate) message: String,
    /// The status that it is in.
    #[oai(skip_serializing_if_is_none)]
    pub(crate) status: Option<String>,
    /// The key that was seen before.
    #[oai(skip_serializing_if_is_none)]
    pub(crate) idempotency_key: Option<String>,
    /// The notification that there is already.
    #[oai(skip_serializing_if_is_none)]
    pub(crate) notification_id: Option<String>,
    /// The batch that there is already.
    #[oai(skip_serializing_if_is_none)]
    pub(crate) batch_id: Option<String>,
    /// How many notifications were not made again.
    #[oai(skip_serializing_if_is_none)]
    pub(crate) duplicates: Option<usize>,
}

/// A request that was one too many.
#[derive(Debug, Clone, Object)]
pub(crate) struct Limited {
    /// `Rate limit exceeded`.
    pub(crate) message: String,
    /// How many requests a minute the key may make.
    pub(crate) limit: u32,
}

/// A request with faults, all of them at once.
#[derive(Debug, Clone, Object)]
pub(crate) struct Invalid {
    /// The first fault, and how many more there are.
    pub(crate) message: String,
    /// For each field at fault, such as `notifications.3.recipient`, what is wrong with it.
    pub(crate) errors: BTreeMap<String, Vec<String>>,
}

/// Every answer that is not what was asked for.
#[derive(Debug, ApiResponse)]
pub(crate) enum Fault {
    /// The body is no JSON.
    #[oai(status = 400)]
    BadRequest(Json<Problem>),
    /// No key, or a wrong one.
    #[oai(status = 401)]
    Unauthorized(Json<Problem>),
    /// The key is not good for this.
    #[oai(status = 403)]
    Forbidden(Json<Problem>),
    /// There is no such object.
    #[oai(status = 404)]
    NotFound(Json<Problem>),
    /// It is not in a state for this.
    #[oai(status = 409)]
    Conflict(Json<Box<Conflict>>),
    /// The body is too large.
    #[oai(status = 413)]
    TooLarge(Json<Problem>),
    /// The body is not declared as JSON.
    #[oai(status = 415)]
    UnsupportedMediaType(Json<Problem>),
    /// Fields are at fault.
    #[oai(status = 422)]
    Invalid(Json<Invalid>),
    /// The key has made as many requests as it may in a minute.
    #[oai(status = 429)]
    TooMany(
        Json<Limited>,
        /// Seconds.
        #[oai(header = "Retry-After")]
        u64,
    ),
    /// The broker or the store is away; come again.
    #[oai(status = 503)]
    Unavailable(
        Json<Problem>,
        /// Seconds.
        #[oai(header = "Retry-After")]
        u64,
    ),
}

fn problem(message: impl Into<String>) -> Json<Problem> {
    Json(Problem {
        message: message.into(),
    })
}

impl Fault {
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::BadRequest(problem(message))
    }

    pub(crate) fn unauthorized() -> Self {
        Self::Unauthorized(problem("Unauthorized"))
    }

    pub(crate) fn forbidden(needed: Scope) -> Self {
        Self::Forbidden(problem(format!("The API key lacks the scope {needed}.")))
    }

    pub(crate) fn too_many(limit: u32, wait: Duration) -> Self {
        let message = "Rate limit exceeded".to_owned();
        let seconds = wait.as_millis().div_ceil(1_000) as u64;
        Self::TooMany(Json(Limited { message, limit }), seconds.max(1))
    }

    pub(crate) fn not_found(what: &str) -> Self {
        Self::NotFound(problem(format!("{what} not found.")))
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Conflict {
            message: message.into(),
            ..Conflict::default()
        }
        .into()
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        Self::TooLarge(problem(format!("The body is larger than {limit} bytes.")))
    }

    pub(crate) fn unsupported() -> Self {
        Self::UnsupportedMediaType(problem(
            "The body must be JSON: Content-Type: application/json.",
        ))
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::Unavailable(problem(message), 1)
    }
}

impl From<Conflict> for Fault {
    fn from(conflict: Conflict) -> Self {
        Self::Conflict(Json(Box::new(conflict)))
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        warn!(%error, "request not served");
        Self::unavailable("The store is not available.")
    }
}

impl From<BrokerError> for Fault {
    fn from(error: BrokerError) -> Self {
        if let BrokerError::TooLarge { .. } = error {
            return Self::TooLarge(problem("A record is larger than its topic takes."));
        }
        warn!(%error, "request not served");
        Self::unavailable("The broker is not available.")
    }
}

impl From<OutboxError> for Fault {
    fn from(failed: OutboxError) -> Self {
        match failed {
            OutboxError::Broker(error) => error.into(),
            OutboxError::Encode(error) => {
                error!(%error, "a record does not fit its schema");
                Self::unavailable("The request could not be written.")
            }
        }
    }
}

/// How many faults of a request are told.
const MOST_TOLD: usize = 1_000;

/// The faults of a request, as they are found.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    errors: BTreeMap<String, Vec<String>>,
    first: Option<String>,
    count: usize,
}

impl Faults {
    pub(crate) fn add(&mut self, field: impl Into<String>, text: impl Into<String>) {
        let text = text.into();
        self.first.get_or_insert_with(|| text.clone());
        self.count += 1;
        if self.count <= MOST_TOLD {
            self.errors.entry(field.into()).or_default().push(text);
        }
    }

    /// The answer, when there are any.
    pub(crate) fn none(self) -> Result<(), Fault> {
        let Some(first) = self.first else {
            return Ok(());
        };
        let message = match self.count {
            1 => first,
            2 => format!("{first} (and 1 more error)"),
            more => format!("{first} (and {} more errors)", more - 1),
        };
        Err(Fault::Invalid(Json(Invalid {
            message,
            errors: self.errors,
        })))
    }

    /// The answer for a single one.
    pub(crate) fn only(field: &str, text: impl Into<String>) -> Fault {
        let text = text.into();
        let errors = BTreeMap::from([(field.to_owned(), vec![text.clone()])]);
        Fault::Invalid(Json(Invalid {
            message: text,
            errors,
        }))
    }
}

//! Parameters of the query: taken as texts, so that what is wrong with each is told with all the
//! rest, and documented as what they are to be.

use std::marker::PhantomData;

use herald_schemas::words::{Channel, Priority, Status};
use poem::{Request, RequestBody, Result};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    param::Query,
    registry::{MetaParamIn, MetaSchema, MetaSchemaRef, Registry},
};
use serde_json::Value;

use crate::{
    dead_letters::requeue::{MAX_DELAY_SECONDS, MOST_AT_ONCE},
    pages::{DEEPEST, MOST_PER_PAGE},
};

/// What a parameter is to be.
pub(crate) trait Shape: Send + Sync {
    fn schema() -> MetaSchema;
}

/// A parameter that may be left out, and is documented as an `S`.
pub(crate) struct Given<S>(pub(crate) Option<String>, PhantomData<fn() -> S>);

impl<'a, S: Shape> ApiExtractor<'a> for Given<S> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];
    const PARAM_IS_REQUIRED: bool = false;
    type ParamType = Option<String>;
    type ParamRawType = String;

    fn register(_: &mut Registry) {}

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Query)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(MetaSchemaRef::Inline(Box::new(S::schema())))
    }

    fn param_raw_type(&self) -> Option<&String> {
        self.0.as_ref()
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        options: ExtractParamOptions<Option<String>>,
    ) -> Result<Self> {
        let Query(text) = Query::from_request(request, body, options).await?;
        Ok(Self(text, PhantomData))
    }
}

fn whole(least: usize, most: usize) -> MetaSchema {
    or_empty([MetaSchema {
        minimum: Some(least as f64),
        maximum: Some(most as f64),
        ..MetaSchema::new("integer")
    }])
}

/// As if it were left out: clients of the replaced systems send what they do not ask for empty.
fn or_empty(schemas: impl IntoIterator<Item = MetaSchema>) -> MetaSchema {
    let empty = MetaSchema {
        enum_items: vec!["".into()],
        ..MetaSchema::new("string")
    };
    let inline = |schema| MetaSchemaRef::Inline(Box::new(schema));
    MetaSchema {
        any_of: schemas.into_iter().chain([empty]).map(inline).collect(),
        ..MetaSchema::ANY
    }
}

fn one_of(words: impl Iterator<Item = &'static str>) -> MetaSchema {
    MetaSchema {
        enum_items: words.chain([""]).map(Value::from).collect(),
        ..MetaSchema::new("string")
    }
}

macro_rules! shapes {
    ($($(#[$doc:meta])* $name:ident = $schema:expr;)+) => {$(
        $(#[$doc])*
        pub(crate) struct $name;

        impl Shape for $name {
            fn schema() -> MetaSchema {
                $schema
            }
        }
    )+};
}

shapes! {
    /// A page's number.
    PageNumber = whole(1, DEEPEST);
    /// How many a page shows.
    PerPage = whole(1, MOST_PER_PAGE);
    /// How long to wait.
    DelaySeconds = whole(0, MAX_DELAY_SECONDS as usize);
    /// How many to requeue.
    RequeueLimit = whole(1, MOST_AT_ONCE);
    /// Of any object, or a cursor.
    Id = or_empty([MetaSchema::new_with_format("string", "uuid")]);
    /// A time, or a date.
    Time = or_empty(["date-time", "date"].map(|format| MetaSchema::new_with_format("string", format)));
    /// Of notifications.
    StatusName = one_of(Status::ALL.iter().map(|word| word.as_str()));
    /// Of notifications, in the first seed's words.
    LogStatus = one_of(["pending", "sent", "failed"].into_iter());
    /// A channel.
    ChannelName = one_of(Channel::ALL.iter().map(|word| word.as_str()));
    /// A lane.
    PriorityName = one_of(Priority::ALL.iter().map(|word| word.as_str()));
    /// Yes or no.
    YesOrNo = one_of(["true", "false", "1", "0"].into_iter());
}

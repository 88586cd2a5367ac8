//! Request bodies: read up to a limit, parsed as JSON, and then taken apart field by field, so that
//! every fault of a request is told at once.

use std::{borrow::Cow, marker::PhantomData, str::FromStr};

use herald_schemas::ids::UnixMs;
use poem::{Request, RequestBody, Result};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaMediaType, MetaRequest, MetaSchema, MetaSchemaRef, Registry},
    types::{ParseError, ParseFromJSON, ParseResult, ToJSON, Type},
};
use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt, copy, sink};

use crate::{
    fault::{Fault, Faults},
    time,
};

/// How much of a body that is too large is still read, and thrown away.
const THROWN_AWAY: u64 = 32 << 20;

/// The largest body, as a request carries it along.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MaxBody(pub(crate) usize);

/// A body that is documented as a `T`, and not yet checked to be one.
pub(crate) struct Body<T> {
    pub(crate) value: Value,
    documented: PhantomData<fn() -> T>,
}

impl<'a, T: Type> ApiExtractor<'a> for Body<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Some(MetaRequest {
            description: None,
            content: vec![MetaMediaType {
                content_type: "application/json",
                schema: T::schema_ref(),
            }],
            required: true,
        })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> Result<Self> {
        let value = read(request, body).await?;
        Ok(Self {
            value,
            documented: PhantomData,
        })
    }
}

/// A body that may be left out, and is an empty object then.
pub(crate) struct OptionalBody<T> {
    pub(crate) value: Value,
    documented: PhantomData<fn() -> T>,
}

impl<'a, T: Type> ApiExtractor<'a> for OptionalBody<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Body::<T>::request_meta().map(|meta| MetaRequest {
            required: false,
            ..meta
        })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> Result<Self> {
        // A client may declare a body that it leaves out.
        let length = request.headers().get("content-length");
        let is_empty = length.is_none_or(|length| length == "0");
        let is_chunked = request.headers().contains_key("transfer-encoding");
        Ok(Self {
            value: match is_empty && !is_chunked {
                true => Value::Object(Map::new()),
                false => read(request, body).await?,
            },
            documented: PhantomData,
        })
    }
}

async fn read(request: &Request, body: &mut RequestBody) -> Result<Value, Fault> {
    let kind = request.content_type().unwrap_or_default();
    let kind = kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if kind != "application/json" && !kind.ends_with("+json") {
        return Err(Fault::unsupported());
    }
    let limit = request.data::<MaxBody>().map_or(0, |limit| limit.0);
    let taken = body
        .take()
        .map_err(|_| Fault::bad_request("The body is missing."))?;
    let bytes = bytes(taken, limit).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Fault::bad_request(format!("The body is not valid JSON: {error}.")))
}

async fn bytes(body: poem::Body, limit: usize) -> Result<Vec<u8>, Fault> {
    let mut reader = body.into_async_read().take(limit as u64 + 1);
    let mut bytes = Vec::new();
    let broken = |_| Fault::bad_request("The body could not be read.");
    reader.read_to_end(&mut bytes).await.map_err(broken)?;
    if bytes.len() <= limit {
        return Ok(bytes);
    }
    // A client that is still sending when it is answered sees a broken connection, not the answer.
    let mut rest = reader.into_inner().take(THROWN_AWAY);
    copy(&mut rest, &mut sink()).await.map_err(broken)?;
    Err(Fault::too_large(limit))
}

/// Yes or no, as Laravel takes it: a number too.
pub(crate) struct Flag(pub(crate) bool);

/// An object, as PHP writes it: an empty one as an empty list.
pub(crate) struct Dictionary(Object);

impl From<Object> for Dictionary {
    fn from(object: Object) -> Self {
        Self(object)
    }
}

/// What only documents a part of a body: its schema, and how its example reads.
macro_rules! documents {
    ($name:ident($inner:ty) as $schema:expr) => {
        impl Type for $name {
            const IS_REQUIRED: bool = true;
            type RawValueType = Self;
            type RawElementValueType = Self;

            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn schema_ref() -> MetaSchemaRef {
                MetaSchemaRef::Inline(Box::new($schema))
            }

            fn as_raw_value(&self) -> Option<&Self> {
                Some(self)
            }

            fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
                Box::new(self.as_raw_value().into_iter())
            }
        }

        impl ToJSON for $name {
            fn to_json(&self) -> Option<Value> {
                self.0.to_json()
            }
        }

        impl ParseFromJSON for $name {
            fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
                let inner = <$inner>::parse_from_json(value);
                Ok(Self(inner.map_err(ParseError::propagate)?))
            }
        }
    };
}

documents!(Flag(bool) as MetaSchema {
    enum_items: vec![true.into(), false.into(), 1.into(), 0.into(), Value::Null],
    ..MetaSchema::ANY
});

documents!(Dictionary(Object) as MetaSchema {
    any_of: vec![
        Object::schema_ref(),
        MetaSchemaRef::Inline(Box::new(MetaSchema {
            items: Some(Box::new(MetaSchemaRef::Inline(Box::new(MetaSchema::ANY)))),
            max_items: Some(0),
            ..MetaSchema::new("array")
        })),
    ],
    ..MetaSchema::ANY
});

/// A JSON object, in the form that the OpenAPI library knows.
pub(crate) type Object = std::collections::BTreeMap<String, Value>;

/// The same object, in that form.
pub(crate) fn documented(map: &Map<String, Value>) -> Object {
    map.iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// The fields of an object, taken one by one; what is wrong with them is noted under `prefix`.
pub(crate) struct Fields<'v, 'f> {
    map: Option<&'v Map<String, Value>>,
    prefix: String,
    faults: &'f mut Faults,
}

impl<'v, 'f> Fields<'v, 'f> {
    /// The fields of a body.
    pub(crate) fn of(body: &'v Value, faults: &'f mut Faults) -> Self {
        Self::at(body, String::new(), faults)
    }

    /// The fields of an object within a body; `prefix` ends in a dot.
    pub(crate) fn at(value: &'v Value, prefix: String, faults: &'f mut Faults) -> Self {
        let map = value.as_object();
        if map.is_none() {
            let name = if prefix.is_empty() {
                "body"
            } else {
                prefix.trim_end_matches('.')
            };
            faults.add(name, format!("The {name} must be an object."));
        }
        Self {
            map,
            prefix,
            faults,
        }
    }

    /// Notes a fault of a field. What is no object has no fields: that was noted already.
    pub(crate) fn fault(&mut self, name: &str, text: impl Into<String>) {
        if self.map.is_some() {
            self.faults.add(format!("{}{name}", self.prefix), text);
        }
    }

    /// The value, unless it is absent, null, or a blank text, which Laravel takes for null.
    pub(crate) fn get(&self, name: &str) -> Option<&'v Value> {
        let value = self.map?.get(name)?;
        let blank = |text: &str| text.trim().is_empty();
        (!value.is_null() && !value.as_str().is_some_and(blank)).then_some(value)
    }

    /// Whether the field is there at all, be it null.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.map.is_some_and(|map| map.contains_key(name))
    }

    /// A text of at most so many characters.
    pub(crate) fn text(&mut self, name: &str, max: usize) -> Option<String> {
        let Value::String(text) = self.get(name)? else {
            self.fault(name, format!("The {name} field must be a string."));
            return None;
        };
        if text.len() > max && text.chars().count() > max {
            self.fault(
                name,
                format!("The {name} field must not be greater than {max} characters."),
            );
            return None;
        }
        Some(text.clone())
    }

    /// A text that must be there.
    pub(crate) fn required(&mut self, name: &str, max: usize) -> Option<String> {
        if self.get(name).is_none() {
            self.fault(name, format!("The {name} field is required."));
        }
        self.text(name, max)
    }

    /// A text that a new object must have; a change may leave it out, and not empty it.
    pub(crate) fn needed(&mut self, is_new: bool, name: &str, max: usize) -> Option<String> {
        if is_new || self.has(name) {
            self.required(name, max)
        } else {
            None
        }
    }

    /// One of a set of words.
    pub(crate) fn word<W: FromStr>(&mut self, name: &str) -> Option<W> {
        let text = self.text(name, 64)?;
        let word = text.parse().ok();
        if word.is_none() {
            self.fault(name, format!("The selected {name} is invalid."));
        }
        word
    }

    /// A list of words of a set: at least one, and none twice.
    pub(crate) fn words<W: FromStr + PartialEq>(&mut self, name: &str) -> Vec<W> {
        let mut words = Vec::new();
        let given = self.get(name);
        let list = given.and_then(Value::as_array);
        // By its path: `Type`, which is in scope here, has an `is_empty` of its own.
        let Some(list) = list.filter(|list| !Vec::is_empty(list)) else {
            let what = match given {
                None => "is required",
                Some(_) => "must be a list of at least one",
            };
            self.fault(name, format!("The {name} field {what}."));
            return words;
        };
        for (index, value) in list.iter().enumerate() {
            let name = format!("{name}.{index}");
            match value.as_str().and_then(|text| text.parse().ok()) {
                Some(word) if words.contains(&word) => {
                    self.fault(&name, format!("The {name} field has a duplicate value."));
                }
                Some(word) => words.push(word),
                None => self.fault(&name, format!("The selected {name} is invalid.")),
            }
        }
        words
    }

    /// A whole number within these bounds.
    pub(crate) fn number(&mut self, name: &str, least: u64, most: u64) -> Option<u64> {
        let number = self.get(name)?.as_u64();
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            let text = format!("The {name} field must be an integer from {least} to {most}.");
            self.fault(name, text);
        }
        number
    }

    pub(crate) fn boolean(&mut self, name: &str) -> Option<bool> {
        let value = self.get(name)?;
        // Laravel takes these for booleans too.
        let boolean = match value {
            Value::Bool(boolean) => Some(*boolean),
            Value::Number(number) if number.as_u64() == Some(1) => Some(true),
            Value::Number(number) if number.as_u64() == Some(0) => Some(false),
            _ => None,
        };
        if boolean.is_none() {
            self.fault(name, format!("The {name} field must be true or false."));
        }
        boolean
    }

    /// A time, with an offset or without.
    pub(crate) fn time(&mut self, name: &str) -> Option<UnixMs> {
        let text = self.text(name, 64)?;
        let time = time::parse(&text);
        if time.is_none() {
            self.fault(name, format!("The {name} field must be a valid date."));
        }
        time
    }

    pub(crate) fn object(&mut self, name: &str) -> Option<&'v Map<String, Value>> {
        let value = self.get(name)?;
        // PHP writes an empty object as an empty list.
        if value.as_array().is_some_and(Vec::is_empty) {
            return None;
        }
        if value.as_object().is_none() {
            self.fault(name, format!("The {name} field must be an object."));
        }
        value.as_object()
    }

    pub(crate) fn id<I: FromStr>(&mut self, name: &str) -> Option<I> {
        let text = self.text(name, 64)?;
        let id = text.parse().ok();
        if id.is_none() {
            self.fault(name, format!("The {name} field must be a valid UUID."));
        }
        id
    }
}

//! The schema registry: any that speaks Confluent's REST protocol.
//!
//! Schemas are registered at setup and looked up when a record names an id that is not known yet;
//! framing and decoding are `herald_schemas::codec`'s. Schemas that refer to others by reference
//! are not supported: ours are each self-contained.

use std::{fmt, time::Duration};

use herald_schemas::codec::{RECORDS, WriterIds};
use reqwest::Url;
use schema_registry_converter::{
    async_impl::schema_registry::{SrSettings, get_all_subjects, get_schema_by_id, post_schema},
    error::SRCError,
    schema_registry_common::{SchemaType, SuppliedSchema},
};
use tokio::time::{sleep, timeout};

/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// How often a schema is posted that meets a conflict, and the time in between.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// A user and a password that does not print.
#[derive(Clone)]
pub struct BasicAuth {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BasicAuth")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// What can go wrong with a registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It is away or slow; the same call may go through later.
    #[error("schema registry unavailable: {0}")]
    Unavailable(String),
    /// It refused: trying again will not help.
    #[error("schema registry: {0}")]
    Refused(String),
    /// It has the schema, but of a kind that we do not read.
    #[error("{0}")]
    Unusable(String),
}

/// A schema registry.
pub struct Registry {
    // Not to be printed: it would show the password.
    settings: SrSettings,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// The registry at `url`.
    pub fn new(url: &str, auth: Option<&BasicAuth>) -> Result<Self, RegistryError> {
        // Else it would be found out with the first call, and taken for a registry that is away.
        let parsed: Result<Url, _> = url.parse();
        if !parsed.is_ok_and(|url| ["http", "https"].contains(&url.scheme())) {
            // Not repeated: it may hold a login.
            let text = "no address: expected http://host:port/path";
            return Err(RegistryError::Refused(text.to_owned()));
        }
        let mut builder = SrSettings::new_builder(url.trim_end_matches('/').to_owned());
        builder.set_timeout(DEADLINE).no_proxy();
        if let Some(BasicAuth { user, password }) = auth {
            builder.set_basic_authorization(user, Some(password));
        }
        let settings = builder.build().map_err(|error| refused(&error))?;
        Ok(Self { settings })
    }

    /// Registers each record's schema for its subjects, `(subject, record name)`, and answers the
    /// ids to write with. Registering what is there already changes nothing.
    pub async fn register(
        &self,
        subjects: &[(String, &'static str)],
    ) -> Result<WriterIds, RegistryError> {
        let mut ids = vec![None; RECORDS.len()];
        for (subject, name) in subjects {
            let Some(index) = RECORDS.iter().position(|record| record.name == *name) else {
                return Err(RegistryError::Refused(format!("there is no record {name}")));
            };
            let schema = SuppliedSchema::new(
                Some(format!("herald.v1.{name}")),
                SchemaType::Avro,
                RECORDS[index].schema.to_owned(),
            );
            let id = self.post(subject, &schema).await?;
            // Any id of a schema finds it: the first one serves for all its subjects.
            ids[index].get_or_insert(id);
        }
        let ids: Option<Vec<u32>> = ids.into_iter().collect();
        ids.map(WriterIds)
            .ok_or_else(|| RegistryError::Refused("a record has no subject".to_owned()))
    }

    /// A conflict is what a schema meets that does not fit, but also one that somebody else registers
    /// at the same moment: that one is there the next time.
    async fn post(&self, subject: &str, schema: &SuppliedSchema) -> Result<u32, RegistryError> {
        let mut tries = 1;
        loop {
            let posting = post_schema(&self.settings, subject.to_owned(), schema.clone());
            match timeout(DEADLINE, posting).await {
                Ok(Ok(registered)) => return Ok(registered.id),
                Ok(Err(error)) if status(&error) == Some(409) && tries < TRIES => {
                    sleep(PAUSE).await;
                    tries += 1;
                }
                Ok(Err(error)) => return Err(classify(&error)),
                Err(_) => return Err(overdue()),
            }
        }
    }

    /// The schema of that id; none: the registry does not know it.
    pub async fn schema(&self, id: u32) -> Result<Option<String>, RegistryError> {
        let answer = timeout(DEADLINE, get_schema_by_id(id, &self.settings)).await;
        match answer {
            Err(_) => Err(overdue()),
            Ok(Ok(schema)) if schema.schema_type != SchemaType::Avro => {
                Err(RegistryError::Unusable("it is not Avro".to_owned()))
            }
            Ok(Ok(schema)) if !schema.references.is_empty() => Err(RegistryError::Unusable(
                "it refers to others by reference".to_owned(),
            )),
            Ok(Ok(schema)) => Ok(Some(schema.schema)),
            Ok(Err(error)) if is_unknown_schema(&error) => Ok(None),
            // From a proxy, or below a wrong path: that says nothing about the schema.
            Ok(Err(error)) if status(&error) == Some(404) => {
                Err(RegistryError::Unavailable(text(&error)))
            }
            Ok(Err(error)) => Err(classify(&error)),
        }
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), RegistryError> {
        within(get_all_subjects(&self.settings)).await.map(drop)
    }
}

async fn within<T>(call: impl Future<Output = Result<T, SRCError>>) -> Result<T, RegistryError> {
    match timeout(DEADLINE, call).await {
        Ok(answer) => answer.map_err(|error| classify(&error)),
        Err(_) => Err(overdue()),
    }
}

fn overdue() -> RegistryError {
    RegistryError::Unavailable(format!("no answer within {} s", DEADLINE.as_secs()))
}

/// The library's errors carry the HTTP status in their text only.
fn status(error: &SRCError) -> Option<u16> {
    error
        .error
        .split_once("failed with status ")?
        .1
        .get(..3)?
        .parse()
        .ok()
}

/// Whether the registry itself says that there is no such schema.
fn is_unknown_schema(error: &SRCError) -> bool {
    let said = error.cause.as_deref().unwrap_or_default();
    status(error) == Some(404) && said.contains("error_code: 40403")
}

/// What the registry said about the request itself will not change; all else may.
fn classify(error: &SRCError) -> RegistryError {
    match status(error) {
        Some(400..=407 | 409..=428 | 430..=499) => refused(error),
        _ => RegistryError::Unavailable(text(error)),
    }
}

fn refused(error: &SRCError) -> RegistryError {
    RegistryError::Refused(text(error))
}

fn text(error: &SRCError) -> String {
    match &error.cause {
        Some(cause) => format!("{}: {cause}", error.error),
        None => error.error.clone(),
    }
}

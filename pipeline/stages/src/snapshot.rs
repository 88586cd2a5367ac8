//! A compiled catalog: what matching and rendering work with. Built once per version and shared.

use std::{collections::HashMap, fmt, sync::Arc};

use herald_schemas::{
    catalog::{ApiKey, Catalog, Controls, EventSource, Rule, SeedRecipient, Template},
    ids::{TemplateId, UnixMs},
    words::Scope,
};

use serde_json::{Map, Value};

use crate::{
    schema::{Schema, SchemaFault},
    when::When,
};

/// A compiled catalog.
#[derive(Debug, Default)]
pub struct Snapshot {
    version: i64,
    sources: HashMap<String, CompiledSource>,
    rules: HashMap<String, Vec<CompiledRule>>,
    templates: HashMap<TemplateId, Versions>,
    /// By prefix.
    api_keys: HashMap<String, ApiKey>,
    controls: Controls,
}

/// An event source and its schema; an error when that does not compile.
#[derive(Debug)]
struct CompiledSource {
    source: EventSource,
    schema: Option<Result<Schema, String>>,
}

/// A rule with what of it is prepared once.
#[derive(Debug)]
pub struct CompiledRule {
    /// The rule.
    pub rule: Rule,
    /// Its expression; an error when it does not compile.
    pub(crate) when: Option<Result<When, String>>,
    /// Where its recipient comes from.
    pub(crate) recipient: Recipient,
}

/// Where a recipient comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recipient {
    /// The same for all.
    Fixed(String),
    /// A single placeholder: the payload's value at that path.
    Path(String),
    /// A template over the payload.
    Template(String),
    /// As the first seed's rules name it.
    Seed(SeedRecipient),
}

#[derive(Debug, Default)]
struct Versions {
    newest: Option<Arc<Template>>,
    all: HashMap<i32, Arc<Template>>,
}

/// An object that could not be compiled as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    object: String,
    reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.reason)
    }
}

impl Snapshot {
    /// Compiles a catalog. A rule or a schema that does not compile stays, and says so whenever it
    /// is asked.
    pub fn compile(catalog: &Catalog) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut snapshot = Self {
            version: catalog.version,
            controls: catalog.controls.clone().unwrap_or_default(),
            ..Self::default()
        };
        for source in &catalog.sources {
            let compiled = CompiledSource::new(source);
            if let Some(Err(reason)) = &compiled.schema {
                let object = format!("event source {}", source.name);
                problems.push(Problem {
                    object,
                    reason: reason.clone(),
                });
            }
            snapshot.sources.insert(source.name.clone(), compiled);
        }
        for rule in &catalog.rules {
            let compiled = CompiledRule::new(rule);
            if let Some(Err(reason)) = &compiled.when {
                let object = format!("rule {}", rule.name);
                problems.push(Problem {
                    object,
                    reason: reason.clone(),
                });
            }
            snapshot
                .rules
                .entry(rule.event.clone())
                .or_default()
                .push(compiled);
        }
        for version in &catalog.templates {
            let template = Arc::new(version.template.clone());
            let versions = snapshot.templates.entry(template.id).or_default();
            if !version.retired {
                versions.newest = Some(Arc::clone(&template));
            }
            versions.all.insert(template.version, template);
        }
        let api_keys = catalog.api_keys.iter().cloned();
        snapshot.api_keys = api_keys.map(|key| (key.prefix.clone(), key)).collect();
        (snapshot, problems)
    }

    /// The catalog's version.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// What operators have set.
    pub fn controls(&self) -> &Controls {
        &self.controls
    }

    /// The API key that begins with `prefix`, be it expired.
    pub fn api_key(&self, prefix: &str) -> Option<&ApiKey> {
        self.api_keys.get(prefix)
    }

    /// Whether there is an API key by which more can be made.
    pub fn has_admin(&self, now: UnixMs) -> bool {
        let mut keys = self.api_keys.values();
        keys.any(|key| key.scopes.contains(&Scope::Admin) && key.is_good(now))
    }

    /// The event source of that name.
    pub fn source(&self, name: &str) -> Option<&EventSource> {
        Some(&self.sources.get(name)?.source)
    }

    /// What of a payload is against the schema of its event source.
    pub fn schema_faults(&self, event: &str, payload: &Map<String, Value>) -> Vec<SchemaFault> {
        let source = self.sources.get(event);
        match source.and_then(|source| source.schema.as_ref()) {
            None => Vec::new(),
            Some(Ok(schema)) => schema.faults(&Value::Object(payload.clone())),
            Some(Err(reason)) => vec![SchemaFault {
                path: String::new(),
                message: reason.clone(),
            }],
        }
    }

    /// The rules of an event, active or not.
    pub fn rules(&self, event: &str) -> &[CompiledRule] {
        self.rules.get(event).map_or(&[], Vec::as_slice)
    }

    /// A template: the version named, be it retired, else the newest of one that is not deleted.
    pub fn template(&self, id: TemplateId, version: Option<i32>) -> Option<&Arc<Template>> {
        let versions = self.templates.get(&id)?;
        match version {
            Some(version) => versions.all.get(&version),
            None => versions.newest.as_ref(),
        }
    }
}

impl CompiledSource {
    fn new(source: &EventSource) -> Self {
        let schema = source.schema.as_ref().map(|schema| {
            Schema::compile(schema)
                .map_err(|error| format!("the event source's schema does not compile: {error}"))
        });
        Self {
            schema,
            source: source.clone(),
        }
    }
}

impl CompiledRule {
    fn new(rule: &Rule) -> Self {
        let when = rule.when.as_deref().map(|text| {
            When::compile(text).map_err(|error| format!("when does not compile: {error}"))
        });
        Self {
            when,
            recipient: match &rule.seed_recipient {
                None => Recipient::new(&rule.recipient),
                Some(seed) => Recipient::Seed(seed.clone()),
            },
            rule: rule.clone(),
        }
    }
}

impl Recipient {
    fn new(text: &str) -> Self {
        if !text.contains("{{") {
            return Self::Fixed(text.to_owned());
        }
        let inside = text
            .trim()
            .strip_prefix("{{")
            .and_then(|text| text.strip_suffix("}}"));
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
        match inside.map(str::trim) {
            Some(path) if !path.is_empty() && path.chars().all(plain) => {
                Self::Path(path.to_owned())
            }
            _ => Self::Template(text.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Snapshot>();
    }

    #[test]
    fn a_recipient_takes_the_shortest_way() {
        for (text, expected) in [
            (
                "ops@example.com",
                Recipient::Fixed("ops@example.com".to_owned()),
            ),
            (
                "{{ customer.email }}",
                Recipient::Path("customer.email".to_owned()),
            ),
            ("{{a}}{{b}}", Recipient::Template("{{a}}{{b}}".to_owned())),
            ("+{{phone}}", Recipient::Template("+{{phone}}".to_owned())),
        ] {
            assert_eq!(Recipient::new(text), expected);
        }
    }
}

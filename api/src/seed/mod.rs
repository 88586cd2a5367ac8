//! The paths and field names of the first seed, event-driven-notification-platform, on the same
//! objects: its clients need a new base URL and a key.
//!
//! What they ask for comes under `data`, with a `message` where something was changed. What Herald
//! knows beyond the first seed stands beside its fields, and a change by these paths leaves it be.

mod logs;
mod rule_forms;
mod rules;
mod sources;
mod templates;

use poem_openapi::{
    Object,
    types::{ParseFromJSON, ToJSON, Type},
};

use crate::catalog::CatalogMeta;

pub(crate) use self::{
    logs::Routes as Logs, rules::Routes as Rules, sources::Routes as Sources,
    templates::Routes as Templates,
};

/// One object.
#[derive(Object)]
struct SeedOne<T: ParseFromJSON + ToJSON + Type> {
    /// The object.
    data: T,
}

/// An object that was made or changed.
#[derive(Object)]
struct SeedChanged<T: ParseFromJSON + ToJSON + Type> {
    /// What was done, for people.
    message: String,
    /// The object as it is now.
    data: T,
}

/// Objects, newest first.
#[derive(Object)]
struct SeedList<T: ParseFromJSON + ToJSON + Type> {
    /// The objects.
    data: Vec<T>,
    /// Which part of the list this is.
    meta: CatalogMeta,
}

/// That it was done.
#[derive(Object)]
struct SeedDone {
    /// What was done, for people.
    message: String,
}

fn changed<T: ParseFromJSON + ToJSON>(what: &str, how: &str, data: T) -> SeedChanged<T> {
    SeedChanged {
        message: format!("{what} {how} successfully."),
        data,
    }
}

fn deleted(what: &str) -> SeedDone {
    SeedDone {
        message: format!("{what} deleted successfully."),
    }
}

//! API keys: made here, and shown once.

use herald_runtime::worker::now;
use herald_schemas::{
    catalog::{ApiKey, Kind},
    ids::ApiKeyId,
    words::Scope,
};
use poem_openapi::{ApiResponse, Object, OpenApi, param::Path, payload::Json, types::Example};
use serde_json::Value;

use crate::{
    Api, Parts, Tag,
    body::{Body, Fields, OptionalBody},
    catalog::{self, Asked, CatalogMeta, Deleted, put, remove},
    example,
    fault::{Fault, Faults},
    keys::{self, Admin},
    params::{Given, PageNumber, PerPage},
    time,
    words::ScopeWord,
};

/// The highest limit there is; beyond it there need be none.
const MOST_A_MINUTE: u64 = 1_000_000;

/// A key to be made.
#[derive(Object)]
#[oai(example, skip_serializing_if_is_none)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
pub(crate) struct NewKey {
    /// Unique, such as `checkout`.
    #[oai(validator(min_length = 1, max_length = 255))]
    name: String,
    /// What it is good for.
    #[oai(validator(min_items = 1, max_items = 4, unique_items))]
    scopes: Vec<ScopeWord>,
    /// How many requests a minute it may make at each API process; as configured unless said.
    #[oai(nullable, validator(minimum(value = "1"), maximum(value = "1000000")))]
    rate_limit_per_minute: Option<u32>,
    /// From when on it is not good any more: ISO 8601, with an offset or else in UTC. Never unless
    /// said.
    #[oai(nullable, validator(max_length = 64))]
    expires_at: Option<String>,
}

impl Example for NewKey {
    fn example() -> Self {
        Self {
            name: "checkout".to_owned(),
            scopes: vec![ScopeWord::Send, ScopeWord::Read],
            rate_limit_per_minute: Some(600),
            expires_at: None,
        }
    }
}

/// When a key is to expire.
#[derive(Object)]
#[oai(example, skip_serializing_if_is_none)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
pub(crate) struct Expiry {
    /// ISO 8601, with an offset or else in UTC. At once unless said: give the clients of a key that
    /// is replaced the time to change over.
    #[oai(nullable, validator(max_length = 64))]
    expires_at: Option<String>,
}

impl Example for Expiry {
    fn example() -> Self {
        Self {
            expires_at: Some("2030-01-31T12:00:00+00:00".to_owned()),
        }
    }
}

/// An API key. The key itself is shown once, in the answer to the request that made it.
#[derive(Object)]
#[oai(example)]
pub(crate) struct ShownKey {
    /// The key's id.
    id: String,
    /// Unique.
    name: String,
    /// How the key begins.
    prefix: String,
    /// The key, to be sent as `X-Api-Key`. Only in the answer that made it: it cannot be shown
    /// again.
    #[oai(skip_serializing_if_is_none)]
    key: Option<String>,
    /// What it is good for.
    scopes: Vec<ScopeWord>,
    /// How many requests a minute it may make at each API process; null: as configured.
    #[oai(nullable)]
    rate_limit_per_minute: Option<u32>,
    /// From when on it is not good any more, as ISO 8601; null: never.
    #[oai(nullable)]
    expires_at: Option<String>,
    /// When it was last used, to the minute, as ISO 8601; null: not yet.
    #[oai(nullable)]
    last_used_at: Option<String>,
    /// ISO 8601.
    created_at: String,
}

impl Example for ShownKey {
    fn example() -> Self {
        Self {
            id: example::ID.to_owned(),
            name: "checkout".to_owned(),
            prefix: "hrld_1f3a9c02b7d4".to_owned(),
            key: None,
            scopes: vec![ScopeWord::Send, ScopeWord::Read],
            rate_limit_per_minute: Some(600),
            expires_at: None,
            last_used_at: Some(example::TIME.to_owned()),
            created_at: example::TIME.to_owned(),
        }
    }
}

/// A part of the API keys, newest first.
#[derive(Object)]
struct ApiKeys {
    /// The keys.
    data: Vec<ShownKey>,
    /// Which part of the list this is.
    meta: CatalogMeta,
}

#[derive(ApiResponse)]
enum Created {
    /// Made; `key` is shown here and never again.
    #[oai(status = 201)]
    Created(Json<ShownKey>),
}

pub(crate) struct Routes;

#[OpenApi(prefix_path = "/v1", tag = "Tag::Operations")]
impl Routes {
    /// Makes an API key and shows it, this once.
    #[oai(path = "/api-keys", method = "post")]
    async fn create(
        &self,
        _admin: Admin,
        api: Parts<'_>,
        body: Body<NewKey>,
    ) -> Result<Created, Fault> {
        let (key, prefix, digest) = keys::generate().map_err(|error| {
            tracing::error!(%error, "no random numbers");
            Fault::unavailable("No key could be made.")
        })?;
        let made = check(&body.value, prefix, digest)?;
        put(&api, Kind::ApiKey, made.id.uuid(), 1, &made.name, &made).await?;
        let mut shown = shown(&made, None);
        shown.key = Some(key);
        Ok(Created::Created(Json(shown)))
    }

    /// Lists the API keys that are not revoked.
    #[oai(path = "/api-keys", method = "get")]
    async fn list(
        &self,
        _admin: Admin,
        api: Parts<'_>,
        /// From 1.
        page: Given<PageNumber>,
        /// How many to show, 100 at most; 25 unless said.
        per_page: Given<PerPage>,
    ) -> Result<Json<ApiKeys>, Fault> {
        let asked = Asked {
            page: page.0,
            per_page: per_page.0,
        };
        let keys = api.store.catalog().await?.api_keys;
        let (keys, meta) = catalog::page(keys, &asked, |key| key.id, ApiKey::clone)?;
        let ids: Vec<ApiKeyId> = keys.iter().map(|key| key.id).collect();
        let uses = api.store.api_key_uses(&ids).await?;
        let data = keys.iter().zip(uses);
        let data = data.map(|(key, used)| shown(key, used)).collect();
        Ok(Json(ApiKeys { data, meta }))
    }

    /// Shows an API key.
    #[oai(path = "/api-keys/:id", method = "get")]
    async fn one(
        &self,
        _admin: Admin,
        api: Parts<'_>,
        /// The key's id.
        id: Path<String>,
    ) -> Result<Json<ShownKey>, Fault> {
        let key = find(&api, &id).await?;
        with_use(&api, &key).await
    }

    /// Lets an API key expire, at once or later.
    #[oai(path = "/api-keys/:id/expire", method = "post")]
    async fn expire(
        &self,
        _admin: Admin,
        api: Parts<'_>,
        /// The key's id.
        id: Path<String>,
        body: OptionalBody<Expiry>,
    ) -> Result<Json<ShownKey>, Fault> {
        let mut key = find(&api, &id).await?;
        let now = now();
        let end = end(&body.value)?.unwrap_or(now);
        if key.expires_at.is_some_and(|end| end <= now) {
            return Err(Fault::conflict("The API key has expired already."));
        }
        key.expires_at = Some(end);
        put(&api, Kind::ApiKey, key.id.uuid(), 2, &key.name, &key).await?;
        with_use(&api, &key).await
    }

    /// Revokes an API key: it is not good any more, and it is forgotten.
    #[oai(path = "/api-keys/:id", method = "delete")]
    async fn revoke(
        &self,
        _admin: Admin,
        api: Parts<'_>,
        /// The key's id.
        id: Path<String>,
    ) -> Result<Deleted, Fault> {
        let key = find(&api, &id).await?;
        remove(&api, Kind::ApiKey, key.id.uuid(), "API key").await?;
        Ok(Deleted::Deleted)
    }
}

async fn find(api: &Api, id: &str) -> Result<ApiKey, Fault> {
    let missing = || Fault::not_found("API key");
    let id: ApiKeyId = id.parse().map_err(|_| missing())?;
    let keys = api.store.catalog().await?.api_keys;
    keys.into_iter()
        .find(|key| key.id == id)
        .ok_or_else(missing)
}

fn check(body: &Value, prefix: String, digest: String) -> Result<ApiKey, Fault> {
    let mut faults = Faults::default();
    let mut fields = Fields::of(body, &mut faults);
    let name = fields.required("name", 255);
    let scopes: Vec<Scope> = fields.words("scopes");
    let limit = fields.number("rate_limit_per_minute", 1, MOST_A_MINUTE);
    let expires_at = fields.time("expires_at");
    let now = now();
    if expires_at.is_some_and(|end| end <= now) {
        fields.fault("expires_at", "The expires_at field must be in the future.");
    }
    faults.none()?;
    Ok(ApiKey {
        id: ApiKeyId::random(),
        name: name.unwrap_or_default(),
        prefix,
        digest,
        scopes,
        rate_limit: limit.and_then(|limit| u32::try_from(limit).ok()),
        expires_at,
        created_at: now,
    })
}

/// When a key is to expire; none: at once.
fn end(body: &Value) -> Result<Option<i64>, Fault> {
    let mut faults = Faults::default();
    let end = Fields::of(body, &mut faults).time("expires_at");
    faults.none()?;
    Ok(end)
}

async fn with_use(api: &Api, key: &ApiKey) -> Result<Json<ShownKey>, Fault> {
    let uses = api.store.api_key_uses(&[key.id]).await?;
    Ok(Json(shown(key, uses.into_iter().flatten().next())))
}

fn shown(key: &ApiKey, used: Option<i64>) -> ShownKey {
    ShownKey {
        id: key.id.to_string(),
        name: key.name.clone(),
        prefix: key.prefix.clone(),
        key: None,
        scopes: key.scopes.iter().map(|scope| (*scope).into()).collect(),
        rate_limit_per_minute: key.rate_limit,
        expires_at: key.expires_at.map(time::format),
        last_used_at: used.map(time::format),
        created_at: time::format(key.created_at),
    }
}

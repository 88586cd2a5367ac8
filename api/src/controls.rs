//! What operators change while everything runs: what is held back, how much is sent, and where the
//! provider webhook is. Workers go by it within a second.

use std::collections::BTreeMap;

use herald_schemas::{
    catalog::{Controls, Kind, Paused, ProviderUrls},
    words::{Channel, Priority},
};
use poem_openapi::{Object, OpenApi, payload::Json, types::Example};
use serde_json::Value;

use crate::{
    Api, Parts, Tag,
    body::{Body, Fields, OptionalBody},
    catalog::put_unless_changed,
    fault::{Fault, Faults},
    keys::{Manager, Reader},
    words::{ChannelWord, PriorityWord},
};

/// The highest limit there is; beyond it there need be none.
const MOST_A_SECOND: u64 = 1_000_000;
/// How often a change is made again since something else changed.
const TRIES: usize = 20;
/// The longest URL.
const MAX_URL: usize = 2_048;

/// What to hold back, or to let go again.
#[derive(Object)]
#[oai(example, skip_serializing_if_is_none)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
pub(crate) struct What {
    /// This channel.
    #[oai(nullable)]
    channel: Option<ChannelWord>,
    /// This lane.
    #[oai(nullable)]
    priority: Option<PriorityWord>,
}

impl Example for What {
    fn example() -> Self {
        Self {
            channel: Some(ChannelWord::Sms),
            priority: None,
        }
    }
}

/// What is held back: accepted, and neither sent nor counted as an attempt.
#[derive(Object)]
#[oai(example)]
pub(crate) struct Held {
    /// Whether all deliveries are.
    everything: bool,
    /// The channels that are.
    channels: Vec<ChannelWord>,
    /// The lanes that are.
    priorities: Vec<PriorityWord>,
}

impl Example for Held {
    fn example() -> Self {
        Self {
            everything: false,
            channels: vec![ChannelWord::Sms],
            priorities: Vec::new(),
        }
    }
}

/// What was done, and what is held back now.
#[derive(Object)]
#[oai(example)]
struct Done {
    /// What was done, for people.
    message: String,
    /// What is held back now.
    paused: Held,
}

impl Example for Done {
    fn example() -> Self {
        Self {
            message: "Delivery paused.".to_owned(),
            paused: Held::example(),
        }
    }
}

/// Where the provider webhook is.
#[derive(Object)]
#[oai(example)]
pub(crate) struct Urls {
    /// The primary: an http or https URL.
    #[oai(validator(min_length = 1, max_length = 2048))]
    url: String,
    /// Asked in the same attempt when the primary fails; null: nobody is.
    #[oai(nullable, validator(max_length = 2048))]
    fallback_url: Option<String>,
}

impl Example for Urls {
    fn example() -> Self {
        Self {
            url: "https://provider.example.com/send".to_owned(),
            fallback_url: Some("https://other.example.com/send".to_owned()),
        }
    }
}

/// What is to change. What is not given stays as it is.
#[derive(Object)]
#[oai(example, skip_serializing_if_is_none)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
pub(crate) struct ControlsChange {
    /// How many messages a second all workers together send, by channel; 0: as many as they can;
    /// null: as configured.
    #[oai(nullable)]
    rate_limits: Option<BTreeMap<String, Option<u32>>>,
    /// Where the provider webhook is; null: as configured.
    #[oai(nullable)]
    provider: Option<Urls>,
}

impl Example for ControlsChange {
    fn example() -> Self {
        Self {
            rate_limits: Some(BTreeMap::from([("sms".to_owned(), Some(50))])),
            provider: None,
        }
    }
}

/// What operators have set. What is not here is as configured.
#[derive(Object)]
#[oai(example)]
struct Shown {
    /// What is held back.
    paused: Held,
    /// How many messages a second all workers together send, by channel; 0: as many as they can.
    rate_limits: BTreeMap<String, u32>,
    /// Where the provider webhook is.
    #[oai(nullable)]
    provider: Option<Urls>,
}

impl Example for Shown {
    fn example() -> Self {
        Self {
            paused: Held::example(),
            rate_limits: BTreeMap::from([("sms".to_owned(), 50)]),
            provider: None,
        }
    }
}

pub(crate) struct Routes;

#[OpenApi(prefix_path = "/v1", tag = "Tag::Operations")]
impl Routes {
    /// Holds deliveries back: all, or those of a channel or a lane.
    ///
    /// What is accepted meanwhile waits, and can be cancelled. Nothing loses an attempt by it.
    #[oai(path = "/pause", method = "post")]
    async fn pause(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        body: OptionalBody<What>,
    ) -> Result<Json<Done>, Fault> {
        let what = Target::read(&body.value)?;
        let controls = changed(&api, |controls| what.pause(&mut controls.paused)).await?;
        Ok(done("Delivery paused.", &controls))
    }

    /// Lets deliveries go again: all that is held back, or a channel or a lane of it.
    #[oai(path = "/resume", method = "post")]
    async fn resume(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        body: OptionalBody<What>,
    ) -> Result<Json<Done>, Fault> {
        let what = Target::read(&body.value)?;
        let controls = changed(&api, |controls| what.resume(&mut controls.paused)).await?;
        Ok(done("Delivery resumed.", &controls))
    }

    /// Shows what operators have set.
    #[oai(path = "/controls", method = "get")]
    async fn show(&self, _reader: Reader, api: Parts<'_>) -> Result<Json<Shown>, Fault> {
        let controls = api.store.catalog().await?.controls;
        Ok(Json(shown(&controls.unwrap_or_default())))
    }

    /// Changes limits and the provider webhook for all workers, at once and over restarts.
    #[oai(path = "/controls", method = "patch")]
    async fn change(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        body: Body<ControlsChange>,
    ) -> Result<Json<Shown>, Fault> {
        let change = Change::read(&body.value)?;
        let controls = changed(&api, |controls| change.apply(controls)).await?;
        Ok(Json(shown(&controls)))
    }
}

/// What is to be held back or let go.
struct Target {
    channel: Option<Channel>,
    lane: Option<Priority>,
}

impl Target {
    fn read(body: &Value) -> Result<Self, Fault> {
        let mut faults = Faults::default();
        let mut fields = Fields::of(body, &mut faults);
        // Elsewhere that is as if it were left out, which here would be everything.
        for name in ["channel", "priority"] {
            if body[name] == "" {
                fields.fault(name, format!("The selected {name} is invalid."));
            }
        }
        let target = Self {
            channel: fields.word("channel"),
            lane: fields.word("priority"),
        };
        faults.none()?;
        Ok(target)
    }

    fn is_everything(&self) -> bool {
        self.channel.is_none() && self.lane.is_none()
    }

    fn pause(&self, paused: &mut Paused) {
        paused.everything |= self.is_everything();
        paused.channels.extend(self.channel);
        paused.lanes.extend(self.lane);
    }

    fn resume(&self, paused: &mut Paused) {
        if self.is_everything() {
            *paused = Paused::default();
        }
        paused
            .channels
            .retain(|channel| Some(*channel) != self.channel);
        paused.lanes.retain(|lane| Some(*lane) != self.lane);
    }
}

/// What is to change of limits and provider.
struct Change {
    /// None: as configured.
    limits: Vec<(Channel, Option<u32>)>,
    /// None: stays. Within: none, as configured.
    provider: Option<Option<ProviderUrls>>,
}

impl Change {
    fn read(body: &Value) -> Result<Self, Fault> {
        let mut faults = Faults::default();
        let mut fields = Fields::of(body, &mut faults);
        let given = fields.object("rate_limits");
        let provider = fields.object("provider");
        let takes_provider_away = fields.has("provider") && provider.is_none();
        let limits = given.map_or_else(Vec::new, |given| limits(given, &mut faults));
        let provider = provider.map(|map| urls(&Value::Object(map.clone()), &mut faults));
        faults.none()?;
        Ok(Self {
            limits,
            provider: provider.or(takes_provider_away.then_some(None)),
        })
    }

    fn apply(&self, controls: &mut Controls) {
        for (channel, limit) in &self.limits {
            match limit {
                Some(limit) => controls.rate_limits.insert(*channel, *limit),
                None => controls.rate_limits.remove(channel),
            };
        }
        if let Some(provider) = &self.provider {
            controls.provider.clone_from(provider);
        }
    }
}

fn limits(
    given: &serde_json::Map<String, Value>,
    faults: &mut Faults,
) -> Vec<(Channel, Option<u32>)> {
    let mut limits = Vec::new();
    for (name, value) in given {
        let field = format!("rate_limits.{name}");
        let limit = value.as_u64().filter(|limit| *limit <= MOST_A_SECOND);
        match name.parse() {
            Err(_) => faults.add(&field, format!("{name} is no channel.")),
            Ok(channel) if value.is_null() => limits.push((channel, None)),
            Ok(channel) => match limit.and_then(|limit| u32::try_from(limit).ok()) {
                Some(limit) => limits.push((channel, Some(limit))),
                None => faults.add(
                    &field,
                    format!("The {field} field must be an integer from 0 to {MOST_A_SECOND}."),
                ),
            },
        }
    }
    limits
}

fn urls(given: &Value, faults: &mut Faults) -> Option<ProviderUrls> {
    let mut fields = Fields::at(given, "provider.".to_owned(), faults);
    let url = fields.required("url", MAX_URL);
    let fallback_url = fields.text("fallback_url", MAX_URL);
    if given["fallback_url"] == "" {
        fields.fault(
            "fallback_url",
            "The fallback_url field must be a valid URL.",
        );
    }
    for (name, url) in [("url", &url), ("fallback_url", &fallback_url)] {
        let is_url = |url: &String| herald_runtime::providers::is_http_url(url);
        if !url.as_ref().is_none_or(is_url) {
            fields.fault(name, format!("The {name} field must be a valid URL."));
        }
    }
    Some(ProviderUrls {
        url: url?,
        fallback_url,
    })
}

/// Changes what operators have set, whoever else does at the same time.
async fn changed(api: &Api, change: impl Fn(&mut Controls)) -> Result<Controls, Fault> {
    for _ in 0..TRIES {
        let catalog = api.store.catalog().await?;
        let seen = catalog.version;
        let (version, mut controls) = match catalog.controls {
            None => (1, Controls::default()),
            Some(controls) => (2, controls),
        };
        change(&mut controls);
        let (id, name) = (Controls::ID, Controls::NAME);
        let versions = (version, seen);
        if put_unless_changed(api, Kind::Controls, id, versions, name, &controls).await? {
            return Ok(controls);
        }
    }
    Err(Fault::unavailable("The catalog changes all the time."))
}

fn done(message: &str, controls: &Controls) -> Json<Done> {
    Json(Done {
        message: message.to_owned(),
        paused: held(&controls.paused),
    })
}

fn held(paused: &Paused) -> Held {
    Held {
        everything: paused.everything,
        channels: paused.channels.iter().map(|word| (*word).into()).collect(),
        priorities: paused.lanes.iter().map(|word| (*word).into()).collect(),
    }
}

fn shown(controls: &Controls) -> Shown {
    let limits = controls.rate_limits.iter();
    Shown {
        paused: held(&controls.paused),
        rate_limits: limits
            .map(|(channel, limit)| (channel.to_string(), *limit))
            .collect(),
        provider: controls.provider.as_ref().map(|urls| Urls {
            url: urls.url.clone(),
            fallback_url: urls.fallback_url.clone(),
        }),
    }
}

//! Rules: which notification follows from which event.

mod forms;
mod rehearse;

use herald_runtime::worker::now;
use herald_schemas::{
    catalog::{Kind, Rule},
    ids::{RuleId, TemplateId, UnixMs},
    words::{Channel, Priority},
};
use herald_stages::{check_when, snapshot::Snapshot, template};
use poem_openapi::{ApiResponse, OpenApi, param::Path, payload::Json};
use serde_json::{Map, Value};

use self::{
    forms::{NewRule, RuleChange, Rules, ShownRule, shown},
    rehearse::{Rehearsal, rehearse},
};
use crate::{
    Api, Parts, Tag,
    body::{Body, Fields},
    catalog::{self, Asked, Deleted, put, remove},
    events::NewEvent,
    fault::{Fault, Faults},
    keys::{Manager, Reader},
    params::{Given, PageNumber, PerPage},
};

#[derive(ApiResponse)]
enum Created {
    /// Made; it is asked about the very next event.
    #[oai(status = 201)]
    Created(Json<ShownRule>),
}

pub(crate) struct Routes;

#[OpenApi(prefix_path = "/v1", tag = "Tag::Catalog")]
impl Routes {
    /// Makes a rule.
    #[oai(path = "/rules", method = "post")]
    async fn create(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        body: Body<NewRule>,
    ) -> Result<Created, Fault> {
        let catalog = api.newest_catalog().await?;
        let rule = check(&body.value, None, &catalog)?;
        put(&api, Kind::Rule, rule.id.uuid(), 1, &rule.name, &rule).await?;
        Ok(Created::Created(Json(shown(&rule))))
    }

    /// Lists the rules.
    #[oai(path = "/rules", method = "get")]
    async fn list(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        /// From 1.
        page: Given<PageNumber>,
        /// How many to show, 100 at most; 25 unless said.
        per_page: Given<PerPage>,
    ) -> Result<Json<Rules>, Fault> {
        let asked = Asked {
            page: page.0,
            per_page: per_page.0,
        };
        let rules = api.store.catalog().await?.rules;
        let (data, meta) = catalog::page(rules, &asked, |rule| rule.id, shown)?;
        Ok(Json(Rules { data, meta }))
    }

    /// Shows a rule.
    #[oai(path = "/rules/:id", method = "get")]
    async fn one(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        /// The rule's id.
        id: Path<String>,
    ) -> Result<Json<ShownRule>, Fault> {
        Ok(Json(shown(&find(&api, &id).await?)))
    }

    /// Changes what is given of a rule.
    #[oai(path = "/rules/:id", method = "put")]
    async fn change(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        /// The rule's id.
        id: Path<String>,
        body: Body<NewRule>,
    ) -> Result<Json<ShownRule>, Fault> {
        change(&api, &id, &body.value).await
    }

    /// Changes what is given of a rule, as PUT does.
    #[oai(path = "/rules/:id", method = "patch")]
    async fn change_some(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        /// The rule's id.
        id: Path<String>,
        body: Body<RuleChange>,
    ) -> Result<Json<ShownRule>, Fault> {
        change(&api, &id, &body.value).await
    }

    /// Asks the rules about an event: which match, why the others do not, and what would be sent.
    /// Nothing is sent, and nothing is kept.
    #[oai(path = "/rules/test", method = "post")]
    async fn test(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        body: Body<NewEvent>,
    ) -> Result<Json<Rehearsal>, Fault> {
        let catalog = api.newest_catalog().await?;
        rehearse(&body.value, &catalog, &api.settings).map(Json)
    }

    /// Deletes a rule.
    #[oai(path = "/rules/:id", method = "delete")]
    async fn delete(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        /// The rule's id.
        id: Path<String>,
    ) -> Result<Deleted, Fault> {
        delete(&api, &id).await?;
        Ok(Deleted::Deleted)
    }
}

pub(crate) async fn delete(api: &Api, id: &str) -> Result<(), Fault> {
    let rule = find(api, id).await?;
    remove(api, Kind::Rule, rule.id.uuid(), "Rule").await
}

async fn change(api: &Api, id: &str, body: &Value) -> Result<Json<ShownRule>, Fault> {
    let before = find(api, id).await?;
    let catalog = api.newest_catalog().await?;
    let rule = check(body, Some(before), &catalog)?;
    put(api, Kind::Rule, rule.id.uuid(), 2, &rule.name, &rule).await?;
    Ok(Json(shown(&rule)))
}

pub(crate) async fn find(api: &Api, id: &str) -> Result<Rule, Fault> {
    let missing = || Fault::not_found("Rule");
    let id: RuleId = id.parse().map_err(|_| missing())?;
    let rules = api.store.catalog().await?.rules;
    rules
        .into_iter()
        .find(|rule| rule.id == id)
        .ok_or_else(missing)
}

/// What a new rule starts from.
pub(crate) fn nothing(template_id: TemplateId, now: UnixMs) -> Rule {
    Rule {
        id: RuleId::random(),
        name: String::new(),
        event: String::new(),
        template_id,
        recipient: String::new(),
        seed_recipient: None,
        channel: None,
        conditions: Map::new(),
        when: None,
        priority: Priority::Normal,
        is_active: true,
        created_at: now,
        updated_at: now,
    }
}

fn check(body: &Value, before: Option<Rule>, catalog: &Snapshot) -> Result<Rule, Fault> {
    let mut faults = Faults::default();
    let mut fields = Fields::of(body, &mut faults);
    let is_new = before.is_none();
    let name = fields.needed(is_new, "name", 255);
    let event = fields.needed(is_new, "event", 255);
    if event
        .as_ref()
        .is_some_and(|event| catalog.source(event).is_none())
    {
        fields.fault("event", "The selected event is invalid.");
    }
    let template_id: Option<TemplateId> = fields
        .needed(is_new, "template_id", 64)
        .and_then(|_| fields.id("template_id"));
    if template_id.is_some_and(|id| catalog.template(id, None).is_none()) {
        fields.fault("template_id", "The selected template_id is invalid.");
    }
    let recipient = fields.needed(is_new, "recipient", 4_096);
    if let Some(Err(error)) = recipient.as_deref().map(template::check) {
        fields.fault(
            "recipient",
            format!("The recipient field does not parse: {error}."),
        );
    }
    let channel: Option<Channel> = fields.word("channel");
    let conditions = fields.object("conditions").cloned();
    let when = fields.text("when", 4_096);
    if let Some(Err(error)) = when.as_deref().map(check_when) {
        fields.fault("when", format!("The when field does not compile: {error}."));
    }
    let priority: Option<Priority> = fields.word("priority");
    let is_active = fields.boolean("is_active");
    let (has_channel, has_conditions) = (fields.has("channel"), fields.has("conditions"));
    let has_when = fields.has("when");
    faults.none()?;
    let now = now();
    let mut rule = match (before, template_id) {
        (Some(rule), _) => rule,
        (None, Some(template_id)) => nothing(template_id, now),
        (None, None) => {
            return Err(Faults::only(
                "template_id",
                "The template_id field is required.",
            ));
        }
    };
    rule.name = name.unwrap_or(rule.name);
    rule.event = event.unwrap_or(rule.event);
    rule.template_id = template_id.unwrap_or(rule.template_id);
    if let Some(recipient) = recipient {
        rule.recipient = recipient;
        rule.seed_recipient = None;
    }
    if has_channel {
        rule.channel = channel;
    }
    if has_conditions {
        rule.conditions = conditions.unwrap_or_default();
    }
    if has_when {
        rule.when = when;
    }
    rule.priority = priority.unwrap_or(rule.priority);
    rule.is_active = is_active.unwrap_or(rule.is_active);
    rule.updated_at = now;
    Ok(rule)
}

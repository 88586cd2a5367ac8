//! The workers: which there are, how they are, and what they are to do.

use std::collections::BTreeMap;

use herald_runtime::{
    peers::{Action, Command, Heartbeat, Member, command},
    stage::Stage,
};
use poem_openapi::{ApiResponse, Object, OpenApi, param::Path, payload::Json, types::Example};
use serde_json::Value;

use crate::{
    Api, Parts, Tag,
    body::{Fields, OptionalBody},
    example,
    fault::{Fault, Faults},
    keys::{Manager, Reader},
    time,
    words::StageWord,
};

/// Which stages are meant.
#[derive(Object)]
#[oai(example, skip_serializing_if_is_none)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
pub(crate) struct Stages {
    /// These; all that the worker has unless said.
    #[oai(nullable, validator(min_items = 1, max_items = 6, unique_items))]
    stages: Option<Vec<StageWord>>,
}

impl Example for Stages {
    fn example() -> Self {
        Self {
            stages: Some(vec![StageWord::Deliver]),
        }
    }
}

/// A stage of a worker.
#[derive(Object)]
struct ShownStage {
    /// Which one.
    stage: String,
    /// `running`, `stopped` by an operator, or `starting`: it failed and is about to start anew.
    status: String,
    /// How often it failed and was started anew.
    restarts: u32,
}

/// What deliver of a worker has to do for a channel.
#[derive(Object)]
struct ShownChannel {
    /// How many partitions of its three lanes it has.
    partitions: u32,
    /// In how many of them messages wait because of the channel's limit.
    limited_partitions: u32,
    /// The providers that it leaves alone since they fail: their circuit breakers are open.
    open_breakers: Vec<String>,
}

/// A worker that was heard of within the last seconds.
#[derive(Object)]
#[oai(example)]
struct Worker {
    /// The worker; another one after each start of its process.
    id: String,
    /// Its host and its process.
    name: String,
    /// The version of the program.
    version: String,
    /// ISO 8601.
    started_at: String,
    /// When it was last heard of, as ISO 8601.
    heartbeat_at: String,
    /// Its stages.
    stages: Vec<ShownStage>,
    /// What deliver has to do, by channel.
    channels: BTreeMap<String, ShownChannel>,
}

impl Example for Worker {
    fn example() -> Self {
        let channel = ShownChannel {
            partitions: 36,
            limited_partitions: 0,
            open_breakers: Vec::new(),
        };
        Self {
            id: example::ID.to_owned(),
            name: "worker-0/1".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: example::TIME.to_owned(),
            heartbeat_at: example::TIME.to_owned(),
            stages: vec![ShownStage {
                stage: "deliver".to_owned(),
                status: "running".to_owned(),
                restarts: 0,
            }],
            channels: BTreeMap::from([("sms".to_owned(), channel)]),
        }
    }
}

/// The workers that were heard of within the last seconds.
#[derive(Object)]
#[oai(example)]
struct Workers {
    /// The workers, the oldest first.
    data: Vec<Worker>,
}

impl Example for Workers {
    fn example() -> Self {
        Self {
            data: vec![Worker::example()],
        }
    }
}

/// What a worker was told.
#[derive(Object)]
#[oai(example)]
struct Told {
    /// What it was told, for people.
    message: String,
}

impl Example for Told {
    fn example() -> Self {
        Self {
            message: "The worker was told to restart.".to_owned(),
        }
    }
}

#[derive(ApiResponse)]
enum Accepted {
    /// The worker was told; its stages show what came of it.
    #[oai(status = 202)]
    Accepted(Json<Told>),
}

pub(crate) struct Routes;

#[OpenApi(prefix_path = "/v1", tag = "Tag::Operations")]
impl Routes {
    /// Lists the workers with their stages.
    #[oai(path = "/workers", method = "get")]
    async fn list(&self, _reader: Reader, api: Parts<'_>) -> Result<Json<Workers>, Fault> {
        let members = api.peers.members();
        let data = members.iter().map(|(id, one)| shown(id, one)).collect();
        Ok(Json(Workers { data }))
    }

    /// Starts stages of a worker that were stopped.
    #[oai(path = "/workers/:id/start", method = "post")]
    async fn start(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        /// The worker's id.
        id: Path<String>,
        body: OptionalBody<Stages>,
    ) -> Result<Accepted, Fault> {
        tell(&api, &id, Action::Start, &body.value).await
    }

    /// Stops stages of a worker, until they are started or its process is.
    ///
    /// What they have in hand is finished; other workers take over the rest, if there are any.
    #[oai(path = "/workers/:id/stop", method = "post")]
    async fn stop(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        /// The worker's id.
        id: Path<String>,
        body: OptionalBody<Stages>,
    ) -> Result<Accepted, Fault> {
        tell(&api, &id, Action::Stop, &body.value).await
    }

    /// Stops stages of a worker and starts them anew.
    #[oai(path = "/workers/:id/restart", method = "post")]
    async fn restart(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        /// The worker's id.
        id: Path<String>,
        body: OptionalBody<Stages>,
    ) -> Result<Accepted, Fault> {
        tell(&api, &id, Action::Restart, &body.value).await
    }
}

async fn tell(api: &Api, id: &str, action: Action, body: &Value) -> Result<Accepted, Fault> {
    let members = api.peers.members();
    let member = members.get(id).ok_or_else(|| Fault::not_found("Worker"))?;
    let stages = stages(body, &member.heartbeat)?;
    let told = command(id, &Command { action, stages });
    api.outbox.control(&told).await?;
    let what = match action {
        Action::Start => "start",
        Action::Stop => "stop",
        Action::Restart => "restart",
    };
    let message = format!("The worker was told to {what}.");
    Ok(Accepted::Accepted(Json(Told { message })))
}

/// The stages that are meant, of those that the worker has; empty: all.
fn stages(body: &Value, worker: &Heartbeat) -> Result<Vec<String>, Fault> {
    let mut faults = Faults::default();
    let mut stages = Vec::new();
    let mut fields = Fields::of(body, &mut faults);
    if fields.get("stages").is_some() {
        let named: Vec<Stage> = fields.words("stages");
        for (index, stage) in named.iter().enumerate() {
            if !worker.stages.contains_key(stage.as_str()) {
                let text = format!("The worker does not run the stage {stage}.");
                fields.fault(&format!("stages.{index}"), text);
            }
        }
        stages = named.iter().map(|stage| stage.to_string()).collect();
    }
    faults.none()?;
    Ok(stages)
}

fn shown(id: &str, member: &Member) -> Worker {
    let heartbeat = &member.heartbeat;
    let stages = heartbeat.stages.iter().map(|(stage, report)| ShownStage {
        stage: stage.clone(),
        status: match (report.is_wanted, report.is_running) {
            (false, _) => "stopped",
            (true, true) => "running",
            (true, false) => "starting",
        }
        .to_owned(),
        restarts: report.restarts,
    });
    let channels = heartbeat.channels.iter().map(|(channel, demand)| {
        let open = heartbeat.open_breakers.get(channel).into_iter().flatten();
        let shown = ShownChannel {
            partitions: demand.held,
            limited_partitions: demand.waiting,
            open_breakers: open.map(|name| name.to_string()).collect(),
        };
        (channel.to_string(), shown)
    });
    Worker {
        id: id.to_owned(),
        name: heartbeat.name.clone(),
        version: heartbeat.version.clone(),
        started_at: time::format(heartbeat.started_at),
        heartbeat_at: time::format(member.at),
        stages: stages.collect(),
        channels: channels.collect(),
    }
}

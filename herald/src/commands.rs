//! What each command does.

use std::{
    fs,
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, absolute},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use herald_api::{Admin, Readiness};
use herald_runtime::{
    metrics::Metrics,
    stage::Stage,
    worker::{Serves, Shutdown, now},
};
use herald_store::Store;
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
};
use tracing::{info, warn};

use crate::{
    admin,
    assemble::{Inside, Outside},
    config::{BrokerUrl, Config, Secret, StoreUrl},
    providers::described,
};

/// The key of `herald dev` where none is set.
const DEV_KEY: &str = "local-dev-key";
/// Where URLs of users' may lead with `herald dev`, besides public addresses: to what is being
/// developed on the same machine.
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];
/// How often a process looks for a newer catalog by itself: what operators set works within that.
const CATALOG_INTERVAL: Duration = Duration::from_secs(1);
/// How often a worker drops a piece of what has expired.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(30);
/// How long everything may take to stop, and how long what blocks a thread after that: a peer that
/// hangs. Both are within what users are promised.
const STOP_WITHIN: Duration = Duration::from_millis(4_500);
pub(crate) const UNBLOCK_WITHIN: Duration = Duration::from_millis(200);
const _: () = assert!(STOP_WITHIN.as_millis() + UNBLOCK_WITHIN.as_millis() < 5_000);

/// `herald dev`
pub(crate) async fn dev(mut config: Config, data: &Path, listen: Option<SocketAddr>) -> Result<()> {
    let data = absolute(data)?;
    fs::create_dir_all(&data).with_context(|| format!("--data {}", data.display()))?;
    config.broker.url = BrokerUrl::Embedded(data.join("log"));
    config.store.url = StoreUrl::Sqlite(data.join("store.db"));
    config.schema_registry.url.clear();
    config.topics.partitions = 1;
    let is_known_key = config.api.keys.is_empty();
    if is_known_key {
        config.api.keys = vec![Secret::new(DEV_KEY)];
    }
    if config.webhook.allow_cidrs.is_empty() {
        config.webhook.allow_cidrs = LOOPBACK.map(str::to_owned).to_vec();
    }
    // Opened first: it is what a second process on the same directory fails by.
    let metrics = Metrics::new()?;
    let outside = Outside::connect(&config, Arc::clone(&metrics))?;
    let listener = bind(&config, listen).await?;
    let admin = admin::open(&config, &metrics).await?;
    outside.set_up().await?;
    let inside = outside.inside(&config).await?;
    let address = listener.local_addr()?;
    let carried = described(&inside.providers());
    welcome(&config, address, &data, &carried);
    if is_known_key && !address.ip().is_loopback() {
        warn!("anybody who reaches {address} can send, by the key {DEV_KEY}: set API_KEYS");
    }
    let stages = Stage::ALL.to_vec();
    let all = Serves::default();
    serve(&config, inside, admin, Some(listener), stages, all).await
}

/// `herald setup`
pub(crate) async fn setup(config: &Config) -> Result<()> {
    let set_up = async {
        Outside::connect(config, Metrics::new()?)?.set_up().await?;
        println!("Topics, tables and schemas are as they must be.");
        Ok(())
    };
    unless_stopped(set_up)
        .await
        .unwrap_or_else(|| bail!("stopped before it was done"))
}

/// `herald api`
pub(crate) async fn api(config: Config, listen: Option<SocketAddr>) -> Result<()> {
    let listener = bind(&config, listen).await?.into_std()?;
    let metrics = Metrics::new()?;
    let admin = admin::open(&config, &metrics).await?;
    let waiting = TcpListener::from_std(listener.try_clone()?)?;
    let (is_ready, ready) = oneshot::channel::<()>();
    let waiting = tokio::spawn(herald_api::serve_waiting(waiting, async {
        let _ = ready.await;
    }));
    let started = unless_stopped(start(&config, metrics)).await;
    drop(is_ready);
    waiting.await?.context("the API")?;
    let Some(inside) = started else {
        return Ok(());
    };
    let inside = inside?;
    if config.api.keys.is_empty() && !inside.catalogs.current().has_admin(now()) {
        bail!("no API key: set API_KEYS, or keys in [api]");
    }
    let listener = TcpListener::from_std(listener)?;
    info!(address = %listener.local_addr()?, "API ready");
    let nothing = Serves::default();
    serve(&config, inside, admin, Some(listener), Vec::new(), nothing).await
}

/// `herald worker`
pub(crate) async fn worker(config: Config, stages: Vec<Stage>, serves: Serves) -> Result<()> {
    let stages = if stages.is_empty() {
        Stage::ALL.to_vec()
    } else {
        stages
    };
    let metrics = Metrics::new()?;
    let admin = admin::open(&config, &metrics).await?;
    let Some(inside) = unless_stopped(start(&config, metrics)).await else {
        return Ok(());
    };
    serve(&config, inside?, admin, None, stages, serves).await
}

async fn start(config: &Config, metrics: Arc<Metrics>) -> Result<Inside> {
    Outside::connect(config, metrics)?.inside(config).await
}

async fn bind(config: &Config, listen: Option<SocketAddr>) -> Result<TcpListener> {
    let address = listen.unwrap_or(config.api.listen);
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: choose another with --listen, or HERALD_API_LISTEN")
    })
}

/// Runs until a signal, then stops everything in an orderly way.
async fn serve(
    config: &Config,
    inside: Inside,
    admin: Admin,
    listener: Option<TcpListener>,
    stages: Vec<Stage>,
    serves: Serves,
) -> Result<()> {
    let (trigger, shutdown) = Shutdown::new();
    let signals = tokio::spawn(ask_on_signal(trigger));
    let (store, catalogs) = (inside.store(), Arc::clone(&inside.catalogs));
    let housekeeping = [
        tokio::spawn(async move { catalogs.keep_fresh(CATALOG_INTERVAL).await }),
        tokio::spawn(expire(store)),
    ];
    let readiness = Readiness::of_stages(stages.clone(), inside.metrics());
    admin.started(match &listener {
        Some(_) => readiness.and_api(&inside.api(config)),
        None => readiness,
    });
    let api = async {
        let Some(listener) = listener else {
            return Ok(());
        };
        let mut stop = shutdown.clone();
        let stopped = async move { stop.asked().await };
        herald_api::serve(inside.api(config), listener, stopped)
            .await
            .context("the API")
    };
    let is_worker = !stages.is_empty();
    let pipeline = async {
        if !stages.is_empty() {
            let worker = inside.worker(config, serves);
            worker.run(&stages, shutdown.clone()).await;
        }
        Ok(())
    };
    let peers = async {
        inside.meet_peers(is_worker, shutdown.clone()).await;
        Ok(())
    };
    let mut asked = shutdown.clone();
    let ended = tokio::select! {
        served = async { tokio::try_join!(api, pipeline, peers) } => served.map(drop),
        () = inside.keep_providers(config) => Ok(()),
        () = async { asked.asked().await; tokio::time::sleep(STOP_WITHIN).await } => {
            warn!("some work did not finish in time; it goes on at the next start");
            Ok(())
        }
    };
    for task in housekeeping {
        task.abort();
    }
    signals.abort();
    ended
}

async fn expire(store: Arc<dyn Store>) {
    loop {
        tokio::time::sleep(EXPIRE_INTERVAL).await;
        if let Err(error) = store.expire(now()).await {
            warn!(%error, "expired rows stay for now");
        }
    }
}

async fn ask_on_signal(trigger: watch::Sender<bool>) {
    if let Err(error) = signal().await {
        warn!(%error, "signals are not heard");
        std::future::pending::<()>().await;
    }
    info!("stopping");
    trigger.send_replace(true);
    // Held: dropping it would ask as well.
    let _ = signal().await;
    warn!("asked a second time: stopping at once");
    std::process::exit(1);
}

/// Ctrl-C, or what `kill` and Kubernetes send.
async fn signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        asked = tokio::signal::ctrl_c() => asked,
        _ = terminate.recv() => Ok(()),
    }
}

/// None: a signal came first.
async fn unless_stopped<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        Ok(()) = signal() => None,
    }
}

fn welcome(config: &Config, address: SocketAddr, data: &Path, carried: &str) {
    let key = config.api.keys.first().map_or("", |key| key.reveal());
    // One that can be pasted, where it listens on every address.
    let host = match address.ip() {
        ip if ip.is_unspecified() => IpAddr::from(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    let base = format!("http://{}", SocketAddr::new(host, address.port()));
    let allowed = config.webhook.allow_cidrs.join(", ");
    let metrics = match config.admin.listen.0 {
        None => "not shown (HERALD_ADMIN_LISTEN: where)".to_owned(),
        Some(address) => format!("http://{address}/metrics"),
    };
    let text = format!(
        r#"Herald is ready.

  API       {base}/api/v1
  Swagger   {base}/swagger
  API key   {key}
  Messages  {carried} (the log is here; elsewhere: [channels], see herald config)
  Webhooks  to public addresses and {allowed} (allow_cidrs in [webhook])
  Metrics   {metrics}
  Data      {}

A first notification:

  curl -s {base}/api/v1/notifications \
    -H 'X-Api-Key: {key}' -H 'Content-Type: application/json' \
    -d '{{"notifications":[{{"recipient":"me","channel":"log","content":"Hello!"}}]}}'

Ctrl-C stops; the next start goes on where this one ended.
"#,
        data.display()
    );
    // A closed terminal is no reason to stop.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

//! Makes the parts that the settings describe and fits them together.

use std::{fs, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use herald_api::{Api, Keys};
use herald_broker::{
    Broker,
    embedded::EmbeddedBroker,
    kafka::{KafkaBroker, KafkaSettings, Sasl, Tls},
};
use herald_registry::{BasicAuth, Registry};
use herald_runtime::{
    catalogs::Catalogs,
    inbox::Inbox,
    limits::{BreakerSettings, HealthSettings, Limits},
    metrics::Metrics,
    outbox::Outbox,
    peers::Peers,
    progress::Progress,
    providers::Providers,
    setup::{Topic, topics},
    worker::{Serves, Shutdown, Worker},
};
use herald_schemas::{
    catalog::ProviderUrls,
    codec::{Codec, Framing, RECORDS},
    topics::Topics,
    words::Channel,
};
use herald_stages::{ContentLimits, Settings};
use herald_store::{
    Layout, Store,
    scylla::{self, ScyllaSettings, ScyllaStore},
    sqlite::SqliteStore,
};
use tokio::time::sleep;
use tracing::warn;
use uuid::Uuid;

use crate::{
    config::{BrokerUrl, Config, StoreUrl},
    patience::patiently,
    providers::providers,
    retry_policy,
};

/// How often there is a look whether operators have moved the provider webhook.
const LOOK_FOR_PROVIDERS_EVERY: Duration = Duration::from_millis(200);

/// What is outside of the process, or stands for it.
pub(crate) struct Outside {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) store: Arc<dyn Store>,
    registry: Option<Arc<Registry>>,
    providers: Providers,
    names: Topics,
    settings: Arc<Settings>,
    topics: Vec<Topic>,
    layout: Layout,
    metrics: Arc<Metrics>,
}

impl Outside {
    /// Opens what the settings name.
    pub(crate) fn connect(config: &Config, metrics: Arc<Metrics>) -> Result<Self> {
        let settings = settings(config)?;
        let names = Topics::new(config.topics.prefix.clone());
        let topics = topics(
            &names,
            settings.retry.ladder(),
            config.topics.partitions as i32,
            config.topics.retention.0,
        );
        let layout = Layout {
            status_shards: config.topics.partitions,
            claim_shards: config.topics.partitions,
            bucket_minutes: config.store.bucket_minutes,
            retention_days: config.store.retention_days,
        };
        let registry = registry(config)?;
        let providers = providers(config)?;
        let broker = broker(config, &metrics)?;
        let store = store(config, &metrics)?;
        Ok(Self {
            broker,
            store,
            registry,
            providers,
            names,
            settings,
            topics,
            layout,
            metrics,
        })
    }

    /// Makes topics and tables and registers schemas.
    pub(crate) async fn set_up(&self) -> Result<()> {
        let specs: Vec<_> = self.topics.iter().map(|topic| topic.spec.clone()).collect();
        patiently("set up the topics", async || {
            self.broker.setup(&specs).await
        })
        .await?;
        patiently("set up the store", async || {
            self.store.setup(self.layout).await
        })
        .await?;
        if let Some(registry) = &self.registry {
            let subjects: Vec<_> = self
                .topics
                .iter()
                .map(|topic| (subject(topic), topic.record))
                .collect();
            patiently("register the schemas", async || {
                registry.register(&subjects).await
            })
            .await?;
        }
        Ok(())
    }

    /// The codec of the wire format that was chosen.
    async fn codec(&self) -> Result<Codec> {
        let framing = match &self.registry {
            None => Framing::SingleObject,
            Some(registry) => {
                // One subject of each record is enough to learn the ids.
                let subjects: Vec<_> = RECORDS
                    .iter()
                    .filter_map(|record| {
                        let topic = self
                            .topics
                            .iter()
                            .find(|topic| topic.record == record.name)?;
                        Some((subject(topic), record.name))
                    })
                    .collect();
                let register = async || registry.register(&subjects).await;
                Framing::Confluent(patiently("look the schemas up", register).await?)
            }
        };
        Ok(Codec::new(&framing)?)
    }

    /// What every part of this process shares.
    pub(crate) async fn inside(self, config: &Config) -> Result<Inside> {
        let name = process_name();
        let codec = self.codec().await?;
        let producer = patiently("open a producer", async || self.broker.producer().await).await?;
        // Read, not configured: the rows lie by what the first setup fixed.
        let layout = patiently("read the store's layout", async || {
            self.store.layout().await
        })
        .await?;
        let load = async || Catalogs::load(Arc::clone(&self.store)).await;
        let catalogs = patiently("read the catalog", load).await?;
        let provider_urls = catalogs.current().controls().provider.clone();
        let providers = match &provider_urls {
            None => self.providers.clone(),
            Some(urls) => providers(&at_urls(config, Some(urls)))
                .context("the provider webhook as set through the API")?,
        };
        let outbox = Outbox::new(
            codec.clone(),
            &self.names,
            self.settings.retry.ladder(),
            producer,
        );
        Ok(Inside {
            progress: Progress::new(Arc::clone(&self.broker), &self.names, layout.status_shards),
            peers: Peers::new(&Uuid::now_v7().to_string(), &name),
            name: name.into(),
            partitions: layout.claim_shards,
            providers: Arc::new(ArcSwap::from_pointee(providers)),
            provider_urls,
            inbox: Inbox::new(codec, self.registry.clone()),
            outside: self,
            outbox,
            catalogs,
        })
    }
}

fn subject(topic: &Topic) -> String {
    format!("{}-value", topic.spec.name)
}

/// The parts of a running process.
pub(crate) struct Inside {
    outside: Outside,
    outbox: Arc<Outbox>,
    inbox: Inbox,
    pub(crate) catalogs: Arc<Catalogs>,
    progress: Progress,
    providers: Arc<ArcSwap<Providers>>,
    /// Where operators wanted the provider webhook at the start.
    provider_urls: Option<ProviderUrls>,
    /// Tells this process from all others, in claims.
    name: Arc<str>,
    peers: Arc<Peers>,
    /// Of each of the `deliveries` topics.
    partitions: u32,
}

impl Inside {
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.outside.store)
    }

    /// Who carries what.
    pub(crate) fn providers(&self) -> Arc<Providers> {
        self.providers.load_full()
    }

    /// What it counts.
    pub(crate) fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.outside.metrics)
    }

    /// The REST API.
    pub(crate) fn api(&self, config: &Config) -> Api {
        Api {
            broker: Arc::clone(&self.outside.broker),
            store: self.store(),
            outbox: Arc::clone(&self.outbox),
            inbox: self.inbox.clone(),
            catalogs: Arc::clone(&self.catalogs),
            progress: self.progress.clone(),
            peers: Arc::clone(&self.peers),
            settings: Arc::clone(&self.outside.settings),
            keys: Keys::new(
                config.api.keys.iter().map(|key| key.reveal()),
                std::num::NonZeroU32::new(config.api.rate_limit_per_minute).map(Into::into),
            ),
            max_body_bytes: config.api.max_body_bytes,
            topics: self.outside.names.clone(),
            keys_kept: config.api.idempotency_ttl.0,
            metrics: self.metrics(),
        }
    }

    /// Keeps the provider webhook where operators want it, for ever.
    pub(crate) async fn keep_providers(&self, config: &Config) {
        let mut known = self.provider_urls.clone();
        loop {
            let catalog = self.catalogs.current();
            let wanted = &catalog.controls().provider;
            if known != *wanted {
                match providers(&at_urls(config, wanted.as_ref())) {
                    Ok(providers) => self.providers.store(Arc::new(providers)),
                    Err(error) => warn!("the providers stay as they are: {error:#}"),
                }
                known.clone_from(wanted);
            }
            sleep(LOOK_FOR_PROVIDERS_EVERY).await;
        }
    }

    /// Tells the other processes of this one where it `is_worker`, and listens to them.
    pub(crate) async fn meet_peers(&self, is_worker: bool, shutdown: Shutdown) {
        let (broker, names) = (self.outside.broker.as_ref(), &self.outside.names);
        self.peers
            .run(
                broker,
                names,
                &self.inbox,
                &self.outbox,
                is_worker,
                shutdown,
            )
            .await;
    }

    /// The pipeline.
    pub(crate) fn worker(&self, config: &Config, serves: Serves) -> Worker {
        Worker {
            broker: Arc::clone(&self.outside.broker),
            store: self.store(),
            topics: self.outside.names.clone(),
            inbox: self.inbox.clone(),
            outbox: Arc::clone(&self.outbox),
            catalogs: Arc::clone(&self.catalogs),
            settings: Arc::clone(&self.outside.settings),
            providers: Arc::clone(&self.providers),
            metrics: self.metrics(),
            name: self.name.clone(),
            max_calls: config.delivery.max_calls,
            limits: limits(config),
            peers: Arc::clone(&self.peers),
            serves,
            partitions: self.partitions,
        }
    }
}

/// The settings, with the provider webhook where operators want it.
fn at_urls(config: &Config, urls: Option<&ProviderUrls>) -> Config {
    let mut config = config.clone();
    if let Some(urls) = urls {
        config.provider.url.clone_from(&urls.url);
        config.provider.fallback_url = urls.fallback_url.clone().unwrap_or_default();
    }
    config
}

fn process_name() -> String {
    let host = fs::read_to_string("/etc/hostname").unwrap_or_default();
    format!("{}/{}", host.trim(), std::process::id())
}

fn limits(config: &Config) -> Limits {
    let (breaker, failover) = (&config.breaker, &config.failover);
    Limits {
        rates: std::array::from_fn(|index| config.rate_limits.of(Channel::ALL[index])),
        breaker: BreakerSettings {
            failures: breaker.failures,
            window: breaker.window.0,
            open_for: breaker.open_for.0,
            probe_every: breaker.probe_every.0,
        },
        health: HealthSettings {
            failures: failover.failures,
            window: failover.window.0,
            unhealthy_for: failover.unhealthy_for.0,
        },
    }
}

fn settings(config: &Config) -> Result<Arc<Settings>> {
    let limits = &config.limits;
    Ok(Arc::new(Settings {
        retry: retry_policy::policy(&config.retry)?,
        time_to_live_ms: config.delivery.time_to_live.0.as_millis() as i64,
        limits: ContentLimits {
            sms: limits.sms,
            email: limits.email,
            push: limits.push,
            slack: limits.slack,
            webhook: limits.webhook,
        },
    }))
}

fn broker(config: &Config, metrics: &Metrics) -> Result<Arc<dyn Broker>> {
    let settings = &config.broker;
    let brokers = match &settings.url {
        BrokerUrl::Embedded(directory) => {
            let broker = EmbeddedBroker::open(directory)?;
            metrics.registry().register(broker.round_trips())?;
            return Ok(broker);
        }
        BrokerUrl::Kafka(brokers) => brokers.clone(),
    };
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let tls = settings.tls.then(|| Tls {
        ca: text(&settings.tls_ca),
        certificate: text(&settings.tls_certificate),
        key: text(&settings.tls_key),
    });
    let sasl = text(&settings.sasl_mechanism).map(|mechanism| Sasl {
        mechanism,
        user: settings.user.clone(),
        password: settings.password.reveal().to_owned(),
    });
    let broker = KafkaBroker::connect(KafkaSettings {
        brokers,
        tls,
        sasl,
        replication_factor: settings.replication_factor,
        session_timeout: settings.session_timeout.0,
    })?;
    metrics.registry().register(broker.round_trips())?;
    Ok(Arc::new(broker))
}

fn store(config: &Config, metrics: &Metrics) -> Result<Arc<dyn Store>> {
    let settings = &config.store;
    let (nodes, keyspace) = match &settings.url {
        StoreUrl::Sqlite(file) => {
            let store = SqliteStore::open(file)?;
            metrics.registry().register(store.round_trips())?;
            return Ok(Arc::new(store));
        }
        StoreUrl::Scylla { nodes, keyspace } => (nodes.clone(), keyspace.clone()),
    };
    let login = (!settings.user.is_empty()).then(|| {
        let password = settings.password.reveal().to_owned();
        (settings.user.clone(), password)
    });
    let tls = settings.tls.then(|| scylla::Tls {
        ca: (!settings.tls_ca.is_empty()).then(|| settings.tls_ca.clone()),
    });
    let store = ScyllaStore::new(ScyllaSettings {
        nodes,
        keyspace,
        login,
        tls,
        replication_factor: settings.replication_factor,
    })?;
    metrics.registry().register(store.round_trips())?;
    Ok(Arc::new(store))
}

fn registry(config: &Config) -> Result<Option<Arc<Registry>>> {
    let settings = &config.schema_registry;
    if settings.url.is_empty() {
        return Ok(None);
    }
    let auth = (!settings.user.is_empty()).then(|| BasicAuth {
        user: settings.user.clone(),
        password: settings.password.reveal().to_owned(),
    });
    let registry = Registry::new(&settings.url, auth.as_ref());
    Ok(Some(Arc::new(
        registry.context("url in [schema_registry]")?,
    )))
}

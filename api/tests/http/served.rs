//! An API that serves, and the client that asks it.

use std::{sync::Arc, time::Duration};

use herald_api::{Api, Keys, serve};
use herald_broker::{Broker, Producer};
use herald_runtime::{
    catalogs::Catalogs, inbox::Inbox, metrics::Metrics, outbox::Outbox, peers::Peers,
    progress::Progress,
};
use herald_schemas::{
    codec::{Codec, Framing},
    topics::Topics,
};
use herald_stages::Settings;
use herald_store::Store;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

use super::engines::Engines;

pub(crate) const MAX_BODY: usize = 4 << 20;
const SOON: Duration = Duration::from_secs(20);

/// An API that serves, and what ends it.
pub(crate) struct Served {
    pub(crate) address: String,
    pub(crate) engines: Arc<Engines>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) server: JoinHandle<std::io::Result<()>>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl Served {
    pub(crate) async fn start() -> Self {
        let ladder = Settings::default().retry.ladder().clone();
        Self::on(Arc::new(Engines::open(&Topics::default(), &ladder).await)).await
    }

    /// One more API, as another process would be: it has its own idea of the catalog.
    pub(crate) async fn beside(&self) -> Self {
        Self::on(Arc::clone(&self.engines)).await
    }

    async fn on(engines: Arc<Engines>) -> Self {
        let (names, settings) = (Topics::default(), Arc::new(Settings::default()));
        let store = Arc::clone(&engines.store) as Arc<dyn Store>;
        let broker = Arc::clone(&engines.broker) as Arc<dyn Broker>;
        let producer = Arc::clone(&engines.producer) as Arc<dyn Producer>;
        let metrics = Metrics::new().unwrap();
        let codec = Codec::new(&Framing::SingleObject).unwrap();
        let api = Api {
            inbox: Inbox::new(codec.clone(), None),
            outbox: Outbox::new(codec, &names, settings.retry.ladder(), producer),
            catalogs: Catalogs::load(Arc::clone(&store)).await.unwrap(),
            peers: Peers::new("api", "api"),
            progress: Progress::new(Arc::clone(&broker), &names, 1),
            broker,
            store,
            settings,
            keys: Keys::new(["good-key"].into_iter(), None),
            max_body_bytes: MAX_BODY,
            topics: Topics::default(),
            keys_kept: Duration::from_secs(86_400),
            metrics: Arc::clone(&metrics),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(serve(api, listener, async {
            let _ = stopped.await;
        }));
        Self {
            address,
            engines,
            metrics,
            stop,
            server,
        }
    }

    /// Sends a request as it is written, and reads until the connection ends.
    pub(crate) async fn raw(&self, request: &[u8]) -> Answer {
        exchange(&self.address, request).await
    }

    /// Sends a request with a good key; `headers` are lines of their own.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        self.raw(request(method, path, headers, body).as_bytes())
            .await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "").await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.ask(method, path, "", &body.to_string()).await
    }

    /// Makes an object of the catalog and answers its id.
    pub(crate) async fn make(&self, path: &str, body: Value) -> String {
        let made = self.send("POST", path, &body).await;
        assert_eq!(made.status, 201, "{}", made.body);
        made.body["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn source(&self, name: &str) -> String {
        self.make("/api/v1/event-sources", json!({ "name": name }))
            .await
    }

    pub(crate) async fn template(&self, name: &str) -> String {
        let template = json!({ "name": name, "channel": "log", "content": "Order {{id}}" });
        self.make("/api/v1/templates", template).await
    }
}

/// Sends a request as it is written to an address, and reads until the connection ends.
pub(crate) async fn exchange(address: &str, request: &[u8]) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(SOON, exchange).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_ascii_lowercase(),
        body: serde_json::from_str(body).unwrap_or(Value::Null),
    }
}

/// A whole request with a good key.
pub(crate) fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: herald\r\nconnection: close\r\nx-api-key: good-key\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

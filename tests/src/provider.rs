//! The provider's side: an HTTP server that keeps what it was sent and answers as a test says.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// A request as it came in.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its headers, names in lower case.
    pub headers: HashMap<String, String>,
    /// Its body.
    pub body: Value,
    /// When it was whole.
    pub at: Instant,
}

impl Received {
    /// A text of the body; empty where there is none.
    pub fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_default()
    }
}

/// What the provider does with a request.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    retry_after_s: Option<u64>,
    delay: Duration,
    resets: bool,
}

impl Reply {
    /// Takes it, with a message id.
    pub fn ok() -> Self {
        Self::status(200)
    }

    /// Answers with a status.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            retry_after_s: None,
            delay: Duration::ZERO,
            resets: false,
        }
    }

    /// Resets the connection instead of an answer.
    pub fn reset() -> Self {
        Self {
            resets: true,
            ..Self::ok()
        }
    }

    /// Answers after a while.
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Says when to come again.
    pub fn retry_after_s(self, seconds: u64) -> Self {
        Self {
            retry_after_s: Some(seconds),
            ..self
        }
    }
}

type Script = Box<dyn Fn(&Received) -> Reply + Send + Sync>;

/// A provider. Dropped, it is gone.
pub struct Provider {
    url: String,
    state: Arc<State>,
    server: JoinHandle<()>,
}

struct State {
    requests: Mutex<Vec<Received>>,
    script: Mutex<Script>,
    count: watch::Sender<usize>,
}

impl Provider {
    /// A provider that takes everything.
    pub async fn start() -> Self {
        Self::scripted(|_| Reply::ok()).await
    }

    /// A provider that answers as `script` says.
    pub async fn scripted(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let state = Arc::new(State {
            requests: Mutex::default(),
            script: Mutex::new(Box::new(script)),
            count: watch::Sender::new(0),
        });
        let server = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { url, state, server }
    }

    /// Answers as `script` says from now on.
    pub fn rescript(&self, script: impl Fn(&Received) -> Reply + Send + Sync + 'static) {
        *self.state.script.lock().expect("no panic in a script") = Box::new(script);
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Everything it was sent so far, in the order it came.
    pub fn requests(&self) -> Vec<Received> {
        self.state
            .requests
            .lock()
            .expect("no panic in a script")
            .clone()
    }

    /// Waits until at least `count` requests came, and answers all that did.
    ///
    /// # Panics
    ///
    /// When they don't come in time.
    pub async fn expect(&self, count: usize, within: Duration) -> Vec<Received> {
        let mut counts = self.state.count.subscribe();
        let arrived = tokio::time::timeout(within, counts.wait_for(|have| *have >= count));
        let in_time = arrived.await.is_ok();
        let requests = self.requests();
        assert!(
            in_time,
            "{} of {count} requests within {within:?}: {:#?}",
            requests.len(),
            last(&requests)
        );
        requests
    }

    /// Waits until requests of at least `count` different notifications came, and answers how
    /// often each of them did, by its id.
    ///
    /// # Panics
    ///
    /// When they don't come in time.
    pub async fn expect_notifications(
        &self,
        count: usize,
        within: Duration,
    ) -> BTreeMap<String, usize> {
        let deadline = Instant::now() + within;
        let mut counts = self.state.count.subscribe();
        loop {
            counts.mark_unchanged();
            let by_id = self.by_id();
            if by_id.len() >= count {
                return by_id;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let changed = tokio::time::timeout(left, counts.changed()).await;
            assert!(
                changed.is_ok(),
                "{} of {count} notifications within {within:?}",
                by_id.len()
            );
        }
    }

    /// How often each notification came, by its id.
    pub fn by_id(&self) -> BTreeMap<String, usize> {
        let mut by_id = BTreeMap::new();
        for request in self
            .state
            .requests
            .lock()
            .expect("no panic in a script")
            .iter()
        {
            *by_id.entry(request.text("id").to_owned()).or_default() += 1;
        }
        by_id
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn last(requests: &[Received]) -> &[Received] {
    &requests[requests.len().saturating_sub(3)..]
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        // An end of the connection is an end of this task, whatever the reason.
        tokio::spawn(async move { serve(stream, &state).await });
    }
}

async fn serve(stream: TcpStream, state: &State) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some(received) = read(&mut stream).await? {
        let reply = (state.script.lock().expect("no panic in a script"))(&received);
        let number = {
            let mut requests = state.requests.lock().expect("no panic in a script");
            requests.push(received);
            requests.len()
        };
        state.count.send_replace(number);
        tokio::time::sleep(reply.delay).await;
        if reply.resets {
            return stream.into_inner().set_zero_linger();
        }
        write(&mut stream, &reply, number).await?;
    }
    Ok(())
}

/// The next request of a connection; none at its end.
async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Received>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    assert!(
        line.starts_with("POST /hook HTTP/1.1"),
        "a provider is only posted to: {line}"
    );
    let mut headers = HashMap::new();
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|length| length.parse().ok());
    let mut body = vec![0; length.expect("a body has a length")];
    stream.read_exact(&mut body).await?;
    let body = serde_json::from_slice(&body).expect("a body is JSON");
    Ok(Some(Received {
        headers,
        body,
        at: Instant::now(),
    }))
}

async fn write(stream: &mut BufReader<TcpStream>, reply: &Reply, number: usize) -> io::Result<()> {
    let body = json!({ "messageId": format!("message-{number}") }).to_string();
    let retry_after = reply
        .retry_after_s
        .map(|seconds| format!("retry-after: {seconds}\r\n"))
        .unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 {} Scripted\r\ncontent-type: application/json\r\n{retry_after}content-length: {}\r\n\r\n{body}",
        reply.status,
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn post(url: &str, body: &str) -> Result<(u16, String), reqwest::Error> {
        let client = reqwest::Client::new();
        let answer = client
            .post(url)
            .header("X-Idempotency-Key", "k-1")
            .body(body.to_owned())
            .send()
            .await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    #[tokio::test]
    async fn it_keeps_what_it_was_sent_and_answers_as_told() {
        let provider = Provider::scripted(|request| match request.text("content") {
            "slow" => Reply::status(503)
                .retry_after_s(7)
                .after(Duration::from_millis(50)),
            "gone" => Reply::reset(),
            _ => Reply::ok(),
        })
        .await;
        let (status, text) = post(provider.url(), r#"{"id":"a","content":"hi"}"#)
            .await
            .unwrap();
        assert_eq!(
            (status, text.as_str()),
            (200, r#"{"messageId":"message-1"}"#)
        );

        let before = Instant::now();
        let (status, _) = post(provider.url(), r#"{"id":"b","content":"slow"}"#)
            .await
            .unwrap();
        assert_eq!(status, 503);
        assert!(before.elapsed() >= Duration::from_millis(50));

        assert!(
            post(provider.url(), r#"{"id":"b","content":"gone"}"#)
                .await
                .is_err()
        );

        let requests = provider.expect(3, SOON).await;
        assert_eq!(requests[0].headers["x-idempotency-key"], "k-1");
        assert_eq!(requests[0].text("content"), "hi");
        let by_id = provider.expect_notifications(2, SOON).await;
        assert_eq!(
            by_id,
            BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)])
        );
    }

    #[tokio::test]
    #[should_panic(expected = "0 of 1 requests")]
    async fn what_does_not_come_is_said() {
        Provider::start()
            .await
            .expect(1, Duration::from_millis(50))
            .await;
    }

    use crate::SOON;
}

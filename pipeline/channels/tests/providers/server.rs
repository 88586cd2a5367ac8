//! An HTTP server that keeps what it is sent and answers as a test says.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A request as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Such as `POST /x HTTP/1.1`.
    pub(crate) line: String,
    headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What the server does with a request.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: String,
    pub(crate) body: Vec<u8>,
    delay: Duration,
    /// Instead of its end, the body goes on, a byte at a time.
    trickles: bool,
}

impl Answer {
    pub(crate) fn new(status: u16, body: &str) -> Self {
        Self {
            status,
            headers: String::new(),
            body: body.as_bytes().to_vec(),
            delay: Duration::ZERO,
            trickles: false,
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers = format!("{}{name}: {value}\r\n", self.headers);
        self
    }

    pub(crate) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    pub(crate) fn trickling(self) -> Self {
        Self {
            trickles: true,
            ..self
        }
    }
}

type Script = Box<dyn FnMut(&Request) -> Answer + Send>;

struct State {
    requests: Mutex<Vec<Request>>,
    script: Mutex<Script>,
}

/// A server. Dropped, it is gone.
pub(crate) struct Server {
    url: String,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Server {
    /// Gives every request the same answer.
    pub(crate) async fn answering(answer: Answer) -> Self {
        Self::scripted(move |_| answer.clone()).await
    }

    pub(crate) async fn scripted(script: impl FnMut(&Request) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            requests: Mutex::default(),
            script: Mutex::new(Box::new(script)),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { url, state, task }
    }

    /// Gives this answer from now on.
    pub(crate) fn answers(&self, answer: Answer) {
        *self.state.script.lock().unwrap() = Box::new(move |_| answer.clone());
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }

    /// The only request that came.
    pub(crate) fn request(&self) -> Request {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:#?}");
        requests.remove(0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        // An end of the connection is an end of this task, whatever the reason.
        tokio::spawn(async move { serve(stream, &state).await });
    }
}

async fn serve(stream: TcpStream, state: &State) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream).await? {
        let answer = (state.script.lock().unwrap())(&request);
        state.requests.lock().unwrap().push(request);
        tokio::time::sleep(answer.delay).await;
        write(&mut stream, &answer).await?;
    }
    Ok(())
}

/// The next request of a connection; none at its end.
async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let first = line.trim_end().to_owned();
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
        .map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(Request {
        line: first,
        headers,
        body,
    }))
}

async fn write(stream: &mut BufReader<TcpStream>, answer: &Answer) -> io::Result<()> {
    let length = match answer.trickles {
        true => usize::MAX >> 1,
        false => answer.body.len(),
    };
    let head = format!(
        "HTTP/1.1 {} Scripted\r\n{}content-length: {length}\r\n\r\n",
        answer.status, answer.headers
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&answer.body).await?;
    stream.flush().await?;
    if answer.trickles {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.write_all(b"x").await?;
            stream.flush().await?;
        }
    }
    Ok(())
}

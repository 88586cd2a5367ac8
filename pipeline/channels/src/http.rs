//! What every provider that is called over HTTP shares: a client with its deadlines, a bounded
//! read of the answer, and what a status code means.

use std::time::Duration;

use herald_schemas::records::Failure;
use reqwest::{RequestBuilder, Response, StatusCode, header::RETRY_AFTER};

pub use reqwest::{Client, Url};

/// How much of an answer is read.
const READ_LIMIT_BYTES: usize = 16 * 1_024;
/// How much of an answer is kept.
const KEEP_LIMIT_BYTES: usize = 2 * 1_024;
/// The longest a provider may ask us to wait.
const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(24 * 3_600);

/// The deadlines of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// To be connected.
    pub connect: Duration,
    /// In all, the answer's body included.
    pub total: Duration,
}

/// A client that follows no redirects, so that an answer cannot send a message elsewhere.
pub fn client(deadlines: Deadlines) -> Result<Client, reqwest::Error> {
    Client::builder()
        .connect_timeout(deadlines.connect)
        .timeout(deadlines.total)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(256)
        .tcp_nodelay(true)
        .user_agent(concat!("herald/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// An answer, read as far as it is kept.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// What it asked us to wait.
    pub retry_after: Option<Duration>,
    /// The beginning of its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The beginning of the body as text, for the log of calls.
    pub fn text(&self) -> Option<String> {
        let kept = &self.body[..self.body.len().min(KEEP_LIMIT_BYTES)];
        (!kept.is_empty()).then(|| String::from_utf8_lossy(kept).into_owned())
    }
}

/// Makes a call and reads the beginning of the answer.
pub async fn ask(request: RequestBuilder) -> Result<Answer, Failure> {
    let response = request
        .send()
        .await
        .map_err(|error| connection_failure(&error))?;
    let status = response.status();
    let retry_after = retry_after(&response);
    let body = read_beginning(response).await;
    Ok(Answer {
        status,
        retry_after,
        body,
    })
}

/// The status has said already whether the provider has the message: where the body breaks off,
/// what came of it is enough.
async fn read_beginning(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = READ_LIMIT_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == READ_LIMIT_BYTES {
            break;
        }
    }
    body
}

/// `Retry-After` in seconds. Its other form, a date, is not used by the providers we know.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response
        .headers()
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_LIMIT))
}

/// What a status other than 2xx means: 408, 425, 429 and 5xx may pass, all else will not.
pub fn status_failure(status: StatusCode) -> Failure {
    let passing = matches!(status.as_u16(), 408 | 425 | 429 | 500..=599);
    Failure {
        kind: if passing { "transient" } else { "permanent" }.to_owned(),
        code: format!("http_{}", status.as_u16()),
        message: format!("the provider answered {status}"),
    }
}

fn connection_failure(error: &reqwest::Error) -> Failure {
    // The URL may carry a token, and the operator knows it from the configuration.
    let what = if error.is_timeout() {
        "the provider did not answer in time"
    } else {
        "no connection to the provider"
    };
    let mut message = what.to_owned();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    Failure {
        kind: "transient".to_owned(),
        code: "connection_error".to_owned(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_transient_where_it_may_pass() {
        for (status, kind) in [
            (301, "permanent"),
            (400, "permanent"),
            (404, "permanent"),
            (408, "transient"),
            (425, "transient"),
            (429, "transient"),
            (500, "transient"),
            (503, "transient"),
        ] {
            let failure = status_failure(StatusCode::from_u16(status).unwrap());
            assert_eq!(
                (failure.kind.as_str(), failure.code),
                (kind, format!("http_{status}"))
            );
        }
    }
}

//! What every provider that is called over HTTP shares: a client with its deadlines, what a request
//! says of its notification, a bounded read of the answer, and what a status code means.

use std::time::{Duration, SystemTime};

use herald_schemas::records::Failure;
use reqwest::{
    ClientBuilder, RequestBuilder, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Call,
    guard::{self, Blocked},
    permanent, transient,
};

pub use reqwest::{Client, Url};

/// Carries the idempotency key to those who have no name of their own for it.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

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
    builder(deadlines).build()
}

pub(crate) fn builder(deadlines: Deadlines) -> ClientBuilder {
    Client::builder()
        .connect_timeout(deadlines.connect)
        .timeout(deadlines.total)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(256)
        .tcp_nodelay(true)
        .user_agent(concat!("herald/", env!("CARGO_PKG_VERSION")))
}

/// An answer, read as far as it is kept.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// What it asked us to wait.
    pub retry_after: Option<Duration>,
    pub(crate) headers: HeaderMap,
    /// The beginning of its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The beginning of the body as text, for the log of calls.
    pub fn text(&self) -> Option<String> {
        kept(&self.body)
    }

    /// A header, where it is text.
    pub(crate) fn header(&self, name: &HeaderName) -> Option<&str> {
        text_of(&self.headers, name)
    }

    /// What the body says, where it is JSON of this form.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// The beginning of an answer as text, for the log of calls.
pub(crate) fn kept(answer: &[u8]) -> Option<String> {
    let kept = &answer[..answer.len().min(KEEP_LIMIT_BYTES)];
    let mut text = String::from_utf8_lossy(kept).into_owned();
    // What stands for bytes that are no text is longer than they are.
    text.truncate(text.floor_char_boundary(KEEP_LIMIT_BYTES));
    (!text.is_empty()).then_some(text)
}

/// Says, in headers, what every call says of its notification: by what key a repetition is known,
/// and whom it belongs to in other people's logs.
pub(crate) fn with_context(
    mut request: RequestBuilder,
    call: &Call,
    idempotency_header: &HeaderName,
) -> RequestBuilder {
    let identity = &call.delivery.identity;
    let key = call.idempotency_key();
    for (name, value) in [
        (idempotency_header, Some(key.as_str())),
        (&CORRELATION_ID, identity.correlation_id.as_deref()),
        (&TRACEPARENT, identity.traceparent.as_deref()),
    ] {
        // One that no header can carry (with a line break, say) is left out: it is for people.
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            request = request.header(name, value);
        }
    }
    request
}

/// What lies below a base URL, whether that ends in a slash or not.
pub(crate) fn below(base: &Url, path: &[&str]) -> Url {
    let mut url = base.clone();
    // Every http URL has segments.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    url
}

/// Makes a call whose body is JSON.
pub(crate) async fn ask_json(
    request: RequestBuilder,
    body: &impl Serialize,
) -> Result<Answer, Failure> {
    let json =
        serde_json::to_vec(body).map_err(|error| permanent("unencodable", error.to_string()))?;
    let json_type = HeaderValue::from_static("application/json");
    ask(request.header(CONTENT_TYPE, json_type).body(json)).await
}

/// Makes a call whose body is a form.
pub(crate) async fn ask_form(
    request: RequestBuilder,
    fields: &[(&str, &str)],
) -> Result<Answer, Failure> {
    let form = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish();
    let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
    ask(request.header(CONTENT_TYPE, form_type).body(form)).await
}

/// Makes a call and reads the beginning of the answer.
pub async fn ask(request: RequestBuilder) -> Result<Answer, Failure> {
    let response = request
        .send()
        .await
        .map_err(|error| connection_failure(&error))?;
    let status = response.status();
    let retry_after = retry_after(response.headers(), SystemTime::now());
    let headers = response.headers().clone();
    let body = read_beginning(response).await;
    Ok(Answer {
        status,
        retry_after,
        headers,
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

/// `Retry-After` in either of its forms (RFC 9110): a number of seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = text_of(headers, &RETRY_AFTER)?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            date.duration_since(now).unwrap_or_default()
        }
    };
    Some(wait.min(RETRY_AFTER_LIMIT))
}

fn text_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// What a status other than 2xx means: 408, 425, 429 and 5xx may pass, all else will not.
pub fn status_failure(status: StatusCode) -> Failure {
    failure_of(
        may_pass(status),
        format!("http_{}", status.as_u16()),
        format!("the provider answered {status}"),
    )
}

/// Whether what has such a status may be taken later.
pub(crate) fn may_pass(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500..=599)
}

/// A failure that may pass, or not.
pub(crate) fn failure_of(may_pass: bool, code: String, message: String) -> Failure {
    match may_pass {
        true => transient(code, message),
        false => permanent(code, message),
    }
}

fn connection_failure(error: &reqwest::Error) -> Failure {
    // Its causes only: its own text has the URL, which may carry a token.
    let what = if error.is_timeout() {
        "the provider did not answer in time"
    } else {
        "no connection to the provider"
    };
    let mut message = what.to_owned();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.is::<Blocked>() {
            return guard::blocked();
        }
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    transient("connection_error", message)
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

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let wait = |text: &'static str| {
            let value = HeaderValue::from_static(text);
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value)]), now)
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (text, expected) in [
            ("120", seconds(120)),
            (" 7 ", seconds(7)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", seconds(60)),
            ("Sunday, 06-Nov-94 08:49:38 GMT", seconds(1)),
            ("Sun Nov  6 08:49:47 1994", seconds(10)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", seconds(0)),
            ("Fri, 31 Dec 2100 23:59:59 GMT", seconds(24 * 3_600)),
            ("99999999", seconds(24 * 3_600)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(wait(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_path_lies_below_its_base_with_a_slash_or_without() {
        for base in ["https://a/b", "https://a/b/"] {
            let url = below(&base.parse().unwrap(), &["c", "d e"]);
            assert_eq!(url.as_str(), "https://a/b/c/d%20e");
        }
    }

    #[test]
    fn what_is_kept_of_an_answer_is_no_more_than_two_kilobytes_of_text() {
        for (byte, kept) in [(b'x', 2_048), (0xff, 2_046)] {
            let answer = Answer {
                status: StatusCode::OK,
                retry_after: None,
                headers: HeaderMap::new(),
                body: vec![byte; 16_384],
            };
            assert_eq!(answer.text().map(|text| text.len()), Some(kept));
        }
    }
}

//! A REST client of the kind that users write: paths and JSON, nothing of Herald's own types.

use reqwest::{
    Method,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Value, json};

use crate::{SOON, eventually};

/// What the API answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; null where it is no JSON.
    pub body: Value,
}

impl Answer {
    /// The body of an answer that has this status.
    ///
    /// # Panics
    ///
    /// When it has another one.
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{:#}", self.body);
        self.body
    }
}

/// A client of one API.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    key: String,
    headers: HeaderMap,
}

impl Client {
    /// A client of the API at `address`.
    pub fn new(address: &str, key: &str) -> Self {
        let http = reqwest::Client::builder()
            .timeout(SOON)
            .no_proxy()
            .build()
            .expect("a client");
        Self {
            http,
            base: format!("http://{address}"),
            key: key.to_owned(),
            headers: HeaderMap::new(),
        }
    }

    /// The same API, asked with another key; empty: with none.
    pub fn with_key(&self, key: &str) -> Self {
        Self {
            key: key.to_owned(),
            ..self.clone()
        }
    }

    /// The same API, told one header more with each request.
    ///
    /// # Panics
    ///
    /// When it is no header.
    pub fn with_header(&self, name: &'static str, value: &str) -> Self {
        let mut client = self.clone();
        let value = HeaderValue::from_str(value).expect("a header");
        let name = HeaderName::from_static(name);
        client.headers.insert(name, value);
        client
    }

    /// A request with any bytes as its body.
    ///
    /// # Panics
    ///
    /// When no answer comes.
    pub async fn send(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        let answer = self.try_send(method, path, body).await;
        answer.unwrap_or_else(|error| panic!("{}{path}: {error:?}", self.base))
    }

    /// A request to an API that may be gone before it has answered.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> Result<Answer, reqwest::Error> {
        let url = format!("{}{path}", self.base);
        let mut request = self.http.request(method, &url).body(body);
        request = request.headers(self.headers.clone());
        request = request.header("content-type", "application/json");
        if !self.key.is_empty() {
            request = request.header("x-api-key", &self.key);
        }
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let headers = answer.headers().clone();
        let body = serde_json::from_slice(&answer.bytes().await?).unwrap_or_default();
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    /// GET of what is no JSON, and is there.
    ///
    /// # Panics
    ///
    /// When no answer comes, or one that is no success.
    pub async fn text(&self, path: &str) -> String {
        let url = format!("{}{path}", self.base);
        let answer = self.http.get(&url).send().await.expect(&url);
        let answer = answer.error_for_status().expect("a success");
        answer.text().await.expect("a text")
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "").await
    }

    /// POST of JSON; null: of nothing.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        let text = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        self.send(Method::POST, path, text).await
    }

    /// PATCH of JSON.
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, body.to_string()).await
    }

    /// Makes an event source.
    pub async fn source(&self, name: &str) {
        self.post("/api/v1/event-sources", &json!({ "name": name }))
            .await
            .expect(201);
    }

    /// Makes a template and answers its id.
    pub async fn template(&self, template: &Value) -> String {
        id_of(&self.post("/api/v1/templates", template).await.expect(201))
    }

    /// Makes a rule and answers its id.
    pub async fn rule(&self, rule: &Value) -> String {
        id_of(&self.post("/api/v1/rules", rule).await.expect(201))
    }

    /// Sends an event and answers its id.
    pub async fn event(&self, event: &str, payload: &Value) -> String {
        let body = json!({ "event": event, "payload": payload });
        id_of(&self.post("/api/events", &body).await.expect(202))
    }

    /// The event, once the rules were asked.
    pub async fn matched_event(&self, id: &str) -> Value {
        eventually(SOON, async || {
            let event = self.get(&format!("/api/v1/events/{id}")).await.expect(200);
            if event["rules"].is_array() {
                Ok(event)
            } else {
                Err(format!("{event:#}"))
            }
        })
        .await
    }

    /// Sends notifications and answers their ids.
    pub async fn notify(&self, notifications: Value) -> Vec<String> {
        let body = json!({ "notifications": notifications });
        let answer = self.post("/api/v1/notifications", &body).await.expect(201);
        let made = answer["notifications"].as_array().expect("notifications");
        made.iter().map(id_of).collect()
    }

    /// The notification as it is now.
    pub async fn notification(&self, id: &str) -> Value {
        self.get(&format!("/api/v1/notifications/{id}"))
            .await
            .expect(200)
    }

    /// The notification, once it has this status.
    pub async fn with_status(&self, id: &str, status: &str) -> Value {
        eventually(SOON, async || {
            let shown = self.notification(id).await;
            if shown["status"] == status {
                Ok(shown)
            } else {
                Err(format!("not {status}: {shown:#}"))
            }
        })
        .await
    }

    /// How many notifications there are, of a status or, without one, in all.
    pub async fn count(&self, status: Option<&str>) -> u64 {
        let filter = status
            .map(|status| format!("?status={status}"))
            .unwrap_or_default();
        let list = self
            .get(&format!("/api/v1/notifications{filter}"))
            .await
            .expect(200);
        list["meta"]["total"].as_u64().expect("a total")
    }

    /// Waits until there are this many notifications of a status.
    pub async fn until_count(&self, status: &str, count: u64) {
        eventually(SOON, async || match self.count(Some(status)).await {
            have if have == count => Ok(()),
            have => Err(format!("{have} of {count} notifications are {status}")),
        })
        .await;
    }

    /// The dead letters, once there are this many.
    pub async fn dead_letters(&self, count: usize) -> Vec<Value> {
        eventually(SOON, async || {
            let list = self
                .get("/api/v1/dead-letter?per_page=100")
                .await
                .expect(200);
            // One by one: a list leaves out the bytes.
            let mut letters = Vec::new();
            for letter in list["data"].as_array().expect("data") {
                let path = format!(
                    "/api/v1/dead-letter/{}",
                    letter["id"].as_str().expect("an id")
                );
                letters.push(self.get(&path).await.expect(200));
            }
            if letters.len() >= count {
                Ok(letters)
            } else {
                Err(format!("{letters:#?}"))
            }
        })
        .await
    }
}

/// The id of what an answer shows.
fn id_of(shown: &Value) -> String {
    shown["id"]
        .as_str()
        .unwrap_or_else(|| panic!("no id in {shown:#}"))
        .to_owned()
}

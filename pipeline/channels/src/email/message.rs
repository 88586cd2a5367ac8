//! The message that every provider of e-mail is handed: built once, here, so that it is the same
//! whoever carries it.
//!
//! A notification may name, in its metadata, an `unsubscribe_url` that is https: mail programs then
//! show a button, and the receiver's server posts there (RFC 8058).

use herald_schemas::records::Failure;
use lettre::{
    Address, Message,
    address::Envelope,
    message::{
        Mailbox, MultiPart, SinglePart,
        header::{HeaderName, HeaderValue},
    },
};
use reqwest::Url;
use serde::Deserialize;

use crate::{Call, permanent};

/// The longest value of a header that is not ours to write.
const VALUE_LIMIT: usize = 900;

/// Whom messages come from.
#[derive(Debug, Clone)]
pub struct Sender {
    from: Mailbox,
    reply_to: Option<Mailbox>,
}

impl Sender {
    /// From, and where answers go if that is elsewhere: `ada@example.com`, or
    /// `Ada <ada@example.com>`. An error says which of them is none.
    pub fn new(from: &str, reply_to: &str) -> Result<Self, String> {
        let reply_to = match reply_to {
            "" => None,
            text => Some(mailbox("reply_to", text)?),
        };
        let from = mailbox("from", from)?;
        Ok(Self { from, reply_to })
    }

    /// The domain that messages come from, as it is written in protocols.
    pub(super) fn domain(&self) -> &str {
        self.from.email.domain()
    }
}

fn mailbox(what: &str, text: &str) -> Result<Mailbox, String> {
    let wrong = || format!("{what} is {text:?}, expected ada@example.com or Ada <ada@example.com>");
    if has_control(text) {
        return Err(wrong());
    }
    let mailbox: Mailbox = text.parse().map_err(|_| wrong())?;
    let email = address(mailbox.email.as_ref()).ok_or_else(wrong)?;
    Ok(Mailbox::new(mailbox.name, email))
}

/// A message, ready to be handed over.
#[derive(Debug)]
pub(super) struct Mail {
    /// Whom it is from and for.
    pub(super) envelope: Envelope,
    /// Its id, without angle brackets: what bounces name it by.
    pub(super) id: String,
    /// All of it: in ASCII, but for an address that is not.
    pub(super) bytes: Vec<u8>,
}

impl Mail {
    /// The message of a call; the same call again has the same id.
    pub(super) fn new(sender: &Sender, call: &Call) -> Result<Self, Failure> {
        let identity = &call.delivery.identity;
        let message = &call.delivery.message;
        let to = address(&identity.recipient)
            .ok_or_else(|| permanent("invalid_recipient", "the recipient is no e-mail address"))?;
        let id = format!("{}@{}", identity.id, sender.domain());
        let mut builder = Message::builder()
            .from(sender.from.clone())
            .to(Mailbox::new(None, to))
            .message_id(Some(format!("<{id}>")));
        if let Some(reply_to) = &sender.reply_to {
            builder = builder.reply_to(reply_to.clone());
        }
        if let Some(subject) = &message.subject {
            builder = builder.subject(one_line(subject)?);
        }
        for header in context(call).into_iter().chain(unsubscribe(call)?) {
            builder = builder.raw_header(header);
        }
        let text = SinglePart::plain(lines(&message.content));
        let built = match &message.html {
            None => builder.singlepart(text),
            Some(html) => {
                let html = SinglePart::html(lines(html));
                let parts = MultiPart::alternative().singlepart(text).singlepart(html);
                builder.multipart(parts)
            }
        };
        let built = built.map_err(|error| permanent("unencodable", error.to_string()))?;
        Ok(Self {
            envelope: built.envelope().clone(),
            bytes: built.formatted(),
            id,
        })
    }
}

/// An address as it is written in protocols: with its domain in ASCII. None where it is no address,
/// or holds what would end a line or a command.
fn address(text: &str) -> Option<Address> {
    let (local, domain) = text.rsplit_once('@')?;
    if has_control(text) || text.contains(char::is_whitespace) {
        return None;
    }
    if domain.is_ascii() {
        return Address::new(local, domain).ok();
    }
    // What ends a host in a URL would be lost below.
    let is_of_name = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.');
    let name = Some(domain).filter(|domain| domain.chars().all(is_of_name))?;
    let url: Url = format!("http://{name}/").parse().ok()?;
    Address::new(local, url.host_str()?).ok()
}

/// A subject that templates left a line's end at is still a subject; one with a line's end inside is
/// an attempt at another header, or an accident.
fn one_line(subject: &str) -> Result<String, Failure> {
    let subject = subject.trim();
    if has_control(subject) {
        let message = "the subject holds a line break or another control character";
        return Err(permanent("invalid_subject", message));
    }
    Ok(subject.to_owned())
}

/// Whom the message belongs to in other people's logs. What no header can carry is left out: it is
/// for people.
fn context(call: &Call) -> Vec<HeaderValue> {
    let identity = &call.delivery.identity;
    let values = [
        ("X-Correlation-Id", identity.correlation_id.as_deref()),
        ("traceparent", identity.traceparent.as_deref()),
    ];
    values
        .into_iter()
        .filter_map(|(name, value)| {
            let value = value.filter(|value| value.len() <= VALUE_LIMIT && !has_control(value))?;
            Some(header(name, value))
        })
        .collect()
}

/// RFC 8058's two headers, where the notification says where they lead.
fn unsubscribe(call: &Call) -> Result<Vec<HeaderValue>, Failure> {
    #[derive(Deserialize)]
    struct Metadata {
        unsubscribe_url: Option<serde_json::Value>,
    }
    let metadata = call.delivery.message.metadata.as_deref();
    let metadata = metadata.and_then(|json| serde_json::from_str::<Metadata>(json).ok());
    let Some(url) = metadata.and_then(|metadata| metadata.unsubscribe_url) else {
        return Ok(Vec::new());
    };
    // Parsed, it has nothing left that a header could stumble over: all such is percent-encoded.
    let url = url.as_str().and_then(|text| text.parse::<Url>().ok());
    let url = url.filter(|url| url.scheme() == "https" && url.as_str().len() <= VALUE_LIMIT);
    let url = url.ok_or_else(|| {
        let message = "unsubscribe_url of the metadata is no https URL, or too long";
        permanent("invalid_unsubscribe_url", message)
    })?;
    Ok(vec![
        header("List-Unsubscribe", &format!("<{url}>")),
        header("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
    ])
}

fn header(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

fn has_control(text: &str) -> bool {
    text.contains(char::is_control)
}

/// With line feeds alone, which are then all written as a line's end: a carriage return by itself
/// means something else to every server.
fn lines(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

#[cfg(test)]
mod tests;

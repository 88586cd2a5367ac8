//! A mail server, by SMTP.
//!
//! The connections are lettre's, their pool is not: that one takes back a connection whose call was
//! given up halfway, and the next message would read the answers to the last. Here a connection is
//! kept only when all its answers were read.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use herald_schemas::records::Failure;
use lettre::transport::smtp::{
    Error,
    authentication::{Credentials, DEFAULT_MECHANISMS},
    client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters},
    commands::{Data, Mail as MailFrom, Rcpt, Rset},
    extension::{ClientId, Extension, MailBodyParameter, MailParameter},
    response::{Code, Response},
};
use openssl::x509::X509;
use tokio::{
    sync::Semaphore,
    time::{error::Elapsed, timeout},
};

use crate::{
    Call, CallOutcome, Provider, Reply, Secret,
    email::message::{Mail, Sender},
    http::{self, Deadlines},
    permanent, transient,
};

/// How long an unused connection is kept; servers close theirs after a minute and more.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// How many messages a connection carries: servers set a limit, and a new one may find another
/// server behind the same name.
const CARRIES: u32 = 100;
/// A server that closes the connection with its answer.
const CLOSING: u16 = 421;

/// How to reach a mail server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How it is encrypted.
    pub encryption: Encryption,
    /// User and password, where it asks for them.
    pub login: Option<(String, Secret)>,
    /// How many connections it is given at once.
    pub connections: usize,
    /// Whom messages come from.
    pub sender: Sender,
    /// The deadlines of a call.
    pub deadlines: Deadlines,
}

/// How a connection is encrypted. The certificates to trust are PEM; none: the system's.
#[derive(Debug, Clone)]
pub enum Encryption {
    /// Not at all.
    None,
    /// From the second command on, or not used.
    StartTls(Option<Vec<u8>>),
    /// From the first byte.
    Tls(Option<Vec<u8>>),
}

/// A mail server.
pub struct Smtp {
    settings: Settings,
    tls: Option<TlsParameters>,
    hello: ClientId,
    /// One for each connection that may still be made.
    permits: Semaphore,
    kept: Mutex<Vec<Kept>>,
}

/// A connection on which all answers were read.
struct Kept {
    connection: AsyncSmtpConnection,
    carried: u32,
    since: Instant,
}

/// Why a message was not taken.
enum Wrong {
    /// By a failure of our own making.
    Ours(Failure),
    /// By what lettre says of the server or the way to it.
    Theirs(Error),
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        Self::Theirs(error)
    }
}

impl Smtp {
    /// A mail server that the operator set. An error says what is wrong with the certificates.
    pub fn new(settings: Settings) -> Result<Self, String> {
        let tls = match &settings.encryption {
            Encryption::None => None,
            Encryption::StartTls(trusted) | Encryption::Tls(trusted) => {
                Some(parameters(&settings.host, trusted.as_deref())?)
            }
        };
        Ok(Self {
            tls,
            hello: ClientId::Domain(settings.sender.domain().to_owned()),
            permits: Semaphore::new(settings.connections.max(1)),
            kept: Mutex::default(),
            settings,
        })
    }

    async fn deliver(&self, mail: &Mail) -> Result<Response, Wrong> {
        // It is never closed.
        let _permit = self.permits.acquire().await.ok();
        let (mut connection, carried) = match self.reused().await {
            Some(reused) => reused,
            None => (self.connect().await?, 0),
        };
        let ended = hand_over(&mut connection, mail).await;
        let is_open = match &ended {
            Ok(_) => true,
            Err(Wrong::Ours(_)) => true,
            Err(Wrong::Theirs(error)) => error.status().is_some_and(|code| number(code) != CLOSING),
        };
        if is_open && carried + 1 < CARRIES {
            let kept = Kept {
                connection,
                carried: carried + 1,
                since: Instant::now(),
            };
            self.kept().push(kept);
        }
        ended
    }

    /// A connection that is still one, after whatever became of its last message.
    async fn reused(&self) -> Option<(AsyncSmtpConnection, u32)> {
        loop {
            let mut kept = {
                let mut all = self.kept();
                all.retain(|kept| kept.since.elapsed() < KEPT_FOR);
                all.pop()?
            };
            let reset = timeout(
                self.settings.deadlines.connect,
                kept.connection.command(Rset),
            );
            match reset.await {
                Ok(Ok(_)) => return Some((kept.connection, kept.carried)),
                Ok(Err(_)) => {}
                // The others lead to the same silence, and each would be waited for.
                Err(Elapsed { .. }) => self.kept().clear(),
            }
        }
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Wrong> {
        let settings = &self.settings;
        let from_the_first = match settings.encryption {
            Encryption::Tls(_) => self.tls.clone(),
            Encryption::None | Encryption::StartTls(_) => None,
        };
        let mut connection = AsyncSmtpConnection::connect_tokio1(
            (settings.host.as_str(), settings.port),
            Some(settings.deadlines.connect),
            &self.hello,
            from_the_first,
            None,
        )
        .await?;
        if let (Encryption::StartTls(_), Some(tls)) = (&settings.encryption, &self.tls) {
            if !connection.can_starttls() {
                // Somebody on the way may have taken the offer out: nothing is said in the clear.
                let message = "the mail server offers no STARTTLS";
                return Err(Wrong::Ours(transient("smtp_no_starttls", message)));
            }
            connection.starttls(tls.clone(), &self.hello).await?;
        }
        if let Some((user, password)) = &settings.login {
            let offered = connection.server_info();
            if offered.get_auth_mechanism(DEFAULT_MECHANISMS).is_none() {
                let message = "the mail server offers no login by PLAIN or LOGIN";
                return Err(Wrong::Ours(permanent("smtp_no_login", message)));
            }
            let credentials = Credentials::new(user.clone(), password.reveal().to_owned());
            connection.auth(DEFAULT_MECHANISMS, &credentials).await?;
        }
        Ok(connection)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Kept>> {
        // Whoever panicked left a list.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parameters(host: &str, trusted: Option<&[u8]>) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(host.to_owned());
    if let Some(pem) = trusted {
        let certificates = X509::stack_from_pem(pem).map_err(|error| error.to_string())?;
        if certificates.is_empty() {
            return Err("no certificate in PEM".to_owned());
        }
        builder = builder.certificate_store(CertificateStore::None);
        for certificate in certificates {
            let der = certificate.to_der().map_err(|error| error.to_string())?;
            let root = Certificate::from_der(der).map_err(|error| error.to_string())?;
            builder = builder.add_root_certificate(root);
        }
    }
    builder.build_native().map_err(|error| error.to_string())
}

/// Says whom the message is from and for, and hands it over; the answer is the last one.
async fn hand_over(connection: &mut AsyncSmtpConnection, mail: &Mail) -> Result<Response, Wrong> {
    let mut parameters = Vec::new();
    // What is not is an address, which then stands in the message as it is.
    if !mail.bytes.is_ascii() {
        let offered = connection.server_info();
        if !offered.supports_feature(Extension::SmtpUtfEight) {
            let message = "the mail server takes no address beyond ASCII";
            return Err(Wrong::Ours(permanent("smtp_no_smtputf8", message)));
        }
        parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        parameters.push(MailParameter::SmtpUtfEight);
    }
    let from = MailFrom::new(mail.envelope.from().cloned(), parameters);
    connection.command(from).await?;
    for to in mail.envelope.to() {
        connection
            .command(Rcpt::new(to.clone(), Vec::new()))
            .await?;
    }
    connection.command(Data).await?;
    Ok(connection.message(&mail.bytes).await?)
}

#[async_trait]
impl Provider for Smtp {
    fn name(&self) -> &str {
        "smtp"
    }

    async fn send(&self, call: &Call) -> Reply {
        let mail = match Mail::new(&self.settings.sender, call) {
            Ok(mail) => mail,
            Err(failure) => return Reply::unanswered(failure),
        };
        let (failure, response) =
            match timeout(self.settings.deadlines.total, self.deliver(&mail)).await {
                Ok(Ok(response)) => {
                    let outcome = CallOutcome::Accepted {
                        provider_message_id: Some(mail.id),
                    };
                    let text: Vec<_> = response.message().collect();
                    let text = format!("{} {}", response.code(), text.join("\n"));
                    return Reply {
                        outcome,
                        response: http::kept(text.as_bytes()),
                    };
                }
                Ok(Err(Wrong::Ours(failure))) => (failure, None),
                Ok(Err(Wrong::Theirs(error))) => failure(&error),
                Err(Elapsed { .. }) => {
                    let message = "the mail server did not answer in time";
                    (transient("connection_error", message), None)
                }
            };
        Reply {
            outcome: CallOutcome::Refused {
                failure,
                retry_after: None,
            },
            response,
        }
    }
}

/// What an error means, and what the server said.
fn failure(error: &Error) -> (Failure, Option<String>) {
    let Some(code) = error.status() else {
        let message = format!("no connection to the mail server: {error}");
        return (transient("connection_error", message), None);
    };
    let text = std::error::Error::source(error).map(ToString::to_string);
    let answer = format!("{code} {}", text.unwrap_or_default());
    let message = format!("the mail server answered {answer}");
    let failure = http::failure_of(error.is_transient(), format!("smtp_{code}"), message);
    (failure, http::kept(answer.as_bytes()))
}

fn number(code: Code) -> u16 {
    code.into()
}

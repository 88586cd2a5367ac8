//! Access tokens: kept as long as they are good, and renewed before they are not.
//!
//! At most one request for a token is under way; it is a task of its own, so that it goes on when
//! whoever started it gives up. The lock is held only to look and to put.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use herald_schemas::records::Failure;
use reqwest::Client;
use serde::Deserialize;
use tokio::sync::watch;

use super::service_account::ServiceAccount;
use crate::{
    Reply, Secret, code,
    http::{self, Answer},
    permanent, transient,
};

/// How long before its end a token is renewed; half of its life, if that is shorter.
const MARGIN: Duration = Duration::from_secs(300);
/// How long after a renewal that failed, or that a refused token asked for, the next one waits.
const PAUSE: Duration = Duration::from_secs(10);

/// The tokens of an account.
pub(super) struct Tokens(Arc<Inner>);

struct Inner {
    account: ServiceAccount,
    client: Client,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// Hears of the end of the request that is under way.
    request: Option<watch::Receiver<Option<Fetched>>>,
    /// No renewal ahead of time before.
    paused_until: Option<Instant>,
    /// When a token was last given up because it was refused.
    given_up_at: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq)]
struct Token {
    text: Secret,
    renew_at: Instant,
    expires_at: Instant,
}

/// A token, or what to answer whoever needed it.
type Fetched = Result<Secret, Reply>;

#[derive(Debug, PartialEq)]
enum Choice {
    Use(Secret),
    UseAndRenew(Secret),
    Wait,
}

impl State {
    fn choose(&self, now: Instant) -> Choice {
        let Some(token) = self.token.as_ref().filter(|token| now < token.expires_at) else {
            return Choice::Wait;
        };
        let is_paused = self.paused_until.is_some_and(|until| now < until);
        match now < token.renew_at || is_paused {
            true => Choice::Use(token.text.clone()),
            false => Choice::UseAndRenew(token.text.clone()),
        }
    }

    /// Whether a new token may be had for `refused`: there is one already, or it is given up. Where
    /// new ones are refused as well, asking for more of them would be all that is done.
    fn give_up(&mut self, refused: &Secret, now: Instant) -> bool {
        if self
            .token
            .as_ref()
            .is_none_or(|token| token.text != *refused)
        {
            return true;
        }
        if self.given_up_at.is_some_and(|at| now < at + PAUSE) {
            return false;
        }
        self.given_up_at = Some(now);
        self.token = None;
        true
    }
}

impl Tokens {
    pub(super) fn new(account: ServiceAccount, client: Client) -> Self {
        Self(Arc::new(Inner {
            account,
            client,
            state: Mutex::default(),
        }))
    }

    pub(super) fn project(&self) -> &str {
        &self.0.account.project
    }

    /// A token that is good.
    pub(super) async fn get(&self) -> Fetched {
        let mut request = {
            let mut state = self.0.state();
            match state.choose(Instant::now()) {
                Choice::Use(token) => return Ok(token),
                Choice::UseAndRenew(token) => {
                    self.0.request(&mut state);
                    return Ok(token);
                }
                Choice::Wait => self.0.request(&mut state),
            }
        };
        match request.wait_for(Option::is_some).await {
            Ok(fetched) => fetched.clone().unwrap_or_else(|| Err(unfetched())),
            Err(_) => Err(unfetched()),
        }
    }

    /// Another token than `refused`; none where asking for one is no use now.
    pub(super) async fn instead_of(&self, refused: &Secret) -> Option<Fetched> {
        let may_ask = self.0.state().give_up(refused, Instant::now());
        match may_ask {
            true => Some(self.get().await),
            false => None,
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request that is under way, or a new one.
    fn request(self: &Arc<Self>, state: &mut State) -> watch::Receiver<Option<Fetched>> {
        // One whose task is gone is none.
        let under_way = state.request.as_ref().filter(|it| it.has_changed().is_ok());
        if let Some(request) = under_way {
            return request.clone();
        }
        let (done, request) = watch::channel(None);
        state.request = Some(request.clone());
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            let fetched = inner.fetch().await;
            done.send_replace(Some(inner.keep(fetched)));
        });
        request
    }

    fn keep(&self, fetched: Result<Token, Reply>) -> Fetched {
        let mut state = self.state();
        state.request = None;
        match fetched {
            Ok(token) => {
                let text = token.text.clone();
                state.token = Some(token);
                Ok(text)
            }
            Err(reply) => {
                state.paused_until = Some(Instant::now() + PAUSE);
                Err(reply)
            }
        }
    }

    async fn fetch(&self) -> Result<Token, Reply> {
        let assertion = self.account.assertion(SystemTime::now()).map_err(|error| {
            Reply::unanswered(permanent("fcm_token_unsigned", error.to_string()))
        })?;
        let asked_at = Instant::now();
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", assertion.as_str()),
        ];
        let request = self.client.post(self.account.token_url.clone());
        let answer = http::ask_form(request, &form)
            .await
            .map_err(Reply::unanswered)?;
        token(&answer, asked_at)
    }
}

#[derive(Deserialize)]
struct Granted {
    access_token: Secret,
    /// In seconds.
    expires_in: u32,
}

#[derive(Deserialize)]
struct Denied {
    error: String,
    #[serde(default)]
    error_description: String,
}

fn token(answer: &Answer, asked_at: Instant) -> Result<Token, Reply> {
    if !answer.status.is_success() {
        return Err(Reply::refused(denial(answer), answer));
    }
    // What cannot be read may hold a token all the same: it is not shown.
    let granted: Granted = answer.json().ok_or_else(|| {
        let unreadable = "the answer holds no access token";
        Reply::unanswered(transient("fcm_token_unreadable", unreadable))
    })?;
    let life = Duration::from_secs(granted.expires_in.into());
    Ok(Token {
        text: granted.access_token,
        renew_at: asked_at + life - MARGIN.min(life / 2),
        expires_at: asked_at + life,
    })
}

fn denial(answer: &Answer) -> Failure {
    let denied = answer.json::<Denied>();
    let told = denied.and_then(|denied| Some((code("fcm_token", &denied.error)?, denied)));
    let Some((code, denied)) = told else {
        return http::status_failure(answer.status);
    };
    let message = format!("no access token: {}", denied.error_description);
    http::failure_of(http::may_pass(answer.status), code, message)
}

fn unfetched() -> Reply {
    let message = "the request for an access token came to no end";
    Reply::unanswered(transient("fcm_token_missing", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn state(asked_at: Instant) -> State {
        let body = br#"{"access_token":"t","expires_in":3600,"token_type":"Bearer"}"#;
        let answer = Answer {
            status: reqwest::StatusCode::OK,
            retry_after: None,
            headers: reqwest::header::HeaderMap::new(),
            body: body.to_vec(),
        };
        State {
            token: Some(token(&answer, asked_at).unwrap()),
            ..State::default()
        }
    }

    #[test]
    fn a_token_is_used_then_renewed_meanwhile_then_waited_for() {
        let start = Instant::now();
        let state = state(start);
        let token = || Secret::new("t");
        let second = Duration::from_secs(1);
        for (at, expected) in [
            (start, Choice::Use(token())),
            (start + HOUR - MARGIN - second, Choice::Use(token())),
            (start + HOUR - MARGIN, Choice::UseAndRenew(token())),
            (start + HOUR - second, Choice::UseAndRenew(token())),
            (start + HOUR, Choice::Wait),
        ] {
            assert_eq!(state.choose(at), expected);
        }
        assert_eq!(State::default().choose(start), Choice::Wait);
    }

    #[test]
    fn a_renewal_that_failed_is_not_asked_for_again_at_once() {
        let start = Instant::now();
        let mut state = state(start);
        let late = start + HOUR - MARGIN;
        state.paused_until = Some(late + PAUSE);
        assert_eq!(state.choose(late), Choice::Use(Secret::new("t")));
        let later = state.choose(late + PAUSE);
        assert_eq!(later, Choice::UseAndRenew(Secret::new("t")));
        assert_eq!(state.choose(start + HOUR), Choice::Wait);
    }

    #[test]
    fn a_refused_token_is_given_up_once_and_those_after_it_not_at_once() {
        let start = Instant::now();
        let mut state = state(start);
        let refused = Secret::new("t");
        assert!(state.give_up(&refused, start));
        assert_eq!(state.choose(start), Choice::Wait);
        // The others that it was refused for as well find it gone.
        assert!(state.give_up(&refused, start));
        let again = self::state(start);
        state.token = again.token;
        assert!(!state.give_up(&refused, start + PAUSE / 2));
        assert!(state.give_up(&refused, start + PAUSE));
    }
}

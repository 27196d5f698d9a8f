//! Exchanging what we hold for a token: client credentials (OAuth 2.0, RFC 6749, section
//! 4.4), a refresh token (section 6), or another token (RFC 8693).
//!
//! TLS is verified, no redirect followed, the answer bounded in size and time. Knows no cache:
//! see [`crate::token`]. How the issuer is reached, `door` knows; what it answers, `answer`
//! judges; which refresh token is the newest, `refresh` knows.

mod answer;
mod door;
mod refresh;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use forebay_seam::secret::{ExposeSecret, SecretString};
use forebay_seam::task::Spawner;
use forebay_seam::time;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::Full;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

pub(crate) use answer::{Granted, Refusal};
pub(crate) use door::Doors;
use door::{Door, Question, Said};
pub(crate) use refresh::RefreshToken;

use crate::credential::encode;
use crate::settings::ClientAuthentication;
use crate::target::Target;
use crate::upstream::OpenError;

/// How long an exchange may take in all, its turn included.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest time for which an issuer can send us away.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What is agreed with an issuer, whatever the secrets are.
pub(crate) struct Terms {
    pub(crate) target: Target,
    pub(crate) door: Arc<Door>,
    /// Exchanges that stand at the door at the same time: those of one credential, however
    /// many subjects it has, cannot fill the line before others.
    pub(crate) turns: Semaphore,
    /// The path and query of the token endpoint.
    pub(crate) endpoint: Uri,
    pub(crate) tls: TlsConnector,
    pub(crate) client_id: String,
    pub(crate) client_auth: ClientAuthentication,
    pub(crate) scopes: Vec<String>,
    pub(crate) audience: Option<String>,
    pub(crate) resource: Option<String>,
    /// What kinds of tokens the subject's and the actor's are (RFC 8693, section 3).
    pub(crate) subject_type: String,
    pub(crate) actor_type: String,
}

impl Terms {
    /// Turns of one credential: as many as there are connections.
    pub(crate) fn turns() -> Semaphore {
        Semaphore::new(door::OPEN)
    }
}

/// What is exchanged for a token.
pub(crate) enum Grant {
    /// What the client itself may.
    ClientCredentials,
    /// A refresh token.
    Refresh(Arc<RefreshToken>),
    /// A token of whom it is for, and perhaps one of who acts.
    Exchange { subject: SecretString, actor: Option<SecretString> },
}

/// Where tokens come from, and on whose behalf.
pub(crate) struct Issuer {
    pub(crate) terms: Arc<Terms>,
    pub(crate) spawner: Spawner,
    pub(crate) client_secret: Option<SecretString>,
    pub(crate) grant: Grant,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error("the token issuer cannot be reached: {0}")]
    Open(#[from] OpenError),
    #[error("the token issuer's answer broke off: {0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
    #[error("the token issuer did not answer within {} s", TIMEOUT.as_secs())]
    TimedOut,
    #[error("the token issuer redirects, which is not followed: correct `token_url`")]
    Redirect,
    #[error("the token issuer answers with status {status}")]
    Status { status: u16, wait: Option<Duration> },
    #[error("the token issuer refuses: `{0}`")]
    Refused(Refusal),
    #[error("the token issuer's answer is no token answer (RFC 6749, section 5.1)")]
    NoToken,
    #[error("the token is no bearer token")]
    NotBearer,
}

impl ExchangeError {
    fn broken(error: hyper::Error) -> Self {
        Self::Broken(Box::new(error))
    }

    /// Whether the same exchange may succeed later without anybody changing anything.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Open(_) | Self::Broken(_) | Self::TimedOut | Self::Status { .. } => true,
            Self::Refused(refusal) => refusal.may_pass(),
            Self::Redirect | Self::NoToken | Self::NotBearer => false,
        }
    }

    /// Whether another secret may be taken.
    pub(crate) fn doubts_the_secret(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.is_of_the_client())
    }

    /// When the issuer wants to be asked again, if it said.
    pub(crate) fn wait(&self) -> Option<Duration> {
        match self {
            Self::Status { wait, .. } => *wait,
            Self::Open(_) | Self::Broken(_) | Self::TimedOut | Self::Redirect => None,
            Self::Refused(_) | Self::NoToken | Self::NotBearer => None,
        }
    }
}

impl Issuer {
    /// Asks for a token. The refresh token that comes along is kept before anybody has the
    /// token.
    ///
    /// # Cancel safety
    /// Dropped, the connection is closed and the token, if there was one, is lost.
    pub(crate) async fn exchange(self: &Arc<Self>) -> Result<Granted, ExchangeError> {
        let asked = time::timeout(TIMEOUT, async {
            // Other credentials may have the same refresh token.
            let turn = match &self.grant {
                Grant::Refresh(token) => Some((token, token.turn().await)),
                Grant::ClientCredentials | Grant::Exchange { .. } => None,
            };
            (self.ask().await, turn)
        });
        let Ok((outcome, turn)) = asked.await else { return Err(ExchangeError::TimedOut) };
        let mut granted = outcome?;
        if let (Some(newer), Some((token, turn))) = (granted.refresh_token.take(), &turn) {
            let (token, files) = (Arc::clone(token), turn.files.clone());
            let kept = self.spawner.block(move || token.replace(newer, files));
            // Without a runtime there is nobody left to use it.
            kept.await.unwrap_or_default();
        }
        drop(turn);
        Ok(granted)
    }

    async fn ask(&self) -> Result<Granted, ExchangeError> {
        let terms = &self.terms;
        let question = match &self.grant {
            // A token that is replaced with each use ends its grant when it is used twice.
            Grant::Refresh(_) => Question::Once,
            Grant::ClientCredentials | Grant::Exchange { .. } => Question::Repeatable,
        };
        // Closed never: it is ours.
        let _turn = terms.turns.acquire().await;
        let said = terms.door.ask(&terms.tls, question, || self.call()).await?;
        let Said { status, headers, body } = said;
        if status.is_redirection() {
            return Err(ExchangeError::Redirect);
        }
        let failed = ExchangeError::Status { status: status.as_u16(), wait: wait(&headers) };
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(failed);
        }
        match status {
            StatusCode::OK | StatusCode::CREATED => answer::granted(&body),
            _ => Err(answer::refusal(&body).map_or(failed, ExchangeError::Refused)),
        }
    }

    fn call(&self) -> Request<Full<Bytes>> {
        let terms = &self.terms;
        let mut form = Form::default();
        match &self.grant {
            Grant::ClientCredentials => form.add("grant_type", "client_credentials"),
            Grant::Refresh(token) => {
                form.add("grant_type", "refresh_token");
                form.add("refresh_token", token.now().expose_secret());
            }
            Grant::Exchange { subject, actor } => {
                form.add("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange");
                form.add("subject_token", subject.expose_secret());
                form.add("subject_token_type", &terms.subject_type);
                if let Some(actor) = actor {
                    form.add("actor_token", actor.expose_secret());
                    form.add("actor_token_type", &terms.actor_type);
                }
            }
        }
        if !terms.scopes.is_empty() {
            form.add("scope", &terms.scopes.join(" "));
        }
        let rest = [("audience", &terms.audience), ("resource", &terms.resource)];
        for (name, value) in rest {
            if let Some(value) = value {
                form.add(name, value);
            }
        }
        let mut headers = HeaderMap::new();
        headers.insert(HOST, terms.target.authority.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, kind);
        self.prove(&mut form, &mut headers);
        let mut call = Request::new(Full::new(Bytes::from(form.0)));
        *call.method_mut() = http::Method::POST;
        *call.uri_mut() = terms.endpoint.clone();
        *call.headers_mut() = headers;
        call
    }

    /// Says who the client is (RFC 6749, section 2.3.1; one without a secret says its name).
    fn prove(&self, form: &mut Form, headers: &mut HeaderMap) {
        let id = &self.terms.client_id;
        let Some(secret) = &self.client_secret else { return form.add("client_id", id) };
        match self.terms.client_auth {
            ClientAuthentication::Form => {
                form.add("client_id", id);
                form.add("client_secret", secret.expose_secret());
            }
            ClientAuthentication::Basic => {
                let mut pair = String::new();
                encode_form(&mut pair, id);
                pair.push(':');
                encode_form(&mut pair, secret.expose_secret());
                // Base64 is nothing but letters, digits, `+`, `/` and `=`.
                let value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)));
                if let Ok(mut value) = value {
                    value.set_sensitive(true);
                    headers.insert(AUTHORIZATION, value);
                }
            }
        }
    }
}

/// A form, encoded.
#[derive(Default)]
struct Form(String);

impl Form {
    fn add(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        encode_form(&mut self.0, name);
        self.0.push('=');
        encode_form(&mut self.0, value);
    }
}

/// `text` as a part of a form (RFC 6749, appendix B).
fn encode_form(out: &mut String, text: &str) {
    for (index, word) in text.split(' ').enumerate() {
        if index > 0 {
            out.push('+');
        }
        encode(out, word);
    }
}

/// When to come again (RFC 9110, 10.2.3), in seconds; a date would need a clock that is right.
fn wait(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

/// What the waiters of one exchange are told.
pub(crate) type SharedError = Arc<ExchangeError>;

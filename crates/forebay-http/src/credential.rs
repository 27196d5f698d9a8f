//! The credentials that Forebay holds, each bound to the destination it was configured for.
//!
//! Destination first, credential last: nothing in a call chooses a credential, and it is
//! added when nothing else of the head will change. Secrets never show: values are marked
//! sensitive, and nothing here has a `Debug` that prints one.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use forebay_seam::random;
use forebay_seam::secret::{ExposeSecret, SecretError, SecretRef, SecretString};
use forebay_seam::sync::Mutex;
use forebay_seam::task::Spawner;
use forebay_seam::time;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use oauth2::TokenUrl;

use crate::meter::Meter;
use crate::oauth::Issuer;
use crate::problem::{Problem, Reason, Retry};
use crate::settings::CredentialSettings;
use crate::target::Target;
use crate::tls::Trust;
use crate::token::{Token, TokenSource};

/// A secret that does not come from an issuer is read again after this, beside the calls.
const REREAD: Duration = Duration::from_secs(60);

/// A credential of one destination.
#[derive(Clone)]
pub(crate) enum Credential {
    /// A secret in a header.
    Fixed(Arc<Fixed>),
    /// A token from an issuer.
    Token(Arc<TokenSource>),
}

/// What is added to one call.
pub(crate) struct Proof {
    name: HeaderName,
    value: HeaderValue,
    /// Where it came from, if another one can be had.
    token: Option<(Arc<TokenSource>, Token)>,
}

impl Credential {
    /// What to add to a call now. `meter` counts the exchanges this may need.
    ///
    /// # Cancel safety
    /// Dropped, an exchange on its way goes on for the others.
    pub(crate) async fn proof(&self, meter: &Arc<Meter>) -> Result<Proof, Problem> {
        match self {
            Self::Fixed(fixed) => {
                Ok(Proof { name: fixed.name.clone(), value: fixed.value(), token: None })
            }
            Self::Token(source) => match source.token(meter).await {
                Ok(token) => Ok(Proof {
                    name: AUTHORIZATION,
                    value: token.authorization.clone(),
                    token: Some((Arc::clone(source), token)),
                }),
                Err(failure) => {
                    let wait = failure.retry_at.saturating_duration_since(time::now());
                    let retry = match failure.error.may_pass() {
                        true => Retry::After(wait),
                        false => Retry::Never,
                    };
                    Err(Problem::new(Reason::NoCredential, &failure.error).with_retry(retry))
                }
            },
        }
    }
}

impl Proof {
    /// Adds it, over whatever the agent put there.
    pub(crate) fn add_to(&self, headers: &mut HeaderMap) {
        headers.insert(self.name.clone(), self.value.clone());
    }

    /// Whether it is one that can be withdrawn and replaced.
    pub(crate) fn is_renewable(&self) -> bool {
        self.token.is_some()
    }

    /// The service refused it. Says whether another one may be had.
    pub(crate) fn refused(&self) -> bool {
        self.token.as_ref().is_some_and(|(source, token)| source.refused(token))
    }
}

/// A secret in a header of its own.
pub(crate) struct Fixed {
    name: HeaderName,
    scheme: Scheme,
    source: SecretRef,
    read: Mutex<(HeaderValue, Instant)>,
}

/// What stands before the secret.
#[derive(Clone, Copy)]
enum Scheme {
    Bearer,
    Bare,
}

impl Scheme {
    fn value(self, secret: &SecretString) -> Result<HeaderValue, FixedError> {
        let mut value = match self {
            Self::Bearer => HeaderValue::try_from(format!("Bearer {}", secret.expose_secret())),
            Self::Bare => HeaderValue::try_from(secret.expose_secret()),
        }
        .map_err(|_| FixedError::NotAHeader)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// Why a secret is of no use.
#[derive(Debug, thiserror::Error)]
enum FixedError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the secret has characters that cannot stand in a header")]
    NotAHeader,
}

impl Fixed {
    fn read(name: HeaderName, scheme: Scheme, source: SecretRef) -> Result<Arc<Self>, FixedError> {
        let value = scheme.value(&source.read()?)?;
        Ok(Arc::new(Self { name, scheme, source, read: Mutex::new((value, time::now())) }))
    }

    /// The secret as last read. When that is a while ago it is read again, off the way of
    /// calls; one that cannot be read leaves the old one.
    fn value(self: &Arc<Self>) -> HeaderValue {
        let now = time::now();
        let mut read = self.read.lock();
        if now >= read.1 + REREAD {
            read.1 = now;
            let fixed = Arc::clone(self);
            drop(tokio::task::spawn_blocking(move || fixed.reread()));
        }
        read.0.clone()
    }

    fn reread(&self) {
        match self.source.read().map_err(FixedError::from).and_then(|s| self.scheme.value(&s)) {
            Ok(value) => self.read.lock().0 = value,
            Err(error) => {
                tracing::warn!(secret = %self.source, %error, "a secret cannot be read again");
            }
        }
    }
}

/// Which token: two credentials with the same key share one.
#[derive(PartialEq, Eq, Hash)]
struct TokenKey {
    token_url: String,
    client_id: String,
    secret: Vec<u8>,
    scopes: Vec<String>,
    audience: Option<String>,
    ca_file: Option<PathBuf>,
}

/// Makes credentials out of settings, and knows every source of tokens.
pub(crate) struct Registry {
    digest: hmac::Key,
    sources: HashMap<TokenKey, Arc<TokenSource>>,
}

/// What is wrong with a credential's settings: the key, and why.
pub(crate) struct CredentialError {
    pub(crate) key: &'static str,
    pub(crate) reason: String,
}

fn error(key: &'static str, reason: impl ToString) -> CredentialError {
    CredentialError { key, reason: reason.to_string() }
}

/// Checks `settings` without reading a secret.
pub(crate) fn check(
    settings: &CredentialSettings,
    trust: &mut Trust,
) -> Result<(), CredentialError> {
    match settings {
        CredentialSettings::Bearer { .. } => Ok(()),
        CredentialSettings::Header { name, .. } => header_name(name).map(drop),
        CredentialSettings::Oauth2ClientCredentials { token_url, ca_file, .. } => {
            let _checked = token_target(token_url)?;
            let file = ca_file.as_deref();
            trust.connector(file).map(drop).map_err(|e| error("ca_file", e))
        }
    }
}

/// Fields that carry the message itself, or that belong to one connection.
const NO_CREDENTIALS: [&str; 7] =
    ["host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"];

fn header_name(name: &str) -> Result<HeaderName, CredentialError> {
    let parsed: HeaderName = name.parse().map_err(|_| {
        error("name", format!("`{name}` is no header name: write one such as `x-api-key`"))
    })?;
    if NO_CREDENTIALS.contains(&parsed.as_str()) || parsed.as_str().starts_with("x-forebay-") {
        return Err(error("name", format!("`{name}` cannot carry a credential")));
    }
    Ok(parsed)
}

fn token_target(url: &str) -> Result<(Target, TokenUrl), CredentialError> {
    let (bare, _) = url.split_once('?').unwrap_or((url, ""));
    let target = Target::parse(bare).map_err(|e| error("token_url", e))?;
    if target.scheme == crate::target::Scheme::Plain && !target.is_loopback() {
        let reason = "the client's secret would travel in the clear: write `https://…`";
        return Err(error("token_url", reason));
    }
    let parsed = TokenUrl::new(url.to_owned()).map_err(|e| error("token_url", e))?;
    Ok((target, parsed))
}

impl Registry {
    /// An empty one.
    pub(crate) fn new() -> Self {
        let digest = hmac::Key::new(hmac::HMAC_SHA256, &random::bytes::<32>());
        Self { digest, sources: HashMap::new() }
    }

    /// The credential of `settings`. Reads its secret.
    pub(crate) fn credential(
        &mut self,
        settings: &CredentialSettings,
        trust: &mut Trust,
    ) -> Result<Credential, CredentialError> {
        let fixed = |name, scheme, secret: &SecretRef| {
            let fixed = Fixed::read(name, scheme, secret.clone());
            fixed.map(Credential::Fixed).map_err(|e| error("secret", e))
        };
        match settings {
            CredentialSettings::Bearer { secret } => fixed(AUTHORIZATION, Scheme::Bearer, secret),
            CredentialSettings::Header { name, secret } => {
                fixed(header_name(name)?, Scheme::Bare, secret)
            }
            CredentialSettings::Oauth2ClientCredentials {
                token_url,
                client_id,
                client_secret,
                scopes,
                audience,
                ca_file,
            } => {
                let (target, parsed) = token_target(token_url)?;
                let tls = trust.connector(ca_file.as_deref()).map_err(|e| error("ca_file", e))?;
                let secret = client_secret.read().map_err(|e| error("client_secret", e))?;
                let secret = hmac::sign(&self.digest, secret.expose_secret().as_bytes());
                let key = TokenKey {
                    token_url: token_url.clone(),
                    client_id: client_id.clone(),
                    secret: secret.as_ref().to_vec(),
                    scopes: scopes.clone(),
                    audience: audience.clone(),
                    ca_file: ca_file.clone(),
                };
                let source = self.sources.entry(key).or_insert_with(|| {
                    Arc::new(TokenSource::new(Issuer {
                        target,
                        tls,
                        spawner: Spawner::current(),
                        token_url: parsed,
                        client_id: client_id.clone(),
                        client_secret: client_secret.clone(),
                        scopes: scopes.clone(),
                        audience: audience.clone(),
                    }))
                });
                Ok(Credential::Token(Arc::clone(source)))
            }
        }
    }

    /// Tokens at hand.
    pub(crate) fn cached_tokens(&self) -> u32 {
        let held = self.sources.values().filter(|source| source.holds_one()).count();
        u32::try_from(held).unwrap_or(u32::MAX)
    }
}

//! Exchanging client credentials for a token (OAuth 2.0, RFC 6749, section 4.4).
//!
//! One exchange is one short connection of its own: TLS verified, no redirect followed, the
//! answer bounded in size and time. Knows no cache: see [`crate::token`]. Errors say what
//! the issuer's error code says, never what it sent besides.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_seam::secret::{ExposeSecret, SecretError, SecretRef};
use forebay_seam::task::Spawner;
use forebay_seam::time;
use http::header::{CONNECTION, HOST};
use http::{HeaderValue, Uri};
use http_body_util::{BodyExt, Full, Limited};
use oauth2::basic::{BasicClient, BasicErrorResponseType, BasicTokenType};
use oauth2::{
    AsyncHttpClient, ClientId, ClientSecret, HttpRequest, HttpResponse, RequestTokenError, Scope,
    TokenResponse, TokenUrl,
};
use tokio_rustls::TlsConnector;

use crate::target::Target;
use crate::upstream::{self, OpenError};

/// How long an exchange may take in all.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer of an issuer.
const ANSWER: usize = 64 * 1024;
/// The life of a token whose issuer does not say.
const UNSAID_LIFE: Duration = Duration::from_secs(300);
/// What is shown of an error code that we do not know.
const CODE: usize = 64;

/// Where tokens come from, and on whose behalf.
pub(crate) struct Issuer {
    pub(crate) target: Target,
    pub(crate) tls: TlsConnector,
    pub(crate) spawner: Spawner,
    pub(crate) token_url: TokenUrl,
    pub(crate) client_id: String,
    pub(crate) client_secret: SecretRef,
    pub(crate) scopes: Vec<String>,
    pub(crate) audience: Option<String>,
}

/// A token, ready to be sent.
pub(crate) struct Grant {
    /// `Bearer TOKEN`, marked as sensitive.
    pub(crate) authorization: HeaderValue,
    /// How long it is good for, from the moment it was asked for.
    pub(crate) life: Duration,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the token issuer cannot be reached: {0}")]
    Open(#[from] OpenError),
    #[error("the token issuer's answer broke off: {0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
    #[error("the token issuer did not answer within {} s", TIMEOUT.as_secs())]
    TimedOut,
    #[error("the token issuer redirects, which is not followed: correct `token_url`")]
    Redirect,
    #[error("the token issuer answers with status {0}")]
    Status(u16),
    #[error("the token issuer refuses: `{0}`")]
    Refused(Refusal),
    #[error("the token issuer's answer is no token answer (RFC 6749, section 5.1)")]
    NoToken,
    #[error("the token is no bearer token")]
    NotBearer,
}

/// An error code of an issuer (RFC 6749, section 5.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal(BasicErrorResponseType);

impl fmt::Display for Refusal {
    /// The code; of one that we do not know a short piece, without control characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().chars().take(CODE).try_for_each(|c| write!(f, "{}", c.escape_debug()))
    }
}

impl ExchangeError {
    /// Whether the same exchange may succeed later without anybody changing anything.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Open(_) | Self::Broken(_) | Self::TimedOut | Self::Status(_) => true,
            Self::Secret(_) | Self::Redirect | Self::Refused(_) => false,
            Self::NoToken | Self::NotBearer => false,
        }
    }
}

impl Issuer {
    /// Asks for a token. The secret is read anew, so that one that was replaced counts.
    ///
    /// # Cancel safety
    /// Dropped, the connection is closed and the token, if there was one, is lost.
    pub(crate) async fn exchange(&self) -> Result<Grant, ExchangeError> {
        match time::timeout(TIMEOUT, self.ask()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ExchangeError::TimedOut),
        }
    }

    async fn ask(&self) -> Result<Grant, ExchangeError> {
        let reference = self.client_secret.clone();
        let secret = tokio::task::spawn_blocking(move || reference.read())
            .await
            .map_err(|error| ExchangeError::Broken(Box::new(error)))??;
        let client = BasicClient::new(ClientId::new(self.client_id.clone()))
            .set_client_secret(ClientSecret::new(secret.expose_secret().to_owned()))
            .set_token_uri(self.token_url.clone());
        let mut request = client
            .exchange_client_credentials()
            .add_scopes(self.scopes.iter().cloned().map(Scope::new));
        if let Some(audience) = &self.audience {
            request = request.add_extra_param("audience", audience);
        }
        let answer = request.request_async(self).await.map_err(|error| match error {
            RequestTokenError::Request(error) => error,
            RequestTokenError::ServerResponse(said) => {
                ExchangeError::Refused(Refusal(said.error().clone()))
            }
            // These carry what the issuer sent, which is nobody's business.
            RequestTokenError::Parse(..) | RequestTokenError::Other(_) => ExchangeError::NoToken,
        })?;
        if *answer.token_type() != BasicTokenType::Bearer {
            return Err(ExchangeError::NotBearer);
        }
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {}", answer.access_token().secret()))
                .map_err(|_| ExchangeError::NoToken)?;
        authorization.set_sensitive(true);
        Ok(Grant { authorization, life: answer.expires_in().unwrap_or(UNSAID_LIFE) })
    }

    async fn post(&self, request: HttpRequest) -> Result<HttpResponse, ExchangeError> {
        let broken = |error: hyper::Error| ExchangeError::Broken(Box::new(error));
        let (mut parts, body) = request.into_parts();
        if let Some(path) = parts.uri.path_and_query() {
            parts.uri = Uri::from(path.clone());
        }
        parts.headers.insert(HOST, self.target.authority.clone());
        parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let request = http::Request::from_parts(parts, Full::new(Bytes::from(body)));
        let mut connection =
            upstream::open::<Full<Bytes>>(&self.target, &self.tls, &self.spawner).await?;
        let answer =
            connection.send(request).await.map_err(|failed| broken(failed.into_error()))?;
        if answer.status().is_redirection() {
            return Err(ExchangeError::Redirect);
        }
        if answer.status().is_server_error() {
            return Err(ExchangeError::Status(answer.status().as_u16()));
        }
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER).collect().await.map_err(ExchangeError::Broken)?;
        Ok(http::Response::from_parts(parts, body.to_bytes().to_vec()))
    }
}

impl<'c> AsyncHttpClient<'c> for Issuer {
    type Error = ExchangeError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, ExchangeError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.post(request))
    }
}

/// What the waiters of one exchange are told.
pub(crate) type SharedError = Arc<ExchangeError>;

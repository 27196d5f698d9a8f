//! What is wrong with a credential's settings.
//!
//! [`check`] reads no secret, so that a configuration can be checked where they are not;
//! [`read`] makes of each secret what calls would get, and keeps nothing.

use forebay_seam::secret::SecretRef;
use http::{HeaderName, Uri};
use rustls::crypto::aws_lc_rs::default_provider;

use super::certificate::ClientCertificate;
use super::fixed::Place;
use super::tokens::one_line;
use crate::secrets::{Digester, Source, make_once};
use crate::settings::CredentialSettings;
use crate::target::{Scheme, Target};
use crate::tls::Trust;

/// What is wrong with a credential's settings: the key, and why.
pub(crate) struct CredentialError {
    pub(crate) key: String,
    pub(crate) reason: String,
}

impl CredentialError {
    /// The same, of a credential that stands in another one's `with`.
    pub(super) fn within(self) -> Self {
        Self { key: format!("with.{}", self.key), ..self }
    }
}

pub(super) fn error(key: &str, reason: impl ToString) -> CredentialError {
    CredentialError { key: key.to_owned(), reason: reason.to_string() }
}

/// Checks `settings` without reading a secret.
pub(crate) fn check(
    settings: &CredentialSettings,
    trust: &mut Trust,
) -> Result<(), CredentialError> {
    match settings {
        CredentialSettings::Bearer { .. } => Ok(()),
        CredentialSettings::Header { name, prefix, .. } => {
            if prefix.chars().any(|c| c.is_control() || !c.is_ascii()) {
                return Err(error("prefix", "only visible characters and spaces can be sent"));
            }
            header_name(name).map(drop)
        }
        CredentialSettings::Query { name, .. } => match name.is_empty() {
            true => Err(error("name", "a parameter without a name carries nothing")),
            false => Ok(()),
        },
        CredentialSettings::Basic { user, .. } => {
            if user.contains(':') || user.chars().any(char::is_control) {
                let reason = "a user has no `:` and no control characters (RFC 7617, section 2)";
                return Err(error("user", reason));
            }
            Ok(())
        }
        CredentialSettings::ClientCertificate { with: None, .. } => Ok(()),
        CredentialSettings::ClientCertificate { with: Some(with), .. } => {
            if let CredentialSettings::ClientCertificate { .. } = **with {
                let reason = "a connection has one certificate: write another type of credential";
                return Err(error("with.type", reason));
            }
            check(with, trust).map_err(CredentialError::within)
        }
        CredentialSettings::Oauth2ClientCredentials { token_url, client_id, ca_file, .. }
        | CredentialSettings::Oauth2RefreshToken { token_url, client_id, ca_file, .. }
        | CredentialSettings::Oauth2TokenExchange { token_url, client_id, ca_file, .. } => {
            let _checked = token_target(token_url)?;
            if client_id.is_empty() {
                return Err(error("client_id", "the issuer knows its clients by their names"));
            }
            let file = ca_file.as_deref();
            trust.connector(file).map(drop).map_err(|reason| error("ca_file", reason))
        }
    }
}

/// Reads the secrets of `settings`, which were checked, and makes of them what calls get.
pub(crate) fn read(settings: &CredentialSettings) -> Result<(), CredentialError> {
    let fixed = |place: Place, key, secret: &SecretRef| {
        let made = make_once(&[Source::Line(secret.clone())], |secrets| place.piece(secrets));
        made.map(drop).map_err(|reason| error(key, reason))
    };
    match settings {
        CredentialSettings::Bearer { secret } => fixed(Place::Bearer, "secret", secret),
        CredentialSettings::Header { name, prefix, secret } => {
            let place = Place::Header { name: header_name(name)?, prefix: prefix.clone() };
            fixed(place, "secret", secret)
        }
        CredentialSettings::Query { name, secret } => {
            fixed(Place::Query { name: name.clone() }, "secret", secret)
        }
        CredentialSettings::Basic { user, password } => {
            fixed(Place::Basic { user: user.clone() }, "password", password)
        }
        CredentialSettings::ClientCertificate { certificate, key, with } => {
            let sources = [Source::Text(certificate.clone()), Source::Text(key.clone())];
            let made = make_once(&sources, |secrets| {
                ClientCertificate::read(secrets, &Digester::new(), &default_provider())
            });
            made.map_err(|reason| match reason.which() {
                0 => error("certificate", reason),
                _ => error("key", reason),
            })?;
            with.as_deref().map_or(Ok(()), |with| read(with).map_err(CredentialError::within))
        }
        CredentialSettings::Oauth2ClientCredentials { client_secret, .. } => {
            line("client_secret", Some(client_secret))
        }
        CredentialSettings::Oauth2RefreshToken { client_secret, refresh_token, .. } => {
            line("client_secret", client_secret.as_ref())?;
            line("refresh_token", Some(refresh_token))
        }
        CredentialSettings::Oauth2TokenExchange {
            client_secret,
            subject_token,
            actor_token,
            ..
        } => {
            line("client_secret", client_secret.as_ref())?;
            line("subject_token", subject_token.as_ref())?;
            line("actor_token", actor_token.as_ref())
        }
    }
}

/// A secret that goes into a form.
fn line(key: &str, secret: Option<&SecretRef>) -> Result<(), CredentialError> {
    let Some(secret) = secret else { return Ok(()) };
    let read = make_once(&[Source::Line(secret.clone())], one_line);
    read.map_err(|reason| error(key, reason))
}

/// Why connections with this credential cannot be shared with others, if so.
pub(crate) fn statefulness(settings: &CredentialSettings) -> Option<&'static str> {
    match settings {
        CredentialSettings::ClientCertificate { .. } => Some(
            "connections that were opened with a client certificate are its owner's: services \
             take every call on them for one of his",
        ),
        CredentialSettings::Basic { .. } => Some(
            "services tie a session to the connection that a user logged in on: connections are \
             shared only where each call carries a key or a token of its own",
        ),
        CredentialSettings::Bearer { .. }
        | CredentialSettings::Header { .. }
        | CredentialSettings::Query { .. }
        | CredentialSettings::Oauth2ClientCredentials { .. }
        | CredentialSettings::Oauth2RefreshToken { .. }
        | CredentialSettings::Oauth2TokenExchange { .. } => None,
    }
}

/// Fields that carry the message itself, or that belong to one connection.
const NO_CREDENTIALS: [&str; 14] = [
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "http2-settings",
];

pub(super) fn header_name(name: &str) -> Result<HeaderName, CredentialError> {
    let parsed: HeaderName = name.parse().map_err(|_| {
        error("name", format!("`{name}` is no header name: write one such as `x-api-key`"))
    })?;
    if NO_CREDENTIALS.contains(&parsed.as_str()) || parsed.as_str().starts_with("x-forebay-") {
        let reason = format!(
            "`{name}` cannot carry a credential: it belongs to the message or to one connection"
        );
        return Err(error("name", reason));
    }
    Ok(parsed)
}

/// Where an issuer is, and the path and query there.
pub(super) fn token_target(url: &str) -> Result<(Target, Uri), CredentialError> {
    let (bare, _) = url.split_once('?').unwrap_or((url, ""));
    let target = Target::parse(bare).map_err(|reason| error("token_url", reason))?;
    if target.scheme == Scheme::Plain && !target.is_loopback() {
        let reason = "the client's secret would travel in the clear: write `https://…`";
        return Err(error("token_url", reason));
    }
    let whole: Uri = url.parse().map_err(|_| error("token_url", "it is no URL"))?;
    let endpoint = whole.path_and_query().cloned().map_or(Uri::from_static("/"), Uri::from);
    Ok((target, endpoint))
}

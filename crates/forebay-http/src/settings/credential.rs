//! Credentials that Forebay holds, so that agents need none.

use std::path::PathBuf;

use forebay_seam::secret::SecretRef;
use schemars::JsonSchema;
use serde::Deserialize;

/// A credential that Forebay holds so that agents need none.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum CredentialSettings {
    /// `Authorization: Bearer SECRET`.
    Bearer {
        /// The key.
        secret: SecretRef,
    },
    /// A header of the service's own, such as `x-api-key`.
    Header {
        /// The header's name.
        name: String,
        /// What stands before the secret, such as `Token `. Default: nothing.
        #[serde(default)]
        prefix: String,
        /// Its value.
        secret: SecretRef,
    },
    /// A parameter of the URL's query, where a service knows nothing better.
    Query {
        /// The parameter's name.
        name: String,
        /// Its value.
        secret: SecretRef,
    },
    /// `Authorization: Basic …` (RFC 7617).
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: SecretRef,
    },
    /// A certificate that connections are opened with (mTLS).
    ClientCertificate {
        /// The certificate, and those between it and the authority, PEM.
        certificate: SecretRef,
        /// Its private key, PEM.
        key: SecretRef,
        /// Another credential that each call carries besides. Default: none.
        #[serde(default)]
        with: Option<Box<Self>>,
    },
    /// OAuth 2.0 client credentials (RFC 6749, section 4.4).
    Oauth2ClientCredentials {
        /// Where tokens are exchanged: `https://…`.
        token_url: String,
        /// The client.
        client_id: String,
        /// Its secret.
        client_secret: SecretRef,
        /// How the client proves who it is to the issuer. Default `basic`.
        #[serde(default)]
        client_auth: ClientAuthentication,
        /// Scopes to ask for.
        #[serde(default)]
        scopes: Vec<String>,
        /// The audience to ask for, where the issuer wants one.
        #[serde(default)]
        audience: Option<String>,
        /// Certificates that may sign the issuer's, PEM. Default: the system's.
        #[serde(default)]
        ca_file: Option<PathBuf>,
    },
    /// OAuth 2.0 with a refresh token (RFC 6749, section 6), which the issuer may replace
    /// with each use.
    Oauth2RefreshToken {
        /// Where tokens are exchanged: `https://…`.
        token_url: String,
        /// The client.
        client_id: String,
        /// Its secret. Default: a public client, which has none.
        #[serde(default)]
        client_secret: Option<SecretRef>,
        /// The refresh token to begin with.
        refresh_token: SecretRef,
        /// A file in which the newest refresh token is kept, readable by nobody else, so that
        /// a restart does not go back to one that was replaced. Default: in memory only.
        #[serde(default)]
        keep_in: Option<PathBuf>,
        /// How the client proves who it is to the issuer. Default `basic`.
        #[serde(default)]
        client_auth: ClientAuthentication,
        /// Scopes to ask for.
        #[serde(default)]
        scopes: Vec<String>,
        /// The audience to ask for, where the issuer wants one.
        #[serde(default)]
        audience: Option<String>,
        /// Certificates that may sign the issuer's, PEM. Default: the system's.
        #[serde(default)]
        ca_file: Option<PathBuf>,
    },
    /// OAuth 2.0 token exchange (RFC 8693): a token that says on whose behalf becomes one
    /// that the service takes.
    Oauth2TokenExchange {
        /// Where tokens are exchanged: `https://…`.
        token_url: String,
        /// The client.
        client_id: String,
        /// Its secret. Default: a public client, which has none.
        #[serde(default)]
        client_secret: Option<SecretRef>,
        /// The token that says on whose behalf. Default: the one that the agent sends as
        /// `Authorization: Bearer` (its key for Forebay then goes into `x-forebay-key`).
        #[serde(default)]
        subject_token: Option<SecretRef>,
        /// What kind of token that is. Default
        /// `urn:ietf:params:oauth:token-type:access_token`.
        #[serde(default = "access_token")]
        subject_token_type: String,
        /// A token that says who acts. Default: none.
        #[serde(default)]
        actor_token: Option<SecretRef>,
        /// What kind of token that is. Default
        /// `urn:ietf:params:oauth:token-type:access_token`.
        #[serde(default = "access_token")]
        actor_token_type: String,
        /// The service for which the token is, by its URL. Default: not said.
        #[serde(default)]
        resource: Option<String>,
        /// How the client proves who it is to the issuer. Default `basic`.
        #[serde(default)]
        client_auth: ClientAuthentication,
        /// Scopes to ask for.
        #[serde(default)]
        scopes: Vec<String>,
        /// The audience to ask for, where the issuer wants one.
        #[serde(default)]
        audience: Option<String>,
        /// Certificates that may sign the issuer's, PEM. Default: the system's.
        #[serde(default)]
        ca_file: Option<PathBuf>,
    },
}

/// How a client proves who it is to the issuer (RFC 6749, section 2.3.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAuthentication {
    /// `Authorization: Basic …`, which every issuer must know.
    #[default]
    Basic,
    /// `client_id` and `client_secret` in the form, which some want instead.
    Form,
}

fn access_token() -> String {
    "urn:ietf:params:oauth:token-type:access_token".to_owned()
}

impl CredentialSettings {
    /// What it is called in a sentence.
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Bearer { .. } => "a bearer key",
            Self::Header { .. } => "a key in a header",
            Self::Query { .. } => "a key in the query",
            Self::Basic { .. } => "a user and a password",
            Self::ClientCertificate { with: None, .. } => "a client certificate",
            Self::ClientCertificate { with: Some(_), .. } => "a client certificate and more",
            Self::Oauth2ClientCredentials { .. } => "OAuth 2.0 client credentials",
            Self::Oauth2RefreshToken { .. } => "an OAuth 2.0 refresh token",
            Self::Oauth2TokenExchange { .. } => "OAuth 2.0 token exchange",
        }
    }
}

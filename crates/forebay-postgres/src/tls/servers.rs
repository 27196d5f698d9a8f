//! TLS towards one server. Its settings mean what they mean in libpq ("SSL Support", "Database
//! Connection Control Functions"), so `require` encrypts without asking who is there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use super::verifier::{Check, Trust, Verifier};
use super::{ALPN, Fresh, certificates, private_key, provider, revocations, roots_of, versions};
use crate::settings::{ChannelBinding, ServerSettings, SslMode, SslNegotiation};

/// The root certificates of the system, in place of a file.
const SYSTEM: &str = "system";

/// Whether and how connections to one server are encrypted.
#[derive(Clone)]
pub(crate) struct Encryption {
    pub(crate) sslmode: SslMode,
    pub(crate) negotiation: SslNegotiation,
    pub(crate) channel_binding: ChannelBinding,
    /// `None` where `sslmode` is `disable`. Kept, so that sessions can be resumed.
    config: Option<Arc<Fresh<ClientConfig>>>,
}

/// A setting that cannot be carried out: its key and the reason.
pub(crate) type Wrong = (&'static str, String);

impl Encryption {
    /// As `settings` of the server called `name` say, following their files. Inside a runtime.
    ///
    /// # Errors
    /// As [`Encryption::check`].
    pub(crate) fn new(name: &str, settings: &ServerSettings) -> Result<Self, Wrong> {
        Self::check(settings)?;
        let mut config = None;
        if settings.sslmode != SslMode::Disable {
            let files = [roots_file(settings), settings.sslcert.as_deref()];
            let more = [settings.sslkey.as_deref(), settings.sslcrl.as_deref()];
            let files = files.into_iter().chain(more).flatten().map(PathBuf::from).collect();
            let settings = settings.clone();
            let load = move || made_of(&settings).map_err(|(_, reason)| reason);
            let towards = format!("server {name}");
            config = Some(Fresh::new(towards, files, load).map_err(|reason| ("sslmode", reason))?);
        }
        Ok(Self {
            sslmode: settings.sslmode,
            negotiation: settings.sslnegotiation,
            channel_binding: settings.channel_binding,
            config,
        })
    }

    /// What a session is made with.
    pub(crate) fn config(&self) -> Option<Arc<ClientConfig>> {
        self.config.as_ref().map(|config| config.now())
    }

    /// Can `settings` be carried out, with files as they are now?
    ///
    /// # Errors
    /// The first that cannot.
    pub(crate) fn check(settings: &ServerSettings) -> Result<(), Wrong> {
        let is_weak =
            matches!(settings.sslmode, SslMode::Disable | SslMode::Allow | SslMode::Prefer);
        if settings.sslnegotiation == SslNegotiation::Direct && is_weak {
            let why = "direct TLS needs `sslmode` to be `require`, `verify-ca` or `verify-full`";
            return Err(("sslnegotiation", why.into()));
        }
        if settings.channel_binding == ChannelBinding::Require
            && settings.sslmode == SslMode::Disable
        {
            let why = "a login can only be bound to TLS, and `sslmode` is `disable`";
            return Err(("channel_binding", why.into()));
        }
        if settings.sslmode == SslMode::Disable {
            return Ok(());
        }
        if is_system(settings) && settings.sslmode != SslMode::VerifyFull {
            let why = "the system's authorities sign for everybody: `system` needs \
                       `sslmode = \"verify-full\"`";
            return Err(("sslrootcert", why.into()));
        }
        made_of(settings).map(drop)
    }
}

fn is_system(settings: &ServerSettings) -> bool {
    settings.sslrootcert.as_deref() == Some(Path::new(SYSTEM))
}

fn roots_file(settings: &ServerSettings) -> Option<&Path> {
    settings.sslrootcert.as_deref().filter(|_| !is_system(settings))
}

fn made_of(settings: &ServerSettings) -> Result<ClientConfig, Wrong> {
    let file = roots_file(settings);
    let check = match (settings.sslmode, file) {
        (SslMode::VerifyFull, _) => Some(Check::Name),
        (SslMode::VerifyCa, _) => Some(Check::Authority),
        // libpq: "if a root CA file exists, the behaviour of sslmode=require will be the
        // same as that of verify-ca".
        (SslMode::Require, Some(_)) => Some(Check::Authority),
        (SslMode::Require | SslMode::Prefer | SslMode::Allow | SslMode::Disable, _) => None,
    };
    let provider = Arc::new(provider());
    let verifier = match check {
        None => Verifier::of_nothing(Arc::clone(&provider)),
        Some(check) => {
            let mut trust = trust(file).map_err(|reason| ("sslrootcert", reason))?;
            if let Some(file) = &settings.sslcrl {
                trust.revoked = revocations(file).map_err(|reason| ("sslcrl", reason))?;
            }
            Verifier::new(check, trust, Arc::clone(&provider))
                .map_err(|reason| ("sslrootcert", reason))?
        }
    };
    let versions = versions(settings.ssl_min_version, settings.ssl_max_version)
        .map_err(|reason| ("ssl_min_version", reason))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| ("ssl_min_version", error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match (&settings.sslcert, &settings.sslkey) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert).map_err(|reason| ("sslcert", reason))?;
            let key = private_key(key).map_err(|reason| ("sslkey", reason))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| ("sslkey", format!("it does not fit `sslcert`: {error}")))?
        }
        (Some(_), None) => return Err(("sslkey", "`sslcert` needs its key".into())),
        (None, Some(_)) => return Err(("sslcert", "`sslkey` needs its certificate".into())),
        (None, None) => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// Who may have signed: those in `file`, or whom the system trusts.
fn trust(file: Option<&Path>) -> Result<Trust, String> {
    if let Some(file) = file {
        let named = certificates(file)?;
        let roots = roots_of(&named, file)?;
        return Ok(Trust { roots, named, revoked: Vec::new() });
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(Trust { roots, named: Vec::new(), revoked: Vec::new() })
}

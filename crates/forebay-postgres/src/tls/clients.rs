//! TLS towards clients: what they are shown, and what they have to show.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};

use super::{
    ALPN, Binding, Fresh, certificates, ciphers, private_key, provider, roots_of, versions,
};
use crate::settings::{ClientTls, ClientTlsMode};

/// Bytes of plaintext in a record, as in PostgreSQL: libpq's users wait at a socket whose bytes
/// libpq has already taken, if a record is longer than what it reads at once.
const LONGEST_RECORD: usize = 8 * 1024;
/// rustls counts a record's header as well.
const RECORD_HEADER: usize = 5;

/// TLS towards clients, made of the files of one moment.
pub(crate) struct ClientSide {
    config: Arc<ServerConfig>,
    binding: Option<Binding>,
}

impl ClientSide {
    /// TLS as `settings` say; `None` where they say that there is none.
    ///
    /// # Errors
    /// A file that cannot be read, a key that does not fit its certificate, settings that
    /// contradict each other.
    pub(crate) fn new(settings: &ClientTls) -> Result<Option<Self>, String> {
        let mode = settings.mode()?;
        if mode == ClientTlsMode::Disable {
            return Ok(None);
        }
        let versions = versions(settings.min_version, settings.max_version)?;
        let provider = Arc::new(ciphers::choose(provider(), &settings.ciphers)?);
        let chain = certificates(&settings.cert)?;
        let binding = chain.first().and_then(Binding::of);
        let key = private_key(&settings.key)?;
        let verifier = verifier(settings, mode, &provider)?;
        let shows_certificate = settings.ca_file.is_some();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .and_then(|builder| {
                builder.with_client_cert_verifier(verifier).with_single_cert(chain, key)
            })
            .map_err(|error| format!("certificate and key cannot be used: {error}"))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.max_fragment_size = Some(LONGEST_RECORD + RECORD_HEADER);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if shows_certificate {
            // Each login shows its certificate anew.
            config.send_tls13_tickets = 0;
        } else {
            // A client that comes back is known by its ticket: no memory is kept for it.
            config.ticketer = Ticketer::new().map_err(|error| error.to_string())?;
            config.send_tls13_tickets = 1;
        }
        Ok(Some(Self { config: Arc::new(config), binding }))
    }

    /// As [`ClientSide::new`], following its files.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn following(settings: &ClientTls) -> Result<Option<Arc<Fresh<Self>>>, String> {
        if Self::new(settings)?.is_none() {
            return Ok(None);
        }
        let files = [Some(&settings.cert), Some(&settings.key), settings.ca_file.as_ref()];
        let files: Vec<PathBuf> = files.into_iter().flatten().cloned().collect();
        let settings = settings.clone();
        let load = move || Self::new(&settings)?.ok_or_else(|| "there is no TLS".to_owned());
        Fresh::new("clients", files, load).map(Some)
    }

    /// What a session is made with.
    pub(crate) fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// What binds a login to a session: of the certificate that is shown.
    pub(crate) fn binding(&self) -> Option<Binding> {
        self.binding.clone()
    }
}

/// Whose certificates are believed, and whether one has to be shown.
fn verifier(
    settings: &ClientTls,
    mode: ClientTlsMode,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let has_to_show = mode.asks_for_certificate();
    let Some(ca_file) = &settings.ca_file else {
        if has_to_show {
            return Err("this mode needs `ca_file`: who signs the clients' certificates".into());
        }
        return Ok(WebPkiClientVerifier::no_client_auth());
    };
    let roots = Arc::new(roots_of(&certificates(ca_file)?, ca_file)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    let builder = if has_to_show { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| format!("`{}` cannot be used: {error}", ca_file.display()))
}

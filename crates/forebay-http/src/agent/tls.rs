//! TLS towards agents: what they are shown, and what they may show.

use std::path::Path;
use std::sync::Arc;

use forebay_seam::fresh::Fresh;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use crate::settings::AgentTls;

/// Our certificate and what goes with it, made anew when its files change.
pub(crate) struct Certified(Arc<Fresh<Arc<ServerConfig>>>);

impl Certified {
    /// TLS as `settings` say. Inside a runtime.
    ///
    /// # Errors
    /// A file that cannot be read, a key that does not fit its certificate.
    pub(crate) fn new(settings: &AgentTls) -> Result<Self, String> {
        let files = [Some(&settings.cert), Some(&settings.key), settings.ca_file.as_ref()];
        let files = files.into_iter().flatten().cloned().collect();
        let settings = settings.clone();
        Fresh::new("agents", files, move || config(&settings).map(Arc::new)).map(Self)
    }

    /// What is in force.
    pub(crate) fn now(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.now())
    }
}

/// Whether `settings` can be carried out.
///
/// # Errors
/// As [`Certified::new`].
pub(crate) fn check_tls(settings: &AgentTls) -> Result<(), String> {
    config(settings).map(drop)
}

fn config(settings: &AgentTls) -> Result<ServerConfig, String> {
    let provider = Arc::new(default_provider());
    let chain = certificates(&settings.cert)?;
    let key = PrivateKeyDer::from_pem_file(&settings.key)
        .map_err(|error| format!("cannot read the key `{}`: {error}", settings.key.display()))?;
    let verifier = match &settings.ca_file {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| {
                    format!("`{}` has a certificate that cannot be used: {error}", file.display())
                })?;
            }
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .map_err(|error| format!("`{}` cannot be used: {error}", file.display()))?
        }
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder.with_client_cert_verifier(verifier).with_single_cert(chain, key)
        })
        .map_err(|error| format!("certificate and key cannot be used: {error}"))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if settings.ca_file.is_some() {
        // Each connection shows its certificate anew (CVE-2025-23419).
        config.send_tls13_tickets = 0;
    } else {
        // An agent that comes back is known by its ticket: no memory is kept for it.
        config.ticketer = Ticketer::new().map_err(|error| error.to_string())?;
        config.send_tls13_tickets = 1;
    }
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = |error| format!("cannot read the certificates `{}`: {error}", path.display());
    let certificates = CertificateDer::pem_file_iter(path).map_err(read)?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(read)?;
    if certificates.is_empty() {
        return Err(format!("`{}` holds no certificate (PEM)", path.display()));
    }
    Ok(certificates)
}

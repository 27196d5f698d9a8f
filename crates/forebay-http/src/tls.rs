//! Whose certificates we believe.
//!
//! One client configuration for each set of certificates, kept for the gateway's life:
//! sessions are resumed only within one configuration, and a handshake that resumes costs
//! a fraction of a full one.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// Client configurations, by the file of their certificates.
#[derive(Default)]
pub(crate) struct Trust {
    by_file: HashMap<Option<PathBuf>, TlsConnector>,
}

/// Why a file of certificates is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    #[error("cannot read `{}`: {source}", path.display())]
    File { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("`{}` has no certificate in PEM form", .0.display())]
    Empty(PathBuf),
    #[error("`{}` has a certificate that cannot be used: {source}", path.display())]
    Certificate { path: PathBuf, source: rustls::Error },
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

impl Trust {
    /// The configuration that believes the certificates in `file`, or else the system's.
    pub(crate) fn connector(&mut self, file: Option<&Path>) -> Result<TlsConnector, TrustError> {
        let key = file.map(Path::to_owned);
        if let Some(known) = self.by_file.get(&key) {
            return Ok(known.clone());
        }
        let roots = match file {
            Some(file) => from_file(file)?,
            None => from_system(),
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        self.by_file.insert(key, connector.clone());
        Ok(connector)
    }
}

fn from_file(path: &Path) -> Result<RootCertStore, TrustError> {
    let unreadable = |source| TrustError::File { path: path.to_owned(), source };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        roots
            .add(certificate.map_err(unreadable)?)
            .map_err(|source| TrustError::Certificate { path: path.to_owned(), source })?;
    }
    if roots.is_empty() {
        return Err(TrustError::Empty(path.to_owned()));
    }
    Ok(roots)
}

/// The system's certificates; where there are none (small containers), Mozilla's.
fn from_system() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "a certificate of the system was left out");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

/// A handshake's failure, in the words of the certificate problem where there is one.
pub(crate) fn reason(error: &io::Error) -> String {
    let rustls = error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>());
    rustls.map_or_else(|| error.to_string(), ToString::to_string)
}

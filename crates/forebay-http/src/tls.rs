//! Whose certificates we believe, and which ones we show.
//!
//! One client configuration for each set of certificates, protocol and client certificate,
//! kept for the gateway's life: sessions are resumed only within one configuration, and a
//! handshake that resumes costs a fraction of a full one. Always true: a session of one client
//! certificate is never resumed with another one, which would be a way around it
//! (CVE-2025-23419).

use std::collections::HashMap;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use forebay_seam::sync::Mutex;
use lru::LruCache;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, TrustAnchor};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::credential::ClientCertificate;
use crate::secrets::Digest;

/// Configurations that are kept for one set of certificates; a certificate that was replaced
/// leaves one behind.
const KEPT: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Sessions that are kept for a client certificate, which one service or few are shown.
const SESSIONS: usize = 8;

/// What is offered to a service (ALPN, RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Offer {
    /// HTTP/2, or else HTTP/1.1.
    Either,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Offer {
    fn protocols(self) -> Vec<Vec<u8>> {
        let (h1, h2) = (b"http/1.1".to_vec(), b"h2".to_vec());
        match self {
            Self::Either => vec![h2, h1],
            Self::Http1 => vec![h1],
            Self::Http2 => vec![h2],
        }
    }
}

/// Sets of certificates that we believe, by their file.
#[derive(Default)]
pub(crate) struct Trust {
    by_file: HashMap<Option<PathBuf>, Arc<Outfit>>,
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
    /// A configuration that believes the certificates in `file`, or else the system's, for
    /// HTTP/1.1.
    pub(crate) fn connector(&mut self, file: Option<&Path>) -> Result<TlsConnector, TrustError> {
        Ok(self.outfit(file)?.connector(Offer::Http1, None)?)
    }

    /// Tells sets of certificates apart by what is in them: a file may have others by now.
    pub(crate) fn fingerprint(&mut self, file: Option<&Path>) -> Result<Digest, TrustError> {
        Ok(self.outfit(file)?.fingerprint)
    }

    /// The configurations that believe the certificates in `file`, or else the system's.
    pub(crate) fn outfit(&mut self, file: Option<&Path>) -> Result<Arc<Outfit>, TrustError> {
        let key = file.map(Path::to_owned);
        if let Some(known) = self.by_file.get(&key) {
            return Ok(Arc::clone(known));
        }
        let roots = match file {
            Some(file) => from_file(file)?,
            None => from_system(),
        };
        let outfit = Arc::new(Outfit {
            fingerprint: fingerprint(&roots),
            roots: Arc::new(roots),
            connectors: Mutex::new(LruCache::new(KEPT)),
        });
        self.by_file.insert(key, Arc::clone(&outfit));
        Ok(outfit)
    }
}

/// What a configuration is for.
type Use = (Offer, Option<Digest>);

/// The client configurations of one set of certificates.
pub(crate) struct Outfit {
    roots: Arc<RootCertStore>,
    fingerprint: Digest,
    connectors: Mutex<LruCache<Use, TlsConnector>>,
}

impl Outfit {
    /// The configuration that offers `offer` and shows `certificate`.
    pub(crate) fn connector(
        &self,
        offer: Offer,
        certificate: Option<&ClientCertificate>,
    ) -> Result<TlsConnector, rustls::Error> {
        let key = (offer, certificate.map(ClientCertificate::id));
        if let Some(known) = self.connectors.lock().get(&key) {
            return Ok(known.clone());
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(Arc::clone(&self.roots));
        let mut config = match certificate {
            None => config.with_no_client_auth(),
            Some(certificate) => {
                let shown = SingleCertAndKey::from(Arc::clone(certificate.certified()));
                let mut config = config.with_client_cert_resolver(Arc::new(shown));
                config.resumption = Resumption::in_memory_sessions(SESSIONS);
                config
            }
        };
        config.alpn_protocols = offer.protocols();
        let connector = TlsConnector::from(Arc::new(config));
        // Made twice at the same time, the first one counts: it may have sessions by now.
        Ok(self.connectors.lock().get_or_insert(key, || connector).clone())
    }
}

fn fingerprint(roots: &RootCertStore) -> Digest {
    let anchor = |anchor: &TrustAnchor<'_>| {
        let mut context = Context::new(&SHA256);
        let limits = anchor.name_constraints.as_ref().map(AsRef::as_ref).unwrap_or_default();
        for part in [anchor.subject.as_ref(), anchor.subject_public_key_info.as_ref(), limits] {
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            context.update(part);
        }
        context.finish()
    };
    let mut anchors: Vec<_> = roots.roots.iter().map(anchor).collect();
    anchors.sort_unstable_by(|one, other| one.as_ref().cmp(other.as_ref()));
    let mut all = Context::new(&SHA256);
    for anchor in &anchors {
        all.update(anchor.as_ref());
    }
    let mut fingerprint = Digest::default();
    for (to, from) in fingerprint.iter_mut().zip(all.finish().as_ref()) {
        *to = *from;
    }
    fingerprint
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

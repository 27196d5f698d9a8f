//! TLS configurations that wear a client certificate, one for each.
//!
//! Sessions are resumed only within one configuration, so no session of one certificate is
//! resumed with another one, or with none (CVE-2025-23419). Always true: a configuration
//! differs from the destination's own in nothing but the certificate and the sessions.

use std::num::NonZeroUsize;
use std::sync::Arc;

use forebay_seam::sync::Mutex;
use lru::LruCache;
use rustls::client::Resumption;
use rustls::sign::SingleCertAndKey;
use tokio_rustls::TlsConnector;

use crate::credential::ClientCertificate;
use crate::secrets::Digest;

/// Certificates of one destination that are kept ready.
const CERTIFICATES: NonZeroUsize = NonZeroUsize::new(1_024).expect("1024 is not zero");
/// Sessions that are kept for each.
const SESSIONS: usize = 8;

/// What connections to one destination are opened in.
pub(crate) struct Wardrobe {
    bare: TlsConnector,
    worn: Mutex<LruCache<Digest, TlsConnector>>,
}

impl Wardrobe {
    /// One whose configurations are like `bare`.
    pub(crate) fn new(bare: TlsConnector) -> Self {
        Self { bare, worn: Mutex::new(LruCache::new(CERTIFICATES)) }
    }

    /// The configuration that shows `certificate`.
    pub(crate) fn connector(&self, certificate: Option<&ClientCertificate>) -> TlsConnector {
        let Some(certificate) = certificate else { return self.bare.clone() };
        let mut worn = self.worn.lock();
        let dressed = worn.get_or_insert(certificate.id(), || {
            let mut config = self.bare.config().as_ref().clone();
            let shown = SingleCertAndKey::from(certificate.certified().as_ref().clone());
            config.client_auth_cert_resolver = Arc::new(shown);
            config.resumption = Resumption::in_memory_sessions(SESSIONS);
            TlsConnector::from(Arc::new(config))
        });
        dressed.clone()
    }
}

//! A client certificate: what connections are opened with where a service wants mTLS.
//!
//! A value that the one who opens connections wears; knows no handshake. Whoever makes TLS
//! configurations keeps one for each [`ClientCertificate::id`], so that no session of one
//! certificate is ever resumed with another one (CVE-2025-23419).

use std::sync::Arc;

use forebay_seam::secret::{ExposeSecret, SecretString};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::secrets::{Digest, Digester, Unusable};

/// A certificate and its key.
#[derive(Clone)]
pub(crate) struct ClientCertificate {
    certified: Arc<CertifiedKey>,
    id: Digest,
}

impl ClientCertificate {
    /// Of the PEM texts of a certificate (with those between it and the authority) and its
    /// key, in this order.
    pub(crate) fn read(
        secrets: &[SecretString],
        digester: &Digester,
        provider: &CryptoProvider,
    ) -> Result<Self, Unusable> {
        let [certificate, key] = secrets else {
            return Err(Unusable::Shape("a certificate and its key are needed"));
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate.expose_secret().as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| Unusable::Shape("the certificate is no PEM"))?;
        if chain.is_empty() {
            return Err(Unusable::Shape("there is no certificate in it (PEM)"));
        }
        // What the parser says of a key could repeat it.
        let key = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes())
            .map_err(|_| Unusable::Shape("there is no private key in it (PEM)"))?;
        let id = digester.of(chain.iter().map(AsRef::as_ref));
        let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| {
            Unusable::Detail(format!("the certificate and its key are of no use: {error}"))
        })?;
        Ok(Self { certified: Arc::new(certified), id })
    }

    /// For a TLS configuration.
    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// The same for the same certificate, and for no other.
    pub(crate) fn id(&self) -> Digest {
        self.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued() -> (SecretString, SecretString) {
        let issued = rcgen::generate_simple_self_signed(vec!["acme".to_owned()]).unwrap();
        (issued.cert.pem().into(), issued.signing_key.serialize_pem().into())
    }

    fn read(certificate: &SecretString, key: &SecretString) -> Result<ClientCertificate, String> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let secrets = [certificate.clone(), key.clone()];
        ClientCertificate::read(&secrets, &Digester::new(), &provider).map_err(|e| e.to_string())
    }

    #[test]
    fn a_certificate_needs_its_own_key() {
        let ((certificate, key), (_, other)) = (issued(), issued());
        assert!(read(&certificate, &key).is_ok());
        let Err(error) = read(&certificate, &other) else { panic!("it is another one's") };
        assert!(error.contains("of no use"), "{error}");
    }

    #[test]
    fn what_is_no_pem_is_told_without_repeating_it() {
        let (certificate, key) = issued();
        for (certificate, key) in
            [(&"planted".into(), &key), (&certificate, &"planted".into()), (&key, &certificate)]
        {
            let Err(error) = read(certificate, key) else { panic!("it is no certificate") };
            assert!(error.contains("PEM") && !error.contains("planted"), "{error}");
        }
    }
}

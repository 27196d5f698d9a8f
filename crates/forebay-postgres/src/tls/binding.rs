//! What binds a login to the TLS session that carries it: the hash of the server's certificate
//! (`tls-server-end-point`, RFC 5929, section 4.1).

use std::sync::Arc;

use aws_lc_rs::digest::{self, Algorithm};
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::signature_algorithm::RsaSsaPssParams;
use x509_parser::x509::AlgorithmIdentifier;

/// The hash of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binding(Arc<[u8]>);

impl Binding {
    /// `None` where the signature names no single hash, as that of Ed25519: RFC 5929 has no
    /// answer then, and PostgreSQL offers no binding.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let hash = hash(&parsed.signature_algorithm)?;
        Some(Self(digest::digest(hash, certificate).as_ref().into()))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The hash of a signature; SHA-256 in place of MD5 and SHA-1.
fn hash(signature: &AlgorithmIdentifier<'_>) -> Option<&'static Algorithm> {
    let hash = match signature.algorithm.to_id_string().as_str() {
        // md5, sha1 and sha256 with RSA
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.113549.1.1.11" => {
            &digest::SHA256
        }
        "1.2.840.113549.1.1.12" => &digest::SHA384,
        "1.2.840.113549.1.1.13" => &digest::SHA512,
        "1.2.840.113549.1.1.14" => &digest::SHA224,
        // ECDSA with SHA-1, with SHA-256
        "1.2.840.10045.4.1" | "1.2.840.10045.4.3.2" => &digest::SHA256,
        "1.2.840.10045.4.3.1" => &digest::SHA224,
        "1.2.840.10045.4.3.3" => &digest::SHA384,
        "1.2.840.10045.4.3.4" => &digest::SHA512,
        // RSASSA-PSS names it in its parameters.
        "1.2.840.113549.1.1.10" => {
            let parameters = RsaSsaPssParams::try_from(signature.parameters.as_ref()?).ok()?;
            match parameters.hash_algorithm_oid().to_id_string().as_str() {
                "1.3.14.3.2.26" | "2.16.840.1.101.3.4.2.1" => &digest::SHA256,
                "2.16.840.1.101.3.4.2.2" => &digest::SHA384,
                "2.16.840.1.101.3.4.2.3" => &digest::SHA512,
                "2.16.840.1.101.3.4.2.4" => &digest::SHA224,
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made_with(algorithm: &'static rcgen::SignatureAlgorithm) -> CertificateDer<'static> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn the_hash_is_the_signatures() {
        for (algorithm, hash) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, &digest::SHA256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, &digest::SHA384),
            (&rcgen::PKCS_RSA_SHA512, &digest::SHA512),
        ] {
            let certificate = made_with(algorithm);
            let expected = digest::digest(hash, &certificate);
            assert_eq!(Binding::of(&certificate).unwrap().bytes(), expected.as_ref());
        }
    }

    #[test]
    fn where_no_hash_is_named_there_is_no_binding() {
        assert_eq!(Binding::of(&made_with(&rcgen::PKCS_ED25519)), None);
        assert_eq!(Binding::of(&CertificateDer::from_slice(b"no certificate")), None);
    }
}

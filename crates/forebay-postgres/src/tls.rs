//! TLS towards clients and servers: what both sides share. Files are read here and nowhere
//! else; what is made of them is immutable, and made anew when they change ([`Fresh`]).

mod binding;
mod ciphers;
mod clients;
mod servers;
mod verifier;

use std::path::Path;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, SupportedProtocolVersion};

pub(crate) use binding::Binding;
pub(crate) use clients::ClientSide;
pub(crate) use forebay_seam::fresh::Fresh;
pub(crate) use servers::Encryption;

use crate::settings::TlsVersion;

/// What both sides say they speak inside ("ALPN Protocol IDs": PostgreSQL 17).
pub(crate) const ALPN: &[u8] = b"postgresql";

static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
static NEW: [&SupportedProtocolVersion; 1] = [&TLS13];
static OLD: [&SupportedProtocolVersion; 1] = [&TLS12];

fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// The versions from `min` to `max`.
fn versions(
    min: Option<TlsVersion>,
    max: Option<TlsVersion>,
) -> Result<&'static [&'static SupportedProtocolVersion], String> {
    match (min.unwrap_or(TlsVersion::V1_2), max.unwrap_or(TlsVersion::V1_3)) {
        (TlsVersion::V1_2, TlsVersion::V1_3) => Ok(&BOTH),
        (TlsVersion::V1_3, TlsVersion::V1_3) => Ok(&NEW),
        (TlsVersion::V1_2, TlsVersion::V1_2) => Ok(&OLD),
        (TlsVersion::V1_3, TlsVersion::V1_2) => {
            Err("the lowest version of TLS is above the highest".to_owned())
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = |error| format!("cannot read the certificates `{}`: {error}", path.display());
    let certs: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(read)?
        .collect::<Result<_, _>>()
        .map_err(read)?;
    if certs.is_empty() {
        return Err(format!("`{}` holds no certificate (PEM)", path.display()));
    }
    Ok(certs)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|error| format!("cannot read the key `{}`: {error}", path.display()))
}

fn revocations(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let read = |error| format!("cannot read the revocations `{}`: {error}", path.display());
    let lists = CertificateRevocationListDer::pem_file_iter(path).map_err(read)?;
    lists.collect::<Result<_, _>>().map_err(read)
}

fn roots_of(
    certificates: &[CertificateDer<'static>],
    path: &Path,
) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate.clone()).map_err(|error| {
            format!("`{}` holds an unusable certificate: {error}", path.display())
        })?;
    }
    Ok(store)
}

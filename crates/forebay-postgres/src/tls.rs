//! TLS towards clients and servers. `sslmode` means what it means in libpq ("SSL Mode
//! Descriptions"), so `require` encrypts without asking who is there.

mod binding;

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio_rustls::TlsAcceptor;

use crate::settings::{ClientTls, SslMode};

pub(crate) use binding::Binding;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// TLS towards clients.
#[derive(Clone)]
pub(crate) struct ClientSide {
    acceptor: TlsAcceptor,
    binding: Option<Binding>,
}

impl ClientSide {
    /// TLS with the certificate that `settings` name.
    ///
    /// # Errors
    /// A file that cannot be read, or a key that does not fit its certificate.
    pub(crate) fn new(settings: &ClientTls) -> Result<Self, String> {
        let cert = certificates(&settings.cert)?;
        let binding = cert.first().and_then(Binding::of);
        let shown = settings.key.display();
        let key = PrivateKeyDer::from_pem_file(&settings.key)
            .map_err(|error| format!("cannot read the key `{shown}`: {error}"))?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(cert, key))
            .map_err(|error| format!("certificate and key cannot be used: {error}"))?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), binding })
    }

    /// What accepts a session.
    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// What binds a login to a session: of the certificate that is shown.
    pub(crate) fn binding(&self) -> Option<Binding> {
        self.binding.clone()
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

/// TLS towards one server; `None` where `sslmode` is `disable`. Made once for each server and
/// kept, so that sessions can be resumed.
///
/// # Errors
/// Root certificates that cannot be read.
pub(crate) fn connector(
    mode: SslMode,
    roots_file: Option<&Path>,
) -> Result<Option<Arc<ClientConfig>>, String> {
    let check = match (mode, roots_file) {
        (SslMode::Disable, _) => return Ok(None),
        (SslMode::VerifyFull, _) => Check::Name,
        (SslMode::VerifyCa, _) => Check::Authority,
        // libpq: "if a root CA file exists, the behaviour of sslmode=require will be the
        // same as that of verify-ca".
        (SslMode::Require, Some(_)) => Check::Authority,
        (SslMode::Require | SslMode::Prefer | SslMode::Allow, _) => Check::Nothing,
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = match check {
        Check::Name => builder.with_root_certificates(roots(roots_file)?).with_no_client_auth(),
        Check::Authority => {
            let verifier =
                Arc::new(Verifier { roots: Some(roots(roots_file)?), provider: provider() });
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
        Check::Nothing => {
            let verifier = Arc::new(Verifier { roots: None, provider: provider() });
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
    };
    Ok(Some(Arc::new(config)))
}

enum Check {
    Name,
    Authority,
    Nothing,
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    match file {
        Some(path) => {
            for cert in certificates(path)? {
                let shown = path.display();
                store
                    .add(cert)
                    .map_err(|error| format!("`{shown}` holds an unusable certificate: {error}"))?;
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            }
        }
    }
    Ok(store)
}

/// Checks the authority but not the name, or nothing: what libpq's weaker modes promise.
/// The handshake's own signatures are always checked.
#[derive(Debug)]
struct Verifier {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            let cert = ParsedCertificate::try_from(end_entity)
                .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &cert,
                roots,
                intermediates,
                now,
                algorithms,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

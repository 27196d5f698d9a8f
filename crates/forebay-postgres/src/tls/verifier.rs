//! Who is believed to be the server: libpq's weaker and stronger modes.
//!
//! The handshake's own signatures are always checked.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// What is checked of a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// Who signed it, and that it is the server's.
    Name,
    /// Who signed it.
    Authority,
}

/// Whom to trust.
pub(super) struct Trust {
    pub(super) roots: RootCertStore,
    /// As configured: a server may show one of them itself.
    pub(super) named: Vec<CertificateDer<'static>>,
    pub(super) revoked: Vec<CertificateRevocationListDer<'static>>,
}

/// Checks as libpq does.
#[derive(Debug)]
pub(super) struct Verifier {
    /// Nothing is checked without it.
    trusted: Option<Trusted>,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
struct Trusted {
    check: Check,
    web: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl Verifier {
    /// One that believes everybody.
    pub(super) fn of_nothing(provider: Arc<CryptoProvider>) -> Self {
        Self { trusted: None, provider }
    }

    pub(super) fn new(
        check: Check,
        trust: Trust,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let Trust { roots, named, revoked } = trust;
        let web =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let web = web.with_crls(revoked).build().map_err(|error| error.to_string())?;
        Ok(Self { trusted: Some(Trusted { check, web, named }), provider })
    }
}

impl Trusted {
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let verified = if self.named.iter().any(|named| named == certificate) {
            // Made by hand and trusted by name: it need not be fit to sign others.
            still_valid(certificate, now)?;
            rustls::server::ParsedCertificate::try_from(certificate)
                .and_then(|parsed| rustls::client::verify_server_name(&parsed, name))
        } else {
            let verified = self.web.verify_server_cert(certificate, intermediates, name, &[], now);
            verified.map(drop)
        };
        match verified {
            // The name is looked at last: everything else is in order.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.check == Check::Authority || common_name_is(certificate, name) => Ok(()),
            other => other,
        }
    }
}

/// libpq: the common name counts where the certificate has no names of servers.
fn common_name_is(certificate: &CertificateDer<'_>, wanted: &ServerName<'_>) -> bool {
    let ServerName::DnsName(wanted) = wanted else { return false };
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    let Ok(alternatives) = parsed.subject_alternative_name() else { return false };
    let is_of_server = |name: &GeneralName<'_>| {
        matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_))
    };
    if alternatives.is_some_and(|names| names.value.general_names.iter().any(is_of_server)) {
        return false;
    }
    let mut common = parsed.subject().iter_common_name();
    let (Some(only), None) = (common.next(), common.next()) else { return false };
    let Ok(common) = only.as_str() else { return false };
    let wanted = wanted.as_ref();
    if common.eq_ignore_ascii_case(wanted) {
        return true;
    }
    // `*.example.org` stands for one label.
    let rest = common.strip_prefix('*').filter(|rest| rest.starts_with('.'));
    let (Some(rest), Some(dot)) = (rest, wanted.find('.')) else { return false };
    dot > 0 && wanted.get(dot..).is_some_and(|of| of.eq_ignore_ascii_case(rest))
}

fn still_valid(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let wrong = |error| Error::InvalidCertificate(error);
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| wrong(CertificateError::BadEncoding))?;
    let validity = parsed.validity();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < validity.not_before.timestamp() {
        return Err(wrong(CertificateError::NotValidYet));
    }
    if now > validity.not_after.timestamp() {
        return Err(wrong(CertificateError::Expired));
    }
    Ok(())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(trusted) = &self.trusted {
            trusted.verify(end_entity, intermediates, name, now)?;
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

//! A client, as its connection shows it: nothing that it says itself.

use forebay_seam::net::Peer;
use nix::unistd::{Uid, User};
use rustls::pki_types::CertificateDer;
use tokio::task::spawn_blocking;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::hba::From;
use crate::stream::Stream;

/// How a client came, and what that proves of it.
pub(crate) struct Caller {
    pub(crate) from: From,
    /// The hash of the certificate that we showed it, where there is TLS.
    pub(crate) binding: Option<Vec<u8>>,
    /// The certificate that it showed, and that is trusted.
    pub(crate) certificate: Option<Shown>,
    /// The user of the process at the other end of a Unix socket.
    pub(crate) uid: Option<u32>,
}

/// A client's certificate, as far as it matters.
pub(crate) struct Shown {
    /// The only common name of its subject.
    pub(crate) common_name: Option<String>,
}

impl Caller {
    /// The client behind `stream`, which came from `peer`.
    pub(crate) fn new(stream: &Stream, peer: Peer) -> Self {
        let (from, uid) = match peer {
            Peer::Tcp(address) if stream.is_encrypted() => (From::Tls(address.ip()), None),
            Peer::Tcp(address) => (From::Plain(address.ip()), None),
            Peer::Unix { uid, .. } => (From::Local, Some(uid)),
        };
        let binding = stream.channel_binding().map(|binding| binding.bytes().to_vec());
        let shown = |certificate| Shown { common_name: common_name(certificate) };
        Self { from, binding, certificate: stream.peer_certificate().map(shown), uid }
    }

    /// The name in its certificate.
    pub(crate) fn common_name(&self) -> Option<String> {
        self.certificate.as_ref()?.common_name.clone()
    }

    /// The name of the user that the process at the other end runs as. Names may come from
    /// the network, so this is asked elsewhere.
    pub(crate) async fn process_user(&self) -> Option<String> {
        let uid = Uid::from_raw(self.uid?);
        let asked = spawn_blocking(move || User::from_uid(uid).ok().flatten());
        asked.await.ok().flatten().map(|user| user.name)
    }
}

/// The common name of a certificate's subject, where it has exactly one.
fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut names = parsed.subject().iter_common_name();
    let (name, another) = (names.next()?.as_str().ok()?, names.next());
    (another.is_none() && !name.contains('\0')).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        for name in names {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_names_its_owner() {
        assert_eq!(common_name(&certificate(&["ann"])), Some("ann".into()));
        assert_eq!(common_name(&certificate(&["a\0b"])), None);
        assert_eq!(common_name(&certificate(&[])), None);
        assert_eq!(common_name(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}

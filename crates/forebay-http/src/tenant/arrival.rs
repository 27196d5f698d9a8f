//! How an agent came, and what its connection shows of it: nothing that it says in a call.

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::digest::{SHA256, digest};
use forebay_seam::net::Peer;
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// Names of one certificate that are looked at.
const NAMES: usize = 32;

/// A connection, as far as it says who is at its other end. Made once for all its calls.
pub(crate) struct Arrival {
    /// Our address; nothing for a Unix socket.
    pub(super) local: Option<SocketAddr>,
    pub(super) from: From,
    /// What the agent's certificate, which was verified, says.
    pub(super) names: Vec<Name>,
}

/// The other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Address(IpAddr),
    /// A process of this user; the kernel vouches for it.
    User(u32),
}

/// A name of a certificate's owner, or its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Common(String),
    Dns(String),
    Uri(String),
    Email(String),
    /// SHA-256 of the whole.
    Fingerprint([u8; 32]),
}

/// Why a text names no certificate.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum NameError {
    #[error("write `cn:NAME`, `dns:NAME`, `uri:URI`, `email:ADDRESS` or `sha256:HEX`")]
    Kind,
    #[error("it names nobody")]
    Empty,
    #[error("a SHA-256 has 64 hexadecimal digits")]
    Fingerprint,
}

impl Arrival {
    /// Of a connection to our address `local` from `peer`, which has proven that
    /// `certificate` is its own.
    pub(crate) fn new(
        local: Option<SocketAddr>,
        peer: &Peer,
        certificate: Option<&CertificateDer<'_>>,
    ) -> Self {
        let from = match peer {
            Peer::Tcp(address) => From::Address(address.ip().to_canonical()),
            Peer::Unix { uid, .. } => From::User(*uid),
        };
        Self { local, from, names: certificate.map(names).unwrap_or_default() }
    }
}

/// All names in `certificate` by which somebody may be known.
fn names(certificate: &CertificateDer<'_>) -> Vec<Name> {
    let mut fingerprint = [0; 32];
    for (to, from) in fingerprint.iter_mut().zip(digest(&SHA256, certificate).as_ref()) {
        *to = *from;
    }
    let mut names = vec![Name::Fingerprint(fingerprint)];
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return names };
    // Where there are several, nobody knows which of them was meant.
    let mut common = parsed.subject().iter_common_name();
    if let (Some(name), None) = (common.next(), common.next()) {
        names.extend(name.as_str().ok().filter(|n| is_plain(n)).map(|n| Name::Common(n.into())));
    }
    let Ok(Some(alternative)) = parsed.subject_alternative_name() else { return names };
    for name in alternative.value.general_names.iter().take(NAMES) {
        if let GeneralName::DNSName(name) = name {
            names.extend(is_plain(name).then(|| Name::Dns(name.to_ascii_lowercase())));
        } else if let GeneralName::URI(uri) = name {
            names.extend(is_plain(uri).then(|| Name::Uri((*uri).to_owned())));
        } else if let GeneralName::RFC822Name(mail) = name {
            names.extend(is_plain(mail).then(|| Name::Email((*mail).to_owned())));
        }
    }
    names
}

/// A name with a NUL in it reads differently to different programs.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(char::is_control)
}

impl std::str::FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (kind, name) = text.split_once(':').ok_or(NameError::Kind)?;
        let name = name.trim();
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        match kind.trim().to_ascii_lowercase().as_str() {
            "cn" => Ok(Self::Common(name.to_owned())),
            "dns" => Ok(Self::Dns(name.to_ascii_lowercase())),
            "uri" => Ok(Self::Uri(name.to_owned())),
            "email" => Ok(Self::Email(name.to_owned())),
            "sha256" => fingerprint(name).map(Self::Fingerprint).ok_or(NameError::Fingerprint),
            _ => Err(NameError::Kind),
        }
    }
}

/// 64 hexadecimal digits, with colons between them or without.
fn fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() || !digits.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        let two = digits.get(2 * index..2 * index + 2)?;
        *byte = u8::from_str_radix(two, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(common: &[&str], alternative: Vec<SanType>) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        // A second one of the same type would take the place of the first.
        let kinds = [DnType::CommonName, DnType::CustomDnType(vec![2, 5, 4, 3])];
        for (kind, name) in kinds.into_iter().zip(common) {
            params.distinguished_name.push(kind, *name);
        }
        params.subject_alt_names = alternative;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_is_known_by_its_names_and_by_itself() {
        let alternative = vec![
            SanType::DnsName("Agent.Acme.test".try_into().unwrap()),
            SanType::URI("spiffe://acme/agent/7".try_into().unwrap()),
            SanType::Rfc822Name("seven@acme.test".try_into().unwrap()),
        ];
        let certificate = certificate(&["agent-7"], alternative);
        let hex: String = digest(&SHA256, &certificate)
            .as_ref()
            .iter()
            .fold(String::new(), |hex, byte| format!("{hex}{byte:02X}"));
        let found = names(&certificate);
        for wanted in [
            "cn:agent-7",
            "DNS:agent.acme.TEST",
            "uri:spiffe://acme/agent/7",
            "email: seven@acme.test",
            &format!("sha256:{hex}"),
        ] {
            assert!(found.contains(&wanted.parse().unwrap()), "{wanted}: {found:?}");
        }
        assert_eq!(found.len(), 5);
    }

    #[test]
    fn a_certificate_with_two_common_names_has_none() {
        let found = names(&certificate(&["acme", "zeta"], Vec::new()));
        assert!(!found.iter().any(|name| matches!(name, Name::Common(_))), "{found:?}");
    }

    #[test]
    fn what_is_no_certificate_has_no_names_but_its_fingerprint() {
        assert_eq!(names(&CertificateDer::from(vec![1, 2, 3])).len(), 1);
    }

    #[test]
    fn what_names_no_certificate_says_what_would() {
        let error = |text: &str| text.parse::<Name>().unwrap_err();
        assert_eq!(error("agent-7"), NameError::Kind);
        assert_eq!(error("o:Acme"), NameError::Kind);
        assert_eq!(error("cn: "), NameError::Empty);
        assert_eq!(error("sha256:abc"), NameError::Fingerprint);
    }
}

//! Cipher suites by the names that people know: those of IANA and those of OpenSSL.

use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, SupportedCipherSuite};

/// `provider` with only the suites `named`, the best first; with all that it has where none
/// are.
///
/// # Errors
/// A name that is none, or that rustls does not have; those that it has.
pub(super) fn choose(
    mut provider: CryptoProvider,
    named: &[String],
) -> Result<CryptoProvider, String> {
    if named.is_empty() {
        return Ok(provider);
    }
    let all = std::mem::take(&mut provider.cipher_suites);
    for name in named {
        let found = all.iter().find(|suite| names(suite).iter().any(|n| n == name));
        let Some(suite) = found else {
            let list: Vec<_> = all.iter().map(|suite| names(suite)[0].clone()).collect();
            return Err(format!(
                "`{name}` is no cipher suite that this program has; it has {}",
                list.join(", ")
            ));
        };
        provider.cipher_suites.push(*suite);
    }
    Ok(provider)
}

/// IANA's name and OpenSSL's.
fn names(suite: &SupportedCipherSuite) -> [String; 2] {
    let ours = suite.suite();
    let iana = iana(ours);
    let openssl = match iana.strip_prefix("TLS_ECDHE_") {
        Some(rest) => {
            let rest = rest.replace("_WITH_", "_").replace("AES_", "AES").replace('_', "-");
            format!("ECDHE-{}", rest.trim_end_matches("-SHA256-POLY1305"))
        }
        None => iana.clone(),
    };
    let openssl = match openssl.strip_suffix("-CHACHA20-POLY1305-SHA256") {
        Some(rest) => format!("{rest}-CHACHA20-POLY1305"),
        None => openssl,
    };
    [iana, openssl]
}

/// rustls calls the suites of TLS 1.3 `TLS13_…`.
fn iana(suite: CipherSuite) -> String {
    suite.as_str().unwrap_or_default().replace("TLS13_", "TLS_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::provider;

    #[test]
    fn suites_go_by_either_name_and_in_their_order() {
        let named = ["ECDHE-RSA-AES128-GCM-SHA256", "TLS_AES_256_GCM_SHA384"].map(str::to_owned);
        let chosen = choose(provider(), &named).unwrap();
        let chosen: Vec<_> = chosen.cipher_suites.iter().map(|suite| suite.suite()).collect();
        let expected = [
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            CipherSuite::TLS13_AES_256_GCM_SHA384,
        ];
        assert_eq!(chosen, expected);
        for openssl in [
            "ECDHE-ECDSA-AES256-GCM-SHA384",
            "ECDHE-ECDSA-CHACHA20-POLY1305",
            "ECDHE-RSA-CHACHA20-POLY1305",
            "TLS_CHACHA20_POLY1305_SHA256",
        ] {
            assert!(choose(provider(), &[openssl.to_owned()]).is_ok(), "{openssl}");
        }
    }

    #[test]
    fn a_suite_that_is_not_there_is_told_with_those_that_are() {
        for name in ["HIGH:!aNULL", "AES128-SHA", "ecdhe-rsa-aes128-gcm-sha256", ""] {
            let error = choose(provider(), &[name.to_owned()]).unwrap_err();
            assert!(error.contains("TLS_AES_256_GCM_SHA384"), "{error}");
        }
    }
}

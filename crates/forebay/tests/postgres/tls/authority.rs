//! A certificate authority of the tests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::CertificateDer;

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap();
        let (pem, der) = (ca.pem(), ca.der().clone());
        Self { issuer: Issuer::new(params, key), pem, der }
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// A certificate for servers called `names`, or for a user by its common name, and the key.
    pub(crate) fn sign(&self, names: &[&str], common: &str) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common);
        params.serial_number = Some(SerialNumber::from(serial(common)));
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// As [`Authority::sign`], into files of `folder`.
    pub(crate) fn write(
        &self,
        folder: &Path,
        file: &str,
        names: &[&str],
        common: &str,
    ) -> (PathBuf, PathBuf) {
        let (cert, key) = self.sign(names, common);
        let paths = ["crt", "key"].map(|ending| folder.join(format!("{file}.{ending}")));
        put(&paths[0], &cert);
        put(&paths[1], &key);
        let [cert, key] = paths;
        (cert, key)
    }

    /// Its own certificate, in a file of `folder`.
    pub(crate) fn write_own(&self, folder: &Path) -> PathBuf {
        let path = folder.join("authority.crt");
        put(&path, &self.pem);
        path
    }

    /// A list that revokes the certificates of `common`.
    pub(crate) fn revoke(&self, common: &[&str]) -> String {
        let day = |n| rcgen::date_time_ymd(n, 1, 1);
        let revoked = common.iter().map(|common| RevokedCertParams {
            serial_number: SerialNumber::from(serial(common)),
            revocation_time: day(2026),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: day(2026),
            next_update: day(2076),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn serial(common: &str) -> u64 {
    common.bytes().fold(7, |sum, byte| sum * 31 + u64::from(byte)) & (u64::MAX >> 1)
}

/// A file that only its owner reads: libpq insists.
pub(crate) fn put(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

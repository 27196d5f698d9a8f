//! TLS: towards clients here, towards servers for the tables that [`super::servers`] writes.

use super::super::file::File;
use super::{NoteKind, Work};

/// Versions that exist here, by PgBouncer's names.
const VERSIONS: [(&str, &str); 2] = [("tlsv1.2", "1.2"), ("tlsv1.3", "1.3")];
/// Names for "whatever OpenSSL does by default".
const DEFAULT_CIPHERS: [&str; 6] = ["default", "secure", "fast", "normal", "all", "<empty>"];

const TABLE: &[&str] = &["postgres", "tls"];

pub(super) fn translate(work: &mut Work<'_>) {
    let file = work.file;
    let mode = file.text("client_tls_sslmode").unwrap_or_default().to_ascii_lowercase();
    if mode == "disable" {
        return;
    }
    let (cert, key) = (file.nonempty("client_tls_cert_file"), file.nonempty("client_tls_key_file"));
    let (Some(cert), Some(key)) = (cert, key) else {
        let reason = "client_tls_sslmode: to take TLS connections, set `client_tls_cert_file` \
                      and `client_tls_key_file`";
        return work.refuse(file.place("client_tls_sslmode"), reason);
    };
    let place = file.place("client_tls_sslmode");
    work.document.set(TABLE, "mode", mode).from(place);
    work.document.set(TABLE, "cert", cert).from(file.place("client_tls_cert_file"));
    work.document.set(TABLE, "key", key).from(file.place("client_tls_key_file"));
    if let Some(authority) = file.nonempty("client_tls_ca_file") {
        work.document.set(TABLE, "ca_file", authority).from(file.place("client_tls_ca_file"));
    }
    limits(work, Side::Clients, TABLE);
}

/// Towards whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Clients,
    Servers,
}

impl Side {
    /// PgBouncer's name of protocols.
    fn theirs(self) -> &'static str {
        match self {
            Self::Clients => "client_tls_protocols",
            Self::Servers => "server_tls_protocols",
        }
    }

    /// Ours of the lowest version and the highest.
    fn ours(self) -> [&'static str; 2] {
        match self {
            Self::Clients => ["min_version", "max_version"],
            Self::Servers => ["ssl_min_version", "ssl_max_version"],
        }
    }
}

/// Versions and ciphers, into `table`.
pub(super) fn limits(work: &mut Work<'_>, side: Side, table: &[&str]) {
    let file = work.file;
    let protocols = side.theirs();
    let [lowest, highest] = side.ours();
    match versions(file, protocols) {
        Ok((min, max)) => {
            if min != "1.2" {
                work.document.set(table, lowest, min).from(file.place(protocols));
            }
            if max != "1.3" {
                work.document.set(table, highest, max).from(file.place(protocols));
            }
        }
        Err(reason) => return work.refuse(file.place(protocols), format!("{protocols}: {reason}")),
    }
    if let Side::Clients = side {
        ciphers(work, table);
    }
}

/// Suites of TLS 1.2, and of 1.3, that are there where only those of the other are named.
const SUITES_12: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-CHACHA20-POLY1305",
];
const SUITES_13: [&str; 3] =
    ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"];

/// PgBouncer has a list for each version; here one list is for both, and names all there is.
fn ciphers(work: &mut Work<'_>, table: &[&str]) {
    let (old, new) = ("client_tls_ciphers", "client_tls13_ciphers");
    let (Some(of_12), Some(of_13)) = (suites(work, old), suites(work, new)) else { return };
    if of_12.is_empty() && of_13.is_empty() {
        return;
    }
    let mut named: Vec<&str> = if of_13.is_empty() { SUITES_13.to_vec() } else { of_13 };
    named.extend(if of_12.is_empty() { SUITES_12.to_vec() } else { of_12 });
    let place = work.file.place(old).or(work.file.place(new));
    work.document.set(table, "ciphers", named).from(place);
}

/// The suites that the setting `name` lists; nothing where it is no list, and that was told.
fn suites<'f>(work: &mut Work<'f>, name: &str) -> Option<Vec<&'f str>> {
    let file = work.file;
    let text = file.nonempty(name).unwrap_or("default");
    if DEFAULT_CIPHERS.iter().any(|default| text.eq_ignore_ascii_case(default)) {
        return Some(Vec::new());
    }
    let names: Vec<_> = text.split([':', ',', ' ']).filter(|name| !name.is_empty()).collect();
    if names.iter().all(|name| SUITES_12.contains(name) || SUITES_13.contains(name)) {
        return Some(names);
    }
    let said = "not all of these are suites that exist here, or it is a rule in OpenSSL's language: \
                the suites are the strong ones of TLS 1.2 and 1.3";
    work.note(NoteKind::Dropped, name, file.place(name), said);
    None
}

/// The lowest and the highest version that `name` allows.
fn versions(file: &File, name: &str) -> Result<(&'static str, &'static str), &'static str> {
    let text = file.text(name).unwrap_or_default().to_ascii_lowercase();
    if matches!(text.as_str(), "" | "secure" | "all" | "legacy" | "default") {
        return Ok(("1.2", "1.3"));
    }
    let names: Vec<_> = text.split([',', ':', ' ']).filter(|name| !name.is_empty()).collect();
    let known = ["tlsv1.0", "tlsv1.1", "tlsv1.2", "tlsv1.3", "secure", "all", "legacy"];
    if names.iter().any(|name| !known.contains(name)) {
        return Err("expected `secure`, `all`, or some of tlsv1.2, tlsv1.3");
    }
    let shortcut = |name: &&str| matches!(*name, "secure" | "all" | "legacy");
    if names.iter().any(shortcut) {
        return Ok(("1.2", "1.3"));
    }
    let mut allowed = VERSIONS.iter().filter(|(theirs, _)| names.contains(theirs));
    let first = allowed.next().ok_or(
        "TLS 1.0 and 1.1 do not exist here: add `tlsv1.2` or `tlsv1.3`, which every driver of \
         the last ten years speaks",
    )?;
    Ok((first.1, allowed.next().unwrap_or(first).1))
}

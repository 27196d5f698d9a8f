//! Who may come from where, and by which method: pg_hba.conf, the first line that fits decides.
//!
//! Decides and touches nothing; `read` makes the rules of a file. Always true: a client that no
//! line fits is refused.

mod read;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::{fmt, io};

use regex_lite::Regex;

use super::Method;

/// Why a file of rules or maps cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("cannot read `{}`: {source}", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{}, line {line}: {what}", file.display())]
    Line { file: PathBuf, line: usize, what: String },
}

/// The rules of one file, in their order.
#[derive(Debug, Default)]
pub(crate) struct Hba(Vec<Rule>);

/// A line.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) line: usize,
    way: Way,
    databases: Vec<Database>,
    users: Vec<User>,
    addresses: Addresses,
    pub(crate) demand: Demand,
}

/// What a line asks of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Demand {
    pub(crate) method: Method,
    /// The map of names, for `cert` and `peer`.
    pub(crate) map: Option<Arc<str>>,
    pub(crate) certificate: Certificate,
}

impl Demand {
    pub(crate) fn of(method: Method) -> Self {
        let certificate =
            if method == Method::Cert { Certificate::Named } else { Certificate::NotNeeded };
        Self { method, map: None, certificate }
    }
}

/// Whether a line asks for a client's certificate besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certificate {
    NotNeeded,
    /// One that is trusted (`clientcert=verify-ca`).
    Trusted,
    /// One that is trusted, and made out for the user (`clientcert=verify-full`).
    Named,
}

/// How a line wants clients to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Local,
    Host,
    HostSsl,
    HostNoSsl,
    /// By GSSAPI's encryption, which nobody does here.
    HostGss,
}

#[derive(Debug)]
enum Database {
    All,
    SameUser,
    Replication,
    Name(String),
    Pattern(Regex),
}

#[derive(Debug)]
enum User {
    All,
    Name(String),
    Pattern(Regex),
}

#[derive(Debug)]
enum Addresses {
    /// Of a line for Unix sockets.
    None,
    All,
    /// Those of this machine, or of its networks: as they were when the file was read.
    Networks(Vec<Network>),
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    base: IpAddr,
    mask: IpAddr,
}

impl Network {
    fn has(self, address: IpAddr) -> bool {
        match (self.base, self.mask, address) {
            (IpAddr::V4(base), IpAddr::V4(mask), IpAddr::V4(address)) => {
                (base & mask) == (address & mask)
            }
            (IpAddr::V6(base), IpAddr::V6(mask), IpAddr::V6(address)) => {
                (base & mask) == (address & mask)
            }
            _ => false,
        }
    }
}

/// How a client came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// By a Unix socket.
    Local,
    /// In plaintext.
    Plain(IpAddr),
    Tls(IpAddr),
}

impl From {
    /// Its address, if it has one.
    pub(crate) fn address(self) -> Option<IpAddr> {
        match self {
            Self::Local => None,
            // A v4 client of a v6 socket is a v4 client.
            Self::Plain(address) | Self::Tls(address) => Some(address.to_canonical()),
        }
    }
}

impl fmt::Display for From {
    /// As PostgreSQL shows it where nothing fits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("[local]"),
            Self::Plain(address) | Self::Tls(address) => address.to_canonical().fmt(f),
        }
    }
}

/// What a client says that it wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub(crate) user: &'a str,
    pub(crate) database: &'a str,
    pub(crate) replicates: Replicates,
}

/// Whether a client wants to replicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replicates {
    No,
    /// The whole server: only lines for `replication` fit.
    Server,
    /// What a database decodes: lines for the database fit.
    Database,
}

impl Hba {
    /// The first line that fits.
    pub(crate) fn rule(&self, from: From, wish: Wish<'_>) -> Option<&Rule> {
        self.0.iter().find(|rule| rule.fits(from, wish))
    }

    pub(crate) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }
}

impl Rule {
    fn fits(&self, from: From, wish: Wish<'_>) -> bool {
        let by_way = match (self.way, from) {
            (Way::Local, From::Local)
            | (Way::Host, From::Plain(_) | From::Tls(_))
            | (Way::HostSsl, From::Tls(_))
            | (Way::HostNoSsl, From::Plain(_)) => true,
            (Way::Local | Way::Host | Way::HostSsl | Way::HostNoSsl | Way::HostGss, _) => false,
        };
        let by_address = || match (&self.addresses, from.address()) {
            (Addresses::None, None) | (Addresses::All, Some(_)) => true,
            (Addresses::Networks(networks), Some(address)) => {
                networks.iter().any(|network| network.has(address))
            }
            (Addresses::None, Some(_)) | (Addresses::All | Addresses::Networks(_), None) => false,
        };
        by_way
            && by_address()
            && self.databases.iter().any(|database| database.fits(wish))
            && self.users.iter().any(|user| user.fits(wish.user))
    }
}

impl Database {
    fn fits(&self, wish: Wish<'_>) -> bool {
        if wish.replicates == Replicates::Server {
            return matches!(self, Self::Replication);
        }
        match self {
            Self::All => true,
            Self::SameUser => wish.database == wish.user,
            Self::Replication => false,
            Self::Name(name) => name == wish.database,
            Self::Pattern(pattern) => pattern.is_match(wish.database),
        }
    }
}

impl User {
    fn fits(&self, user: &str) -> bool {
        match self {
            Self::All => true,
            Self::Name(name) => name == user,
            Self::Pattern(pattern) => pattern.is_match(user),
        }
    }
}

#[cfg(test)]
mod tests;

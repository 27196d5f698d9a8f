//! The ways to prove who one is, by the names that PostgreSQL gives them.

use std::fmt;
use std::sync::Arc;

/// How a client has to prove who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Method {
    /// It need not; but it must be somebody we know, where we know anybody.
    Trust,
    /// It need not, and may be anybody.
    Any,
    Reject,
    Password,
    Md5,
    ScramSha256,
    Cert,
    Peer,
    /// One of PostgreSQL's that is not offered here.
    Unsupported(Arc<str>),
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trust => "trust",
            Self::Any => "any",
            Self::Reject => "reject",
            Self::Password => "password",
            Self::Md5 => "md5",
            Self::ScramSha256 => "scram-sha-256",
            Self::Cert => "cert",
            Self::Peer => "peer",
            Self::Unsupported(name) => name,
        })
    }
}

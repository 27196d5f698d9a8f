//! Where the gateway listens: TCP addresses and Unix sockets, one or several.
//!
//! Always true: there is at least one address, and none twice.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use forebay_seam::net::Address;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::server::place::socket_in;

/// The port that a socket in a folder is called by where no TCP address has one.
const PORT: u16 = 6432;

/// One or several addresses: `127.0.0.1:6432`, `[::]:6432`, `unix:/run/forebay` (the socket
/// `.s.PGSQL.PORT` in that folder, with the port of the first TCP address, else 6432) or
/// `/run/forebay/.s.PGSQL.6432`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen(Vec<Address>);

impl Listen {
    /// Reads addresses as people write them.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn parse<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, String> {
        let texts: Vec<&str> = texts.into_iter().collect();
        let tcp = texts.iter().filter_map(|text| text.parse().ok());
        let port = tcp.map(|address: SocketAddr| address.port()).find(|port| *port > 0);
        let mut addresses = Vec::new();
        for text in texts {
            let path = text.strip_prefix("unix:").unwrap_or(text);
            let address = if path.starts_with('/') {
                Address::Unix(socket_in(Path::new(path), port.unwrap_or(PORT)).into())
            } else {
                let address: Result<SocketAddr, _> = text.parse();
                Address::Tcp(address.map_err(|_| {
                    "expected an IP address and a port, such as \"127.0.0.1:6432\", or a Unix \
                     socket, such as \"unix:/run/forebay\""
                        .to_owned()
                })?)
            };
            if addresses.contains(&address) && !has_any_port(&address) {
                return Err(format!("`{address}` is there twice"));
            }
            addresses.push(address);
        }
        if addresses.is_empty() {
            return Err("expected at least one address".to_owned());
        }
        Ok(Self(addresses))
    }

    /// The addresses, in their order.
    pub fn addresses(&self) -> &[Address] {
        &self.0
    }

    /// Those that are no Unix sockets.
    pub(crate) fn tcp(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().filter_map(|address| match address {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        })
    }

    /// The port that the gateway is called by.
    pub(crate) fn port(&self) -> u16 {
        self.tcp().map(|address| address.port()).next().unwrap_or(PORT)
    }

    /// The folder of the first Unix socket.
    pub(crate) fn folder(&self) -> Option<String> {
        self.0.iter().find_map(|address| match address {
            Address::Unix(path) => Some(path.parent()?.display().to_string()),
            Address::Tcp(_) => None,
        })
    }

    /// Can only programs of this machine connect?
    pub fn is_local(&self) -> bool {
        self.0.iter().all(|address| match address {
            Address::Tcp(address) => address.ip().is_loopback(),
            Address::Unix(_) => true,
        })
    }
}

fn has_any_port(address: &Address) -> bool {
    matches!(address, Address::Tcp(address) if address.port() == 0)
}

impl Default for Listen {
    /// 127.0.0.1:6432.
    fn default() -> Self {
        Self::from(SocketAddr::from(([127, 0, 0, 1], PORT)))
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self(vec![Address::Tcp(address)])
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, address) in self.0.iter().enumerate() {
            write!(f, "{}{address}", if number == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrSeveral;
        impl<'de> Visitor<'de> for OneOrSeveral {
            type Value = Listen;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, such as \"127.0.0.1:6432\", or a list of them")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Listen, E> {
                Listen::parse([text]).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Listen, A::Error> {
                let mut texts: Vec<String> = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Listen::parse(texts.iter().map(String::as_str)).map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_any(OneOrSeveral)
    }
}

impl JsonSchema for Listen {
    fn schema_name() -> Cow<'static, str> {
        "Listen".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "array"], "items": { "type": "string" } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Listen, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn one_address_or_several_of_either_kind() {
        for (json, shown) in [
            (r#""127.0.0.1:6432""#, "127.0.0.1:6432"),
            (r#""unix:/run/fb""#, "/run/fb/.s.PGSQL.6432"),
            (r#""/run/fb/.s.PGSQL.7777""#, "/run/fb/.s.PGSQL.7777"),
            (r#"["[::]:5432", "unix:/run/fb"]"#, "[::]:5432, /run/fb/.s.PGSQL.5432"),
            (r#"["unix:/a", "unix:/b"]"#, "/a/.s.PGSQL.6432, /b/.s.PGSQL.6432"),
        ] {
            assert_eq!(read(json).unwrap().to_string(), shown, "{json}");
        }
        for bad in ["\"here\"", "[]", "5432", r#"["unix:/a", "/a"]"#, "\"\"", "[\"\"]"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read("\"here\"").unwrap_err().contains("such as \"127.0.0.1:6432\""));
    }

    #[test]
    fn local_is_what_only_this_machine_reaches() {
        assert!(read(r#"["127.0.0.1:1", "[::1]:1", "unix:/a"]"#).unwrap().is_local());
        assert!(!read(r#"["unix:/a", "0.0.0.0:1"]"#).unwrap().is_local());
    }
}

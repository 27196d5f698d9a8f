//! Where agents send their calls: TCP addresses and Unix sockets, one or several.
//!
//! Always true: there is at least one address, and none twice.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use forebay_seam::net::Address;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// `[http.tls]`: TLS towards agents, which say by ALPN whether they speak HTTP/2 or HTTP/1.1
/// in it. Its files are read anew when they change.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentTls {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// Certificates that may sign those of agents, PEM. Agents are asked for a certificate
    /// then, and one that is shown must be good. Default: nobody is asked.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// One or several addresses: `127.0.0.1:6480`, `[::]:6480`, `unix:/run/forebay/http.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen(Vec<Address>);

impl Listen {
    /// Reads addresses as people write them.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn parse<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, String> {
        let mut addresses = Vec::new();
        for text in texts {
            let path = text.strip_prefix("unix:").unwrap_or(text);
            let address = if path.starts_with('/') {
                if path.ends_with('/') {
                    return Err(format!("`{text}` is a folder: write the path of a socket in it"));
                }
                Address::Unix(Path::new(path).into())
            } else {
                let address: Result<SocketAddr, _> = text.parse();
                Address::Tcp(address.map_err(|_| {
                    "expected an IP address and a port, such as \"127.0.0.1:6480\", or a Unix \
                     socket, such as \"unix:/run/forebay/http.sock\""
                        .to_owned()
                })?)
            };
            let has_any_port = matches!(&address, Address::Tcp(tcp) if tcp.port() == 0);
            if addresses.contains(&address) && !has_any_port {
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

    /// Can only programs of this machine connect?
    pub fn is_local(&self) -> bool {
        self.0.iter().all(|address| match address {
            Address::Tcp(address) => address.ip().is_loopback(),
            Address::Unix(_) => true,
        })
    }
}

impl Default for Listen {
    /// 127.0.0.1:6480.
    fn default() -> Self {
        Self::from(SocketAddr::from(([127, 0, 0, 1], 6480)))
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
                f.write_str("an address, such as \"127.0.0.1:6480\", or a list of them")
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
        "HttpListen".into()
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
            (r#""127.0.0.1:6480""#, "127.0.0.1:6480"),
            (r#""unix:/run/fb.sock""#, "/run/fb.sock"),
            (r#"["[::]:80", "/run/fb.sock"]"#, "[::]:80, /run/fb.sock"),
        ] {
            assert_eq!(read(json).unwrap().to_string(), shown, "{json}");
        }
        for bad in ["\"here\"", "[]", "5432", r#"["unix:/a", "/a"]"#, "\"\"", "\"/run/\""] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read("\"here\"").unwrap_err().contains("such as \"127.0.0.1:6480\""));
    }

    #[test]
    fn local_is_what_only_this_machine_reaches() {
        assert!(read(r#"["127.0.0.1:1", "[::1]:1", "unix:/a"]"#).unwrap().is_local());
        assert!(!read(r#"["unix:/a", "0.0.0.0:1"]"#).unwrap().is_local());
    }
}

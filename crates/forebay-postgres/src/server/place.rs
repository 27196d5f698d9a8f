//! Where a server is, as people write it: a host with or without a port, or a Unix socket.

use std::fmt;
use std::io;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_seam::net::{self, Address};

/// PostgreSQL's port.
const PORT: u16 = 5432;

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A name or an IP address, resolved when its addresses are old.
    Host { host: String, port: u16 },
    /// A Unix socket.
    Socket(Arc<Path>),
}

impl Place {
    /// Reads `host`, `host:port`, `[v6]:port`, a folder (`/var/run/postgresql`) or a socket
    /// (`/var/run/postgresql/.s.PGSQL.5433`), the last two also behind `unix:`.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Self::parse_with(text, PORT)
    }

    /// As [`Place::parse`], with another port where none is named.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn parse_with(text: &str, port: u16) -> Result<Self, String> {
        let path = text.strip_prefix("unix:").unwrap_or(text);
        if path.starts_with('/') {
            return Ok(Self::Socket(socket_in(Path::new(path), port).into()));
        }
        let (host, named) = host_and_port(text)?;
        Ok(Self::Host { host, port: named.unwrap_or(port) })
    }

    /// Its addresses, at this moment.
    ///
    /// # Errors
    /// When the name cannot be resolved.
    pub(crate) async fn addresses(&self) -> io::Result<Vec<Address>> {
        match self {
            Self::Host { host, port } => {
                let resolved = net::resolve(host, *port).await?;
                Ok(resolved.into_iter().map(Address::Tcp).collect())
            }
            Self::Socket(path) => Ok(vec![Address::Unix(Arc::clone(path))]),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { host, port } => write!(f, "{host}:{port}"),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}

/// The socket that `path` means: itself, or the one of `port` in the folder that it is.
pub(crate) fn socket_in(path: &Path, port: u16) -> PathBuf {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if name.starts_with(".s.PGSQL.") {
        path.to_owned()
    } else {
        path.join(format!(".s.PGSQL.{port}"))
    }
}

fn host_and_port(text: &str) -> Result<(String, Option<u16>), String> {
    let wrong = || {
        format!(
            "`{text}` is no address: write `host`, `host:port`, `[v6]:port` or the folder of a \
             Unix socket, `/var/run/postgresql`"
        )
    };
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
            host.parse::<Ipv6Addr>().map_err(|_| wrong())?;
            let port = match port {
                "" => None,
                port => Some(port.strip_prefix(':').ok_or_else(wrong)?),
            };
            (host, port)
        }
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(port) => Some(port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?),
        None => None,
    };
    if host.is_empty() || host.contains(char::is_whitespace) || host.contains(['/', '@', '?']) {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(host: &str, port: u16) -> Place {
        Place::Host { host: host.into(), port }
    }

    #[test]
    fn addresses_are_hosts_with_or_without_a_port() {
        assert_eq!(Place::parse("db").unwrap(), host("db", 5432));
        assert_eq!(Place::parse("127.0.0.1:5433").unwrap(), host("127.0.0.1", 5433));
        assert_eq!(Place::parse("[::1]:5433").unwrap(), host("::1", 5433));
        assert_eq!(Place::parse("::1").unwrap(), host("::1", 5432));
        for bad in [
            "",
            ":5432",
            "db:",
            "db:0",
            "db:99999",
            "db:x",
            "[::1",
            "[::1]x",
            "[db]:1",
            "ann@db",
            "postgres://db/x",
            "a b",
            "unix:",
        ] {
            assert!(Place::parse(bad).unwrap_err().contains("is no address"), "{bad}");
        }
    }

    #[test]
    fn a_path_is_the_folder_of_a_socket_or_the_socket() {
        let socket = |path: &str| Place::Socket(Path::new(path).into());
        for (text, path) in [
            ("/run/pg", "/run/pg/.s.PGSQL.5432"),
            ("/run/pg/", "/run/pg/.s.PGSQL.5432"),
            ("unix:/run/pg", "/run/pg/.s.PGSQL.5432"),
            ("/run/pg/.s.PGSQL.5433", "/run/pg/.s.PGSQL.5433"),
            ("unix:/run/pg/.s.PGSQL.5433", "/run/pg/.s.PGSQL.5433"),
        ] {
            assert_eq!(Place::parse(text).unwrap(), socket(path), "{text}");
        }
    }
}

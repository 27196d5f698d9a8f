//! Addresses as people write them.

/// `host`, `host:port` or `[v6]:port`.
pub(super) fn address(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("`{text}` is no address: write `host`, `host:port` or `[v6]:port`");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
            (host, port.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?,
        None => 5432,
    };
    if host.is_empty() || host.contains(char::is_whitespace) || host.contains('/') {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_with_or_without_a_port() {
        assert_eq!(address("db").unwrap(), ("db".into(), 5432));
        assert_eq!(address("127.0.0.1:5433").unwrap(), ("127.0.0.1".into(), 5433));
        assert_eq!(address("[::1]:5433").unwrap(), ("::1".into(), 5433));
        assert_eq!(address("::1").unwrap(), ("::1".into(), 5432));
        for bad in ["", ":5432", "db:", "db:0", "db:x", "[::1", "postgres://db/x", "a b"] {
            assert!(address(bad).unwrap_err().contains("is no address"), "{bad}");
        }
    }
}

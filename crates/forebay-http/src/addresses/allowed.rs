//! Which addresses calls may reach.
//!
//! A name is in somebody's hands, and may be made to lead into our own network: to the
//! machine's own services, or to where a cloud gives out its keys (169.254.169.254). So what
//! a name leads to must be an address of the public Internet, unless the operator lists it.
//! An address, or `localhost`, in the URL itself is the operator's own word, and counts as
//! listed. Always true: what is written in another notation (IPv4 in IPv6, NAT64, 6to4) is
//! judged as what it means.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network: an address and how many of its bits count, as in `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    bits: u8,
}

/// It is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no network: write `10.0.0.0/8`, `fd00::/8` or a single address")]
pub(crate) struct NoNetwork(String);

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let wrong = || NoNetwork(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| wrong()))?;
        if bits > most { Err(wrong()) } else { Ok(Self { address, bits }) }
    }
}

impl Network {
    const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), bits }
    }

    const fn v6(first: u16, second: u16, bits: u8) -> Self {
        let address = IpAddr::V6(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0));
        Self { address, bits }
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                ours.to_bits() & mask == theirs.to_bits() & mask
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                ours.to_bits() & mask == theirs.to_bits() & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Not of the public Internet, IPv4 (IANA, "IPv4 Special-Purpose Address Registry").
const INNER_V4: [Network; 16] = [
    Network::v4(0, 0, 0, 0, 8),
    Network::v4(10, 0, 0, 0, 8),
    Network::v4(100, 64, 0, 0, 10),
    Network::v4(127, 0, 0, 0, 8),
    Network::v4(169, 254, 0, 0, 16),
    Network::v4(172, 16, 0, 0, 12),
    Network::v4(192, 0, 0, 0, 24),
    Network::v4(192, 0, 2, 0, 24),
    Network::v4(192, 31, 196, 0, 24),
    Network::v4(192, 88, 99, 0, 24),
    Network::v4(192, 168, 0, 0, 16),
    Network::v4(198, 18, 0, 0, 15),
    Network::v4(198, 51, 100, 0, 24),
    Network::v4(203, 0, 113, 0, 24),
    Network::v4(224, 0, 0, 0, 4),
    Network::v4(240, 0, 0, 0, 4),
];

/// The public Internet, IPv6, and what of it is not (IANA, "IPv6 Special-Purpose Address
/// Registry"): protocol assignments with Teredo, documentation, 6to4.
const OUTER_V6: Network = Network::v6(0x2000, 0, 3);
const INNER_V6: [Network; 4] = [
    Network::v6(0x2001, 0, 23),
    Network::v6(0x2001, 0xdb8, 32),
    Network::v6(0x2002, 0, 16),
    Network::v6(0x3fff, 0, 20),
];

/// Where calls may go.
#[derive(Debug, Clone)]
pub(crate) enum Allowed {
    /// Wherever the URL says.
    AsWritten,
    /// To the machine itself only: `localhost`.
    Loopback,
    /// Anywhere but to what no service has: link-local addresses, multicast and such.
    Inside,
    /// To the public Internet, and to these networks.
    Outside(Vec<Network>),
}

impl Allowed {
    /// What the operator means by `host`: what was written as an address is listed by that,
    /// and a name leads to the public Internet, or to `networks`, or with `private` to what
    /// has a service at all.
    pub(crate) fn of(host: &str, private: Private, networks: &[Network]) -> Self {
        if host.parse::<IpAddr>().is_ok() {
            return Self::AsWritten;
        }
        match private {
            Private::Allowed => Self::Inside,
            Private::Listed if host.eq_ignore_ascii_case("localhost") => Self::Loopback,
            Private::Listed => Self::Outside(networks.to_vec()),
        }
    }

    /// May calls go to `address`?
    pub(crate) fn permits(&self, address: IpAddr) -> bool {
        let meant = meant(address);
        match self {
            Self::AsWritten => true,
            Self::Loopback => meant.is_loopback(),
            Self::Inside => !is_nowhere(meant),
            Self::Outside(listed) => {
                is_public(meant)
                    || listed
                        .iter()
                        .any(|network| network.contains(meant) || network.contains(address))
            }
        }
    }
}

/// Whether names may lead to private addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Private {
    /// They may.
    Allowed,
    /// Only to those that are listed.
    Listed,
}

/// What an address means, whatever it is wrapped in: IPv4-mapped and -compatible (RFC 4291,
/// 2.5.5), NAT64 (RFC 6052 and 8215), 6to4 (RFC 3056).
fn meant(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => v4(g, h),
        [0, 0, 0, 0, 0xffff, 0] => v4(g, h),
        [0, 0, 0, 0, 0, 0] if v6 != Ipv6Addr::LOCALHOST && v6 != Ipv6Addr::UNSPECIFIED => v4(g, h),
        [0x64, 0xff9b, 1, ..] => v4(g, h),
        [0x2002, high, low, ..] => v4(high, low),
        _ => address,
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => !INNER_V4.iter().any(|network| network.contains(address)),
        IpAddr::V6(_) => {
            OUTER_V6.contains(address) && !INNER_V6.iter().any(|network| network.contains(address))
        }
    }
}

/// No service is there: nowhere, everywhere, or the link itself, where clouds keep their keys.
fn is_nowhere(address: IpAddr) -> bool {
    let nowhere = address.is_unspecified() || address.is_multicast();
    nowhere
        || match address {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
            // Clouds answer here, too (fd00:ec2::254).
            IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.segments()[..2] == [0xfd00, 0xec2],
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(allowed: &Allowed, address: &str) -> bool {
        allowed.permits(address.parse().unwrap())
    }

    const INNER: [&str; 26] = [
        "127.0.0.1",
        "127.8.9.10",
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "::",
        "::1",
        "fe80::1",
        "fd00:ec2::254",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::10.0.0.1",
        "2002:7f00:1::",
    ];

    #[test]
    fn a_name_leads_to_the_public_internet_only() {
        let allowed = Allowed::of("api.test", Private::Listed, &[]);
        for address in INNER {
            assert!(!permits(&allowed, address), "{address}");
        }
        for address in ["8.8.8.8", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(permits(&allowed, address), "{address}");
        }
    }

    #[test]
    fn networks_that_are_listed_are_allowed_however_they_are_written() {
        let networks = ["10.1.0.0/16".parse().unwrap(), "fd12::/16".parse().unwrap()];
        let allowed = Allowed::of("api.test", Private::Listed, &networks);
        for (address, is) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.0.1", false),
            ("fd12::9", true),
            ("fd13::9", false),
            ("127.0.0.1", false),
            ("1.1.1.1", true),
        ] {
            assert_eq!(permits(&allowed, address), is, "{address}");
        }
    }

    #[test]
    fn where_private_addresses_are_allowed_those_of_clouds_keys_are_not() {
        let allowed = Allowed::of("tools.internal", Private::Allowed, &[]);
        for address in ["10.0.0.1", "127.0.0.1", "fc00::1", "8.8.8.8", "100.64.0.1"] {
            assert!(permits(&allowed, address), "{address}");
        }
        for address in ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "::"] {
            assert!(!permits(&allowed, address), "{address}");
        }
        assert!(!permits(&allowed, "fd00:ec2::254") && !permits(&allowed, "239.1.1.1"));
    }

    #[test]
    fn what_is_written_as_an_address_is_meant() {
        for host in ["127.0.0.1", "10.0.0.1", "::1", "169.254.169.254"] {
            assert!(permits(&Allowed::of(host, Private::Listed, &[]), host));
        }
        let localhost = Allowed::of("localhost", Private::Listed, &[]);
        assert!(permits(&localhost, "127.0.0.1") && permits(&localhost, "::1"));
        assert!(!permits(&localhost, "10.0.0.1") && !permits(&localhost, "8.8.8.8"));
        assert!(!permits(&Allowed::of("localhost.test", Private::Listed, &[]), "127.0.0.1"));
    }

    #[test]
    fn what_is_no_network_is_told() {
        for wrong in ["10.0.0.0/33", "::/129", "10.0.0/8", "ten", "10.0.0.0/-1", "", "1.1.1.1/"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
        let everything: Network = "0.0.0.0/0".parse().unwrap();
        assert!(everything.contains("8.8.8.8".parse().unwrap()));
        assert!("::1".parse::<Network>().unwrap().contains("::1".parse().unwrap()));
    }
}

//! Makes rules of lines: what each field may be. An error names the file and the line.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use nix::ifaddrs::getifaddrs;
use regex_lite::Regex;

use super::{Addresses, Certificate, Database, Demand, FileError, Hba, Network, Rule, User, Way};
use crate::auth::Method;
use crate::auth::lines::{self, Line, Word};

impl Hba {
    /// Reads `file`.
    ///
    /// # Errors
    /// A file that cannot be read, or the first line that is wrong.
    pub(crate) fn read(file: &Path) -> Result<Self, FileError> {
        let text = fs::read_to_string(file)
            .map_err(|source| FileError::Read { file: file.to_owned(), source })?;
        Self::parse(&text, file)
    }

    pub(super) fn parse(text: &str, file: &Path) -> Result<Self, FileError> {
        let wrong = |(line, what)| FileError::Line { file: file.to_owned(), line, what };
        let mut rules = Vec::new();
        for line in lines::lines(text).map_err(wrong)? {
            let number = line.number;
            match rule(line, file).map_err(|what| wrong((number, what)))? {
                Some(rule) => rules.push(rule),
                None => tracing::warn!(
                    file = %file.display(), line = number,
                    "a line for `+role` fits nobody: roles of the server are not known here; \
                     name the users"
                ),
            }
        }
        Ok(Self(rules))
    }
}

/// The fields of a line, from the first to the last.
struct Fields(std::vec::IntoIter<Vec<Word>>);

impl Fields {
    fn list(&mut self, what: &str) -> Result<Vec<Word>, String> {
        self.0.next().ok_or_else(|| format!("the line ends before its {what}"))
    }

    fn word(&mut self, what: &str) -> Result<String, String> {
        let list = self.list(what)?;
        match list.as_slice() {
            [word] => Ok(word.text.clone()),
            _ => Err(format!("there must be one {what}, not a list")),
        }
    }
}

/// The line as a rule; `None` if it names nobody but members of roles.
fn rule(line: Line, file: &Path) -> Result<Option<Rule>, String> {
    let mut fields = Fields(line.fields.into_iter());
    let way = match fields.word("type")?.as_str() {
        "local" => Way::Local,
        "host" | "hostnogssenc" => Way::Host,
        "hostssl" => Way::HostSsl,
        "hostnossl" => Way::HostNoSsl,
        "hostgssenc" => Way::HostGss,
        "include" | "include_if_exists" | "include_dir" => {
            return Err("included files are not supported: put their lines here".into());
        }
        other => {
            return Err(format!("`{other}` is no type: write local, host, hostssl or hostnossl"));
        }
    };
    let databases = lines::with_files(fields.list("database")?, file)?;
    let databases = databases.iter().map(database).collect::<Result<_, _>>()?;
    let names = lines::with_files(fields.list("user")?, file)?;
    let (roles, names): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|word| word.behind('+').is_some());
    let users: Vec<_> = names.iter().map(user).collect::<Result<_, _>>()?;
    let addresses = if way == Way::Local { Addresses::None } else { addresses(&mut fields)? };
    let demand = demand(way, &mut fields)?;
    if let Some(role) = roles.first()
        && demand.method == Method::Reject
    {
        return Err(format!(
            "`{}` cannot be rejected: roles of the server are not known here; name the users",
            role.text
        ));
    }
    let rule = Rule { line: line.number, way, databases, users, addresses, demand };
    Ok((!rule.users.is_empty()).then_some(rule))
}

fn pattern(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| format!("`/{text}` is no pattern: {error}"))
}

fn database(word: &Word) -> Result<Database, String> {
    if let Some(text) = word.behind('/') {
        return pattern(text).map(Database::Pattern);
    }
    if word.is("samerole") || word.is("samegroup") {
        return Err("roles of the server are not known here: name the databases".into());
    }
    Ok(match word.text.as_str() {
        "all" if !word.quoted => Database::All,
        "sameuser" if !word.quoted => Database::SameUser,
        "replication" if !word.quoted => Database::Replication,
        name => Database::Name(name.to_owned()),
    })
}

fn user(word: &Word) -> Result<User, String> {
    if let Some(text) = word.behind('/') {
        return pattern(text).map(User::Pattern);
    }
    Ok(if word.is("all") { User::All } else { User::Name(word.text.clone()) })
}

fn addresses(fields: &mut Fields) -> Result<Addresses, String> {
    let text = fields.word("address")?;
    match text.as_str() {
        "all" => return Ok(Addresses::All),
        "samehost" => return own(|address, _| (address, whole(address))),
        "samenet" => return own(|address, mask| (address, mask)),
        _ => {}
    }
    let wrong = |text: &str| {
        format!("`{text}` is no address: write one, with /BITS or a mask; names are not looked up")
    };
    let network = match text.split_once('/') {
        Some((base, bits)) => {
            let base: IpAddr = base.parse().map_err(|_| wrong(&text))?;
            let bits: u32 = bits.parse().map_err(|_| wrong(&text))?;
            let mask = mask(base, bits).ok_or_else(|| wrong(&text))?;
            Network { base, mask }
        }
        None => {
            let base: IpAddr = text.parse().map_err(|_| wrong(&text))?;
            let mask = fields.word("mask")?;
            let mask: IpAddr = mask.parse().map_err(|_| wrong(&mask))?;
            if base.is_ipv4() != mask.is_ipv4() {
                return Err("the address and its mask are of different kinds".into());
            }
            Network { base, mask }
        }
    };
    Ok(Addresses::Networks(vec![network]))
}

fn whole(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::BROADCAST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(u128::MAX)),
    }
}

fn mask(base: IpAddr, bits: u32) -> Option<IpAddr> {
    Some(match base {
        IpAddr::V4(_) => {
            let off = 32_u32.checked_sub(bits)?;
            IpAddr::V4(Ipv4Addr::from(u32::MAX.checked_shl(off).unwrap_or(0)))
        }
        IpAddr::V6(_) => {
            let off = 128_u32.checked_sub(bits)?;
            IpAddr::V6(Ipv6Addr::from(u128::MAX.checked_shl(off).unwrap_or(0)))
        }
    })
}

/// What belongs to this machine.
fn own(network: impl Fn(IpAddr, IpAddr) -> (IpAddr, IpAddr)) -> Result<Addresses, String> {
    let interfaces = getifaddrs()
        .map_err(|error| format!("cannot ask for this machine's addresses: {error}"))?;
    let ip = |address: Option<nix::sys::socket::SockaddrStorage>| {
        let address = address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    let networks = interfaces.filter_map(|interface| {
        let address = ip(interface.address)?;
        let mask = ip(interface.netmask).unwrap_or_else(|| whole(address));
        let (base, mask) = network(address, mask);
        Some(Network { base, mask })
    });
    Ok(Addresses::Networks(networks.collect()))
}

fn demand(way: Way, fields: &mut Fields) -> Result<Demand, String> {
    let name = fields.word("method")?;
    let method = match name.as_str() {
        "trust" => Method::Trust,
        "reject" => Method::Reject,
        "password" => Method::Password,
        "md5" => Method::Md5,
        "scram-sha-256" => Method::ScramSha256,
        "cert" => Method::Cert,
        "peer" => Method::Peer,
        // PostgreSQL's own word for peer on a Unix socket.
        "ident" if way == Way::Local => Method::Peer,
        "ident" | "gss" | "sspi" | "ldap" | "radius" | "pam" | "bsd" | "oauth" => {
            Method::Unsupported(name.as_str().into())
        }
        other => return Err(format!("`{other}` is no method")),
    };
    let mut demand = Demand::of(method);
    for option in fields.0.by_ref().flatten() {
        let Some((key, value)) = option.text.split_once('=') else {
            return Err(format!("`{}` is no option: write NAME=VALUE", option.text));
        };
        demand.option(key, value)?;
    }
    match (&demand.method, way) {
        (Method::Peer, way) if way != Way::Local => {
            Err("`peer` is for Unix sockets: write it in a line of type local".into())
        }
        (Method::Cert, way) if way != Way::HostSsl => {
            Err("`cert` needs TLS: write it in a line of type hostssl".into())
        }
        (_, way) if demand.certificate != Certificate::NotNeeded && way != Way::HostSsl => {
            Err("`clientcert` needs TLS: write it in a line of type hostssl".into())
        }
        _ => Ok(demand),
    }
}

impl Demand {
    fn option(&mut self, key: &str, value: &str) -> Result<(), String> {
        match (key, value) {
            ("map", map) if matches!(self.method, Method::Cert | Method::Peer) => {
                self.map = Some(Arc::from(map));
            }
            ("clientcert", "verify-full") => self.certificate = Certificate::Named,
            ("clientcert", "verify-ca") if self.method == Method::Cert => {
                return Err("`cert` goes by the name: clientcert=verify-full".into());
            }
            ("clientcert", "verify-ca" | "1") => self.certificate = Certificate::Trusted,
            ("clientname", "CN") => {}
            // What an unsupported method is told besides does not matter.
            _ if matches!(self.method, Method::Unsupported(_)) => {}
            _ => return Err(format!("`{key}={value}` is no option of this method")),
        }
        Ok(())
    }
}

//! Which destination a call is for: by the first part of its path, or by the host it names.
//!
//! Knows no sockets and no calls. Always true: a host belongs to one destination, and nothing
//! but the configuration says to which.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::SettingsError;
use crate::destination::Destination;
use crate::settings::DestinationSettings;

/// All destinations, by name and by host.
pub(crate) struct Routes {
    by_name: BTreeMap<String, Arc<Destination>>,
    by_host: HashMap<String, Arc<Destination>>,
}

/// The way of one call.
pub(crate) struct Route {
    pub(crate) destination: Arc<Destination>,
    /// Bytes of the path that name the destination.
    named: usize,
}

impl Route {
    /// What of `path` is the destination's: empty, or with a slash at its beginning.
    pub(crate) fn rest<'p>(&self, path: &'p str) -> &'p str {
        path.get(self.named..).unwrap_or_default()
    }
}

impl Routes {
    /// Leads to `destinations`, as `settings` say.
    pub(crate) fn new(
        by_name: BTreeMap<String, Arc<Destination>>,
        settings: &BTreeMap<String, DestinationSettings>,
    ) -> Self {
        let hosts = settings.iter().flat_map(|(name, settings)| {
            let destination = by_name.get(name);
            settings
                .hosts
                .iter()
                .filter_map(move |host| Some((host.to_ascii_lowercase(), Arc::clone(destination?))))
        });
        Self { by_host: hosts.collect(), by_name }
    }

    /// The destination called `name`.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Destination>> {
        self.by_name.get(name)
    }

    /// All of them, by name.
    pub(crate) fn destinations(&self) -> impl Iterator<Item = &Arc<Destination>> + Clone {
        self.by_name.values()
    }

    /// The destination that `authority` (`host` or `host:port`) stands for.
    pub(crate) fn by_host(&self, authority: &str) -> Option<Route> {
        if self.by_host.is_empty() {
            return None;
        }
        let authority = authority.to_ascii_lowercase();
        let destination = self.by_host.get(&authority).or_else(|| {
            let (host, port) = authority.rsplit_once(':')?;
            let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
            self.by_host.get(host).filter(|_| is_port)
        })?;
        Some(Route { destination: Arc::clone(destination), named: 0 })
    }

    /// The destination whose name is the first part of `path`.
    pub(crate) fn by_path(&self, path: &str) -> Option<Route> {
        let (name, named) = match path.strip_prefix('/') {
            Some(rest) => {
                let end = rest.find('/').unwrap_or(rest.len());
                (rest.get(..end)?, end + 1)
            }
            None => {
                let end = path.find('/').unwrap_or(path.len());
                (path.get(..end)?, end)
            }
        };
        let destination = self.by_name.get(name)?;
        Some(Route { destination: Arc::clone(destination), named })
    }
}

/// Checks the hosts of `settings`.
///
/// # Errors
/// The first that is none, or is another destination's already.
pub(crate) fn check(settings: &BTreeMap<String, DestinationSettings>) -> Result<(), SettingsError> {
    let mut owners: HashMap<String, &str> = HashMap::new();
    for (name, destination) in settings {
        for (number, host) in destination.hosts.iter().enumerate() {
            let wrong = |reason: String| {
                let at = format!("http.destinations.{name}.hosts[{number}]");
                Err(SettingsError { at, reason })
            };
            if !is_host(host) {
                return wrong(format!(
                    "expected a host name such as `api.example.com`, perhaps with `:port`, not \
                     `{host}`"
                ));
            }
            if is_own(host) {
                return wrong(format!("`{host}` is this machine, where paths name destinations"));
            }
            if let Some(owner) = owners.insert(host.to_ascii_lowercase(), name) {
                return wrong(format!("`{host}` stands for `{owner}` already"));
            }
        }
    }
    Ok(())
}

fn is_host(host: &str) -> bool {
    let is_authority = host.parse::<http::uri::Authority>().is_ok_and(|authority| {
        !authority.host().is_empty() && !host.ends_with(':') && !host.contains(['@', '*'])
    });
    is_authority && host.is_ascii()
}

fn is_own(host: &str) -> bool {
    let name = host.split(':').next().unwrap_or(host).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(hosts: &[(&str, &[&str])]) -> Option<String> {
        let settings = hosts.iter().map(|(name, hosts)| {
            let text = format!("url = \"https://api.test\"\nhosts = {hosts:?}");
            ((*name).to_owned(), toml::from_str(&text).unwrap())
        });
        check(&settings.collect()).err().map(|error| error.at)
    }

    #[test]
    fn a_host_is_a_name_and_belongs_to_one_destination() {
        assert_eq!(wrong(&[("a", &["api.test", "api.test:8443"]), ("b", &["b.test"])]), None);
        assert_eq!(wrong(&[("a", &["10.0.0.1", "[fd00::1]:80"])]), None);
        let at = |name, number| Some(format!("http.destinations.{name}.hosts[{number}]"));
        assert_eq!(wrong(&[("a", &["x.test"]), ("b", &["b.test", "X.test"])]), at("b", 1));
        for bad in ["", "https://x", "x/y", "u@x", "*.x", "x:", "localhost", "a b", "LOCALHOST:80"]
        {
            assert_eq!(wrong(&[("a", &[bad])]), at("a", 0), "{bad}");
        }
    }
}

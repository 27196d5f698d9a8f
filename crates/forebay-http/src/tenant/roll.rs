//! Everybody who may call, by what proves it.
//!
//! Keys are kept as digests and looked up by digest: comparing takes the same time whatever is
//! right about a wrong key. They are read again when their files are replaced.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use forebay_seam::secret::{ExposeSecret, SecretRef, SecretString};

use super::arrival::Name;
use crate::secrets::{Digest, Digester, Rotating, Source, Unusable, make_once};
use crate::settings::{AgentSettings, TenantSettings};

/// A tenant, or one agent of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Who {
    pub(crate) tenant: Arc<str>,
    pub(crate) agent: Option<Arc<str>>,
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.agent {
            None => write!(f, "tenant `{}`", self.tenant),
            Some(agent) => write!(f, "agent `{agent}` of tenant `{}`", self.tenant),
        }
    }
}

/// What is wrong with somebody's proofs: the key below `http.tenants`, and why.
#[derive(Debug)]
pub(crate) struct RollError {
    pub(crate) key: String,
    pub(crate) reason: String,
}

/// By what each is known.
pub(super) struct Roll {
    pub(super) keys: Arc<Rotating<Keys>>,
    pub(super) names: HashMap<Name, Who>,
    pub(super) uids: HashMap<u32, Who>,
}

/// Keys, by their digests.
pub(super) type Keys = HashMap<Digest, Who>;

/// One key, where it stands.
struct Listed {
    at: String,
    who: Who,
    key: SecretRef,
}

/// What proves who somebody is.
struct Proofs<'s> {
    key: &'s Option<SecretRef>,
    keys: &'s [SecretRef],
    certificates: &'s [String],
    uids: &'s [u32],
}

impl<'s> From<&'s TenantSettings> for Proofs<'s> {
    fn from(settings: &'s TenantSettings) -> Self {
        let TenantSettings { key, keys, certificates, uids, .. } = settings;
        Self { key, keys, certificates, uids }
    }
}

impl<'s> From<&'s AgentSettings> for Proofs<'s> {
    fn from(settings: &'s AgentSettings) -> Self {
        let AgentSettings { key, keys, certificates, uids } = settings;
        Self { key, keys, certificates, uids }
    }
}

/// What is configured, in the order of the configuration.
#[derive(Default)]
struct Collected {
    keys: Vec<Listed>,
    names: HashMap<Name, Who>,
    uids: HashMap<u32, Who>,
}

impl Collected {
    fn of(settings: &BTreeMap<String, TenantSettings>) -> Result<Self, RollError> {
        let mut all = Self::default();
        for (name, tenant) in settings {
            let who = Who { tenant: name.as_str().into(), agent: None };
            if all.add(name, &who, &Proofs::from(tenant))? == 0 && tenant.agents.is_empty() {
                let reason = "nobody could prove to be of this tenant: write a `key`";
                return Err(RollError { key: name.clone(), reason: reason.to_owned() });
            }
            for (agent, settings) in &tenant.agents {
                let who = Who { agent: Some(agent.as_str().into()), ..who.clone() };
                let key = format!("{name}.agents.{agent}");
                if all.add(&key, &who, &Proofs::from(settings))? == 0 {
                    let reason = "nobody could prove to be this agent: write a `key`".to_owned();
                    return Err(RollError { key, reason });
                }
            }
        }
        Ok(all)
    }

    /// Adds what proves that somebody is `who`; says how much that is.
    fn add(&mut self, at: &str, who: &Who, proofs: &Proofs<'_>) -> Result<usize, RollError> {
        let Proofs { key, keys, certificates, uids } = *proofs;
        let key = key.iter().map(|key| (format!("{at}.key"), key));
        let more = keys.iter().enumerate().map(|(i, key)| (format!("{at}.keys[{i}]"), key));
        let before = self.keys.len();
        for (at, key) in key.chain(more) {
            self.keys.push(Listed { at, who: who.clone(), key: key.clone() });
        }
        for (index, text) in certificates.iter().enumerate() {
            let key = format!("{at}.certificates[{index}]");
            let name = text.parse::<Name>();
            let name = name.map_err(|e| RollError { key: key.clone(), reason: e.to_string() })?;
            only_once(&mut self.names, name, who, key)?;
        }
        for (index, uid) in uids.iter().enumerate() {
            only_once(&mut self.uids, *uid, who, format!("{at}.uids[{index}]"))?;
        }
        Ok(self.keys.len() - before + certificates.len() + uids.len())
    }

    fn sources(&self) -> Vec<Source> {
        self.keys.iter().map(|listed| Source::Line(listed.key.clone())).collect()
    }
}

/// What proves who somebody is cannot prove that he is somebody else.
fn only_once<K: Hash + Eq>(
    map: &mut HashMap<K, Who>,
    proof: K,
    who: &Who,
    key: String,
) -> Result<(), RollError> {
    match map.insert(proof, who.clone()) {
        Some(other) if other != *who => {
            Err(RollError { key, reason: format!("it also stands for {other}") })
        }
        Some(_) | None => Ok(()),
    }
}

/// Checks `settings` without reading a key.
pub(crate) fn check(settings: &BTreeMap<String, TenantSettings>) -> Result<(), RollError> {
    Collected::of(settings).map(drop)
}

/// Everything that is wrong with `settings`. Reads the keys.
pub(crate) fn problems(settings: &BTreeMap<String, TenantSettings>) -> Vec<RollError> {
    let collected = match Collected::of(settings) {
        Ok(collected) => collected,
        Err(error) => return vec![error],
    };
    let (digester, mut keys, mut problems) = (Digester::new(), Keys::new(), Vec::new());
    for listed in collected.keys {
        let added = make_once(&[Source::Line(listed.key.clone())], |secrets| {
            secrets.iter().try_for_each(|secret| add(&mut keys, &listed.who, secret, &digester))
        });
        let problem = added.err().map(|e| RollError { key: listed.at, reason: e.to_string() });
        problems.extend(problem);
    }
    problems
}

impl Roll {
    /// Reads the keys, and follows them.
    pub(super) fn read(
        settings: &BTreeMap<String, TenantSettings>,
        digester: &Digester,
    ) -> Result<Self, RollError> {
        let collected = Collected::of(settings)?;
        let (sources, listed) = (collected.sources(), collected.keys);
        let places: Vec<_> = listed.iter().map(|listed| listed.at.clone()).collect();
        let (own, wrong) = (digester.clone(), Arc::new(AtomicUsize::new(0)));
        let told = Arc::clone(&wrong);
        let read = Rotating::new(sources, digester, move |secrets| {
            let mut keys = Keys::new();
            for (index, (listed, secret)) in listed.iter().zip(secrets).enumerate() {
                told.store(index, Ordering::Relaxed);
                add(&mut keys, &listed.who, secret, &own)?;
            }
            Ok(keys)
        });
        let keys = read.map_err(|error| {
            let index = match &error {
                Unusable::Unread { which, .. } => *which,
                Unusable::Shape(_) | Unusable::Detail(_) => wrong.load(Ordering::Relaxed),
            };
            let key = places.get(index).cloned().unwrap_or_default();
            RollError { key, reason: error.to_string() }
        })?;
        Ok(Self { keys, names: collected.names, uids: collected.uids })
    }
}

/// Adds the key of `who`, if it is fit, and nobody else's.
fn add(
    keys: &mut Keys,
    who: &Who,
    key: &SecretString,
    digester: &Digester,
) -> Result<(), Unusable> {
    fit(key)?;
    match keys.insert(digester.of([key.expose_secret().as_bytes()]), who.clone()) {
        Some(other) if other != *who => {
            Err(Unusable::Detail(format!("it is also the key of {other}: each needs its own")))
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether agents can send it.
fn fit(key: &SecretString) -> Result<(), Unusable> {
    match key.expose_secret().bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(()),
        false => Err(Unusable::Shape(
            "the key has spaces, line ends or other characters that agents cannot send in a \
             header",
        )),
    }
}

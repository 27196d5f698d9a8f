//! Which credential the calls of whom get at one destination, and on whose behalf the
//! connections for them are.
//!
//! The credential of an agent comes before that of its tenant, that before the one for
//! everybody; where there is none, the agent's own passes. Always true: a connection that is
//! opened for one credential carries no call with another one, unless every call carries its
//! own and the operator says that they may share (`share_connections`); what an agent sent is
//! not forwarded beside a credential of ours.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use forebay_pool::rate::Account;
use forebay_seam::secret::SecretString;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName};

use crate::SettingsError;
use crate::credential::{
    self, ClientCertificate, Credential, CredentialError, Proof, Registry, Subject,
};
use crate::meter::Meter;
use crate::problem::{Problem, Reason};
use crate::secrets::{Digest, Digester};
use crate::settings::{CredentialSettings, DestinationSettings, TenantSettings};
use crate::tenant::{Caller, bearer};
use crate::tls::Trust;

/// The fields that agents' own credentials come in: two calls that differ in one of them are
/// two callers' calls.
static OWN: [HeaderName; 4] = [
    AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
];
/// Schemes that log a connection in, and not a call (RFC 4559, section 6).
const OF_CONNECTIONS: [&str; 2] = ["negotiate", "ntlm"];

/// On whose behalf a connection is open. It never changes hands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Identity {
    /// Everybody: they have the same credential, or may share connections.
    Common,
    /// One tenant, with a credential of its own, or none at all.
    Tenant(Arc<str>),
    /// One agent of a tenant, with a credential of its own.
    Agent(Arc<str>, Arc<str>),
    /// Whoever of a tenant, or of one agent with a credential of ours, showed this credential
    /// of his own.
    Own { tenant: Arc<str>, agent: Option<Arc<str>>, shown: Digest },
    /// The same as another, on a connection of HTTP/1.1 whatever the service offers.
    Alone(Box<Self>),
}

impl Identity {
    /// The same, on connections of HTTP/1.1: an upgrade needs the whole of one.
    pub(crate) fn alone(self) -> Self {
        if self.is_alone() { self } else { Self::Alone(Box::new(self)) }
    }

    /// Whether it is served by connections of HTTP/1.1 only.
    pub(crate) fn is_alone(&self) -> bool {
        matches!(self, Self::Alone(_))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Common => f.write_str("common"),
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
            Self::Agent(tenant, agent) => write!(f, "agent {agent} of tenant {tenant}"),
            Self::Own { tenant, .. } => write!(f, "somebody of tenant {tenant}"),
            Self::Alone(whose) => write!(f, "{whose}, http/1.1"),
        }
    }
}

/// Who may use whose connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sharing {
    /// Those with the same credential.
    ByCredential,
    /// Everybody everybody else's.
    Everybody,
}

/// The credentials of one destination.
pub(crate) struct Wallet {
    common: Option<Credential>,
    tenants: HashMap<Arc<str>, Credential>,
    agents: HashMap<Arc<str>, HashMap<Arc<str>, Credential>>,
    sharing: Sharing,
    digester: Digester,
}

/// What one call gets.
pub(crate) struct Entitled {
    /// On whose behalf its connection is.
    pub(crate) identity: Identity,
    /// With whose account the service counts it.
    pub(crate) account: Account,
    /// The credential of ours that it carries.
    credential: Option<(Credential, Option<Subject>)>,
}

impl Entitled {
    /// What to add to the call; nothing where the agent's own credential passes.
    ///
    /// # Cancel safety
    /// Dropped, an exchange on its way goes on for the others.
    pub(crate) async fn proof(&self, meter: &Arc<Meter>) -> Result<Option<Proof>, Problem> {
        match &self.credential {
            None => Ok(None),
            Some((credential, subject)) => {
                credential.proof(subject.as_ref(), meter).await.map(Some)
            }
        }
    }
}

impl Wallet {
    /// The credentials that `settings` of destination `name` say, in place of those `before`.
    /// Reads their secrets.
    pub(crate) fn open(
        name: &str,
        settings: &DestinationSettings,
        before: Option<&Self>,
        registry: &Registry,
        trust: &mut Trust,
    ) -> Result<Self, SettingsError> {
        let mut wallet = Self {
            common: None,
            tenants: HashMap::new(),
            agents: HashMap::new(),
            sharing: match settings.share_connections {
                true => Sharing::Everybody,
                false => Sharing::ByCredential,
            },
            digester: registry.digester().clone(),
        };
        for (place, settings) in places(settings) {
            let made = registry.credential(settings, before.and_then(|b| b.at(place)), trust);
            let credential = made.map_err(|CredentialError { key, reason }| SettingsError {
                at: format!("http.destinations.{name}.{place}.{key}"),
                reason,
            })?;
            match place {
                Place::Common => wallet.common = Some(credential),
                Place::Tenant(tenant) => {
                    wallet.tenants.insert(tenant.into(), credential);
                }
                Place::Agent(tenant, agent) => {
                    let agents = wallet.agents.entry(tenant.into()).or_default();
                    agents.insert(agent.into(), credential);
                }
            }
        }
        Ok(wallet)
    }

    fn at(&self, place: Place<'_>) -> Option<&Credential> {
        match place {
            Place::Common => self.common.as_ref(),
            Place::Tenant(tenant) => self.tenants.get(tenant),
            Place::Agent(tenant, agent) => self.agents.get(tenant)?.get(agent),
        }
    }

    /// Whether there is no credential of ours.
    pub(crate) fn is_empty(&self) -> bool {
        self.common.is_none() && self.tenants.is_empty() && self.agents.is_empty()
    }

    /// Those whose connections can be opened before anybody calls: they have credentials, or
    /// there is but one tenant, `everybody`.
    pub(crate) fn known_identities(&self, everybody: Option<&Arc<str>>) -> Vec<Identity> {
        let is_known = |credential: &&Credential| !credential.wants_subject();
        if self.sharing == Sharing::Everybody || self.common.as_ref().filter(is_known).is_some() {
            return vec![Identity::Common];
        }
        let tenants = self.tenants.iter().filter(|(_, credential)| is_known(credential));
        let mut names: Vec<_> = tenants.map(|(name, _)| Arc::clone(name)).collect();
        let alone = everybody.filter(|name| !self.tenants.contains_key(*name));
        names.extend(alone.filter(|_| self.common.is_none()).cloned());
        let agents = self.agents.iter().flat_map(|(tenant, agents)| {
            let agents = agents.iter().filter(|(_, credential)| is_known(credential));
            agents.map(move |(agent, _)| (Arc::clone(tenant), Arc::clone(agent)))
        });
        let mut agents: Vec<_> = agents.collect();
        names.sort_unstable();
        agents.sort_unstable();
        let agents = agents.into_iter().map(|(tenant, agent)| Identity::Agent(tenant, agent));
        names.into_iter().map(Identity::Tenant).chain(agents).collect()
    }

    /// What a call of `caller` gets; takes out of its `headers` what is not the service's to
    /// see. To be called once, before anything is waited for.
    pub(crate) fn entitle(
        &self,
        caller: &Caller,
        headers: &mut HeaderMap,
    ) -> Result<Entitled, Problem> {
        caller.strip(headers);
        let (credential, owner) = self.find(caller);
        let tenant = caller.tenant();
        let account = match &owner {
            Owner::Everybody => Account::Destination,
            Owner::Tenant | Owner::Agent(_) | Owner::Nobody => Account::Tenant(tenant.clone()),
        };
        let subject = match credential {
            Some(credential) if credential.wants_subject() => self.subject(tenant, headers),
            Some(_) | None => None,
        };
        let identity = match (self.sharing, &subject, owner) {
            (Sharing::Everybody, _, _) => {
                if credential.is_none() {
                    refuse_logins_of_connections(headers)?;
                }
                Identity::Common
            }
            (_, Some(subject), owner) => Identity::Own {
                tenant: tenant.clone(),
                agent: owner.agent(),
                shown: subject.digest,
            },
            (_, None, Owner::Everybody) => Identity::Common,
            (_, None, Owner::Tenant) => Identity::Tenant(tenant.clone()),
            (_, None, Owner::Agent(agent)) => Identity::Agent(tenant.clone(), agent),
            (_, None, Owner::Nobody) => {
                refuse_logins_of_connections(headers)?;
                match self.own(headers) {
                    Some(shown) => Identity::Own { tenant: tenant.clone(), agent: None, shown },
                    None => Identity::Tenant(tenant.clone()),
                }
            }
        };
        if credential.is_some() {
            for name in &OWN {
                headers.remove(name);
            }
        }
        let credential = credential.map(|credential| (credential.clone(), subject));
        Ok(Entitled { identity, account, credential })
    }

    /// What connections for `identity` are opened with.
    pub(crate) fn certificate(&self, identity: &Identity) -> Option<Arc<ClientCertificate>> {
        let tenant = |tenant: &Arc<str>| self.tenants.get(tenant).or(self.common.as_ref());
        let credential = match identity {
            Identity::Common => self.common.as_ref(),
            Identity::Tenant(name) | Identity::Own { tenant: name, agent: None, .. } => {
                tenant(name)
            }
            Identity::Agent(name, agent)
            | Identity::Own { tenant: name, agent: Some(agent), .. } => {
                self.agents.get(name)?.get(agent)
            }
            Identity::Alone(whose) => return self.certificate(whose),
        };
        credential?.certificate()
    }

    fn find(&self, caller: &Caller) -> (Option<&Credential>, Owner) {
        let who = &caller.who;
        if let Some(agent) = &who.agent
            && let Some(own) = self.agents.get(&who.tenant).and_then(|agents| agents.get(agent))
        {
            return (Some(own), Owner::Agent(Arc::clone(agent)));
        }
        match (self.tenants.get(&who.tenant), &self.common) {
            (Some(own), _) => (Some(own), Owner::Tenant),
            (None, Some(common)) => (Some(common), Owner::Everybody),
            (None, None) => (None, Owner::Nobody),
        }
    }

    /// What the agent shows, for which tokens are exchanged.
    fn subject(&self, tenant: &Arc<str>, headers: &HeaderMap) -> Option<Subject> {
        let token = headers.get_all(AUTHORIZATION).iter().find_map(bearer)?;
        let text = std::str::from_utf8(token).ok().filter(|token| !token.is_empty())?;
        let digest = self.digester.of([token]);
        let token = SecretString::from(text.to_owned());
        Some(Subject { token, digest, tenant: Arc::clone(tenant) })
    }

    /// Tells one agent's own credential from another's.
    fn own(&self, headers: &HeaderMap) -> Option<Digest> {
        let fields = |name| headers.get_all(name).iter().map(move |value| (name, value));
        let mut fields = OWN.iter().flat_map(fields).peekable();
        fields.peek()?;
        let parts = fields.flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()]);
        Some(self.digester.of(parts))
    }
}

/// Whose credential it is.
enum Owner {
    Everybody,
    Tenant,
    Agent(Arc<str>),
    Nobody,
}

impl Owner {
    fn agent(self) -> Option<Arc<str>> {
        match self {
            Self::Agent(agent) => Some(agent),
            Self::Everybody | Self::Tenant | Self::Nobody => None,
        }
    }
}

/// Where in a destination's settings a credential stands.
#[derive(Clone, Copy)]
enum Place<'s> {
    Common,
    Tenant(&'s str),
    Agent(&'s str, &'s str),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Common => f.write_str("auth"),
            Self::Tenant(tenant) => write!(f, "tenants.{tenant}"),
            Self::Agent(tenant, agent) => write!(f, "agents.{tenant}.{agent}"),
        }
    }
}

/// Every credential of a destination, and where it stands.
fn places(
    settings: &DestinationSettings,
) -> impl Iterator<Item = (Place<'_>, &CredentialSettings)> {
    let common = settings.auth.iter().map(|auth| (Place::Common, auth));
    let tenants = settings.tenants.iter().map(|(name, auth)| (Place::Tenant(name), auth));
    let agents = settings.agents.iter().flat_map(|(tenant, agents)| {
        agents.iter().map(move |(agent, auth)| (Place::Agent(tenant, agent), auth))
    });
    common.chain(tenants).chain(agents)
}

/// A login of a connection, forwarded over a pool, would log others in.
fn refuse_logins_of_connections(headers: &HeaderMap) -> Result<(), Problem> {
    let is_one = |value: &http::HeaderValue| {
        let scheme = value.as_bytes().split(|byte| *byte == b' ').next().unwrap_or_default();
        OF_CONNECTIONS.iter().any(|name| scheme.eq_ignore_ascii_case(name.as_bytes()))
    };
    if headers.get_all(AUTHORIZATION).iter().any(is_one) {
        let detail = "`Negotiate` and `NTLM` log a connection in, and connections serve many \
                      callers here: use a credential that each call carries by itself";
        return Err(Problem::new(Reason::Unsupported, detail));
    }
    Ok(())
}

/// Checks the credentials in `settings` without reading a secret: the key below the
/// destination, and why.
pub(crate) fn check(
    settings: &DestinationSettings,
    tenants: &BTreeMap<String, TenantSettings>,
    trust: &mut Trust,
) -> Result<(), (String, String)> {
    for (place, auth) in places(settings) {
        known(place, tenants)?;
        credential::check(auth, trust)
            .map_err(|error| (format!("{place}.{}", error.key), error.reason))?;
        shareable(settings, place, auth)?;
    }
    Ok(())
}

/// Everything that is wrong with the credentials in `settings`: the key below the
/// destination, and why. Reads the secrets.
pub(crate) fn problems(
    settings: &DestinationSettings,
    tenants: &BTreeMap<String, TenantSettings>,
    trust: &mut Trust,
) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    for (place, auth) in places(settings) {
        problems.extend(known(place, tenants).err());
        let checked = credential::check(auth, trust).and_then(|()| credential::read(auth));
        let problem = checked.map_err(|error| (format!("{place}.{}", error.key), error.reason));
        problems.extend(problem.err());
        problems.extend(shareable(settings, place, auth).err());
    }
    problems
}

fn shareable(
    settings: &DestinationSettings,
    place: Place<'_>,
    auth: &CredentialSettings,
) -> Result<(), (String, String)> {
    match credential::statefulness(auth).filter(|_| settings.share_connections) {
        Some(reason) => {
            let reason = format!("`{place}` does not allow it: {reason}");
            Err(("share_connections".to_owned(), reason))
        }
        None => Ok(()),
    }
}

/// Whose credential it is must be somebody who can prove it.
fn known(
    place: Place<'_>,
    tenants: &BTreeMap<String, TenantSettings>,
) -> Result<(), (String, String)> {
    let (tenant, agent) = match place {
        Place::Common => return Ok(()),
        Place::Tenant(tenant) => (tenant, None),
        Place::Agent(tenant, agent) => (tenant, Some(agent)),
    };
    let Some(settings) = tenants.get(tenant) else {
        let known: Vec<_> = tenants.keys().map(String::as_str).collect();
        let reason = match known.is_empty() {
            true => format!("there is no tenant `{tenant}`: write `[http.tenants.{tenant}]`"),
            false => format!("there is no tenant `{tenant}`, there are: {}", known.join(", ")),
        };
        return Err((place.to_string(), reason));
    };
    match agent.filter(|agent| !settings.agents.contains_key(*agent)) {
        Some(agent) => {
            let reason = format!(
                "tenant `{tenant}` has no agent `{agent}`: write \
                 `[http.tenants.{tenant}.agents.{agent}]`"
            );
            Err((place.to_string(), reason))
        }
        None => Ok(()),
    }
}

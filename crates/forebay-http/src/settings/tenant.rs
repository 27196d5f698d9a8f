//! Who may call, and how they prove it.

use std::collections::BTreeMap;

use forebay_seam::secret::SecretRef;
use schemars::JsonSchema;
use serde::Deserialize;

/// `[http.tenants.NAME]`: agents prove that they are this tenant's by one of its keys, as
/// `Authorization: Bearer KEY`, `x-forebay-key: KEY` or `x-api-key: KEY`, by a client
/// certificate, or by the user that they run as.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TenantSettings {
    /// The key.
    pub key: Option<SecretRef>,
    /// More keys that are as good: the next one, while agents change over to it.
    pub keys: Vec<SecretRef>,
    /// Client certificates that are as good as a key, where the listener asks for them:
    /// `cn:NAME`, `dns:NAME`, `uri:URI`, `email:ADDRESS` (the subject's common name or an
    /// alternative name), or `sha256:HEX` (of the whole certificate).
    pub certificates: Vec<String>,
    /// Users of this machine (their numbers) who need no key on the Unix socket.
    pub uids: Vec<u32>,
    /// Agents of this tenant that have a proof of their own, and may so have credentials of
    /// their own.
    pub agents: BTreeMap<String, AgentSettings>,
}

/// `[http.tenants.NAME.agents.NAME]`: proofs of one agent, as those of its tenant.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AgentSettings {
    /// The key.
    pub key: Option<SecretRef>,
    /// More keys that are as good.
    pub keys: Vec<SecretRef>,
    /// Client certificates that are as good as a key.
    pub certificates: Vec<String>,
    /// Users of this machine who need no key on the Unix socket.
    pub uids: Vec<u32>,
}

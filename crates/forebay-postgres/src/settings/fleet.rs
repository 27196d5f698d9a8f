//! Several instances behind one address.

use forebay_seam::secret::SecretRef;
use schemars::JsonSchema;
use serde::Deserialize;

/// `[postgres.fleet]`: several instances behind one address. A cancel request that comes to
/// another instance than its client is sent on to the right one.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetSettings {
    /// The number of this instance, 1 to 16383; every instance has another one.
    pub id: u16,
    /// The same on all instances, 16 characters or more: by it they know the keys of protocol
    /// 3.2 that another one gave, and send on no others. Default: none.
    #[serde(default)]
    pub secret: Option<SecretRef>,
    /// The instances; this one may be among them.
    #[serde(default)]
    pub peers: Vec<PeerSettings>,
}

/// `[[postgres.fleet.peers]]`: an instance of the fleet.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PeerSettings {
    /// Its number.
    pub id: u16,
    /// Where it listens itself: `host`, `host:port`, `[v6]:port` or a Unix socket, not the
    /// address that all share. The port defaults to 6432.
    pub address: String,
}

//! What an operator sets for the connections to one service.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

/// `[http.destinations.NAME.connections]`: how connections to a service are opened, shared,
/// kept and given up.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionSettings {
    /// What to speak: `auto` (HTTP/2 where an `https` service offers it, else HTTP/1.1),
    /// `http1`, or `http2` (without `https` by prior knowledge, h2c). Default `auto`.
    pub protocol: ProtocolSetting,
    /// Calls at the same time on one connection of HTTP/2, at the most; the service may allow
    /// fewer. So many calls the budget stands for with HTTP/2, for each connection. Default 16.
    pub streams: u32,
    /// Connects and handshakes under way at the same time, at the most. Default: a quarter of
    /// the budget, 2 to 16.
    pub concurrent_connects: Option<u32>,
    /// Calls that one connection serves before it is replaced. Default: as many as come.
    pub max_calls: Option<u32>,
    /// How often the service's name is resolved again while there are connections;
    /// connections to addresses that it does not lead to any more are drained. Default 30s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub resolve_interval: Duration,
    /// Let the service's name lead to private addresses: of this machine, or of networks that
    /// only it reaches. Link-local addresses, where clouds give out keys, stay forbidden. An
    /// address or `localhost` in the URL itself needs no leave. Default false.
    pub allow_private: bool,
    /// Networks that the service's name may lead to though they are not of the public
    /// Internet: `10.1.0.0/16`. Default: none.
    pub allow_networks: Vec<String>,
    /// A path (`/healthz`) that idle connections are asked for each `probe_interval`, with GET
    /// and no credential: no answer, or a status of 500 and above, closes the connection and
    /// counts against its address. Default: none; HTTP/2 is pinged all the same.
    pub probe_path: Option<String>,
    /// After so many failures in a row (connects, broken calls, statuses of 500 and above) an
    /// address is left out for a while, if the name has others; never more than half of them.
    /// 0: never. Default 5.
    pub eject_after: u32,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            protocol: ProtocolSetting::Auto,
            streams: 16,
            concurrent_connects: None,
            max_calls: None,
            resolve_interval: Duration::from_secs(30),
            allow_private: false,
            allow_networks: Vec::new(),
            probe_path: None,
            eject_after: 5,
        }
    }
}

/// Which protocol a service is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProtocolSetting {
    /// HTTP/2 where the service offers it in the TLS handshake, else HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

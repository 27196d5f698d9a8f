//! The permissions of a Unix socket, as people write them.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// The permissions of a Unix socket: octal digits in quotes, as chmod takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketMode(pub u32);

impl Default for SocketMode {
    /// 0777: everybody may connect, and is asked who it is.
    fn default() -> Self {
        Self(0o777)
    }
}

impl<'de> Deserialize<'de> for SocketMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777);
        let reason = "expected octal digits as for chmod, such as \"0770\"";
        mode.map(Self).ok_or_else(|| D::Error::custom(reason))
    }
}

impl JsonSchema for SocketMode {
    fn schema_name() -> Cow<'static, str> {
        "SocketMode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_octal() {
        let read = |text| serde_json::from_str::<SocketMode>(text);
        assert_eq!(read("\"0770\"").unwrap(), SocketMode(0o770));
        for bad in ["\"rwx\"", "\"0999\"", "\"\"", "\"1777\"", "770"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}

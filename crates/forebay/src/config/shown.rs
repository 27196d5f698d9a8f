//! Which values of a configuration people may see: those of which the settings themselves say
//! that they are no secrets.
//!
//! Always true: what is not known is not shown.

use serde_json::Value;

use super::reference;

/// Stands in the place of a secret.
const HIDDEN: &str = "(secret)";

/// Knows the type of each key.
pub(super) struct Showing {
    schema: Value,
}

impl Showing {
    pub(super) fn new() -> Self {
        Self { schema: reference::schema() }
    }

    /// `text`, which is the value at `path`, or what stands for it.
    pub(super) fn of(&self, path: &str, text: &str) -> String {
        if self.may_be_seen(path) { text.to_owned() } else { HIDDEN.to_owned() }
    }

    fn may_be_seen(&self, path: &str) -> bool {
        let mut at = vec![&self.schema];
        for step in path.split('.') {
            let key = step.split('[').next().unwrap_or(step);
            at = at.into_iter().flat_map(|schema| self.below(schema, key)).collect();
        }
        !at.is_empty() && !at.into_iter().any(is_secret)
    }

    /// What may stand under `key`: a property of this name, or what all names lead to.
    fn below<'s>(&'s self, schema: &'s Value, key: &str) -> Vec<&'s Value> {
        let mut found = Vec::new();
        for schema in self.meanings(schema) {
            let named = schema.get("properties").and_then(|properties| properties.get(key));
            let any = schema.get("additionalProperties").filter(|any| any.is_object());
            if let Some(one) = named.or(any) {
                found.push(one);
                for meaning in self.meanings(one) {
                    found.extend(meaning.get("items"));
                }
            }
        }
        found
    }

    /// A schema, what it refers to, and what it may be one of.
    fn meanings<'s>(&'s self, schema: &'s Value) -> Vec<&'s Value> {
        let mut all = vec![schema];
        let mut next = 0;
        while let Some(one) = all.get(next).copied() {
            next += 1;
            let reference = one.get("$ref").and_then(Value::as_str);
            let pointer = reference.and_then(|reference| reference.strip_prefix('#'));
            all.extend(pointer.and_then(|pointer| self.schema.pointer(pointer)));
            for choices in ["anyOf", "oneOf", "allOf"] {
                all.extend(one.get(choices).and_then(Value::as_array).into_iter().flatten());
            }
        }
        all
    }
}

/// Is it, or may it be, a secret?
fn is_secret(schema: &Value) -> bool {
    let text = schema.to_string();
    text.contains("SecretRef") || text.contains("Secret")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_shown_only_where_the_settings_know_that_it_is_no_secret() {
        let showing = Showing::new();
        let shown = |path| showing.of(path, "x") == "x";
        assert!(shown("postgres.pool_mode"));
        assert!(shown("postgres.servers.main.address"));
        assert!(shown("postgres.rules[0].class"));
        assert!(shown("log.level"));
        assert!(!shown("postgres.users.app.password"));
        assert!(!shown("postgres.users.app.server_password"));
        assert!(!shown("http.destinations.model.auth.key"));
        assert!(!shown("http.destinations.model.auth.with.secret"));
        assert!(!shown("http.destinations.model.tenants.acme.refresh_token"));
        assert!(!shown("http.destinations.model.agents.acme.one.password"));
        assert!(!shown("http.tenants.acme.keys[0]"));
        assert!(!shown("http.tenants.acme.agents.one.key"));
        assert!(!shown("postgres.users.odd.name.password"), "a name with a dot");
        assert!(!shown("nothing.of.the.kind"));
    }
}

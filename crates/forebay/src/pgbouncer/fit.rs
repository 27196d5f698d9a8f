//! Settings that a translation wrote and this build does not have: taken out, and told.

use serde_json::Value;

use super::translate::{Note, NoteKind, Translation};
use crate::config::reference;

/// Takes out of `translation` what the schema of the configuration does not know.
pub(super) fn fit(translation: &mut Translation) {
    let schema = reference::schema();
    let mut unknown = Vec::new();
    translation.document.retain(|path, key, place| {
        let table = path.iter().try_fold(&schema, |at, name| inner(&schema, at, name));
        let known = table.and_then(|table| inner(&schema, table, key)).is_some();
        if !known {
            unknown.push((format!("{}.{key}", path.join(".")), place.cloned()));
        }
        known
    });
    for (about, place) in unknown {
        let text = "this version of Forebay does not have it yet".to_owned();
        translation.notes.push(Note { place, about, kind: NoteKind::Dropped, text });
    }
}

/// What the schema says of `name` in the table `at`.
fn inner<'s>(schema: &'s Value, at: &'s Value, name: &str) -> Option<&'s Value> {
    let at = resolve(schema, at);
    let own = at.get("properties").and_then(|properties| properties.get(name));
    own.or_else(|| at.get("additionalProperties").filter(|inner| inner.is_object()))
        .map(|inner| resolve(schema, inner))
}

/// The schema itself, behind a reference or an option.
fn resolve<'s>(schema: &'s Value, at: &'s Value) -> &'s Value {
    if let Some(reference) = at.get("$ref").and_then(Value::as_str) {
        let pointer = reference.strip_prefix('#').unwrap_or_default();
        return schema.pointer(pointer).map_or(at, |found| resolve(schema, found));
    }
    match at.get("anyOf").and_then(Value::as_array).map(Vec::as_slice) {
        Some([inner, _]) => resolve(schema, inner),
        _ => at,
    }
}

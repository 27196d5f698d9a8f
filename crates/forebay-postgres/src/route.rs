//! Which server, which class, which request: decided from who the client is.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use forebay_pool::{ClassId, ClassName, Kind, Pool};

use crate::auth::brought::Is;
use crate::listener::Listeners;
use crate::own::Own;
use crate::parking::{Book, Parking};
use crate::replicas::Replicas;
use crate::replication::Replications;
use crate::server::connector::{Identity, Postgres};
use crate::server::proof::Proof;
use crate::settings::{PoolMode, Rule, ServerSettings};

/// One server's pool and its classes by name.
pub(crate) struct Backend {
    pub(crate) pool: Pool<Postgres>,
    pub(crate) listeners: Listeners,
    pub(crate) replications: Replications,
    pub(crate) classes: HashMap<String, (ClassId, Kind)>,
    /// The class of work that nobody names.
    pub(crate) default_class: ClassId,
    /// Whose work belongs to which class.
    pub(crate) rules: Arc<[Rule]>,
    /// Classes whose unnamed statements get names.
    pub(crate) named: Vec<ClassId>,
    /// What its open connections were opened for, as far as a change of it replaces them.
    pub(crate) origin: ServerSettings,
    /// Where work of some classes goes instead.
    pub(crate) replicas: Option<Replicas>,
    /// What parks here; nothing where no class does.
    pub(crate) parking: Option<Parking>,
    /// What parking came to, also before the last reload.
    pub(crate) book: Arc<Book>,
    /// Whether the server has accepted a connection since start.
    pub(crate) answers: Arc<AtomicBool>,
}

impl Backend {
    /// Does work for this server go to `other`, all of it or a part?
    pub(crate) fn leads_to(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        let replicas = self.replicas.as_ref().map(|replicas| &replicas.backend);
        Arc::ptr_eq(self, other) || replicas.is_some_and(|there| Arc::ptr_eq(there, other))
    }

    /// `user` has proved who it is, and brought what logs in here and at the replicas, where it
    /// is `identity`.
    pub(crate) fn bring(&self, user: &Arc<str>, identity: &Identity, proof: Proof) {
        if let Some(replicas) = &self.replicas {
            replicas.backend.bring(user, identity, proof.clone());
        }
        if self.pool.connector().brought.bring(user, proof) == Is::New {
            self.pool.forgive(identity);
        }
    }

    /// Do unnamed statements of `class` get names?
    pub(crate) fn names(&self, class: ClassId) -> bool {
        self.named.contains(&class)
    }
}

/// A client that is logged in.
pub(crate) struct Who {
    /// The database as the client calls it.
    pub(crate) database: Arc<str>,
    /// The user as the client calls itself.
    pub(crate) user: Arc<str>,
    /// Whose connections it works on.
    pub(crate) identity: Identity,
    pub(crate) backend: Arc<Backend>,
    pub(crate) mode: PoolMode,
    /// Whose HTTP calls belong to the same requests.
    pub(crate) tenant: Option<Arc<str>>,
    /// What the rules say of this client.
    pub(crate) ruled: Option<ClassId>,
    /// What the session says to us of its work, and what it said at its start.
    pub(crate) own: Own,
    pub(crate) own_at_start: Option<Box<Own>>,
    /// Its application_name: the feature of work that names none.
    pub(crate) application: Arc<str>,
}

impl Who {
    /// What a session says of its work goes back to what was said at its start.
    pub(crate) fn own_resets(&mut self, name: &str) {
        let start = self.own_at_start();
        self.own.reset(name, &start);
    }

    /// As [`Who::own_resets`], all of it.
    pub(crate) fn own_resets_all(&mut self) {
        self.own = self.own_at_start();
    }

    /// What the session says from now on was said at its start.
    pub(crate) fn own_starts(&mut self) {
        // Mostly nothing, and then it takes no memory.
        self.own_at_start = (self.own != Own::default()).then(|| Box::new(self.own.clone()));
    }

    fn own_at_start(&self) -> Own {
        self.own_at_start.as_deref().cloned().unwrap_or_default()
    }

    /// The client calls itself `name` now: rules and the feature of untagged work may follow.
    pub(crate) fn set_application_name(&mut self, name: &str) {
        self.ruled = self
            .backend
            .rules
            .iter()
            .find(|rule| applies(rule, &self.user, &self.database, name))
            .and_then(|rule| self.backend.classes.get(rule.class.as_str()))
            .map(|(class, _)| *class);
        self.application = Arc::from(name);
    }

    /// The class of a statement tagged with `tag`. A client may lower its rank, from core to
    /// a class of agents, and never raise it above what the rules say.
    pub(crate) fn class(&self, tag: Option<&str>) -> ClassId {
        let base = self.ruled.unwrap_or(self.backend.default_class);
        let kind = |class| {
            let found = self.backend.classes.values().find(|(id, _)| *id == class);
            found.map_or(Kind::Core, |(_, kind)| *kind)
        };
        let wish =
            tag.or(self.own.class.as_deref()).and_then(|name| self.backend.classes.get(name));
        match wish {
            Some((class, Kind::Ai)) => *class,
            Some((class, Kind::Core)) if kind(base) == Kind::Core => *class,
            Some((_, Kind::Core)) | None => base,
        }
    }

    pub(crate) fn class_name(&self, class: ClassId) -> ClassName {
        self.backend.pool.class_name(class).clone()
    }

    /// The feature of work that names none.
    pub(crate) fn feature(&self) -> &Arc<str> {
        self.own.feature.as_ref().unwrap_or(&self.application)
    }
}

fn applies(rule: &Rule, user: &str, database: &str, application_name: &str) -> bool {
    let fits = |pattern: &Option<String>, text| pattern.as_deref().is_none_or(|p| matches(p, text));
    fits(&rule.user, user)
        && fits(&rule.database, database)
        && fits(&rule.application_name, application_name)
}

/// Does `text` fit `pattern`, where `*` stands for any run of characters?
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run() {
        for (pattern, text) in
            [("*", ""), ("a*", "a"), ("*-agent", "x-agent"), ("a*b*c", "a1b2bc"), ("a", "a")]
        {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "ab"), ("a*b", "a"), ("*b", "ab "), ("a*a", "a"), ("", "x")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}

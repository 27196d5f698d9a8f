//! Which work goes to replicas: classes whose connections come from another server's pool.
//!
//! A session may alternate: each of its transactions goes where its class says, with settings
//! and statements as everywhere. Always true: a transaction that is open, and a client that
//! keeps its connection, stay where they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_pool::ClassId;

use crate::route::Backend;
use crate::settings::{Otherwise, ReplicaSettings};

/// The replicas of a server.
pub(crate) struct Replicas {
    pub(crate) backend: Arc<Backend>,
    /// Classes of the server's own pool, and what they are there.
    classes: Vec<(ClassId, ClassId)>,
    otherwise: Otherwise,
}

/// Where work is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    /// The server itself.
    Own,
    /// Its replicas, as this class there.
    Replicas(ClassId),
}

impl Replicas {
    /// What `settings` come to; nothing where a class or the server is not there, which was
    /// checked.
    pub(crate) fn new(
        settings: &ReplicaSettings,
        own: &Backend,
        backends: &BTreeMap<String, Arc<Backend>>,
    ) -> Option<Self> {
        let backend = Arc::clone(backends.get(&settings.server)?);
        let class = |backend: &Backend, name: &str| backend.classes.get(name).map(|(id, _)| *id);
        let both = settings
            .classes
            .iter()
            .filter_map(|name| Some((class(own, name.as_str())?, class(&backend, name.as_str())?)));
        let classes = both.collect();
        Some(Self { backend, classes, otherwise: settings.otherwise })
    }

    /// Where work of `class` goes now.
    pub(crate) fn to(&self, class: ClassId) -> To {
        let found = self.classes.iter().find(|(own, _)| *own == class);
        match found {
            Some((_, there)) if self.otherwise == Otherwise::Refuse || self.can_be_used() => {
                To::Replicas(*there)
            }
            Some(_) | None => To::Own,
        }
    }

    fn can_be_used(&self) -> bool {
        self.backend.pool.connector().is_usable()
    }

    /// Ends when none of them can be used, and the primary does their work instead.
    pub(crate) async fn given_up(&self) {
        match self.otherwise {
            Otherwise::Refuse => std::future::pending().await,
            Otherwise::Primary => self.backend.pool.connector().unusable().await,
        }
    }
}

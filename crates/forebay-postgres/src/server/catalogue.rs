//! What is known of a database: which of its routines, views and triggers may change the
//! session that uses them.
//!
//! Read over a server connection on its way home; anew when something was defined through us
//! ([`Catalogue::defines`]) and, for what others define, every few seconds: then a fingerprint
//! of the catalogues tells whether anything has changed. Always true: knowledge is used only
//! for work that began after it was read, while nobody defines anything, and that ended before
//! anybody did.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use forebay_seam::sync::Mutex;
use forebay_seam::time::{self, Instant};

use super::{Server, ServerFailure};
use crate::sql::suspects::{Body, Definition, Scope, Suspects};

/// The least time between two looks.
const PAUSE: Duration = Duration::from_secs(5);
/// A look takes at most this part of one connection's time.
const SHARE: u32 = 100;
/// More definitions than these are not read: everything is suspected.
const MOST_BYTES: usize = 32 << 20;

/// Changes when anything changes that [`DEFINITIONS`] reads.
const FINGERPRINT: &str = include_str!("fingerprint.sql");
/// Scope, name, how to judge it, and text of each definition.
const DEFINITIONS: &str = include_str!("definitions.sql");

/// Databases of one server.
#[derive(Debug, Default)]
pub(crate) struct Catalogues(Mutex<HashMap<Arc<str>, Arc<Catalogue>>>);

impl Catalogues {
    /// That of `database`.
    pub(crate) fn of(&self, database: &Arc<str>) -> Arc<Catalogue> {
        let mut all = self.0.lock();
        Arc::clone(all.entry(Arc::clone(database)).or_default())
    }
}

/// What is known of one database.
#[derive(Debug)]
pub(crate) struct Catalogue {
    /// Counts definitions, begun and ended.
    version: AtomicU64,
    /// Definitions under way.
    open: AtomicU32,
    /// Milliseconds from `origin` to the next look.
    due: AtomicU64,
    origin: Instant,
    looks: AtomicBool,
    known: Mutex<Option<Known>>,
}

#[derive(Debug)]
struct Known {
    version: u64,
    fingerprint: String,
    suspects: Arc<Suspects>,
}

/// What a piece of work goes by.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    version: u64,
    pub(crate) suspects: Option<Arc<Suspects>>,
    pub(crate) statements: Statements,
}

/// Whether a client's statements ran: a login alone needs no knowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Statements {
    #[default]
    None,
    Some,
}

/// Something is being defined, until dropped.
#[derive(Debug)]
pub(crate) struct Defining(Arc<Catalogue>);

impl Drop for Defining {
    fn drop(&mut self) {
        self.0.version.fetch_add(1, Ordering::AcqRel);
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One look at a time.
struct Looking<'c>(&'c Catalogue);

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.0.looks.store(false, Ordering::Release);
    }
}

impl Default for Catalogue {
    fn default() -> Self {
        Self {
            version: AtomicU64::new(1),
            open: AtomicU32::new(0),
            due: AtomicU64::new(0),
            origin: time::now(),
            looks: AtomicBool::new(false),
            known: Mutex::new(None),
        }
    }
}

impl Catalogue {
    /// Work begins: what is known now is what it goes by.
    pub(crate) fn look_up(&self, seen: &mut Seen) {
        let version = self.version.load(Ordering::Acquire);
        seen.statements = Statements::None;
        if seen.version == version && seen.suspects.is_some() {
            return;
        }
        let known = self.known.lock();
        let current = known.as_ref().filter(|known| known.version == version);
        let suspects = current.map(|known| Arc::clone(&known.suspects));
        (seen.version, seen.suspects) = (version, suspects);
    }

    /// Work has ended: does what it went by still hold?
    pub(crate) fn holds(&self, seen: &Seen) -> bool {
        seen.suspects.is_some()
            && self.open.load(Ordering::Acquire) == 0
            && self.version.load(Ordering::Acquire) == seen.version
    }

    /// Changes with each definition that goes through us, when it begins and when it ends.
    pub(crate) fn definitions(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Something is defined from now on, until the answer is dropped.
    pub(crate) fn defines(self: &Arc<Self>) -> Defining {
        self.open.fetch_add(1, Ordering::AcqRel);
        self.version.fetch_add(1, Ordering::AcqRel);
        Defining(Arc::clone(self))
    }

    /// Is it time for a look, as of `now`?
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let due = Duration::from_millis(self.due.load(Ordering::Relaxed));
        now.saturating_duration_since(self.origin) >= due
    }

    fn is_known(&self) -> bool {
        let version = self.version.load(Ordering::Acquire);
        self.known.lock().as_ref().is_some_and(|known| known.version == version)
    }

    /// Claims the next look, if one is needed and nobody else is at it.
    fn claim(&self) -> Option<Looking<'_>> {
        let needed = self.is_due(time::now()) || !self.is_known();
        (needed && !self.looks.swap(true, Ordering::AcqRel)).then_some(Looking(self))
    }

    /// What was read when the version was `version`. Whoever goes by something else has to
    /// notice, so what is new gets a version of its own.
    fn learns(&self, version: u64, fingerprint: String, suspects: Arc<Suspects>) {
        let mut known = self.known.lock();
        let is_new = known.as_ref().is_none_or(|known| known.fingerprint != fingerprint);
        let exchange =
            |to| self.version.compare_exchange(version, to, Ordering::AcqRel, Ordering::Acquire);
        let version = if is_new && exchange(version + 1).is_ok() { version + 1 } else { version };
        *known = Some(Known { version, fingerprint, suspects });
    }

    fn rests_for(&self, pause: Duration) {
        let due = (time::now() + pause).saturating_duration_since(self.origin);
        self.due.store(u64::try_from(due.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Server {
    /// Reads what is defined in the database, if that is due. The connection is idle.
    ///
    /// # Errors
    /// Only what leaves the connection unfit.
    pub(super) async fn look_at_catalogue(&mut self) -> Result<(), ServerFailure> {
        let catalogue = Arc::clone(&self.catalogue);
        let Some(_looking) = catalogue.claim() else { return Ok(()) };
        let began = time::now();
        let version = catalogue.version.load(Ordering::Acquire);
        match self.read_catalogue(&catalogue).await {
            Ok((fingerprint, suspects)) => catalogue.learns(version, fingerprint, suspects),
            // Something that speaks PostgreSQL and is none: no such table, function or syntax.
            Err(ServerFailure::Refused(said)) if said.code.starts_with("42") => {
                tracing::warn!(
                    error = said.text,
                    "the server does not say what is defined in the database: settings that its \
                     functions change may stay behind"
                );
                catalogue.learns(version, String::new(), Arc::new(Suspects::none()));
            }
            // A timeout, or a lock: until it can be read, nothing is believed.
            Err(ServerFailure::Refused(said)) => {
                tracing::warn!(
                    error = said.text,
                    "what is defined in the database cannot be read: all its connections are reset"
                );
                catalogue.learns(version, String::new(), Arc::new(Suspects::all()));
            }
            Err(failure) => return Err(failure),
        }
        catalogue.rests_for(PAUSE.max(began.elapsed() * SHARE));
        Ok(())
    }

    async fn read_catalogue(
        &mut self,
        catalogue: &Catalogue,
    ) -> Result<(String, Arc<Suspects>), ServerFailure> {
        let fingerprint = self.ask(FINGERPRINT).await?.unwrap_or_default();
        let same = {
            let known = catalogue.known.lock();
            let same = known.as_ref().filter(|known| known.fingerprint == fingerprint);
            same.map(|known| Arc::clone(&known.suspects))
        };
        let suspects = match same {
            Some(suspects) => suspects,
            None => Arc::new(self.read_suspects().await?),
        };
        Ok((fingerprint, suspects))
    }

    async fn read_suspects(&mut self) -> Result<Suspects, ServerFailure> {
        let (mut definitions, mut bytes) = (Vec::new(), 0);
        self.ask_for_rows(DEFINITIONS, |row| {
            bytes += row.iter().map(String::len).sum::<usize>();
            if bytes <= MOST_BYTES {
                definitions.extend(definition(row));
            }
        })
        .await?;
        Ok(if bytes <= MOST_BYTES { Suspects::find(&definitions) } else { Suspects::all() })
    }
}

fn definition(row: Vec<String>) -> Option<Definition> {
    let mut columns = row.into_iter();
    let scope = match &*columns.next()? {
        "routine" => Scope::Routine,
        "relation" => Scope::Relation,
        _ => Scope::Everything,
    };
    let name = columns.next()?;
    let body = match &*columns.next()? {
        "statements" => Body::Statements,
        "names" => Body::Names,
        "harmless" => Body::Harmless,
        _ => Body::Opaque,
    };
    Some(Definition { scope, name, body, text: columns.next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(catalogue: &Catalogue) {
        let version = catalogue.version.load(Ordering::Acquire);
        catalogue.learns(version, "same".to_owned(), Arc::default());
    }

    #[test]
    fn what_others_define_makes_knowledge_void_once_it_is_read() {
        let (catalogue, mut seen) = (Catalogue::default(), Seen::default());
        known(&catalogue);
        catalogue.look_up(&mut seen);
        known(&catalogue);
        assert!(catalogue.holds(&seen), "nothing is new");
        let version = catalogue.version.load(Ordering::Acquire);
        catalogue.learns(version, "other".to_owned(), Arc::default());
        assert!(!catalogue.holds(&seen));
        catalogue.look_up(&mut seen);
        assert!(catalogue.holds(&seen));
    }

    #[test]
    fn what_is_defined_meanwhile_makes_knowledge_void() {
        let catalogue = Arc::<Catalogue>::default();
        let mut seen = Seen::default();
        catalogue.look_up(&mut seen);
        assert!(!catalogue.holds(&seen), "nothing is known");
        known(&catalogue);
        catalogue.look_up(&mut seen);
        assert!(catalogue.holds(&seen));
        let defining = catalogue.defines();
        assert!(!catalogue.holds(&seen));
        known(&catalogue);
        catalogue.look_up(&mut seen);
        assert!(!catalogue.holds(&seen), "it is still under way");
        drop(defining);
        catalogue.look_up(&mut seen);
        assert!(!catalogue.holds(&seen), "and was read before it ended");
        known(&catalogue);
        catalogue.look_up(&mut seen);
        assert!(catalogue.holds(&seen));
    }

    #[test]
    fn one_looks_at_a_time_and_none_too_often() {
        let catalogue = Catalogue::default();
        let looking = catalogue.claim();
        assert!(looking.is_some() && catalogue.claim().is_none());
        drop(looking);
        known(&catalogue);
        catalogue.rests_for(PAUSE);
        assert!(catalogue.claim().is_none());
        catalogue.version.fetch_add(1, Ordering::AcqRel);
        assert!(catalogue.claim().is_some());
    }
}

//! Parking: giving back the server connection of an open transaction that idles and provably
//! holds nothing, until its next statement.
//!
//! Here stands which classes park and how, why one is not parked ([`Reason`]), and what became
//! of all of them ([`book`]). What a transaction has done, and when it is looked at, its session
//! knows ([`crate::session`]); that it holds nothing is proved by its texts
//! ([`crate::sql::parkable`]) and by the server ([`crate::server::emptiness`]). Always true:
//! both proofs have succeeded before a connection is given back.

pub(crate) mod book;
mod reason;

use std::sync::Arc;
use std::time::Duration;

use forebay_pool::class::ParkWhen;
use forebay_pool::{ClassId, ClassName, ClassSettings, Mode};

use crate::server::emptiness::Prover;

pub(crate) use book::Book;
pub use book::{ParkingCounts, ParkingSnapshot, Unparkable};
pub(crate) use reason::Reason;

/// How transactions of one class are parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) mode: Mode,
    /// How long one idles first.
    pub(crate) after: Duration,
    pub(crate) when: ParkWhen,
    /// How long one that goes on may wait.
    pub(crate) unpark_timeout: Duration,
}

impl Terms {
    fn of(class: &ClassSettings) -> Self {
        Self {
            mode: class.parking,
            after: class.park_after,
            when: class.park_when,
            unpark_timeout: class.unpark_timeout,
        }
    }
}

/// What parks at one server. There is none where no class parks.
pub(crate) struct Parking {
    terms: Vec<(ClassId, Terms)>,
    pub(crate) prover: Arc<Prover>,
    pub(crate) book: Arc<Book>,
}

impl Parking {
    /// For `classes`, of which at least one parks.
    pub(crate) fn new<'a>(
        classes: impl Iterator<Item = (ClassId, &'a ClassName, &'a ClassSettings)>,
        prover: Arc<Prover>,
        book: Arc<Book>,
    ) -> Self {
        let terms = classes.map(|(id, name, class)| {
            book.knows(id, name, class.parking);
            (id, Terms::of(class))
        });
        Self { terms: terms.collect(), prover, book }
    }

    /// How `class` parks; `None` where it does not.
    pub(crate) fn of(&self, class: ClassId) -> Option<Terms> {
        let (_, terms) = self.terms.iter().find(|(id, _)| *id == class)?;
        (terms.mode > Mode::Off).then_some(*terms)
    }
}

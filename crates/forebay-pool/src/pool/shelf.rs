//! Connections that nobody has on lease: at rest, or set aside for one who waits.
//!
//! Knows no states, which are the ledger's. A connection stands at the place of its number,
//! so putting it there and taking it writes one slot. Always true: who asks with the number
//! of another that stood there before gets nothing.

use slotmap::Key;

use crate::slot::ConnId;

/// Connections by number.
pub(super) struct Shelf<C> {
    places: Vec<Option<(ConnId, C)>>,
}

impl<C> Shelf<C> {
    pub(super) fn new() -> Self {
        Self { places: Vec::new() }
    }

    /// `connection` stands at `id` from now on.
    pub(super) fn put(&mut self, id: ConnId, connection: C) {
        let place = place(id);
        if place >= self.places.len() {
            self.places.resize_with(place + 1, || None);
        }
        self.places[place] = Some((id, connection));
    }

    pub(super) fn look_at(&mut self, id: ConnId) -> Option<&mut C> {
        let (number, connection) = self.places.get_mut(place(id))?.as_mut()?;
        (*number == id).then_some(connection)
    }

    pub(super) fn take(&mut self, id: ConnId) -> Option<C> {
        let (_, connection) =
            self.places.get_mut(place(id))?.take_if(|(number, _)| *number == id)?;
        Some(connection)
    }
}

/// The lower half of a key is its place in the table that it came from; the upper half tells
/// it from others that had this place before.
fn place(id: ConnId) -> usize {
    usize::try_from(id.data().as_ffi() & u64::from(u32::MAX)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    #[test]
    fn a_place_that_was_taken_again_is_another_connection() {
        let mut ids = SlotMap::<ConnId, ()>::with_key();
        let mut shelf = Shelf::new();
        let all: Vec<_> = (0..100_u32).map(|n| (ids.insert(()), n)).collect();
        all.iter().rev().for_each(|(id, n)| shelf.put(*id, *n));
        assert_eq!(shelf.look_at(all[7].0).copied(), Some(7));
        assert_eq!((shelf.take(all[7].0), shelf.take(all[7].0)), (Some(7), None));
        ids.remove(all[7].0);
        let heir = ids.insert(());
        assert_eq!(place(heir), place(all[7].0));
        shelf.put(heir, 700);
        assert_eq!(shelf.look_at(all[7].0), None);
        assert_eq!(shelf.take(all[7].0), None);
        assert_eq!(shelf.take(heir), Some(700));
    }
}

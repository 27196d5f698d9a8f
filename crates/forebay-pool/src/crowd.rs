//! How many wait, by class: the classes of which nobody waits are passed over at once.
//!
//! Knows neither who they are nor what they wait for. Always true: a class is among
//! [`Crowd::classes`] exactly while somebody of it waits.

use crate::class::{self, ClassId};

/// Those who wait, counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Crowd {
    waiting: [u32; class::MOST],
    /// One bit for each class of which somebody waits.
    present: u16,
}

impl Crowd {
    /// One more of `class` waits.
    pub(crate) fn enters(&mut self, class: ClassId) {
        self.waiting[class.index()] += 1;
        self.present |= 1 << class.index();
    }

    /// One of `class` waits no more.
    pub(crate) fn leaves(&mut self, class: ClassId) {
        let waiting = &mut self.waiting[class.index()];
        *waiting -= 1;
        if *waiting == 0 {
            self.present &= !(1 << class.index());
        }
    }

    /// How many of `class` wait.
    pub(crate) fn of(&self, class: ClassId) -> u32 {
        self.waiting[class.index()]
    }

    /// How many wait in all.
    pub(crate) fn all(&self) -> u32 {
        self.waiting.iter().sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.present == 0
    }

    /// The class of all who wait, if it is one.
    pub(crate) fn only(&self) -> Option<ClassId> {
        if !self.present.is_power_of_two() {
            return None;
        }
        u8::try_from(self.present.trailing_zeros()).ok().map(ClassId)
    }

    /// Those of which somebody waits, in order.
    #[inline]
    pub(crate) fn classes(&self) -> impl Iterator<Item = ClassId> + use<> {
        let mut left = self.present;
        std::iter::from_fn(move || {
            let next = u8::try_from(left.trailing_zeros()).ok().filter(|_| left != 0)?;
            left &= left - 1;
            Some(ClassId(next))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_present_while_somebody_of_it_waits() {
        let mut crowd = Crowd::default();
        let present = |crowd: &Crowd| crowd.classes().map(|class| class.0).collect::<Vec<_>>();
        for class in [15, 0, 3, 3] {
            crowd.enters(ClassId(class));
        }
        assert_eq!((present(&crowd), crowd.all()), (vec![0, 3, 15], 4));
        assert_eq!(crowd.only(), None);
        for class in [3, 15, 0] {
            crowd.leaves(ClassId(class));
        }
        assert_eq!((present(&crowd), crowd.of(ClassId(3))), (vec![3], 1));
        assert_eq!(crowd.only(), Some(ClassId(3)));
        crowd.leaves(ClassId(3));
        assert!(crowd.is_empty() && present(&crowd).is_empty());
        assert_eq!(crowd.only(), None);
    }
}

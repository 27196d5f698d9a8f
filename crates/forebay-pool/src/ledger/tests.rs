//! The ledger, proved: sentences about single rules, random lives of a pool, and every life
//! of a small one.

mod besides;
mod books;
mod ending;
mod fairness;
mod policies;
mod random;
mod recalls;
mod reference;
mod sentences;
mod small;
mod world;

//! The manual, one page for each thing one wants to know. The pages are Markdown in the
//! crate's `docs` folder; their code is compiled with the tests.
//!
//! | page | read it when |
//! |---|---|
//! | [`life_of_a_lease`] | you want to know who owns what, and what a drop does |
//! | [`classes_and_budgets`] | you write down numbers |
//! | [`requests_and_fairness`] | one request makes many checkouts |
//! | [`errors`] | a checkout failed, or you write a connector |
//! | [`cancel_safety`] | you use `select!` and timeouts |
//! | [`sizing`] | you ask how many |
//! | [`moving`] | you use deadpool or bb8 now |

#[doc = include_str!("../docs/life-of-a-lease.md")]
///
/// In the reference: [`Pool::checkout`](crate::Pool::checkout), [`Lease`](crate::Lease),
/// [`Condition`](crate::Condition), [`Connector`](crate::Connector).
pub mod life_of_a_lease {}

#[doc = include_str!("../docs/classes-and-budgets.md")]
///
/// In the reference: [`PoolSettings`](crate::PoolSettings), [`Budget`](crate::Budget),
/// [`ClassSettings`](crate::ClassSettings), [`Share`](crate::Share),
/// [`class::check`](crate::class::check), [`Policies`](crate::Policies).
pub mod classes_and_budgets {}

#[doc = include_str!("../docs/requests-and-fairness.md")]
///
/// In the reference: [`Ask`](crate::Ask), [`Request`](crate::Request),
/// [`Operation`](crate::Operation), [`Lease::attach`](crate::Lease::attach).
pub mod requests_and_fairness {}

#[doc = include_str!("../docs/errors.md")]
///
/// In the reference: [`CheckoutError`](crate::CheckoutError), [`Refusal`](crate::Refusal),
/// [`ConnectFailure`](crate::ConnectFailure), [`FailureKind`](crate::FailureKind).
pub mod errors {}

#[doc = include_str!("../docs/cancel-safety.md")]
///
/// In the reference: [`Pool::checkout`](crate::Pool::checkout),
/// [`Pool::drain`](crate::Pool::drain), [`Lease`](crate::Lease).
pub mod cancel_safety {}

#[doc = include_str!("../docs/sizing.md")]
///
/// In the reference: [`PoolSettings`](crate::PoolSettings), [`Snapshot`](crate::Snapshot),
/// [`Pool::warm_up`](crate::Pool::warm_up), [`Pool::set_capacity`](crate::Pool::set_capacity).
pub mod sizing {}

#[doc = include_str!("../docs/moving.md")]
///
/// In the reference: [`Connector`](crate::Connector), [`Pool`](crate::Pool),
/// [`Lease`](crate::Lease), [`PoolSettings`](crate::PoolSettings).
pub mod moving {}

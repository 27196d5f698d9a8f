//! Workload classes: what each may always have, and what it may never exceed.
//!
//! Settings are shares of a budget that may change at run time; [`resolve`] turns them into
//! seats for the budget of the moment. Always true of its answer: the guarantees sum to at
//! most the budget, and no guarantee is above its ceiling.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::mode::Mode;

/// Classes of one pool at the most.
pub(crate) const MOST: usize = 16;

/// The name of a class, as an operator writes it.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct ClassName(Arc<str>);

impl ClassName {
    /// The class that untagged work belongs to.
    pub const CORE: &'static str = "core";

    /// A class called `name`.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClassName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A class's place in one pool's table, found once by name ([`crate::Pool::class`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassId(pub(crate) u8);

impl ClassId {
    /// The first of any pool.
    pub const FIRST: Self = Self(0);
}

impl ClassId {
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Whose work a class does. All AI classes together stay below the AI share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The product itself: login, dashboards, transactions that people wait for.
    Core,
    /// Work of agents.
    #[default]
    Ai,
}

/// A number of seats, absolute or as a part of something: `10`, `"50%"` of the budget, or
/// `"50% of ai_share"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "ShareText", into = "ShareText")]
pub enum Share {
    /// So many connections.
    Seats(u32),
    /// Percent of the destination's budget.
    OfBudget(u8),
    /// Percent of what all AI classes may have together.
    OfAiShare(u8),
}

impl Share {
    /// In seats, rounded down.
    fn seats(self, budget: u32, ai_ceiling: u32) -> u32 {
        match self {
            Self::Seats(seats) => seats,
            Self::OfBudget(percent) => percent_of(budget, percent),
            Self::OfAiShare(percent) => percent_of(ai_ceiling, percent),
        }
    }
}

/// `percent` of `whole`, rounded down.
pub(crate) fn percent_of(whole: u32, percent: u8) -> u32 {
    u32::try_from(u64::from(whole) * u64::from(percent) / 100).unwrap_or(u32::MAX)
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number of connections, \"50%\" or \"50% of ai_share\"")]
enum ShareText {
    Seats(u32),
    Text(String),
}

/// What a share may look like, for the one who wrote something else.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no share: write a number of connections, \"50%\" or \"50% of ai_share\"")]
pub struct ShareError(String);

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let error = || ShareError(text.to_owned());
        let (number, of) = text.split_once('%').ok_or_else(error)?;
        let percent = number.trim().parse::<u8>().ok().filter(|p| *p <= 100).ok_or_else(error)?;
        match of.trim() {
            "" | "of budget" => Ok(Self::OfBudget(percent)),
            "of ai_share" => Ok(Self::OfAiShare(percent)),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seats(seats) => write!(f, "{seats}"),
            Self::OfBudget(percent) => write!(f, "{percent}%"),
            Self::OfAiShare(percent) => write!(f, "{percent}% of ai_share"),
        }
    }
}

impl TryFrom<ShareText> for Share {
    type Error = ShareError;

    fn try_from(text: ShareText) -> Result<Self, ShareError> {
        match text {
            ShareText::Seats(seats) => Ok(Self::Seats(seats)),
            ShareText::Text(text) => text.parse(),
        }
    }
}

impl From<Share> for ShareText {
    fn from(share: Share) -> Self {
        match share {
            Share::Seats(seats) => Self::Seats(seats),
            Share::OfBudget(_) | Share::OfAiShare(_) => Self::Text(share.to_string()),
        }
    }
}

/// What an operator sets for one class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClassSettings {
    /// Whose work it is: `core` or `ai`. Default `ai`.
    pub kind: Kind,
    /// Connections that no other class can take, even while this one does not use them.
    /// Default 0.
    pub guarantee: Share,
    /// Connections it never exceeds. Default: the budget for `core`, the AI share for `ai`.
    pub ceiling: Option<Share>,
    /// How long a caller may wait for a connection. Default 2s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub checkout_timeout: Duration,
    /// Its part of what is above the guarantees while several classes wait, in connection
    /// time, against the weights of the others. Default 1; of the standard `core` 4.
    pub weight: u32,
    /// Requests under way at the same time, at the most. Default: no such limit.
    pub max_requests: Option<u32>,
    /// Operations of one request that wait for connections with its priority; further ones
    /// wait as if each were a request of its own. Default 32.
    pub max_parallel: u32,
    /// What the policies below may do: `off`, `observe` (count what they would do) or
    /// `enforce`. Default `observe`.
    pub mode: Mode,
    /// Policies with a mode of their own. A class of kind `core` sheds and refuses the oldest
    /// only where these are set to `enforce` here.
    pub policies: Policies,
    /// Whether the connection of an open transaction that idles and provably holds nothing is
    /// given back until its next statement: `off`, `observe` (count what could be given back)
    /// or `enforce`. For databases only. Default `off`.
    pub parking: Mode,
    /// How long a transaction idles before it is parked. Default 50ms.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub park_after: Duration,
    /// Which idle transactions are parked: those whose connection somebody waits for, or all.
    /// Default `contended`.
    pub park_when: ParkWhen,
    /// How long a parked transaction that goes on may wait for a connection; then it has failed
    /// (40001). It takes the place of `checkout_timeout`. Default 5s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub unpark_timeout: Duration,
}

/// Which idle transactions are parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ParkWhen {
    /// While somebody waits for a connection that parking would free, or once an outbound call
    /// of the same request is in flight.
    #[default]
    Contended,
    /// Whenever one idles.
    Idle,
}

/// Policies of a class that have a mode of their own; the others have the class's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policies {
    /// New requests are admitted by the connections that they and those under way need, and
    /// up to `max_requests`.
    pub admission: Option<Mode>,
    /// Who would wait beyond its deadline is told at once.
    pub deadline: Option<Mode>,
    /// From 80 % utilisation on, expensive operations are refused first.
    pub shedding: Option<Mode>,
    /// While its queue does not empty, the newest goes first and the oldest is refused.
    pub freshness: Option<Mode>,
    /// Retries may cost a tenth of what first tries cost.
    pub retries: Option<Mode>,
    /// Operations that are known to hold long do not borrow above the guarantee.
    pub lending: Option<Mode>,
    /// Work that keeps failing is refused for a while.
    pub breaker: Option<Mode>,
}

impl Default for ClassSettings {
    fn default() -> Self {
        Self {
            kind: Kind::Ai,
            guarantee: Share::Seats(0),
            ceiling: None,
            checkout_timeout: Duration::from_secs(2),
            weight: 1,
            max_requests: None,
            max_parallel: 32,
            mode: Mode::Observe,
            policies: Policies::default(),
            parking: Mode::Off,
            park_after: Duration::from_millis(50),
            park_when: ParkWhen::default(),
            unpark_timeout: Duration::from_secs(5),
        }
    }
}

impl ClassSettings {
    /// The three classes of a destination for which nothing is configured.
    pub fn defaults() -> Vec<(ClassName, Self)> {
        let core = Self {
            kind: Kind::Core,
            guarantee: Share::OfBudget(50),
            checkout_timeout: Duration::from_secs(5),
            weight: 4,
            ..Self::default()
        };
        let ai_read = Self {
            guarantee: Share::OfBudget(10),
            checkout_timeout: Duration::from_millis(500),
            ..Self::default()
        };
        let ai_write = Self {
            guarantee: Share::OfBudget(10),
            ceiling: Some(Share::OfAiShare(50)),
            ..Self::default()
        };
        vec![
            (ClassName::new(ClassName::CORE), core),
            (ClassName::new("ai-read"), ai_read),
            (ClassName::new("ai-write"), ai_write),
        ]
    }

    /// The only class of a destination that has no workload classes (HTTP by default).
    pub fn whole_budget(checkout_timeout: Duration) -> Self {
        Self { kind: Kind::Core, checkout_timeout, ..Self::default() }
    }
}

/// One class's limits in seats, for the budget of the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Whose work.
    pub kind: Kind,
    /// Seats no other class can take.
    pub guarantee: u32,
    /// Seats it never exceeds.
    pub ceiling: u32,
}

/// What all AI classes together may have: `percent` of what the server can really take
/// (`capacity`), never more than the budget, and at least one seat where there is one.
pub fn ai_ceiling(budget: u32, capacity: u32, percent: u8) -> u32 {
    percent_of(capacity, percent).max(1).min(budget)
}

/// Seats for each class under `budget`. Where the guarantees exceed the budget (it shrank
/// after the settings were checked) they are cut in the order of the classes, core first
/// served; where AI guarantees exceed the AI share they are cut alike.
pub fn resolve(settings: &[ClassSettings], budget: u32, ai_ceiling: u32) -> Vec<Limits> {
    let (mut left, mut left_ai) = (budget, ai_ceiling);
    settings
        .iter()
        .map(|class| {
            let most = match class.kind {
                Kind::Core => budget,
                Kind::Ai => ai_ceiling,
            };
            let ceiling = class.ceiling.map_or(most, |c| c.seats(budget, ai_ceiling)).min(most);
            let ceiling = ceiling.max(1).min(budget);
            let wanted = class.guarantee.seats(budget, ai_ceiling).min(ceiling).min(left);
            let guarantee = match class.kind {
                Kind::Core => wanted,
                Kind::Ai => wanted.min(left_ai),
            };
            left -= guarantee;
            if class.kind == Kind::Ai {
                left_ai -= guarantee;
            }
            Limits { kind: class.kind, guarantee, ceiling }
        })
        .collect()
}

/// Why a set of classes cannot work, for `forebay check`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClassError {
    /// More is promised than there is.
    #[error(
        "the guarantees sum to {sum}, but the budget is {budget}: lower a `guarantee` or raise `budget`"
    )]
    GuaranteesExceedBudget {
        /// Seats promised.
        sum: u32,
        /// Seats there are.
        budget: u32,
    },
    /// A class can never have what it is promised.
    #[error("class `{class}`: its guarantee of {guarantee} is above its ceiling of {ceiling}")]
    GuaranteeAboveCeiling {
        /// The class.
        class: ClassName,
        /// Seats promised.
        guarantee: u32,
        /// Seats allowed.
        ceiling: u32,
    },
    /// The others are promised all there is, and an unused promise is never lent.
    #[error(
        "class `{class}` could never get a connection: the others are guaranteed the whole budget of {budget}; lower a `guarantee` or raise `budget`"
    )]
    NothingLeft {
        /// The class.
        class: ClassName,
        /// Seats there are.
        budget: u32,
    },
    /// The table has 16 places at most.
    #[error("{count} classes are configured, at most {MOST} are possible")]
    TooMany {
        /// Configured.
        count: usize,
    },
}

/// Checks that the promises of `classes` can be kept under `budget`.
///
/// # Errors
/// The first promise that cannot.
pub fn check(
    classes: &[(ClassName, ClassSettings)],
    budget: u32,
    ai_share_percent: u8,
) -> Result<(), ClassError> {
    if classes.len() > MOST {
        return Err(ClassError::TooMany { count: classes.len() });
    }
    let ai = ai_ceiling(budget, budget, ai_share_percent);
    let mut sum = 0_u32;
    let mut empty_handed = None;
    for (class, settings) in classes {
        let guarantee = settings.guarantee.seats(budget, ai);
        if guarantee == 0 {
            empty_handed.get_or_insert(class);
        }
        if let Some(ceiling) = settings.ceiling.map(|c| c.seats(budget, ai))
            && guarantee > ceiling
        {
            return Err(ClassError::GuaranteeAboveCeiling {
                class: class.clone(),
                guarantee,
                ceiling,
            });
        }
        sum = sum.saturating_add(guarantee);
    }
    if sum > budget {
        return Err(ClassError::GuaranteesExceedBudget { sum, budget });
    }
    match empty_handed {
        Some(class) if sum == budget => {
            Err(ClassError::NothingLeft { class: class.clone(), budget })
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(budget: u32, capacity: u32) -> Vec<Limits> {
        let settings: Vec<_> = ClassSettings::defaults().into_iter().map(|(_, s)| s).collect();
        resolve(&settings, budget, ai_ceiling(budget, capacity, 35))
    }

    #[test]
    fn defaults_give_core_half_and_agents_a_third_of_the_server() {
        let [core, read, write] = limits(70, 100)[..] else { panic!("three classes") };
        assert_eq!((core.guarantee, core.ceiling), (35, 70));
        assert_eq!((read.guarantee, read.ceiling), (7, 35));
        assert_eq!((write.guarantee, write.ceiling), (7, 17));
    }

    #[test]
    fn guarantees_round_down_and_never_exceed_the_budget() {
        for budget in 0..200 {
            let limits = limits(budget, budget);
            assert!(limits.iter().map(|l| l.guarantee).sum::<u32>() <= budget);
            assert!(limits.iter().all(|l| l.guarantee <= l.ceiling));
        }
    }

    #[test]
    fn a_share_is_a_number_or_a_percentage() {
        assert_eq!("50%".parse::<Share>().unwrap(), Share::OfBudget(50));
        assert_eq!(" 5 % of ai_share".parse::<Share>().unwrap(), Share::OfAiShare(5));
        for bad in ["", "half", "101%", "-1%", "50% of all"] {
            assert!(bad.parse::<Share>().unwrap_err().to_string().contains("no share"), "{bad}");
        }
    }

    #[test]
    fn promises_that_cannot_be_kept_are_errors() {
        let class =
            |guarantee, ceiling| ClassSettings { guarantee, ceiling, ..ClassSettings::default() };
        let too_much = [
            (ClassName::new("a"), class(Share::Seats(6), None)),
            (ClassName::new("b"), class(Share::Seats(5), None)),
        ];
        assert_eq!(
            check(&too_much, 10, 100),
            Err(ClassError::GuaranteesExceedBudget { sum: 11, budget: 10 })
        );
        let nothing_left = [
            (ClassName::new("a"), class(Share::Seats(10), None)),
            (ClassName::new("b"), class(Share::Seats(0), None)),
        ];
        let nothing = check(&nothing_left, 10, 100).unwrap_err();
        assert!(
            matches!(nothing, ClassError::NothingLeft { ref class, .. } if class.as_str() == "b")
        );
        let upside_down = [(ClassName::new("a"), class(Share::Seats(6), Some(Share::Seats(5))))];
        assert!(matches!(
            check(&upside_down, 10, 100),
            Err(ClassError::GuaranteeAboveCeiling { .. })
        ));
    }
}

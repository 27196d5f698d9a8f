//! A destination's rate limits on the way of a call: reserved before it goes out, settled
//! with what its answer says it used.
//!
//! Knows no connections: a call that is refused here has waited for nothing and holds
//! nothing. Always true: a [`Passage`] that ends in any way is settled, once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use forebay_pool::Mode;
use forebay_pool::rate::{
    Account, Amounts, Cause, Limits, Rate, RateError, RateLimits, RateSettings, RateSnapshot,
    Refused, Reservation, Scope, Standing, Verdict,
};
use forebay_seam::time;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::announce;
use crate::operation::Work;
use crate::problem::{Problem, Reason, Retry};
use crate::settings::{LimitSettings, TenantLimitSettings};
use crate::usage::{UsageKey, UsageReader};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// Bytes of a prompt for each of its tokens, roughly, as providers say of English.
const BYTES_PER_TOKEN: u64 = 4;
/// Tokens of an answer of which nothing is known yet.
const ANSWER: u64 = 256;

/// A key below `limits`, and what is wrong with it.
type Wrong = (String, String);

/// The limits of one destination, as calls meet them.
#[derive(Debug)]
pub(crate) struct Toll {
    limits: Arc<RateLimits>,
    follow: Follow,
    tokens: Tokens,
    fields: Fields,
    usage: Arc<UsageKey>,
}

/// Whether the service's own words are heeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follow {
    Service,
    Nobody,
}

/// Whether tokens are limited here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tokens {
    Limited,
    /// They are counted where answers name them.
    Counted,
}

/// Whether agents are told what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fields {
    Told,
    Silent,
}

/// What is known of a call before it goes out.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) tenant: Arc<str>,
    pub(crate) account: Account,
    pub(crate) work: Arc<Work>,
    /// The tokens that its agent says it uses.
    pub(crate) declared: Option<u64>,
    /// Bytes of its body, where that is known.
    pub(crate) length: Option<u64>,
}

/// One call that was let through. Dropped, it is settled.
#[derive(Debug)]
pub(crate) struct Passage {
    toll: Arc<Toll>,
    plan: Plan,
    reservation: Reservation,
    reading: Reading,
}

/// What of an answer is read for the tokens it used.
#[derive(Debug)]
enum Reading {
    /// Nothing: it has not begun, or cannot be read.
    Nothing,
    /// It failed: it used nothing unless it says so.
    Failure(UsageReader),
    /// One JSON text, which says it if there is anything to say.
    Whole(UsageReader),
    /// Events, which need not say it.
    Events(UsageReader),
}

impl Reading {
    fn of(status: StatusCode, headers: &HeaderMap, key: &Arc<UsageKey>) -> Self {
        let coded = headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity");
        if !status.is_success() {
            return Self::Failure(UsageReader::new(key));
        }
        let content = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content = content.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        match content {
            _ if coded => Self::Nothing,
            "text/event-stream" => Self::Events(UsageReader::new(key)),
            json if json == "application/json" || json.ends_with("+json") => {
                Self::Whole(UsageReader::new(key))
            }
            _ => Self::Nothing,
        }
    }

    fn reader(&mut self) -> Option<&mut UsageReader> {
        match self {
            Self::Nothing => None,
            Self::Failure(reader) | Self::Whole(reader) | Self::Events(reader) => Some(reader),
        }
    }
}

impl Toll {
    /// The limits that `settings` say, which were checked.
    pub(crate) fn open(settings: &LimitSettings) -> Result<Arc<Self>, Wrong> {
        let rates = rates(settings)?;
        let all =
            || [rates.whole, rates.each_tenant].into_iter().chain(rates.tenants.values().copied());
        let tokens = match all().any(|limits| limits.tokens.is_some()) {
            true => Tokens::Limited,
            false => Tokens::Counted,
        };
        let limited = tokens == Tokens::Limited || all().any(|limits| limits.requests.is_some());
        let fields = match rates.mode {
            // Who would be told of limits that do not act yet would act on them.
            Mode::Enforce if limited => Fields::Told,
            Mode::Off | Mode::Observe | Mode::Enforce => Fields::Silent,
        };
        let follow = match settings.follow && rates.mode != Mode::Off {
            true => Follow::Service,
            false => Follow::Nobody,
        };
        let (limits, usage) = (RateLimits::new(rates), Arc::default());
        Ok(Arc::new(Self { limits, follow, tokens, fields, usage }))
    }

    /// Reserves what the call that `plan` describes will use, or refuses it.
    pub(crate) fn pass(self: &Arc<Self>, plan: Plan) -> Result<Passage, Problem> {
        let amounts = Amounts { requests: 1, tokens: self.estimate(&plan) };
        match self.limits.reserve(&plan.tenant, amounts) {
            Verdict::Admit(reservation) => {
                let toll = Arc::clone(self);
                Ok(Passage { toll, plan, reservation, reading: Reading::Nothing })
            }
            Verdict::Refuse(refused) => Err(self.refusal(&plan.tenant, refused)),
        }
    }

    /// Tokens that a call uses: what its agent says; what such calls used so far, on average;
    /// what its length suggests.
    fn estimate(&self, plan: &Plan) -> u64 {
        plan.declared.or_else(|| plan.work.mean_tokens()).unwrap_or(match self.tokens {
            Tokens::Counted => 0,
            Tokens::Limited => match plan.length {
                Some(0) => 0,
                length => length.unwrap_or_default() / BYTES_PER_TOKEN + ANSWER,
            },
        })
    }

    /// Makes the head of a call one whose answer can be read.
    pub(crate) fn prepare(&self, headers: &mut HeaderMap) {
        if self.tokens == Tokens::Limited && self.limits.mode() != Mode::Off {
            headers.remove(ACCEPT_ENCODING);
        }
    }

    fn refusal(&self, tenant: &Arc<str>, refused: Refused) -> Problem {
        let reason = match refused.cause {
            Cause::Limit(_) => Reason::RateLimited,
            Cause::Announced(_) | Cause::Rests => Reason::ServiceLimited,
        };
        let whose = match refused.scope {
            Scope::Destination => "for everybody together",
            Scope::Tenant => "for this tenant",
        };
        Problem::new(reason, format_args!("{}, {whose}", refused.cause))
            .with_retry(Retry::After(refused.retry_after))
            .with_fields(fields(&self.limits.standings(tenant)))
    }

    /// One picture.
    pub(crate) fn snapshot(&self) -> RateSnapshot {
        self.limits.snapshot()
    }
}

impl Passage {
    /// The call goes out: from here on it counts.
    pub(crate) fn sent(&mut self) {
        self.reservation.sent();
    }

    /// It came back untouched.
    pub(crate) fn came_back(&mut self) {
        self.reservation.came_back();
    }

    /// The answer began: what it says of limits is heeded, and where it says nothing, ours
    /// are added.
    pub(crate) fn answered(&mut self, status: StatusCode, headers: &mut HeaderMap) {
        let (toll, account) = (&*self.toll, &self.plan.account);
        if toll.limits.mode() == Mode::Off {
            return;
        }
        self.reading = Reading::of(status, headers, &toll.usage);
        let notice = announce::read(status, headers, time::unix_seconds());
        if toll.follow == Follow::Service {
            notice.left.iter().for_each(|said| toll.limits.announced(account, *said));
            if let Some(rest) = notice.rest {
                toll.limits.rest(account, rest);
            }
        }
        if toll.fields == Fields::Told && !notice.speaks {
            headers.extend(fields(&toll.limits.standings(&self.plan.tenant)));
        }
    }

    /// More of the answer's body came.
    pub(crate) fn read(&mut self, bytes: &[u8]) {
        if let Some(reader) = self.reading.reader() {
            reader.read(bytes);
            if let Some(tokens) = reader.total() {
                self.reservation.at_least(tokens);
            }
        }
    }

    /// The answer is over.
    pub(crate) fn over(mut self) {
        let said = self.reading.reader().and_then(|reader| reader.total());
        match (&self.reading, said) {
            (Reading::Whole(_) | Reading::Events(_), Some(tokens)) => {
                self.reservation.used(tokens);
                self.plan.work.learn_tokens(tokens);
            }
            (Reading::Failure(_), said) => self.reservation.used(said.unwrap_or(0)),
            (Reading::Whole(_), None) => {
                self.reservation.used(0);
                self.plan.work.learn_tokens(0);
            }
            // Nobody said. What was reserved was the best guess, and stays.
            (Reading::Nothing | Reading::Events(_), _) => {}
        }
    }
}

/// What is left of the limits, as draft-ietf-httpapi-ratelimit-headers writes it:
/// `RateLimit-Policy: "requests";q=500;w=60` and `RateLimit: "requests";r=12;t=30`.
fn fields(standings: &[Standing]) -> Vec<(HeaderName, HeaderValue)> {
    let (mut policy, mut left) = (String::new(), String::new());
    for standing in standings {
        let prefix = match standing.scope {
            Scope::Destination => "",
            Scope::Tenant => "tenant-",
        };
        let (between, unit) = (if policy.is_empty() { "" } else { ", " }, standing.unit.as_str());
        let (limit, window) = (standing.rate.limit(), whole_seconds(standing.rate.per()));
        let (remaining, reset) = (standing.remaining, whole_seconds(standing.reset));
        let written = write!(policy, "{between}\"{prefix}{unit}\";q={limit};w={window}")
            .and_then(|()| write!(left, "{between}\"{prefix}{unit}\";r={remaining};t={reset}"));
        debug_assert!(written.is_ok(), "a string takes everything");
    }
    let fields = [(POLICY, policy), (LIMIT, left)].into_iter().filter(|(_, text)| !text.is_empty());
    fields.filter_map(|(name, text)| Some((name, text.try_into().ok()?))).collect()
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// What `settings` say, or the key that says something that cannot be.
fn rates(settings: &LimitSettings) -> Result<RateSettings, Wrong> {
    if settings.burst == 0 {
        let reason = "at least one percent of a limit must be able to go at once".to_owned();
        return Err(("burst".to_owned(), reason));
    }
    let rate = |place: &str, key: &str, limit: Option<u64>| {
        let Some(limit) = limit else { return Ok(None) };
        let burst = u128::from(limit) * u128::from(settings.burst) / 100;
        let burst = u64::try_from(burst).unwrap_or(u64::MAX).max(1);
        Rate::new(limit, settings.per, burst).map(Some).map_err(|error| {
            let key = match error {
                RateError::Window => "per".to_owned(),
                RateError::Burst(_) => "burst".to_owned(),
                RateError::Limit(_) | _ => format!("{place}{key}"),
            };
            (key, error.to_string())
        })
    };
    let of = |place: &str, requests, tokens| -> Result<Limits, Wrong> {
        let requests = rate(place, "requests", requests)?;
        Ok(Limits { requests, tokens: rate(place, "tokens", tokens)? })
    };
    let tenants = settings.tenants.iter().map(|(name, limits)| -> Result<_, Wrong> {
        let TenantLimitSettings { requests, tokens } = limits;
        Ok((name.as_str().into(), of(&format!("tenants.{name}."), *requests, *tokens)?))
    });
    let each = &settings.each_tenant;
    Ok(RateSettings {
        mode: settings.mode,
        whole: of("", settings.requests, settings.tokens)?,
        each_tenant: of("each_tenant.", each.requests, each.tokens)?,
        tenants: tenants.collect::<Result<_, _>>()?,
    })
}

/// Checks `settings`; `tenants` are those that exist. An error names the key.
pub(crate) fn check<T>(
    settings: &LimitSettings,
    tenants: &BTreeMap<String, T>,
) -> Result<(), Wrong> {
    if let Some(unknown) = settings.tenants.keys().find(|name| !tenants.contains_key(*name)) {
        let reason = format!("there is no tenant `{unknown}`: write `[http.tenants.{unknown}]`");
        return Err((format!("tenants.{unknown}"), reason));
    }
    rates(settings).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Works;
    use http::Method;

    fn toll(text: &str) -> Arc<Toll> {
        let settings: LimitSettings = toml::from_str(text).unwrap();
        check(&settings, &BTreeMap::<String, ()>::new()).unwrap();
        Toll::open(&settings).unwrap()
    }

    fn plan(works: &Works, length: u64) -> Plan {
        Plan {
            tenant: "acme".into(),
            account: Account::Destination,
            work: works.look_up("", &Method::POST, "/v1/chat"),
            declared: None,
            length: Some(length),
        }
    }

    fn answer(passage: &mut Passage, status: u16, content: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content.parse().unwrap());
        passage.sent();
        passage.answered(StatusCode::from_u16(status).unwrap(), &mut headers);
        headers
    }

    fn left(toll: &Toll) -> u64 {
        toll.snapshot().limits[0].remaining
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_estimated_by_its_length_then_by_what_such_calls_used() {
        let (toll, works) = (toll("mode = \"enforce\"\ntokens = 10000"), Works::default());
        let mut first = toll.pass(plan(&works, 4_000)).unwrap();
        assert_eq!(left(&toll), 10_000 - 1_000 - 256);
        answer(&mut first, 200, "application/json; charset=utf-8");
        first.read(b"{\"usage\":{\"total_tokens\":500}}");
        first.over();
        assert_eq!(left(&toll), 9_500);
        let _second = toll.pass(plan(&works, 4_000)).unwrap();
        assert_eq!(left(&toll), 9_000);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_known_stays_as_it_was_reserved() {
        let (toll, works) = (toll("mode = \"enforce\"\ntokens = 10000"), Works::default());
        for (status, content, used) in [
            (200, "text/event-stream", 256),
            (200, "application/octet-stream", 256),
            (200, "application/problem+json", 0),
            (500, "text/event-stream", 0),
        ] {
            let before = left(&toll);
            let mut passage = toll.pass(Plan { length: None, ..plan(&works, 0) }).unwrap();
            answer(&mut passage, status, content);
            passage.over();
            assert_eq!(before - left(&toll), used, "{status} {content}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn agents_are_told_of_limits_that_act_where_the_service_says_nothing() {
        let works = Works::default();
        let limits = "requests = 500\ntokens = 9000\nper = \"90s\"\neach_tenant.requests = 10";
        let told = toll(&format!("mode = \"enforce\"\n{limits}"));
        let mut passage = told.pass(plan(&works, 0)).unwrap();
        let head = answer(&mut passage, 200, "text/plain");
        let policy =
            "\"requests\";q=500;w=90, \"tokens\";q=9000;w=90, \"tenant-requests\";q=10;w=90";
        assert_eq!(head[POLICY], policy);
        assert_eq!(
            head[LIMIT],
            "\"requests\";r=499;t=1, \"tokens\";r=9000;t=0, \"tenant-requests\";r=9;t=9"
        );
        let mut headers = HeaderMap::new();
        headers.insert("x-ratelimit-remaining", HeaderValue::from_static("3"));
        passage.answered(StatusCode::OK, &mut headers);
        assert!(!headers.contains_key(LIMIT));
        let mut passage = toll(limits).pass(plan(&works, 0)).unwrap();
        assert!(!answer(&mut passage, 200, "text/plain").contains_key(LIMIT));
    }

    #[test]
    fn settings_that_cannot_be_meant_name_their_key() {
        let key = |text: &str| {
            let settings: LimitSettings = toml::from_str(text).unwrap();
            check(&settings, &BTreeMap::<String, ()>::new()).unwrap_err().0
        };
        assert_eq!(key("requests = 0"), "requests");
        assert_eq!(key("each_tenant.tokens = 0"), "each_tenant.tokens");
        assert_eq!(key("tokens = 5\nper = \"0s\""), "per");
        assert_eq!(key("burst = 0"), "burst");
        assert_eq!(key("tenants.acme.tokens = 5"), "tenants.acme");
    }
}

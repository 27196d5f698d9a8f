//! What an issuer answers (RFC 6749, sections 5.1 and 5.2; RFC 8693, section 2.2).
//!
//! Everything in it is doubted: types, sizes, characters, times. Errors say which error code
//! the issuer gave, never what it sent besides.

use std::fmt;
use std::time::Duration;

use forebay_seam::secret::{ExposeSecret, SecretString};
use http::HeaderValue;
use serde::Deserialize;
use serde_json::Value;

use super::ExchangeError;

/// The longest token that is taken.
const TOKEN: usize = 16 * 1024;
/// The life of a token whose issuer does not say.
const UNSAID_LIFE: Duration = Duration::from_secs(300);
/// The shortest life that is taken at its word: an issuer that says 0, or less, would
/// otherwise be asked with each call.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);
/// The longest one: what lives longer is asked for anew each day.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);
/// What is shown of an error code that we do not know.
const CODE: usize = 64;

/// A token, ready to be sent.
pub(crate) struct Granted {
    /// `Bearer TOKEN`, marked as sensitive.
    pub(crate) authorization: HeaderValue,
    /// How long it is good for, from the moment it was asked for.
    pub(crate) life: Duration,
    /// The refresh token that takes the place of the one that was used.
    pub(crate) refresh_token: Option<SecretString>,
}

#[derive(Deserialize)]
struct Success {
    access_token: SecretString,
    token_type: Option<String>,
    expires_in: Option<Value>,
    refresh_token: Option<SecretString>,
}

#[derive(Deserialize)]
struct Failed {
    error: String,
}

/// An error code of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal(String);

impl Refusal {
    /// Whether it is the client itself, or what it showed, that is refused: another secret
    /// may be taken.
    pub(crate) fn is_of_the_client(&self) -> bool {
        matches!(self.0.as_str(), "invalid_client" | "invalid_grant" | "unauthorized_client")
    }

    /// Whether the issuer may think otherwise in a while.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self.0.as_str(), "temporarily_unavailable" | "server_error" | "slow_down")
    }
}

impl fmt::Display for Refusal {
    /// The code; a short piece of it, without control characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().take(CODE).try_for_each(|c| write!(f, "{}", c.escape_debug()))
    }
}

/// The error code in `body`, if there is one.
pub(super) fn refusal(body: &[u8]) -> Option<Refusal> {
    serde_json::from_slice(body).ok().map(|Failed { error }| Refusal(error))
}

/// The token in `body`.
pub(super) fn granted(body: &[u8]) -> Result<Granted, ExchangeError> {
    // What the parser complains of may be the token.
    let answer: Success = serde_json::from_slice(body)
        .map_err(|_| refusal(body).map_or(ExchangeError::NoToken, ExchangeError::Refused))?;
    let is_bearer = |kind: &str| kind.eq_ignore_ascii_case("bearer");
    if !answer.token_type.as_deref().is_some_and(is_bearer) {
        return Err(ExchangeError::NotBearer);
    }
    let token = answer.access_token.expose_secret();
    // RFC 6750, 2.1, and what issuers send beyond it: visible characters without spaces.
    if token.is_empty() || token.len() > TOKEN || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(ExchangeError::NoToken);
    }
    let text = SecretString::from(format!("Bearer {token}"));
    let mut authorization =
        HeaderValue::try_from(text.expose_secret()).map_err(|_| ExchangeError::NoToken)?;
    authorization.set_sensitive(true);
    let refresh_token = answer.refresh_token.filter(|token| {
        let token = token.expose_secret();
        !token.is_empty() && token.len() <= TOKEN && !token.chars().any(char::is_control)
    });
    Ok(Granted { authorization, life: life(answer.expires_in.as_ref()), refresh_token })
}

/// Seconds, as a number or (some issuers) a text; whatever it says, within reason.
fn life(said: Option<&Value>) -> Duration {
    let seconds = match said {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => None,
    };
    let Some(seconds) = seconds.filter(|seconds: &f64| !seconds.is_nan()) else {
        return UNSAID_LIFE;
    };
    let within = seconds.clamp(SHORTEST_LIFE.as_secs_f64(), LONGEST_LIFE.as_secs_f64());
    Duration::from_secs_f64(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life_of(expires_in: &str) -> u64 {
        let body =
            format!(r#"{{"access_token":"t","token_type":"bearer","expires_in":{expires_in}}}"#);
        granted(body.as_bytes()).unwrap_or_else(|e| panic!("{expires_in}: {e}")).life.as_secs()
    }

    #[test]
    fn whatever_an_issuer_says_of_its_tokens_life_is_made_something_of() {
        for (said, seconds) in [
            ("3600", 3600),
            ("\"3599\"", 3599),
            ("0", 1),
            ("-5", 1),
            ("0.5", 1),
            ("99999999999999999999", 86400),
            ("1e300", 86400),
            ("\"NaN\"", 300),
            ("\"soon\"", 300),
            ("null", 300),
            ("[]", 300),
        ] {
            assert_eq!(life_of(said), seconds, "{said}");
        }
        let unsaid = granted(br#"{"access_token":"t","token_type":"Bearer"}"#).ok().unwrap();
        assert_eq!(unsaid.life, UNSAID_LIFE);
    }

    #[test]
    fn what_is_no_token_answer_is_none() {
        let long = format!(r#"{{"access_token":"{}","token_type":"bearer"}}"#, "t".repeat(20_000));
        for body in [
            "",
            "[]",
            "null",
            "<html>planted</html>",
            r#"{"token_type":"bearer"}"#,
            r#"{"access_token":["planted"],"token_type":"bearer"}"#,
            r#"{"access_token":{"planted":1},"token_type":"bearer"}"#,
            r#"{"access_token":"","token_type":"bearer"}"#,
            r#"{"access_token":"planted\r\nx-evil: 1","token_type":"bearer"}"#,
            r#"{"access_token":"plan ted","token_type":"bearer"}"#,
            r#"{"access_token":"plantéd","token_type":"bearer"}"#,
            r#"{"access_token":"a","access_token":"planted","token_type":"bearer"}"#,
            long.as_str(),
        ] {
            let Err(error) = granted(body.as_bytes()) else { panic!("{body}") };
            assert!(matches!(error, ExchangeError::NoToken), "{error}");
        }
        for body in [
            r#"{"access_token":"t","token_type":"mac"}"#,
            r#"{"access_token":"t","token_type":"N_A"}"#,
            r#"{"access_token":"t"}"#,
        ] {
            assert!(matches!(granted(body.as_bytes()), Err(ExchangeError::NotBearer)), "{body}");
        }
    }

    #[test]
    fn an_error_that_comes_with_status_200_is_one_all_the_same() {
        let Err(error) = granted(br#"{"error":"invalid_grant"}"#) else { panic!("an error") };
        assert!(matches!(error, ExchangeError::Refused(refusal) if refusal.is_of_the_client()));
    }
}

//! Secrets that are sent as they are: in a header, or in the query.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use forebay_seam::secret::{ExposeSecret, SecretString};
use http::header::{AUTHORIZATION, HeaderMap};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Uri};

use super::returned;
use crate::secrets::{Digester, Rotating, Source, Unusable};

/// Where in a call the secret stands, and what stands around it.
#[derive(Clone)]
pub(crate) enum Place {
    /// `Authorization: Bearer SECRET`
    Bearer,
    /// `Authorization: Basic …` of this user.
    Basic { user: String },
    /// A header of the service's own, with what stands before the secret.
    Header { name: HeaderName, prefix: String },
    /// A parameter of the query.
    Query { name: String },
}

/// What is added to a call.
pub(crate) enum Piece {
    Header(HeaderName, HeaderValue),
    /// A name and a secret as they are, and `NAME=SECRET`, encoded.
    Query {
        name: String,
        secret: SecretString,
        pair: SecretString,
    },
}

/// A secret and its place.
pub(crate) type Fixed = Rotating<Piece>;

/// Reads the secret, and follows it.
pub(crate) fn open(
    place: Place,
    source: Source,
    digester: &Digester,
) -> Result<Arc<Fixed>, Unusable> {
    Rotating::new(vec![source], digester, move |secrets| place.piece(secrets))
}

impl Place {
    /// What a call gets, if the secret can stand there.
    pub(crate) fn piece(&self, secrets: &[SecretString]) -> Result<Piece, Unusable> {
        let [secret] = secrets else { return Err(Unusable::Shape("one secret is needed")) };
        let secret = secret.expose_secret();
        match self {
            Self::Bearer => header(AUTHORIZATION, &["Bearer ", bare(secret)?]),
            Self::Basic { user } => {
                if secret.chars().any(char::is_control) {
                    return Err(Unusable::Shape("a password has no control characters (RFC 7617)"));
                }
                let pair = SecretString::from(format!("{user}:{secret}"));
                let encoded = SecretString::from(STANDARD.encode(pair.expose_secret()));
                header(AUTHORIZATION, &["Basic ", encoded.expose_secret()])
            }
            Self::Header { name, prefix } => header(name.clone(), &[prefix, bare(secret)?]),
            Self::Query { name } => {
                let mut pair = String::new();
                encode(&mut pair, name);
                pair.push('=');
                encode(&mut pair, bare(secret)?);
                let secret = SecretString::from(secret.to_owned());
                Ok(Piece::Query { name: name.clone(), secret, pair: pair.into() })
            }
        }
    }
}

/// A secret that stands by itself in a field.
fn bare(secret: &str) -> Result<&str, Unusable> {
    if secret.chars().any(char::is_control) {
        return Err(Unusable::Shape(
            "the secret has line ends or other control characters, which cannot be sent: it must \
             be one line",
        ));
    }
    if secret.trim() != secret {
        return Err(Unusable::Shape("the secret begins or ends with white space, which gets lost"));
    }
    Ok(secret)
}

fn header(name: HeaderName, parts: &[&str]) -> Result<Piece, Unusable> {
    let text = SecretString::from(parts.concat());
    let mut value = HeaderValue::try_from(text.expose_secret())
        .map_err(|_| Unusable::Shape("the secret has characters that cannot stand in a header"))?;
    value.set_sensitive(true);
    Ok(Piece::Header(name, value))
}

impl Piece {
    /// Adds it to a call's head, over whatever stands there under that name.
    pub(crate) fn add_to(&self, headers: &mut HeaderMap, uri: &mut Uri) {
        match self {
            Self::Header(name, value) => drop(headers.insert(name.clone(), value.clone())),
            Self::Query { name, pair, .. } => {
                let query = uri.query().unwrap_or_default();
                let others = query.split('&').filter(|other| {
                    let (called, _) = other.split_once('=').unwrap_or((other, ""));
                    !other.is_empty() && decode(called) != name.as_bytes()
                });
                let mut target = format!("{}?", uri.path());
                for other in others {
                    target.push_str(other);
                    target.push('&');
                }
                target.push_str(pair.expose_secret());
                // Both halves were parsed, or encoded by us: it cannot fail.
                if let Ok(target) = PathAndQuery::try_from(target) {
                    *uri = Uri::from(target);
                }
            }
        }
    }

    /// Takes it out of the head of the answer, where services repeat what they were called
    /// with.
    pub(crate) fn take_out_of(&self, answer: &mut HeaderMap) {
        match self {
            Self::Header(..) => {}
            Self::Query { name, secret, .. } => {
                returned::take_out(answer, name, secret.expose_secret());
            }
        }
    }
}

/// `text` as a part of a query (RFC 3986, 2.3: all but the unreserved characters encoded).
pub(crate) fn encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing into a string cannot fail.
            write!(out, "%{byte:02X}").unwrap_or_default();
        }
    }
}

/// A name in a query, with `+` and `%xx` undone, as a service would read it.
fn decode(name: &str) -> Cow<'_, [u8]> {
    if !name.contains(['%', '+']) {
        return Cow::Borrowed(name.as_bytes());
    }
    let mut bytes = name.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    while let Some((first, rest)) = bytes.split_first() {
        let hex = rest
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        match (hex, first) {
            (Some(byte), _) => {
                out.push(byte);
                bytes = rest.get(2..).unwrap_or_default();
            }
            (None, b'+') => {
                out.push(b' ');
                bytes = rest;
            }
            (None, other) => {
                out.push(*other);
                bytes = rest;
            }
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(place: &Place, secret: &str, uri: &str) -> (HeaderMap, String) {
        let mut headers = HeaderMap::new();
        let mut uri: Uri = uri.parse().unwrap();
        place.piece(&[secret.into()]).unwrap().add_to(&mut headers, &mut uri);
        (headers, uri.to_string())
    }

    #[test]
    fn each_kind_stands_in_its_place() {
        let bearer = sent(&Place::Bearer, "s3cret", "/").0;
        assert_eq!(bearer["authorization"], "Bearer s3cret");
        assert!(bearer["authorization"].is_sensitive());
        let basic = sent(&Place::Basic { user: "Aladdin".into() }, "open sesame", "/").0;
        assert_eq!(basic["authorization"], "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        let name = HeaderName::from_static("x-auth");
        let header = sent(&Place::Header { name, prefix: "Token ".into() }, "s3cret", "/").0;
        assert_eq!(header["x-auth"], "Token s3cret");
    }

    #[test]
    fn a_key_in_the_query_replaces_what_the_agent_wrote_under_that_name() {
        let place = Place::Query { name: "api key".into() };
        for (uri, wanted) in [
            ("/v1", "/v1?api%20key=s%2Fc%26r"),
            ("/v1?", "/v1?api%20key=s%2Fc%26r"),
            ("/v1?a=b&c", "/v1?a=b&c&api%20key=s%2Fc%26r"),
            ("/v1?api%20key=mine&a=b", "/v1?a=b&api%20key=s%2Fc%26r"),
            ("/v1?api+key=mine&a=%zz&%61pi%20key", "/v1?a=%zz&api%20key=s%2Fc%26r"),
        ] {
            assert_eq!(sent(&place, "s/c&r", uri).1, wanted, "{uri}");
        }
    }

    #[test]
    fn a_secret_that_would_end_its_field_is_refused_and_not_told() {
        let name = HeaderName::from_static("x-auth");
        for place in [
            Place::Bearer,
            Place::Basic { user: "u".into() },
            Place::Header { name, prefix: String::new() },
            Place::Query { name: "k".into() },
        ] {
            for secret in ["planted\r\nx-evil: 1", "planted\n", "planted\0"] {
                let Err(error) = place.piece(&[secret.into()]) else { panic!("{secret:?}") };
                let error = error.to_string();
                assert!(error.contains("control") && !error.contains("planted"), "{error}");
            }
        }
        assert!(Place::Bearer.piece(&[" planted".into()]).is_err());
    }
}

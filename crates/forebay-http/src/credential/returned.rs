//! A secret of the query that comes back: services that redirect (a slash at the end, another
//! host) repeat the query that they were called with, and the agent would read it there.
//!
//! Searches the fields of a head that hold addresses, and nothing else: no body, no trailers.
//! Always true: in these, the pair `NAME=SECRET` is gone in whatever spelling, also where one
//! address stands encoded within another; so is the secret by itself, unless it is so short
//! that it stands for other things.

use http::header::{CONTENT_LOCATION, HeaderMap, HeaderName, HeaderValue, LINK, LOCATION, REFRESH};

/// Fields of an answer that hold addresses.
static ADDRESSES: [HeaderName; 4] = [LOCATION, CONTENT_LOCATION, LINK, REFRESH];

/// How often something may be percent-encoded.
const DEEPEST: usize = 3;
/// Bytes from which on a secret is told from other text without its name.
const TELLING: usize = 8;

/// Takes `name=secret` out of the addresses in `headers`.
pub(super) fn take_out(headers: &mut HeaderMap, name: &str, secret: &str) {
    for (field, value) in headers.iter_mut() {
        if ADDRESSES.contains(field)
            && let Some(rest) = without(value.as_bytes(), name.as_bytes(), secret.as_bytes())
        {
            // Parts of a field's value are one: it cannot fail.
            *value = HeaderValue::from_bytes(&rest).unwrap_or(HeaderValue::from_static("/"));
        }
    }
}

/// `text` without the pair; nothing if it is not there.
fn without(text: &[u8], name: &[u8], secret: &[u8]) -> Option<Vec<u8>> {
    let pair = [name, b"=", secret].concat();
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        if let Some(behind) = after(rest, &pair) {
            rest = behind;
            let separator = separator_at_end(&out);
            // The one behind it goes if it is of the same address, else the one before.
            match after(rest, b"&") {
                Some(behind) if rest.len() - behind.len() == separator => rest = behind,
                Some(_) | None => out.truncate(out.len() - separator),
            }
        } else if let Some(behind) = after(rest, secret).filter(|_| secret.len() >= TELLING) {
            rest = behind;
        } else {
            out.push(*first);
            rest = behind;
        }
    }
    (out.len() < text.len()).then_some(out)
}

/// What stands behind `wanted`, if `text` begins with it in any spelling.
fn after<'t>(text: &'t [u8], wanted: &[u8]) -> Option<&'t [u8]> {
    (0..=DEEPEST).find_map(|depth| {
        wanted.iter().try_fold(text, |text, byte| {
            let mut readings = (0..=depth).rev().filter_map(|depth| read(text, depth));
            let fits = |(read, _): &(u8, _)| read == byte || (*byte == b' ' && *read == b'+');
            readings.find(fits).map(|(_, rest)| rest)
        })
    })
}

/// The byte that `text` begins with if it was percent-encoded `depth` times, and the rest.
fn read(text: &[u8], depth: usize) -> Option<(u8, &[u8])> {
    if depth == 0 {
        return text.split_first().map(|(byte, rest)| (*byte, rest));
    }
    let encoded = (1..depth).try_fold(text.strip_prefix(b"%")?, |rest, _| rest.strip_prefix(b"25"));
    let (hex, rest) = encoded?.split_at_checked(2)?;
    if !hex.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    Some((u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?, rest))
}

/// Bytes of the separator of a query's parts that `text` ends with.
fn separator_at_end(text: &[u8]) -> usize {
    let spelled = |depth: usize| if depth == 0 { 1 } else { 1 + 2 * depth };
    let lengths = (0..=DEEPEST).map(|depth| (depth, spelled(depth)));
    let found = lengths.filter(|(depth, length)| {
        let end = text.len().checked_sub(*length).and_then(|from| text.get(from..));
        let byte = end.and_then(|end| read(end, *depth)).map(|(byte, _)| byte);
        matches!(byte, Some(b'?' | b'&' | b';'))
    });
    found.map(|(_, length)| length).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::fixed::encode;
    use proptest::prelude::*;

    fn left(address: &str, name: &str, secret: &str) -> String {
        let rest = without(address.as_bytes(), name.as_bytes(), secret.as_bytes());
        String::from_utf8(rest.unwrap_or_else(|| address.into())).unwrap()
    }

    #[test]
    fn a_pair_is_taken_out_of_an_address_and_the_others_stay() {
        for (address, wanted) in [
            ("/v1/?key=s%2Fc+%26r", "/v1/"),
            ("/v1/?a=b&key=s%2fc%20%26r", "/v1/?a=b"),
            ("https://a.test/?key=s/c%20%26r&a=b#part", "https://a.test/?a=b#part"),
            ("/?a=b&key=s%2Fc%20%26r&c=d", "/?a=b&c=d"),
            ("/v1?%6bey=%73%2Fc%20%26r/", "/v1/"),
            ("</v1?key=s%2Fc%20%26r>; rel=next, </v2>", "</v1>; rel=next, </v2>"),
            ("0; url='/v1?key=s%2Fc%20%26r'", "0; url='/v1'"),
            ("/login?next=%2Fv1%3Fkey%3Ds%252Fc%2520%2526r&a=b", "/login?next=%2Fv1&a=b"),
            ("/in?to=%2Fv1%3Fa%26key%3Ds%252Fc%2B%2526r%26b", "/in?to=%2Fv1%3Fa%26b"),
            ("/v1?key=mine&a=%zz%", "/v1?key=mine&a=%zz%"),
        ] {
            assert_eq!(left(address, "key", "s/c &r"), wanted, "{address}");
        }
        assert_eq!(left("/v1?apikey=longer-secret&a", "key", "longer-secret"), "/v1?api&a");
        assert_eq!(left("/v1?Key=longer-secret&a", "key", "longer-secret"), "/v1?Key=&a");
        assert_eq!(left("/of/longer%2dsecret/x", "key", "longer-secret"), "/of//x");
    }

    proptest! {
        #[test]
        fn however_often_it_was_encoded_a_secret_does_not_come_back(
            secret in "[ -~é]{8,20}", times in 1..=DEEPEST, before in "[a-z?&%=/]{0,9}",
        ) {
            let spelled = (0..times).fold(format!("key={secret}"), |text, _| {
                let mut out = String::new();
                encode(&mut out, &text);
                out
            });
            let left = left(&format!("/{before}?{spelled}"), "key", &secret);
            prop_assert!(!left.contains(&spelled), "{}", left);
        }
    }
}

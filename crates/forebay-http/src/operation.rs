//! What is called, as operators tell calls apart: the method and the path, without what
//! differs from call to call. Its length and its variety are bounded.

use std::sync::Arc;

use http::Method;

/// Segments that are told apart.
const SEGMENTS: usize = 8;
/// Characters of a segment that are kept.
const SEGMENT: usize = 32;

/// `GET /users/{id}/orders` for `GET /users/17/orders`.
pub(crate) fn template(method: &Method, path: &str) -> Arc<str> {
    let mut template = method.as_str().chars().take(SEGMENT).collect::<String>();
    template.push(' ');
    let mut segments = path.trim_start_matches('/').split('/');
    for segment in segments.by_ref().take(SEGMENTS) {
        template.push('/');
        if is_id(segment) {
            template.push_str("{id}");
        } else {
            template.extend(segment.chars().filter(char::is_ascii_graphic).take(SEGMENT));
        }
    }
    if segments.next().is_some() {
        template.push_str("/…");
    }
    template.into()
}

/// Numbers, UUIDs, hexadecimal digests and long words with digits in them.
fn is_id(segment: &str) -> bool {
    let digits = segment.bytes().filter(u8::is_ascii_digit).count();
    let hex = segment.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    match segment.len() {
        0 => false,
        1..8 => digits == segment.len(),
        8..20 => digits > 0 && hex,
        20.. => digits > 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> String {
        template(&Method::GET, path).to_string()
    }

    #[test]
    fn what_differs_from_call_to_call_is_left_out() {
        assert_eq!(of("/users/17/orders"), "GET /users/{id}/orders");
        assert_eq!(of("/v1/chat/completions"), "GET /v1/chat/completions");
        assert_eq!(of("/f/550e8400-e29b-41d4-a716-446655440000"), "GET /f/{id}");
        assert_eq!(of("/c/deadbeef01"), "GET /c/{id}");
        assert_eq!(of("/threads/thread_abc123def456ghi789"), "GET /threads/{id}");
        assert_eq!(of(""), "GET /");
        assert_eq!(of("/facade"), "GET /facade");
    }

    #[test]
    fn an_operation_is_never_long() {
        let endless = "/segment-without-digits-that-goes-on-and-on-and-on".repeat(1_000);
        assert!(of(&endless).len() < 400);
        assert!(of(&endless).ends_with("/…"));
    }
}

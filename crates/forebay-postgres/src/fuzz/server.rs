//! What servers send, as far as it is read.

use bytes::{Bytes, BytesMut};

use super::fuzz;
use crate::prepared::PREFIX;
use crate::wire::HEADER;
use crate::wire::backend::{self, Notification, ServerError, Severity};

fn bodies() -> Vec<Vec<u8>> {
    let mut error = BytesMut::new();
    let text = "prepared statement \"__forebay_12\" already exists";
    backend::error_response(&mut error, Severity::Fatal, "42P05", text, Some("d"), Some("h"));
    let bodies: [&[u8]; 5] = [
        &error[HEADER..],
        b"TimeZone\0Europe/Paris\0",
        b"\0\0\0\x07channel\0payload\0",
        b"I",
        b"\0\x02\0\0\0\x01x\xff\xff\xff\xff",
    ];
    bodies.iter().map(|body| body.to_vec()).collect()
}

#[test]
fn what_a_server_says_is_read_within_bounds() {
    fuzz("server", &bodies(), |body| {
        let error = ServerError::read(body);
        let long = |text: &str| text.len() > 3 * 1024;
        assert!(error.code.len() <= 15 && !long(&error.text));
        assert!(!error.detail.as_deref().is_some_and(long));
        assert!(!error.hint.as_deref().is_some_and(long));
        if let Ok((name, value)) = backend::read_parameter_status(body) {
            assert!(name.len() + value.len() + 2 <= body.len());
        }
        assert!(Notification::read(body).is_err() || body.len() >= 5);
    });
}

#[test]
fn names_are_put_back_wherever_they_stand() {
    fuzz("rename", &bodies(), |body| {
        assert_eq!(backend::rename(body, PREFIX, |_| None), None, "nothing to put back");
        let known = |_: &[u8]| Some(Bytes::from_static(b"s"));
        let Some(renamed) = backend::rename(body, PREFIX, known) else {
            assert!(!body.windows(PREFIX.len()).any(|window| window == PREFIX));
            return;
        };
        assert!(renamed.len() < body.len());
    });
}

#[test]
fn an_error_of_ours_says_what_it_was_given() {
    let texts = [b"no\0way".to_vec(), "größer".into(), b"\"quoted\"".to_vec()];
    fuzz("error", &texts, |text| {
        let text = String::from_utf8_lossy(text);
        let mut out = BytesMut::new();
        backend::error_response(&mut out, Severity::Error, "XX000", &text, Some(&text), None);
        let read = ServerError::read(&out[HEADER..]);
        let said = text.replace('\0', "");
        if said.len() <= 1024 {
            assert_eq!((read.text.as_str(), read.detail.as_deref()), (&*said, Some(&*said)));
        }
        assert_eq!(read.severity, Severity::Error);
    });
}

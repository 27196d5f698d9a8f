//! What clients send: first packets, messages, SCRAM.

use std::sync::Arc;

use bytes::BytesMut;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

use super::fuzz;
use super::harm::Harm;
use crate::auth::scram::Verifier;
use crate::auth::scram::server::{Challenge, Chosen};
use crate::wire::frontend::{self, Bind, Named, Parse};
use crate::wire::startup::{self, First};
use crate::wire::{HEADER, Header};

fn first_packets() -> Vec<Vec<u8>> {
    let packet = |code: u32, rest: &[u8]| [&code.to_be_bytes(), rest].concat();
    vec![
        packet(80_877_102, b"\0\0\0\x07\0\0\0\x2a"),
        packet(80_877_103, b""),
        packet(80_877_104, b""),
        packet(196_608, b"user\0app\0database\0d\0options\0-c a=b\0\0"),
        packet(196_610, b"user\0app\0_pq_.x\0on\0TimeZone\0UTC\0\0"),
        packet(131_072, b"user\0app\0"),
    ]
}

#[test]
fn first_packets_are_read_or_refused() {
    fuzz("first", &first_packets(), |body| {
        if let Ok(First::Startup(startup)) = startup::read(body) {
            let held: usize = startup.parameters.iter().map(|(n, v)| n.len() + v.len()).sum();
            assert!(held <= body.len(), "more than it was given");
        }
        if let Ok(Some(length)) = startup::length(body) {
            assert!((8..=startup::LONGEST).contains(&length));
        }
    });
}

#[test]
fn options_mean_what_was_written() {
    let seeds = ["-c a=b --search-path=x\\ y", "-ca=b", "--a-b=\\\\", "-c", "-c geqo", ""];
    let seeds: Vec<_> = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    fuzz("options", &seeds, |text| {
        let Ok(text) = std::str::from_utf8(text) else { return };
        let Ok(settings) = startup::options(text) else { return };
        let quoted = |value: &str| {
            let escape = |c: char| {
                if c == '\\' || c.is_ascii_whitespace() { vec!['\\', c] } else { vec![c] }
            };
            value.chars().flat_map(escape).collect::<String>()
        };
        let again = settings.iter().map(|(n, v)| format!("-c {}={} ", quoted(n), quoted(v)));
        // An empty setting cannot be told from none.
        let again = startup::options(&again.collect::<String>());
        assert_eq!(again, Ok(settings));
    });
}

/// Each message of a client's, by its tag, without its header.
fn bodies() -> Vec<Vec<u8>> {
    let bodies: [&[u8]; 9] = [
        b"SELECT 1\0",
        b"s1\0SELECT $1, $2\0\0\x02\0\0\0\x17\0\0\0\0",
        b"\0\0\0\0",
        b"p\0s1\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\0",
        b"Ss1\0",
        b"P\0",
        b"p\0\0\0\0\x05",
        b"\0\0\0\x01\0\x01\0\0\x02\0\0\0\x011\0\0\0\x012\0\0",
        b"no\0",
    ];
    bodies.iter().map(|body| body.to_vec()).collect()
}

#[test]
fn bodies_are_read_or_refused_and_written_as_they_were() {
    fuzz("body", &bodies(), |body| {
        if let Ok(parse) = Parse::read(body) {
            let mut out = BytesMut::new();
            parse.write(&mut out);
            assert_eq!(Header::read(&out).unwrap().unwrap().whole(), out.len());
            assert_eq!(&out[HEADER..], body, "it is what it was");
        }
        if let Ok(bind) = Bind::read(body) {
            let names = [bind.portal, &[0], bind.statement, &[0]].concat();
            assert_eq!(&body[..bind.names], names);
            if let Ok(values) = bind.values(body) {
                assert!(values <= usize::from(u16::MAX));
            }
        }
        if let Ok(named) = Named::read(body) {
            let mut out = BytesMut::new();
            if let Named::Statement(name) = named {
                frontend::write_named_statement(&mut out, b'D', name);
                assert_eq!(Named::read(&out[HEADER..]), Ok(named));
                assert_eq!(&out[HEADER..], body);
            }
        }
        if let Ok(portal) = frontend::execute(body) {
            assert_eq!(body.len(), portal.len() + 5);
        }
        if let Ok(text) = frontend::query(body) {
            assert_eq!(body.len(), text.len() + 1);
        }
    });
}

/// Cuts a stream into messages; `None` where it is no stream of messages.
fn framed(stream: &[u8]) -> (Vec<(u8, Vec<u8>)>, bool) {
    let (mut rest, mut messages) = (stream, Vec::new());
    loop {
        match Header::read(rest) {
            Ok(Some(header)) if rest.len() >= header.whole() => {
                messages.push((header.tag, rest[HEADER..header.whole()].to_vec()));
                rest = &rest[header.whole()..];
            }
            Ok(_) => return (messages, true),
            Err(_) => return (messages, false),
        }
    }
}

#[test]
fn a_stream_is_the_same_messages_wherever_it_is_cut() {
    let mut stream = BytesMut::new();
    for (tag, body) in b"QPPBDDEFf".iter().zip(bodies()) {
        frontend::message(&mut stream, *tag, |out| out.extend_from_slice(&body));
    }
    frontend::write_bare(&mut stream, b'S');
    assert_eq!(framed(&stream).0.len(), 10);
    fuzz("stream", &[stream.to_vec()], |stream| {
        let (whole, is_stream) = framed(stream);
        let mut harm = Harm::new(u64::try_from(stream.len()).unwrap());
        let (mut buffer, mut messages) = (Vec::new(), Vec::new());
        let (mut at, mut goes_on) = (0, true);
        while at < stream.len() && goes_on {
            let end = (at + 1 + harm.below(40)).min(stream.len());
            buffer.extend_from_slice(&stream[at..end]);
            at = end;
            let (found, ok) = framed(&buffer);
            let taken: usize = found.iter().map(|(_, body)| body.len() + HEADER).sum();
            buffer.drain(..taken);
            messages.extend(found);
            goes_on = ok;
        }
        assert_eq!((messages, goes_on), (whole, is_stream));
    });
}

#[test]
fn scram_lets_nobody_in_whose_messages_were_touched() {
    let stored = postgres_protocol::password::scram_sha_256(b"secret");
    let verifier = || Arc::new(Verifier::parse(&stored).unwrap());
    let mut client = ScramSha256::new(b"secret", ChannelBinding::unsupported());
    let first = client.message().to_vec();
    fuzz("scram-first", std::slice::from_ref(&first), |message| {
        if let Ok((_, answer)) = Challenge::new(verifier(), Chosen::Only, message) {
            assert!(answer.len() <= message.len() + 200, "an answer as long as a nonce");
        }
    });
    let (challenge, answer) = Challenge::new(verifier(), Chosen::Only, &first).unwrap();
    client.update(answer.as_bytes()).unwrap();
    let last = client.message().to_vec();
    drop(challenge);
    // Each exchange has a nonce of its own, so what was right once is wrong now.
    fuzz("scram-last", &[last], |message| {
        let (challenge, _) = Challenge::new(verifier(), Chosen::Only, &first).unwrap();
        assert!(challenge.finish(message).is_err());
    });
    fuzz("verifier", &[stored.clone().into_bytes()], |text| {
        drop(std::str::from_utf8(text).map(Verifier::parse));
    });
}

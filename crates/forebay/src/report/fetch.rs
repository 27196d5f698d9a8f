//! One question to an admin port.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use forebay_seam::{net, time};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer, bytes.
const LONGEST: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The address means nothing.
    #[error("`{0}` is no admin port: write http://HOST:PORT, as `admin.listen` says")]
    Address(String),
    /// Nobody answers there.
    #[error("cannot reach {url}: {source}; does Forebay run, and is that its `admin.listen`?")]
    Reach {
        /// Where.
        url: String,
        /// Why not.
        source: io::Error,
    },
    /// The answer broke off.
    #[error("{url} does not answer as Forebay does: {reason}")]
    Answer {
        /// Where.
        url: String,
        /// What it did instead.
        reason: String,
    },
}

/// What the admin port at `url` answers to a GET of `path`. Outside of any runtime.
pub(super) fn get(url: &str, path: &str) -> Result<Bytes, FetchError> {
    let reach = |source| FetchError::Reach { url: url.to_owned(), source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(reach)?.block_on(async {
        match time::timeout(PATIENCE, ask(url, path)).await {
            Ok(answer) => answer,
            Err(_) => Err(reach(io::ErrorKind::TimedOut.into())),
        }
    })
}

async fn ask(url: &str, path: &str) -> Result<Bytes, FetchError> {
    let wrong = || FetchError::Address(url.to_owned());
    let reach = |source| FetchError::Reach { url: url.to_owned(), source };
    let answer = |reason: String| FetchError::Answer { url: url.to_owned(), reason };
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
    let authority = authority.ok_or_else(wrong)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(80);
    let addresses = net::resolve(host, port).await.map_err(reach)?;
    let stream = net::connect(&addresses).await.map_err(reach)?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| answer(error.to_string()))?;
    let request = Request::get(path)
        .header(HOST, authority.as_str())
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| wrong())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|e| answer(e.to_string()))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| answer(error.to_string()))?.to_bytes();
        match status {
            StatusCode::OK => Ok(body),
            status => Err(answer(format!("status {status}"))),
        }
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        said = &mut exchange => said,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(answer(error.to_string())),
        },
    }
}

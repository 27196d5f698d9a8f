//! A service that parses nothing: it keeps the bytes that came, and says what it is told to.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use forebay_seam::net::{self, TcpStream};
use forebay_seam::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::Forebay;

type Conduct = dyn Fn(TcpStream, usize) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// The service.
pub(crate) struct Raw {
    pub(crate) address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Raw {
    /// One that treats its connections, which are numbered from 0, as `conduct` says.
    pub(crate) fn start<F, R>(conduct: F) -> Self
    where
        F: Fn(TcpStream, usize) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        Self::run(Arc::new(move |stream, number| Box::pin(conduct(stream, number))), Arc::default())
    }

    fn run(conduct: Arc<Conduct>, heard: Arc<Mutex<Vec<String>>>) -> Self {
        let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut number = 0;
            while let Ok((stream, _)) = listener.accept().await {
                net::tune(&stream).unwrap();
                tokio::spawn(conduct(stream, number));
                number += 1;
            }
        });
        Self { address, heard }
    }

    /// One that answers whatever looks like the end of a head with `ok`, and prints the rest.
    pub(crate) fn printing() -> Self {
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&heard);
        let conduct = move |mut stream: TcpStream, number: usize| {
            let kept = Arc::clone(&kept);
            async move {
                let mut space = [0; 16 * 1024];
                while let Ok(read @ 1..) = stream.read(&mut space).await {
                    let text = String::from_utf8_lossy(&space[..read]).into_owned();
                    let heads = text.matches("\r\n\r\n").count().min(1);
                    {
                        let mut kept = kept.lock();
                        let places = kept.len().max(number + 1);
                        kept.resize(places, String::new());
                        kept[number] += &text;
                    }
                    if heads > 0 {
                        let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        drop(stream.write_all(ok).await);
                    }
                }
            }
        };
        Self::run(Arc::new(move |stream, number| Box::pin(conduct(stream, number))), heard)
    }

    /// Every byte that came, of all connections.
    pub(crate) fn heard(&self) -> String {
        self.heard.lock().concat()
    }

    /// Forgets what came.
    pub(crate) fn forget(&self) {
        self.heard.lock().iter_mut().for_each(String::clear);
    }

    /// A gateway with it as the destination `tool`.
    pub(crate) fn gateway(&self, extra: &str) -> Forebay {
        let address = self.address;
        Forebay::start(&format!(
            "[destinations.tool]\nwarm_up = 0\nurl = \"http://{address}\"\n{extra}"
        ))
    }
}

/// Reads one head of a call, and what came with it; `None` at the end.
pub(crate) async fn head(stream: &mut TcpStream) -> Option<String> {
    let (mut text, mut space) = (String::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut space).await.ok().filter(|read| *read > 0)?;
        text += &String::from_utf8_lossy(&space[..read]);
        if text.contains("\r\n\r\n") {
            return Some(text);
        }
    }
}

/// What comes next; empty at the end.
pub(crate) async fn some(stream: &mut TcpStream) -> String {
    let mut space = [0; 4096];
    let read = stream.read(&mut space).await.unwrap_or(0);
    String::from_utf8_lossy(&space[..read]).into_owned()
}

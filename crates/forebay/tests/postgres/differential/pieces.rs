//! A way to a server on which its bytes come in pieces that end anywhere: within a length,
//! within a field, between two messages.

use std::net::SocketAddr;

use forebay_seam::net::{self, TcpStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::chance::Chance;

/// Ends with all its connections when dropped.
pub(super) struct Pieces {
    pub(super) address: SocketAddr,
    _ways: JoinSet<()>,
}

impl Pieces {
    pub(super) fn before(server: SocketAddr) -> Self {
        let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let mut ways = JoinSet::new();
        ways.spawn(async move {
            let mut all = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                all.spawn(carry(client, server));
            }
        });
        Self { address, _ways: ways }
    }
}

async fn carry(client: TcpStream, server: SocketAddr) {
    net::tune(&client).unwrap();
    let Ok(server) = net::connect(&[server]).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let there = async {
        drop(tokio::io::copy(&mut from_client, &mut to_server).await);
        drop(to_server.shutdown().await);
    };
    let back = async {
        let mut chance = Chance::new(1);
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(n @ 1..) = from_server.read(&mut bytes).await {
            let mut rest = &bytes[..n];
            while !rest.is_empty() {
                // Long ones in few.
                let most = [1, 2, 3, 5, 8, 30][chance.below(6)] * (1 + rest.len() / 512);
                let (piece, after) = rest.split_at(most.min(rest.len()));
                if to_client.write_all(piece).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
                rest = after;
            }
        }
        drop(to_client.shutdown().await);
    };
    tokio::join!(there, back);
}

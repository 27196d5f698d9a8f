//! A client that sends what the test says, byte by byte, and shows what comes back.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use forebay_seam::net::TcpStream;
use forebay_seam::{net, time};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::USER;

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// One message of the server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) tag: u8,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    inbox: Vec<u8>,
    pub(crate) parameters: BTreeMap<String, String>,
    /// What a cancel request must name.
    pub(crate) key: Vec<u8>,
}

impl Client {
    /// Logs in; the error is what the server showed instead.
    pub(crate) async fn connect(
        address: SocketAddr,
        database: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Self, String> {
        let mut all = vec![("user", USER), ("database", database)];
        all.extend(parameters);
        Self::start(address, &startup(&all)).await
    }

    /// Sends `first` and waits for the end of the login.
    pub(crate) async fn start(address: SocketAddr, first: &[u8]) -> Result<Self, String> {
        let stream = net::connect(&[address]).await.unwrap();
        let (inbox, parameters, key) = (Vec::new(), BTreeMap::new(), Vec::new());
        let mut client = Self { stream, inbox, parameters, key };
        client.send(first).await;
        loop {
            let Some(message) = client.receive().await else { return Err("closed".into()) };
            match message.tag {
                b'E' => return Err(show(&[message])),
                b'K' => client.key = message.body,
                b'Z' => return Ok(client),
                _ => {}
            }
        }
    }

    /// A connection with nothing sent.
    pub(crate) async fn bare(address: SocketAddr) -> Self {
        let stream = net::connect(&[address]).await.unwrap();
        Self { stream, inbox: Vec::new(), parameters: BTreeMap::new(), key: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next message; `None` at the end.
    pub(crate) async fn receive(&mut self) -> Option<Message> {
        time::timeout(PATIENCE, self.receive_patiently()).await.expect("no answer came")
    }

    async fn receive_patiently(&mut self) -> Option<Message> {
        loop {
            if let Some([tag, a, b, c, d]) = self.inbox.first_chunk() {
                let (tag, length) = (*tag, u32::from_be_bytes([*a, *b, *c, *d]));
                let whole = usize::try_from(length).unwrap() + 1;
                if self.inbox.len() >= whole {
                    let body = self.inbox.drain(..whole).skip(5).collect();
                    let message = Message { tag, body };
                    if tag == b'S' {
                        let text = String::from_utf8(message.body.clone()).unwrap();
                        let (name, value) = text.split_once('\0').unwrap();
                        let value = value.trim_end_matches('\0');
                        self.parameters.insert(name.into(), value.into());
                    }
                    return Some(message);
                }
            }
            if self.stream.read_buf(&mut self.inbox).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Everything up to `times` ReadyForQuery, or to the end.
    pub(crate) async fn until_ready(&mut self, times: usize) -> Vec<Message> {
        let (mut messages, mut seen) = (Vec::new(), 0);
        while seen < times {
            let Some(message) = self.receive().await else { break };
            seen += usize::from(message.tag == b'Z');
            messages.push(message);
        }
        messages
    }

    /// Everything up to the first message with `tag`, or to the end.
    pub(crate) async fn until_tag(&mut self, tag: u8) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = self.receive().await {
            messages.push(message);
            if messages.last().is_some_and(|message| message.tag == tag) {
                break;
            }
        }
        messages
    }

    /// Sends `parts` in one write and shows what comes up to as many ReadyForQuery as there
    /// are Sync and Query messages.
    pub(crate) async fn ask(&mut self, parts: &[Vec<u8>]) -> String {
        let ends = parts.iter().filter(|part| matches!(part.first(), Some(b'S' | b'Q' | b'F')));
        let times = ends.count();
        self.send(&parts.concat()).await;
        show(&self.until_ready(times).await)
    }

    /// A simple query's answer, shown.
    pub(crate) async fn query(&mut self, sql: &str) -> String {
        self.ask(&[query(sql)]).await
    }

    /// The only column of the only row.
    pub(crate) async fn value(&mut self, sql: &str) -> String {
        self.send(&query(sql)).await;
        let messages = self.until_ready(1).await;
        let row = messages.iter().find(|message| message.tag == b'D');
        let row = row.unwrap_or_else(|| panic!("`{sql}` has no row: {}", show(&messages)));
        columns(&row.body).join("|")
    }

    /// Nothing has come within a moment.
    pub(crate) async fn is_silent(&mut self) -> bool {
        time::timeout(Duration::from_millis(100), self.receive_patiently()).await.is_err()
    }

    /// The other side ends the connection, and says nothing more.
    pub(crate) async fn is_sent_away(&mut self) -> bool {
        self.receive().await.is_none()
    }
}

/// Gone without a goodbye: the kernel answers what still comes with a reset.
pub(crate) fn vanish(client: Client) {
    SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
}

pub(crate) fn columns(body: &[u8]) -> Vec<String> {
    let mut rest = body.get(2..).unwrap_or_default();
    let mut columns = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk() {
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            columns.push("NULL".into());
            rest = after;
            continue;
        };
        let (value, after) = after.split_at(length);
        columns.push(String::from_utf8_lossy(value).into_owned());
        rest = after;
    }
    columns
}

/// A field of an ErrorResponse.
pub(crate) fn field(message: &Message, kind: u8) -> String {
    let mut fields = message.body.split(|byte| *byte == 0);
    let found = fields.find(|field| field.first() == Some(&kind));
    found.map(|field| String::from_utf8_lossy(&field[1..]).into_owned()).unwrap_or_default()
}

/// Messages as one line: tags, with what matters of their bodies.
pub(crate) fn show(messages: &[Message]) -> String {
    let mut line = String::new();
    for message in messages {
        let tag = char::from(message.tag);
        let text = || String::from_utf8_lossy(&message.body).replace('\0', "");
        let shown = match message.tag {
            b'E' => format!("E[{} {}]", field(message, b'C'), field(message, b'M')),
            b'N' => format!("N[{}]", field(message, b'M')),
            b'D' => format!("D[{}]", columns(&message.body).join("|")),
            b'C' | b'Z' => format!("{tag}[{}]", text()),
            b'S' => continue,
            _ => tag.to_string(),
        };
        write!(line, "{}{shown}", if line.is_empty() { "" } else { " " }).unwrap();
    }
    line
}

fn message(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), &body].concat()
}

pub(crate) fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend([name.as_bytes(), &[0], value.as_bytes(), &[0]].concat());
    }
    body.push(0);
    packet(&body)
}

/// A first packet.
pub(crate) fn packet(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], body].concat()
}

pub(crate) fn cancel_request(key: &[u8]) -> Vec<u8> {
    packet(&[&80_877_102_u32.to_be_bytes()[..], key].concat())
}

pub(crate) fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &[sql.as_bytes(), &[0]])
}

pub(crate) fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', &[name.as_bytes(), &[0], sql.as_bytes(), &[0, 0, 0]])
}

/// With types declared for its parameters.
pub(crate) fn parse_typed(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let count = u16::try_from(types.len()).unwrap().to_be_bytes();
    let types: Vec<u8> = types.iter().flat_map(|oid| oid.to_be_bytes()).collect();
    message(b'P', &[name.as_bytes(), &[0], sql.as_bytes(), &[0], &count, &types])
}

/// All values as text.
pub(crate) fn bind(portal: &str, statement: &str, values: &[&str]) -> Vec<u8> {
    let count = u16::try_from(values.len()).unwrap().to_be_bytes();
    let mut body = [portal.as_bytes(), &[0], statement.as_bytes(), &[0, 0, 0], &count].concat();
    for value in values {
        body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(value.as_bytes());
    }
    message(b'B', &[&body, &[0, 0]])
}

/// `S` for a statement, `P` for a portal.
pub(crate) fn describe(kind: u8, name: &str) -> Vec<u8> {
    message(b'D', &[&[kind], name.as_bytes(), &[0]])
}

/// `S` for a statement, `P` for a portal.
pub(crate) fn close(kind: u8, name: &str) -> Vec<u8> {
    message(b'C', &[&[kind], name.as_bytes(), &[0]])
}

/// `limit` 0: all rows.
pub(crate) fn execute(portal: &str, limit: u32) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), &[0], &limit.to_be_bytes()])
}

pub(crate) fn sync() -> Vec<u8> {
    message(b'S', &[])
}

pub(crate) fn flush() -> Vec<u8> {
    message(b'H', &[])
}

pub(crate) fn terminate() -> Vec<u8> {
    message(b'X', &[])
}

pub(crate) fn copy_data(data: &str) -> Vec<u8> {
    message(b'd', &[data.as_bytes()])
}

pub(crate) fn copy_done() -> Vec<u8> {
    message(b'c', &[])
}

pub(crate) fn copy_fail(why: &str) -> Vec<u8> {
    message(b'f', &[why.as_bytes(), &[0]])
}

/// A call of the function with this OID; arguments as text, the result as text.
pub(crate) fn function_call(oid: u32, arguments: &[&str]) -> Vec<u8> {
    let count = u16::try_from(arguments.len()).unwrap().to_be_bytes();
    let mut body = [&oid.to_be_bytes()[..], &[0, 0], &count].concat();
    for argument in arguments {
        body.extend(u32::try_from(argument.len()).unwrap().to_be_bytes());
        body.extend(argument.as_bytes());
    }
    message(b'F', &[&body, &[0, 0]])
}

/// Parse, Bind, Execute of the unnamed statement.
pub(crate) fn run(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", "", &[]), execute("", 0)].concat()
}

//! A `forebay` process with a configuration, and the few words of HTTP that tests need.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use forebay_seam::sync::Mutex;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// Long enough for any machine; a test that waits for it has failed.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A configuration file of its own, gone with this.
pub(crate) struct File {
    _folder: TempDir,
    pub(crate) path: PathBuf,
}

pub(crate) fn file(text: &str) -> File {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forebay.toml");
    std::fs::write(&path, text).unwrap();
    File { _folder: folder, path }
}

pub(crate) fn forebay() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.env_remove("FOREBAY_LOG").env_remove("FOREBAY_CONFIG");
    command
}

/// A running program; killed when dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) admin: SocketAddr,
    pub(crate) http: SocketAddr,
    /// The line that says where it listens.
    start: Value,
    log: Receiver<Value>,
    file: File,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("forebay could not be killed: {error}");
        }
    }
}

impl Running {
    /// Runs an egress gateway towards `service`, with `more` at the end of its configuration.
    pub(crate) fn towards(service: SocketAddr, more: &str) -> Self {
        Self::with("", service, more)
    }

    /// The same, with `first` at the beginning.
    pub(crate) fn with(first: &str, service: SocketAddr, more: &str) -> Self {
        Self::talkative(&[], first, service, more)
    }

    /// The same, with `variables` in the environment.
    pub(crate) fn talkative(
        variables: &[(&str, &str)],
        first: &str,
        service: SocketAddr,
        more: &str,
    ) -> Self {
        let file = file(&format!(
            "{first}[admin]\nlisten = \"127.0.0.1:0\"\nhosts = [\"forebay.internal\"]\n\
             [http]\nlisten = \"127.0.0.1:0\"\n\
             [http.destinations.llm]\nurl = \"http://{service}\"\n{more}\n"
        ));
        let mut child = forebay()
            .arg("run")
            .arg(&file.path)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, log) = sync_channel(100_000);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let start = Value::Null;
        let mut running = Self { child, admin: unknown, http: unknown, start, log, file };
        let start = running.logged("Forebay listens");
        let address = |name: &str| start[name].as_str().unwrap().parse().unwrap();
        (running.admin, running.http) = (address("admin"), address("http"));
        running.start = start;
        running
    }

    /// Where PostgreSQL's clients connect.
    pub(crate) fn postgres(&self) -> SocketAddr {
        self.start["postgres"].as_str().unwrap().parse().unwrap()
    }

    /// Every line until now that nobody has looked at.
    pub(crate) fn everything_logged(&self) -> String {
        let lines = std::iter::once(self.start.clone()).chain(self.log.try_iter());
        lines.map(|line| line.to_string()).collect::<Vec<_>>().join("\n")
    }

    /// The next log line that says `message`.
    pub(crate) fn logged(&self, message: &str) -> Value {
        loop {
            let line = self.log.recv_timeout(LONG).expect("the line is logged");
            if line["message"] == message {
                return line;
            }
        }
    }

    /// Writes its configuration anew.
    pub(crate) fn rewrite(&self, change: impl FnOnce(String) -> String) {
        let text = std::fs::read_to_string(&self.file.path).unwrap();
        std::fs::write(&self.file.path, change(text)).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Asks the admin server for `path`.
    pub(crate) fn ask(&self, path: &str) -> Answer {
        ask(self.admin, path, "")
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

/// `GET path`, with `more` header lines, which may replace `Host`.
pub(crate) fn ask(server: SocketAddr, path: &str, more: &str) -> Answer {
    call(server, &format!("GET {path}"), more, "")
}

/// `PUT path` with `body`, which is of the type `content_type`.
pub(crate) fn put(server: SocketAddr, path: &str, content_type: &str, body: &str) -> Answer {
    let more = format!("Content-Type: {content_type}\r\nContent-Length: {}\r\n", body.len());
    call(server, &format!("PUT {path}"), &more, body)
}

/// `POST path` with `body`, which is of the type `content_type`.
pub(crate) fn post(server: SocketAddr, path: &str, content_type: &str, body: &str) -> Answer {
    let more = format!("Content-Type: {content_type}\r\nContent-Length: {}\r\n", body.len());
    call(server, &format!("POST {path}"), &more, body)
}

/// A stream of events that is read one by one.
pub(crate) struct Stream {
    lines: std::io::Lines<BufReader<TcpStream>>,
    pub(crate) status: u16,
}

/// Opens the stream at `path`; when this returns, it has begun.
pub(crate) fn listen(server: SocketAddr, path: &str) -> Stream {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let accept = "Accept: text/event-stream";
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {server}\r\n{accept}\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap().unwrap();
    let status = first.split(' ').nth(1).unwrap().parse().unwrap();
    while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
    Stream { lines, status }
}

impl Stream {
    /// The next event's name and data; `None` at the proper end of the stream.
    pub(crate) fn next(&mut self) -> Option<(String, Value)> {
        let mut name = None;
        loop {
            let line = self.lines.next().expect("a stream ends with its last chunk").unwrap();
            if let Some(event) = line.strip_prefix("event: ") {
                name = Some(event.to_owned());
            } else if let (Some(data), Some(name)) = (line.strip_prefix("data: "), name.take()) {
                return Some((name, serde_json::from_str(data).unwrap()));
            } else if line == "0" {
                return None;
            }
        }
    }

    /// The data of the next event called `name`.
    pub(crate) fn wait_for(&mut self, name: &str) -> Value {
        loop {
            let (event, data) = self.next().expect("the stream goes on");
            if event == name {
                return data;
            }
        }
    }
}

fn call(server: SocketAddr, what: &str, more: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let host = if more.to_lowercase().contains("host:") {
        String::new()
    } else {
        format!("Host: {server}\r\n")
    };
    write!(stream, "{what} HTTP/1.1\r\n{host}{more}Connection: close\r\n\r\n{body}").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    Answer { status, headers, body: body.to_owned() }
}

/// A service that takes one call, tells `arrived`, and answers it when `answer` says so.
pub(crate) struct SlowService {
    pub(crate) address: SocketAddr,
    pub(crate) arrived: Receiver<()>,
    pub(crate) answer: SyncSender<()>,
}

pub(crate) fn slow_service() -> SlowService {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, arrived) = sync_channel(100);
    let (answer, told) = sync_channel(100);
    std::thread::spawn(move || {
        // Connections that were only opened to be warm send nothing; each has its thread.
        let told = Arc::new(Mutex::new(told));
        for stream in listener.incoming().map_while(Result::ok) {
            let (tell, told) = (tell.clone(), Arc::clone(&told));
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                while lines.by_ref().map_while(Result::ok).any(|line| line.is_empty()) {
                    let body = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone";
                    let heard = tell.send(()).is_ok() && told.lock().recv().is_ok();
                    if !heard || (&stream).write_all(body.as_bytes()).is_err() {
                        break;
                    }
                }
            });
        }
    });
    SlowService { address, arrived, answer }
}

//! An HTTP server that does as a test says.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What it does with one request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// An answer with its length.
    Http { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// These octets, and then the end of the connection.
    Raw(Vec<u8>),
    /// The connection ends, although the whole request was read.
    Close,
    /// The connection is reset before anything is read.
    ResetUnread,
    /// Nothing more ever comes.
    Hang,
}

impl Reply {
    pub(crate) fn json(status: u16, body: &str) -> Self {
        Self::http(status, &[("content-type", "application/json")], body)
    }

    pub(crate) fn http(status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self::Http { status, headers, body: body.as_bytes().to_vec() }
    }
}

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

type Script = Arc<Mutex<Vec<Reply>>>;

/// Runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    port: u16,
    script: Script,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Peer {
    /// Replies come in this order; after the last one, it is given again and again.
    pub(crate) async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let mut replies: Vec<_> = replies.into_iter().collect();
        replies.reverse();
        let script: Script = Arc::new(Mutex::new(replies));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(accept(listener, Arc::clone(&script), Arc::clone(&seen)));
        Self { port, script, seen, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Replaces what it is going to do.
    pub(crate) fn then(&self, reply: Reply) {
        *lock(&self.script) = vec![reply];
    }

    /// Every request that was read to its end, in their order.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.seen).clone()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn next(script: &Script) -> Reply {
    let mut script = lock(script);
    match script.len() {
        0 => Reply::Close,
        1 => script[0].clone(),
        _ => script.pop().expect("there are several"),
    }
}

async fn accept(listener: TcpListener, script: Script, seen: Arc<Mutex<Vec<Seen>>>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, Arc::clone(&script), Arc::clone(&seen)));
    }
}

async fn serve(mut stream: TcpStream, script: Script, seen: Arc<Mutex<Vec<Seen>>>) {
    loop {
        let reset = matches!(lock(&script).last(), Some(Reply::ResetUnread));
        if reset {
            next(&script);
            // Unread data makes the close a reset.
            let _ = stream.readable().await;
            return;
        }
        let Some(request) = read(&mut stream).await else { return };
        lock(&seen).push(request);
        match next(&script) {
            Reply::Http { status, headers, body } => {
                let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
                for (name, value) in headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                head.push_str("\r\n");
                let whole = [head.as_bytes(), &body].concat();
                if stream.write_all(&whole).await.is_err() {
                    return;
                }
            }
            Reply::Raw(octets) => {
                let _ = stream.write_all(&octets).await;
                let _ = stream.shutdown().await;
                return;
            }
            Reply::Close | Reply::ResetUnread => return,
            Reply::Hang => tokio::time::sleep(Duration::from_secs(3600)).await,
        }
    }
}

/// One request with a `Content-Length`; nothing when the connection ends before it is whole.
async fn read(stream: &mut TcpStream) -> Option<Seen> {
    let mut octets = Vec::new();
    let head_end = loop {
        if let Some(end) = octets.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut octets).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(octets[..head_end].to_vec()).expect("the head is text");
    let mut lines = head.split("\r\n");
    let mut request = lines.next().expect("a request line").split(' ');
    let (method, path) = (request.next()?.to_owned(), request.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let mut seen = Seen { method, path, headers, body: octets.split_off(head_end) };
    let length: usize = seen.header("content-length").expect("a length").parse().expect("a number");
    while seen.body.len() < length {
        if stream.read_buf(&mut seen.body).await.ok()? == 0 {
            return None;
        }
    }
    Some(seen)
}

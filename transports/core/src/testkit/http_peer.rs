//! A scripted HTTP server.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What an [`HttpPeer`] does with one request.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum HttpReply {
    /// Reads the request and answers, with a `Content-Length` unless the headers have a `Transfer-Encoding`.
    Answer {
        /// The status.
        status: u16,
        /// The headers.
        headers: Vec<(String, String)>,
        /// The body.
        body: Vec<u8>,
    },
    /// Reads the request, writes these octets and closes the connection.
    Raw(Vec<u8>),
    /// Reads the request and closes the connection.
    Close,
    /// Reads the request and stays silent until it is [released](HttpPeer::release). Then does this.
    Held(Box<HttpReply>),
    /// Reads the request and stays silent.
    Hang,
    /// Resets the connection when the first octets arrive, and reads none.
    ResetUnread,
    /// Reads this many octets and resets the connection. The request must be much larger.
    ResetAfter(usize),
    /// Reads nothing and stays silent.
    HangUnread,
}

impl HttpReply {
    /// Creates an answer.
    pub fn answer(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self::Answer { status, headers, body: body.as_ref().to_vec() }
    }

    /// Creates an answer with the content type JSON.
    pub fn json(status: u16, body: impl fmt::Display) -> Self {
        Self::answer(status, &[("content-type", "application/json")], body.to_string())
    }

    /// Whether it leaves the request unread.
    fn is_unread(&self) -> bool {
        matches!(self, Self::ResetUnread | Self::ResetAfter(_) | Self::HangUnread)
    }
}

/// A request to an [`HttpPeer`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpRequest {
    /// The method, such as `POST`.
    pub method: String,
    /// The path, with the query.
    pub path: String,
    /// The headers in order, with the case of their names.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl HttpRequest {
    /// The first header with this name, in any case. `None` if there is none.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Parses the body as JSON. Panics if it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// Parses the body as `multipart/form-data` (RFC 7578): the name, file name and content of each part. Panics if it is not.
    pub fn form(&self) -> Vec<(String, Option<String>, Vec<u8>)> {
        let boundary = self.header("content-type").and_then(|kind| kind.split_once("boundary=")).expect("a boundary").1;
        let boundary = boundary.split(';').next().unwrap_or_default().trim_matches('"');
        let delimiter = format!("--{boundary}\r\n");
        let body = self.body.strip_suffix(format!("--{boundary}--\r\n").as_bytes()).expect("an end");
        let mut parts = Vec::new();
        let mut rest = body.strip_prefix(delimiter.as_bytes()).expect("a first part");
        loop {
            let end = rest.windows(delimiter.len()).position(|window| window == delimiter.as_bytes());
            let part = rest[..end.unwrap_or(rest.len())].strip_suffix(b"\r\n").expect("a line end before the boundary");
            let split = part.windows(4).position(|window| window == b"\r\n\r\n").expect("an empty line");
            let head = String::from_utf8_lossy(&part[..split]).into_owned();
            let value = |name: &str| Some(head.split_once(&format!("; {name}=\""))?.1.split_once('"')?.0.to_owned());
            parts.push((value("name").expect("a name"), value("filename"), part[split + 4..].to_vec()));
            match end {
                Some(end) => rest = &rest[end + delimiter.len()..],
                None => return parts,
            }
        }
    }
}

/// A scripted HTTP/1.1 server on loopback.
///
/// It and its connections end when it is dropped.
#[derive(Debug)]
pub struct HttpPeer {
    port: u16,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    script: Mutex<Script>,
    requests: Mutex<Vec<HttpRequest>>,
    connections: Mutex<usize>,
    released: watch::Sender<()>,
}

struct Script {
    /// Replies that are used once, in order.
    once: VecDeque<HttpReply>,
    then: Then,
}

/// How to reply after that.
enum Then {
    Repeat(HttpReply),
    Handle(Arc<dyn Fn(&HttpRequest) -> HttpReply + Send + Sync>),
}

impl HttpPeer {
    /// Starts a server that sends these replies in order and repeats the last one. Without any, it [closes](HttpReply::Close) each
    /// connection.
    pub async fn start(replies: impl IntoIterator<Item = HttpReply>) -> Self {
        let mut once: VecDeque<_> = replies.into_iter().collect();
        let last = once.pop_back().unwrap_or(HttpReply::Close);
        Self::run(Script { once, then: Then::Repeat(last) })
    }

    /// Starts a server that replies to each request by a function.
    pub async fn with_handler(handler: impl Fn(&HttpRequest) -> HttpReply + Send + Sync + 'static) -> Self {
        Self::run(Script { once: VecDeque::new(), then: Then::Handle(Arc::new(handler)) })
    }

    fn run(script: Script) -> Self {
        let listener = listen().expect("a port on loopback is free");
        let port = listener.local_addr().expect("the listener is bound").port();
        let state = Arc::new(State {
            script: Mutex::new(script),
            requests: Mutex::default(),
            connections: Mutex::default(),
            released: watch::Sender::new(()),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { port, state, task }
    }

    /// The base URL: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.host())
    }

    /// Host and port: `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Inserts a reply before all others. It is used once.
    pub fn next(&self, reply: HttpReply) {
        lock(&self.state.script).once.push_front(reply);
    }

    /// Replaces all replies by this one.
    pub fn then(&self, reply: HttpReply) {
        *lock(&self.state.script) = Script { once: VecDeque::new(), then: Then::Repeat(reply) };
    }

    /// Releases every reply that is [held](HttpReply::Held) now.
    pub fn release(&self) {
        self.state.released.send_replace(());
    }

    /// All requests that were read completely, in order.
    pub fn seen(&self) -> Vec<HttpRequest> {
        lock(&self.state.requests).clone()
    }

    /// The number of connections so far.
    pub fn connections(&self) -> usize {
        *lock(&self.state.connections)
    }
}

impl Drop for HttpPeer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("requests", &lock(&self.requests).len()).finish_non_exhaustive()
    }
}

impl Script {
    /// The next reply, if it leaves the request unread.
    fn unread(&mut self) -> Option<HttpReply> {
        match (self.once.front(), &self.then) {
            (Some(reply), _) if reply.is_unread() => self.once.pop_front(),
            (None, Then::Repeat(reply)) if reply.is_unread() => Some(reply.clone()),
            _ => None,
        }
    }
}

impl State {
    fn reply(&self, request: &HttpRequest) -> HttpReply {
        let handler = {
            let mut script = lock(&self.script);
            if let Some(reply) = script.once.pop_front() {
                return reply;
            }
            match &script.then {
                Then::Repeat(reply) => return reply.clone(),
                Then::Handle(handler) => Arc::clone(handler),
            }
        };
        handler(request)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen() -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // A small buffer, so that a request of a few megabytes cannot be sent while the peer does not read.
    socket.set_recv_buffer_size(16 * 1024)?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    socket.listen(64)
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        *lock(&state.connections) += 1;
        connections.spawn(serve(stream, Arc::clone(&state)));
    }
}

async fn serve(mut stream: TcpStream, state: Arc<State>) {
    let mut buffer = Vec::new();
    loop {
        let unread = lock(&state.script).unread();
        if let Some(reply) = unread {
            return leave_unread(stream, &reply).await;
        }
        let Some(request) = read(&mut stream, &mut buffer).await else { return };
        // Subscribe before the request is visible to the test, which may then release it.
        let mut released = state.released.subscribe();
        let mut reply = state.reply(&request);
        lock(&state.requests).push(request);
        while let HttpReply::Held(rest) = reply {
            if released.changed().await.is_err() {
                return;
            }
            reply = *rest;
        }
        match reply {
            HttpReply::Answer { status, headers, body } => {
                if stream.write_all(&written(status, &headers, &body)).await.is_err() {
                    return;
                }
            }
            HttpReply::Raw(octets) => {
                // The client may hang up before it has read all of it.
                let _ = stream.write_all(&octets).await;
                let _ = stream.shutdown().await;
                // Unread data would turn the close into a reset, which loses the reply.
                let _ = stream.read_to_end(&mut Vec::new()).await;
                return;
            }
            HttpReply::Hang => std::future::pending().await,
            _ => return,
        }
    }
}

async fn leave_unread(mut stream: TcpStream, reply: &HttpReply) {
    match reply {
        HttpReply::ResetAfter(count) => {
            let _ = stream.read_exact(&mut vec![0; *count]).await;
        }
        HttpReply::HangUnread => std::future::pending().await,
        _ => {}
    }
    // Unread data turns the close into a reset.
    let _ = stream.readable().await;
}

fn written(status: u16, headers: &[(String, String)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} X\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding")) {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

/// Reads a request that has a `Content-Length` or no body. `None` if the connection ends before the request does.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<HttpRequest> {
    let mut searched = 0;
    let end = loop {
        if let Some(at) = buffer[searched..].windows(4).position(|four| four == b"\r\n\r\n") {
            break searched + at + 4;
        }
        searched = buffer.len().saturating_sub(3);
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer[..end].to_vec()).expect("the head is text");
    let mut lines = head.split("\r\n");
    let mut first = lines.next().expect("a request line").split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let mut request = HttpRequest { method, path, headers, body: Vec::new() };
    let length = request.header("content-length").map_or(0, |length| length.parse().expect("a number"));
    while buffer.len() < end + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let rest = buffer.split_off(end + length);
    request.body = buffer.split_off(end);
    *buffer = rest;
    Some(request)
}

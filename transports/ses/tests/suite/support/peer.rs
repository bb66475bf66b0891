//! An HTTP server on loopback that answers each request as it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// What the peer does with the next request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Takes the message and gives it this name.
    Accept(&'static str),
    /// Reads the request and answers it.
    Answer { status: u16, headers: &'static [(&'static str, &'static str)], body: String },
    /// Reads the request, writes exactly this and closes the connection.
    Write(Vec<u8>),
    /// Resets the connection as soon as it is there.
    CloseBeforeReading,
    /// Reads this many octets of the request and resets the connection.
    CloseAfter(usize),
    /// Reads the whole request and closes the connection.
    CloseAfterRequest,
    /// Reads the whole request and says nothing.
    Hang,
    /// Reads nothing and says nothing.
    HangBeforeReading,
}

impl Act {
    /// An answer in the form of SES's errors.
    pub(crate) fn error(status: u16, headers: &'static [(&'static str, &'static str)], body: &str) -> Self {
        Self::Answer { status, headers, body: body.to_owned() }
    }
}

/// A request that came in whole.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) head: String,
    pub(crate) body: serde_json::Value,
}

#[derive(Default)]
struct State {
    acts: VecDeque<Act>,
    received: Vec<Received>,
    connections: usize,
}

type Shared = Arc<Mutex<State>>;

/// Ends, with all its connections, when it is dropped.
pub(crate) struct Peer {
    port: u16,
    state: Shared,
    _tasks: JoinSet<()>,
}

impl Peer {
    /// Does these one after the other, a connection being where the next one is taken; then accepts everything as `next`.
    pub(crate) fn start(acts: impl IntoIterator<Item = Act>) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // Little may lie between the two ends, so that a request of a few megabytes cannot be out while nobody reads it.
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(64).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Shared::default();
        lock(&state).acts = acts.into_iter().collect();
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(listener, Arc::clone(&state)));
        Self { port, state, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        lock(&self.state).received.clone()
    }

    pub(crate) fn connections(&self) -> usize {
        lock(&self.state).connections
    }

    /// Waits until so many requests came in whole.
    pub(crate) async fn heard(&self, count: usize) {
        while self.received().len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn lock(state: &Shared) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen(listener: TcpListener, state: Shared) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        lock(&state).connections += 1;
        connections.spawn(serve(stream, Arc::clone(&state)));
    }
}

async fn serve(mut stream: TcpStream, state: Shared) {
    let mut buffer = Vec::new();
    loop {
        let act = lock(&state).acts.front().cloned();
        match act {
            Some(Act::CloseBeforeReading) => {
                lock(&state).acts.pop_front();
                return reset(&stream);
            }
            Some(Act::HangBeforeReading) => {
                lock(&state).acts.pop_front();
                std::future::pending::<()>().await;
            }
            Some(Act::CloseAfter(count)) => {
                lock(&state).acts.pop_front();
                let mut part = vec![0; count];
                stream.read_exact(&mut part).await.unwrap();
                return reset(&stream);
            }
            _ => {}
        }
        let Some(received) = read_request(&mut stream, &mut buffer).await else { return };
        let act = {
            let mut state = lock(&state);
            state.received.push(received);
            state.acts.pop_front().unwrap_or(Act::Accept("next"))
        };
        let answer = match act {
            Act::Accept(id) => answer(200, &[], &format!(r#"{{"MessageId":"{id}"}}"#)),
            Act::Answer { status, headers, body } => answer(status, headers, &body),
            Act::Write(bytes) => {
                // The client may hang up before it has read all of it.
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                // What is still on its way would be lost with a reset.
                let _ = stream.read_to_end(&mut Vec::new()).await;
                return;
            }
            Act::Hang => std::future::pending().await,
            _ => return,
        };
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// So that the other end sees an error, and not an orderly end.
fn reset(stream: &TcpStream) {
    stream.set_zero_linger().unwrap();
}

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    format!("{out}\r\n{body}").into_bytes()
}

/// `None` where the connection ends first.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Received> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    let whole = end + length.expect("a request with a length");
    while buffer.len() < whole {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let rest = buffer.split_off(whole);
    let body = serde_json::from_slice(&buffer[end..]).expect("a request of JSON");
    *buffer = rest;
    Some(Received { head, body })
}

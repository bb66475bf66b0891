//! The example of a custom transport, under the conformance suite of transports.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../examples/custom_transport.rs"]
mod example;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use example::Gateway;
use postrider::testkit::transport::{Accepted, Answer, ScriptedPeer, TransportUnderTest};
use postrider::{Attachment, Email};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const TOKEN: &str = "T0KEN-that-nobody-may-see";

#[derive(Default)]
struct Record {
    planned: VecDeque<Answer>,
    read: usize,
    accepted: Vec<Accepted>,
}

/// A gateway that repeats the request, with its secrets, in its replies.
struct Peer {
    record: Arc<Mutex<Record>>,
    released: watch::Sender<()>,
}

impl Peer {
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (record, released): (Arc<Mutex<Record>>, _) = (Arc::default(), watch::Sender::new(()));
        let peer = Self { record: Arc::clone(&record), released: released.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // In some tests the client closes the connection.
                tokio::spawn(serve(stream, Arc::clone(&record), released.subscribe()));
            }
        });
        (peer, address)
    }
}

async fn serve(stream: TcpStream, record: Arc<Mutex<Record>>, mut released: watch::Receiver<()>) -> Option<()> {
    if record.lock().unwrap().planned.front() == Some(&Answer::CloseBeforeReading) {
        record.lock().unwrap().planned.pop_front();
        return None;
    }
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let request: Value = serde_json::from_str(line.strip_suffix('\n')?).unwrap();
    assert_eq!(request["token"], TOKEN);
    let answer = {
        let mut record = record.lock().unwrap();
        record.read += 1;
        record.planned.pop_front().unwrap_or(Answer::Accept)
    };
    let says = match answer {
        Answer::RefuseMessage => format!("400 not this: {line}"),
        Answer::Busy => format!("409 not now: {line}"),
        Answer::RefuseCredentials => format!("401 {TOKEN} is wrong\n"),
        Answer::RateLimit(wait) => format!("429 {}\n", wait.as_secs()),
        Answer::Unavailable => format!("503 {line}"),
        // The reply begins like an acceptance and breaks off.
        Answer::CloseAfterReading => "200 4".to_owned(),
        Answer::Garbage => format!("What? {line}"),
        _ => {
            if answer == Answer::Hang {
                released.changed().await.ok()?;
            }
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let to = request["to"].as_array().unwrap().iter().map(text).collect();
            let id = text(&request["id"]);
            record.lock().unwrap().accepted.push(Accepted::new(to, Some(id.clone()), line));
            format!("200 {id}\n")
        }
    };
    stream.get_mut().write_all(says.as_bytes()).await.ok()
}

impl ScriptedPeer for Peer {
    fn plan(&self, answer: Answer) {
        self.record.lock().unwrap().planned.push_back(answer);
    }

    fn release(&self) {
        self.released.send_replace(());
    }

    fn read(&self) -> usize {
        self.record.lock().unwrap().read
    }

    fn accepted(&self) -> Vec<Accepted> {
        self.record.lock().unwrap().accepted.clone()
    }
}

struct GatewayTest;

impl TransportUnderTest for GatewayTest {
    type Transport = Gateway;
    type Peer = Peer;

    async fn start(&self, timeout: Duration) -> (Gateway, Peer) {
        let (peer, address) = Peer::start().await;
        (Gateway { address, token: TOKEN.to_owned(), timeout }, peer)
    }

    async fn unreachable(&self) -> Gateway {
        // Nothing listens on a released port.
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        Gateway { address, token: TOKEN.to_owned(), timeout: Duration::from_secs(60) }
    }

    fn secrets(&self) -> Vec<String> {
        vec![TOKEN.to_owned()]
    }

    fn unsupported(&self) -> Option<Email> {
        let file = Attachment::new("a.txt", "text/plain", vec![b'a'; 1_000_000]).unwrap();
        let mail = Email::builder().from("ada@example.com").to("bob@example.org").text("Hi!").attach(file);
        Some(mail.build().unwrap())
    }
}

postrider::transport_tests!(GatewayTest);

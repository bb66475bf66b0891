//! A relay with an endpoint, and a client for it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::exposition::Exposition;
use crate::tool::{Running, Tool, wait_until};

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The head, in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Sends a request by HTTP/1.0, so that the answer ends with the connection and has no chunks.
pub(crate) fn request(address: &str, method: &str, path: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok(Answer { status, head: head.to_lowercase(), body: body.to_owned() })
}

/// A running `postrider work --metrics`.
pub(crate) struct Served {
    pub(crate) running: Running,
    pub(crate) address: String,
}

impl Served {
    pub(crate) fn start(tool: &Tool, transport: &str, args: &[&str]) -> Self {
        let work = ["work", "--transport", transport, "--metrics", "127.0.0.1:0"];
        let running = tool.start(&[&work[..], args].concat());
        let mut address = None;
        wait_until("the endpoint is served", || {
            address = running.stderr().split("address=").nth(1).and_then(|rest| {
                let address = rest.split_whitespace().next()?;
                rest.contains('\n').then(|| address.to_owned())
            });
            address.is_some()
        });
        Self { running, address: address.unwrap() }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        request(&self.address, "GET", path).unwrap()
    }

    pub(crate) fn text(&self) -> String {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    pub(crate) fn metrics(&self) -> Exposition {
        Exposition::parse(&self.text())
    }

    pub(crate) fn health(&self) -> (u16, Value) {
        let answer = self.get("/healthz");
        (answer.status, serde_json::from_str(&answer.body).unwrap())
    }
}

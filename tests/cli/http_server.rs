//! A scripted HTTP server on loopback. Requests and responses are JSON.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

type Script = dyn Fn(&Value) -> (u16, Value) + Send + Sync;

/// The server. Its threads end with the test's process.
pub(crate) struct HttpServer {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl HttpServer {
    /// A server whose script returns the status and the body of each response.
    pub(crate) fn with_script(script: impl Fn(&Value) -> (u16, Value) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { address: listener.local_addr().unwrap(), requests: Arc::default() };
        let (script, requests): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&server.requests));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, requests) = (Arc::clone(&script), Arc::clone(&requests));
                // A client that closes its connection ends the thread.
                std::thread::spawn(move || serve(&stream, &*script, &requests));
            }
        });
        server
    }

    /// The address and port.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// The number of requests so far.
    pub(crate) fn request_count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn serve(stream: &TcpStream, script: &Script, requests: &AtomicUsize) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end().to_ascii_lowercase().split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                None if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        requests.fetch_add(1, Ordering::SeqCst);
        let (status, answer) = script(&serde_json::from_slice(&body).unwrap());
        let answer = answer.to_string();
        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}", answer.len());
        (&*stream).write_all(format!("{head}\r\n\r\n{answer}").as_bytes())?;
    }
}

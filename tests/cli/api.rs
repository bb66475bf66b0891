//! An HTTP API on loopback that takes JSON, and answers as its script says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

type Script = dyn Fn(&Value) -> (u16, Value) + Send + Sync;

/// The server. Its threads end with the test's process.
pub(crate) struct Api {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Api {
    /// One that asks its script for the status and the body of each answer.
    pub(crate) fn with(script: impl Fn(&Value) -> (u16, Value) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let api = Self { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let (script, asked): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&api.asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, asked) = (Arc::clone(&script), Arc::clone(&asked));
                // A client that closes its connection ends the thread.
                std::thread::spawn(move || serve(&stream, &*script, &asked));
            }
        });
        api
    }

    /// Its address and port.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// How many requests it was asked so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn serve(stream: &TcpStream, script: &Script, asked: &AtomicUsize) -> std::io::Result<()> {
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
        asked.fetch_add(1, Ordering::SeqCst);
        let (status, answer) = script(&serde_json::from_slice(&body).unwrap());
        let answer = answer.to_string();
        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}", answer.len());
        (&*stream).write_all(format!("{head}\r\n\r\n{answer}").as_bytes())?;
    }
}

//! A server that records connections, as another site.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use postrider::DeliveryId;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

/// A server that records who connects, and plays the part of another site.
#[derive(Clone)]
pub(crate) struct Canary {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Canary {
    pub(crate) async fn start(dashboard: SocketAddr, victim: DeliveryId) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let canary = Self { address, connections: Arc::default(), requests: Arc::default() };
        let recorder = canary.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                recorder.connections.fetch_add(1, Ordering::SeqCst);
                let recorder = recorder.clone();
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let mut line = String::new();
                    let _ = stream.read_line(&mut line).await;
                    let target = format!("http://{dashboard}/admin/mail/deliveries/{victim}/cancel");
                    let body = match line.split(' ').nth(1) {
                        Some("/forge") => format!(
                            "<form method=post action='{target}'><input name=csrf value={:032}><input name=seen value=pending-1-0>\
                             </form><script>document.forms[0].submit()</script>",
                            0
                        ),
                        Some("/embed") => format!("<iframe src='{target}'></iframe>"),
                        _ => String::new(),
                    };
                    recorder.requests.lock().unwrap().push(line);
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\naccess-control-allow-origin: *";
                    let reply = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                    let _ = stream.get_mut().write_all(reply.as_bytes()).await;
                });
            }
        });
        canary
    }

    pub(crate) fn url(&self) -> String {
        format!("http://evil.example:{}", self.address.port())
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn counter(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.connections)
    }

    /// The first line of each request. It is empty if a connection was opened and not used.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

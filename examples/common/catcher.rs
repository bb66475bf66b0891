//! A minimal SMTP server that keeps the mail it receives and delivers none.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// An accepted mail.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caught {
    /// The recipients of the envelope.
    pub(crate) to: Vec<String>,
    /// Headers and body.
    pub(crate) content: String,
}

impl Caught {
    /// The first line of the first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let headers = self.content.lines().take_while(|line| !line.is_empty());
        let mut named = headers.filter_map(|line| line.split_once(": ")).filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value)
    }
}

/// A server on a free port of this machine.
#[derive(Debug)]
pub(crate) struct Catcher {
    address: SocketAddr,
    caught: Arc<Mutex<Vec<Caught>>>,
}

impl Catcher {
    /// Listens until the program ends.
    pub(crate) async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let catcher = Self { address: listener.local_addr()?, caught: Arc::default() };
        let caught = Arc::clone(&catcher.caught);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&caught)));
            }
        });
        Ok(catcher)
    }

    /// The URL for the SMTP transport.
    pub(crate) fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// The mails accepted so far.
    pub(crate) fn caught(&self) -> Vec<Caught> {
        self.caught.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(stream: TcpStream, caught: Arc<Mutex<Vec<Caught>>>) -> std::io::Result<()> {
    // Otherwise each short reply waits until the client acknowledges the reply before it (Nagle's algorithm).
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    write.write_all(b"220 catcher.example ready\r\n").await?;
    let mut mail = Caught::default();
    while let Some(line) = lines.next_line().await? {
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let reply = match verb.as_str() {
            "EHLO" => "250-catcher.example\r\n250-PIPELINING\r\n250 8BITMIME",
            "HELO" | "NOOP" => "250 catcher.example",
            "MAIL" | "RSET" => {
                mail = Caught::default();
                "250 2.1.0 ok"
            }
            "RCPT" => {
                let address = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
                mail.to.extend(address.map(|(address, _)| address.to_owned()));
                "250 2.1.5 ok"
            }
            "DATA" => {
                write.write_all(b"354 go on\r\n").await?;
                while let Some(line) = lines.next_line().await?.filter(|line| line != ".") {
                    // The client doubles a dot at the start of a line (RFC 5321 section 4.5.2).
                    mail.content.push_str(line.strip_prefix('.').unwrap_or(&line));
                    mail.content.push('\n');
                }
                caught.lock().unwrap_or_else(PoisonError::into_inner).push(std::mem::take(&mut mail));
                "250 2.0.0 kept"
            }
            "QUIT" => {
                write.write_all(b"221 2.0.0 bye\r\n").await?;
                break;
            }
            _ => "502 5.5.1 not known here",
        };
        write.write_all(format!("{reply}\r\n").as_bytes()).await?;
    }
    Ok(())
}

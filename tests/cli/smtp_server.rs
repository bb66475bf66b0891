//! A scripted SMTP server on loopback that keeps the mails it receives.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A mail with its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mail {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    /// The content, without dot-stuffing and without the final dot.
    pub(crate) content: Vec<u8>,
}

impl Mail {
    /// The first header of this name, unfolded.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let text = String::from_utf8_lossy(&self.content).replace("\r\n ", " ").replace("\r\n\t", " ");
        let head = text.split("\r\n\r\n").next().unwrap().to_owned();
        let mut named = head.lines().filter_map(|line| line.split_once(": "));
        named.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    }

    pub(crate) fn message_id(&self) -> String {
        self.header("Message-ID").expect("every mail has a Message-ID")
    }

    /// The id of the delivery: the left side of its Message-ID.
    pub(crate) fn delivery_id(&self) -> String {
        let id = self.message_id();
        id.trim_start_matches('<').split('@').next().unwrap().to_owned()
    }
}

/// A step that the script answers.
pub(crate) enum Step<'a> {
    Auth,
    Recipient(&'a str),
    Content,
}

/// The script's answer.
pub(crate) enum Answer {
    Accept,
    /// Refuses the step with this reply.
    Refuse(&'static str),
    /// Closes the connection without a reply.
    Close,
}

type Script = dyn Fn(&Step<'_>) -> Answer + Send + Sync;

#[derive(Default)]
struct Record {
    received: Vec<Mail>,
    accepted: Vec<Mail>,
    connections: ConnectionCounts,
}

#[derive(Default, Clone, Copy)]
pub(crate) struct ConnectionCounts {
    pub(crate) opened: usize,
    /// The connections that ended with QUIT.
    pub(crate) quit: usize,
}

/// The server. Its threads end with the test's process.
pub(crate) struct SmtpServer {
    address: SocketAddr,
    record: Arc<Mutex<Record>>,
}

impl SmtpServer {
    /// A server that accepts everything.
    pub(crate) fn start() -> Self {
        Self::with_script(|_| Answer::Accept)
    }

    /// A server that asks its script. The script can block: each connection has its own thread.
    pub(crate) fn with_script(script: impl Fn(&Step<'_>) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { address: listener.local_addr().unwrap(), record: Arc::default() };
        let (script, record): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&server.record));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, record) = (Arc::clone(&script), Arc::clone(&record));
                // In some tests the client closes the connection.
                std::thread::spawn(move || serve(&stream, &*script, &record));
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// The URL with credentials, which are sent without TLS.
    pub(crate) fn url_with(&self, credentials: &str) -> String {
        format!("smtp://{credentials}@{}?tls=none", self.address)
    }

    /// All complete mails, accepted or not.
    pub(crate) fn received(&self) -> Vec<Mail> {
        self.record.lock().unwrap().received.clone()
    }

    /// The accepted mails, in order.
    pub(crate) fn accepted(&self) -> Vec<Mail> {
        self.record.lock().unwrap().accepted.clone()
    }

    pub(crate) fn connections(&self) -> ConnectionCounts {
        self.record.lock().unwrap().connections
    }

    pub(crate) fn accepted_count(&self) -> usize {
        self.record.lock().unwrap().accepted.len()
    }
}

fn serve(stream: &TcpStream, script: &Script, record: &Mutex<Record>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let say = |line: &str| {
        let mut stream = stream;
        stream.write_all(format!("{line}\r\n").as_bytes())
    };
    record.lock().unwrap().connections.opened += 1;
    say("220 test.example ready")?;
    let mut mail = Mail { from: String::new(), to: Vec::new(), content: Vec::new() };
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let verb = text.split([' ', ':']).next().unwrap().to_ascii_uppercase();
        let address = || text.split_once('<').and_then(|(_, rest)| rest.split_once('>')).unwrap().0.to_owned();
        let (answer, accepted) = match verb.as_str() {
            "EHLO" => (Answer::Accept, "250-test.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 AUTH PLAIN"),
            "AUTH" => (script(&Step::Auth), "235 2.7.0 welcome"),
            "MAIL" => {
                mail = Mail { from: address(), to: Vec::new(), content: Vec::new() };
                (Answer::Accept, "250 2.1.0 ok")
            }
            "RCPT" => {
                let answer = script(&Step::Recipient(&address()));
                if matches!(answer, Answer::Accept) {
                    mail.to.push(address());
                }
                (answer, "250 2.1.5 ok")
            }
            "DATA" if mail.to.is_empty() => (Answer::Refuse("554 5.5.1 no valid recipients"), ""),
            "DATA" => {
                say("354 go on")?;
                read_content(&mut reader, &mut mail.content)?;
                record.lock().unwrap().received.push(mail.clone());
                let answer = script(&Step::Content);
                if matches!(answer, Answer::Accept) {
                    record.lock().unwrap().accepted.push(mail.clone());
                }
                (answer, "250 2.0.0 kept")
            }
            "RSET" | "NOOP" => (Answer::Accept, "250 2.0.0 ok"),
            "QUIT" => {
                record.lock().unwrap().connections.quit += 1;
                return say("221 2.0.0 bye");
            }
            _ => (Answer::Refuse("502 5.5.1 not known here"), ""),
        };
        match answer {
            Answer::Accept => say(accepted)?,
            Answer::Refuse(reply) => say(reply)?,
            Answer::Close => return Ok(()),
        }
    }
}

fn read_content(reader: &mut impl BufRead, content: &mut Vec<u8>) -> std::io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok(());
        }
        // The client doubles a dot at the start of a line (RFC 5321 section 4.5.2).
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}

//! A mail server on loopback that does as its script says, and keeps what it was given.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A mail as it came over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mail {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    /// Without doubled dots and without the end.
    pub(crate) content: Vec<u8>,
}

impl Mail {
    /// The lines of a header by that name, unfolded.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let text = String::from_utf8_lossy(&self.content).replace("\r\n ", " ").replace("\r\n\t", " ");
        let head = text.split("\r\n\r\n").next().unwrap().to_owned();
        let mut named = head.lines().filter_map(|line| line.split_once(": "));
        named.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    }

    pub(crate) fn message_id(&self) -> String {
        self.header("Message-ID").expect("every mail has a Message-ID")
    }

    /// The delivery that it is of: the left side of its Message-ID.
    pub(crate) fn delivery(&self) -> String {
        let id = self.message_id();
        id.trim_start_matches('<').split('@').next().unwrap().to_owned()
    }
}

/// What the server asks its script about.
pub(crate) enum Ask<'a> {
    Password,
    Recipient(&'a str),
    Content,
}

/// What the script wants done.
pub(crate) enum Answer {
    Yes,
    Say(&'static str),
    Close,
}

type Script = dyn Fn(&Ask<'_>) -> Answer + Send + Sync;

#[derive(Default)]
struct Record {
    offered: Vec<Mail>,
    accepted: Vec<Mail>,
    connections: usize,
    goodbyes: usize,
}

/// The server. Its threads end with the test's process.
pub(crate) struct Server {
    address: SocketAddr,
    record: Arc<Mutex<Record>>,
}

impl Server {
    /// One that takes everything.
    pub(crate) fn start() -> Self {
        Self::with(|_| Answer::Yes)
    }

    /// One that asks its script. The script may block: each connection has a thread.
    pub(crate) fn with(script: impl Fn(&Ask<'_>) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { address: listener.local_addr().unwrap(), record: Arc::default() };
        let (script, record): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&server.record));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, record) = (Arc::clone(&script), Arc::clone(&record));
                // A client that vanishes is part of the tests.
                std::thread::spawn(move || serve(&stream, &*script, &record));
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// With credentials, which travel in clear.
    pub(crate) fn url_with(&self, credentials: &str) -> String {
        format!("smtp://{credentials}@{}?tls=none", self.address)
    }

    /// All that came to its end, whatever was answered.
    pub(crate) fn offered(&self) -> Vec<Mail> {
        self.record.lock().unwrap().offered.clone()
    }

    /// All that the server took upon itself, in that order.
    pub(crate) fn accepted(&self) -> Vec<Mail> {
        self.record.lock().unwrap().accepted.clone()
    }

    /// How many connections there were, and how many ended with QUIT.
    pub(crate) fn connections(&self) -> (usize, usize) {
        let record = self.record.lock().unwrap();
        (record.connections, record.goodbyes)
    }

    /// How many that are.
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
    record.lock().unwrap().connections += 1;
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
        let (answer, yes) = match verb.as_str() {
            "EHLO" => (Answer::Yes, "250-test.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 AUTH PLAIN"),
            "AUTH" => (script(&Ask::Password), "235 2.7.0 welcome"),
            "MAIL" => {
                mail = Mail { from: address(), to: Vec::new(), content: Vec::new() };
                (Answer::Yes, "250 2.1.0 ok")
            }
            "RCPT" => {
                let answer = script(&Ask::Recipient(&address()));
                if matches!(answer, Answer::Yes) {
                    mail.to.push(address());
                }
                (answer, "250 2.1.5 ok")
            }
            "DATA" if mail.to.is_empty() => (Answer::Say("554 5.5.1 nobody to send it to"), ""),
            "DATA" => {
                say("354 go on")?;
                read_content(&mut reader, &mut mail.content)?;
                record.lock().unwrap().offered.push(mail.clone());
                let answer = script(&Ask::Content);
                if matches!(answer, Answer::Yes) {
                    record.lock().unwrap().accepted.push(mail.clone());
                }
                (answer, "250 2.0.0 kept")
            }
            "RSET" | "NOOP" => (Answer::Yes, "250 2.0.0 ok"),
            "QUIT" => {
                record.lock().unwrap().goodbyes += 1;
                return say("221 2.0.0 bye");
            }
            _ => (Answer::Say("502 5.5.1 not known here"), ""),
        };
        match answer {
            Answer::Yes => say(yes)?,
            Answer::Say(reply) => say(reply)?,
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
        // A dot at the start of a line travels doubled (RFC 5321 section 4.5.2).
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}

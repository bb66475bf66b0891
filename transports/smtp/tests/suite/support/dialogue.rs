//! The peer's side of one connection.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::peer::{Accepted, Heard, PeerBuilder, Record};
use super::script::{Act, At, Rule};

trait Both: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Both for T {}

pub(super) struct Shared {
    pub(super) record: Arc<Mutex<Record>>,
    pub(super) nudge: Arc<Notify>,
    pub(super) setup: PeerBuilder,
}

/// The script ends the connection here.
pub(super) struct Over;

impl From<std::io::Error> for Over {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

pub(super) struct Dialogue<'a> {
    shared: &'a Shared,
    connection: usize,
    stream: BufReader<Box<dyn Both>>,
    encrypted: bool,
    /// The same socket, to be reset by.
    socket: socket2::Socket,
    mail_from: Option<String>,
    /// What was answered to each recipient, and those taken.
    asked: usize,
    recipients: Vec<String>,
}

impl<'a> Dialogue<'a> {
    pub(super) async fn run(shared: &'a Shared, connection: usize, tcp: TcpStream) -> Result<(), Over> {
        tcp.set_nodelay(true)?;
        let socket = socket2::SockRef::from(&tcp).try_clone()?;
        let (stream, encrypted): (Box<dyn Both>, _) = match &shared.setup.acceptor {
            Some(acceptor) if shared.setup.implicit => (Box::new(acceptor.accept(tcp).await?), true),
            _ => (Box::new(tcp), false),
        };
        let stream = BufReader::new(stream);
        let (mail_from, asked, recipients) = (None, 0, Vec::new());
        let mut this = Self { shared, connection, stream, encrypted, socket, mail_from, asked, recipients };
        this.answer(&[At::Greeting], "220 peer.test").await?;
        loop {
            let nudge = shared.nudge.notified();
            let line = tokio::select! {
                line = this.line() => line?,
                () = nudge => {
                    this.answer(&[At::Idle], "").await?;
                    continue;
                }
            };
            this = this.obey(line).await?;
        }
    }

    async fn obey(mut self, line: String) -> Result<Self, Over> {
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => {
                let setup = &self.shared.setup;
                let in_tls = setup.offers_in_tls.as_ref().filter(|_| self.encrypted);
                let mut lines = vec!["peer.test"];
                lines.extend(in_tls.unwrap_or(&setup.offers).iter().filter(|o| !self.encrypted || **o != "STARTTLS"));
                let last = lines.len() - 1;
                let dash = |index| if index == last { ' ' } else { '-' };
                let text: Vec<_> =
                    lines.iter().enumerate().map(|(index, line)| format!("250{}{line}", dash(index))).collect();
                self.answer(&[At::Ehlo], &text.join("\r\n")).await?;
            }
            "HELO" => {
                self.answer(&[At::Helo], "250 peer.test").await?;
            }
            "STARTTLS" => {
                if self.answer(&[At::StartTls], "220 go ahead").await? == 220 {
                    let acceptor = self.shared.setup.acceptor.clone().ok_or(Over)?;
                    let tls = acceptor.accept(self.stream.into_inner()).await?;
                    self.stream = BufReader::new(Box::new(tls));
                    self.encrypted = true;
                }
            }
            "AUTH" => self.auth(&line).await?,
            "MAIL" => {
                if self.answer(&[At::Mail], "250 2.1.0 Ok").await? == 250 {
                    self.mail_from = Some(line);
                    (self.asked, self.recipients) = (0, Vec::new());
                }
            }
            "RCPT" if self.mail_from.is_none() => self.say("503 5.5.1 MAIL first").await?,
            "RCPT" => {
                self.asked += 1;
                if self
                    .answer(&[At::Rcpt, At::RcptNo(self.asked - 1), At::RcptFrom(self.asked - 1)], "250 2.1.5 Ok")
                    .await?
                    == 250
                {
                    let (_, address) = line.split_once('<').ok_or(Over)?;
                    self.recipients.push(address.split('>').next().unwrap_or_default().to_owned());
                }
            }
            "DATA" => self.data().await?,
            "RSET" => {
                self.answer(&[At::Rset], "250 2.0.0 Ok").await?;
                self.mail_from = None;
            }
            "NOOP" => self.say("250 2.0.0 Ok").await?,
            "QUIT" => {
                // Before the answer: the client may connect anew the moment it has it.
                self.shared.record.lock().unwrap().open.remove(&self.connection);
                self.answer(&[At::Quit], "221 2.0.0 Bye").await?;
                return Err(Over);
            }
            _ => self.say("500 5.5.2 what?").await?,
        }
        Ok(self)
    }

    async fn data(&mut self) -> Result<(), Over> {
        let usual = match (&self.mail_from, self.recipients.is_empty()) {
            (None, _) => "503 5.5.1 MAIL first",
            (Some(_), true) => "554 5.5.1 no valid recipients",
            (Some(_), false) => "354 go ahead",
        };
        if self.answer(&[At::Data], usual).await? != 354 {
            return Ok(());
        }
        let in_one = self.stream.fill_buf().await?.ends_with(b"\r\n.\r\n");
        if let Some(act) = self.act(&[At::Body]) {
            self.perform(act, "").await?;
        }
        let mut data = Vec::new();
        loop {
            let mut line = Vec::new();
            if self.stream.read_until(b'\n', &mut line).await? == 0 {
                return Err(Over);
            }
            match line.as_slice() {
                b".\r\n" => break,
                [b'.', rest @ ..] => data.extend_from_slice(rest),
                line => data.extend_from_slice(line),
            }
        }
        self.shared.record.lock().unwrap().read += 1;
        tokio::time::sleep(self.shared.setup.pace).await;
        let queue_id = format!("Q{}", uuid_like());
        let empty = self.recipients.is_empty();
        let usual = if empty { "554 5.5.1 nobody".to_owned() } else { format!("250 2.0.0 Ok: queued as {queue_id}") };
        let accepted = Accepted {
            connection: self.connection,
            mail_from: self.mail_from.take().unwrap_or_default(),
            recipients: std::mem::take(&mut self.recipients),
            data,
            in_one,
            queue_id,
        };
        let act = self.act(&[At::Dot]);
        let accepts = match &act {
            None | Some(Act::Hold(_) | Act::AlsoSay(_)) => !empty,
            Some(Act::Say(text)) => !empty && text.starts_with("250 "),
            Some(_) => false,
        };
        if accepts {
            // Before the answer: the test may look the moment the client has it.
            self.shared.record.lock().unwrap().accepted.push(accepted);
        }
        match act {
            Some(act) => drop(self.perform(act, &usual).await?),
            None => self.say(&usual).await?,
        }
        Ok(())
    }

    /// Looks only at whether the password is in what was said.
    async fn auth(&mut self, line: &str) -> Result<(), Over> {
        if let Some(act) = self.act(&[At::AuthCommand]) {
            return self.perform(act, "").await.map(drop);
        }
        let said = match line.split(' ').collect::<Vec<_>>()[..] {
            [_, "LOGIN"] => {
                self.say("334 VXNlciBOYW1lAA==").await?;
                let user = self.line().await?;
                self.say("334 UGFzc3dvcmQA").await?;
                format!("{user} {}", self.line().await?)
            }
            [_, "PLAIN" | "XOAUTH2", initial] => initial.to_owned(),
            // RFC 4954 section 4: an initial response may be left out, and is asked for by an empty challenge.
            [_, "PLAIN" | "XOAUTH2"] => {
                self.say("334 ").await?;
                self.line().await?
            }
            _ => String::new(),
        };
        let known = said.split(' ').any(|word| decode(word).contains(self.shared.setup.password));
        if known && !self.shared.setup.password.is_empty() {
            self.answer(&[At::Auth], "235 2.7.0 welcome").await?;
        } else if line.contains("XOAUTH2") {
            self.say("334 eyJzdGF0dXMiOiI0MDAifQ==").await?;
            let empty = self.line().await?;
            self.say(if empty.is_empty() { "535 5.7.8 wrong token" } else { "500 5.5.2 what?" }).await?;
        } else {
            // As careless as a server can be: it repeats what it was told.
            let text = format!("535 5.7.8 wrong: {said} ({})", decode(&said).replace('\0', " "));
            self.answer(&[At::Auth], &text).await?;
        }
        Ok(())
    }

    /// Answers as scripted, or else as usual. Comes back with the code that was said.
    async fn answer(&mut self, at: &[At], usual: &str) -> Result<u16, Over> {
        let said = match self.act(at) {
            Some(act) => self.perform(act, usual).await?,
            None => {
                self.say(usual).await?;
                usual.to_owned()
            }
        };
        Ok(said.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0))
    }

    async fn perform(&mut self, act: Act, usual: &str) -> Result<String, Over> {
        match act {
            Act::Say(text) => {
                self.say(text).await?;
                return Ok(text.to_owned());
            }
            Act::SayAndClose(text) => {
                self.say(text).await?;
                // Politely: whoever closes with words unread resets the connection, and may take its own last words back.
                self.stream.get_mut().shutdown().await?;
                self.read_out().await;
            }
            Act::Close => {
                self.stream.get_mut().shutdown().await?;
                self.read_out().await;
            }
            Act::Reset => self.socket.set_linger(Some(Duration::ZERO))?,
            Act::Half => {
                self.stream.get_mut().write_all(b"250-half\r\n25").await?;
                self.stream.get_mut().shutdown().await?;
                self.read_out().await;
            }
            Act::Stall => std::future::pending().await,
            Act::HalfAndStall => {
                self.stream.get_mut().write_all(b"250-half\r\n25").await?;
                self.stream.get_mut().flush().await?;
                std::future::pending::<()>().await;
            }
            Act::Hold(notify) => {
                notify.notified().await;
                self.say(usual).await?;
                return Ok(usual.to_owned());
            }
            Act::AlsoSay(text) => {
                self.say(&format!("{usual}\r\n{text}")).await?;
                return Ok(usual.to_owned());
            }
        }
        Err(Over)
    }

    /// Reads until the client closes, for a moment at most.
    async fn read_out(&mut self) {
        let _ = tokio::time::timeout(Duration::from_secs(5), async { while self.line().await.is_ok() {} }).await;
    }

    fn act(&self, at: &[At]) -> Option<Act> {
        let mut record = self.shared.record.lock().unwrap();
        let here = |rule: &Rule| {
            at.iter().any(|at| match (rule.at, at) {
                (At::RcptFrom(first), At::RcptFrom(number)) => first <= *number,
                (wanted, at) => wanted == *at,
            })
        };
        let index = record.rules.iter().position(here)?;
        record.rules[index].times -= 1;
        let act = record.rules[index].act.clone();
        if record.rules[index].times == 0 {
            record.rules.remove(index);
        }
        Some(act)
    }

    async fn say(&mut self, text: &str) -> Result<(), Over> {
        self.stream.get_mut().write_all(format!("{text}\r\n").as_bytes()).await?;
        Ok(self.stream.get_mut().flush().await?)
    }

    async fn line(&mut self) -> Result<String, Over> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(Over);
        }
        let line = line.trim_end_matches(['\r', '\n']).to_owned();
        let with_more = !self.stream.buffer().is_empty();
        let (connection, encrypted) = (self.connection, self.encrypted);
        self.shared.record.lock().unwrap().heard.push(Heard { connection, line: line.clone(), encrypted, with_more });
        Ok(line)
    }
}

/// Different each time.
fn uuid_like() -> String {
    postrider_transport::DeliveryId::new().as_uuid().simple().to_string()
}

/// Base64, or nothing.
pub(crate) fn decode(text: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut held, mut out) = (0_u32, 0, Vec::new());
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let Some(value) = ALPHABET.iter().position(|known| *known == byte) else { return String::new() };
        bits = bits << 6 | u32::try_from(value).unwrap();
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from(bits >> held & 0xff).unwrap());
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

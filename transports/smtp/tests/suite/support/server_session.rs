//! The server's side of one connection.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::script::{Action, At, ScriptedAction};
use super::state::{Accepted, ReceivedLine, Shared};

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// The session ends: by the script, or because the connection broke.
pub(super) struct SessionEnd;

impl From<std::io::Error> for SessionEnd {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

pub(super) struct ServerSession<'a> {
    shared: &'a Shared,
    connection: usize,
    stream: BufReader<Box<dyn Stream>>,
    encrypted: bool,
    /// The same socket, to reset the connection.
    socket: socket2::Socket,
    mail_from: Option<String>,
    /// How many RCPT commands the transaction had.
    rcpt_count: usize,
    /// The accepted recipients.
    recipients: Vec<String>,
}

impl<'a> ServerSession<'a> {
    pub(super) async fn run(shared: &'a Shared, connection: usize, tcp: TcpStream) -> Result<(), SessionEnd> {
        tcp.set_nodelay(true)?;
        let socket = socket2::SockRef::from(&tcp).try_clone()?;
        let (stream, encrypted): (Box<dyn Stream>, _) = match &shared.config.acceptor {
            Some(acceptor) if shared.config.implicit_tls => (Box::new(acceptor.accept(tcp).await?), true),
            _ => (Box::new(tcp), false),
        };
        let stream = BufReader::new(stream);
        let (mail_from, rcpt_count, recipients) = (None, 0, Vec::new());
        let mut this = Self { shared, connection, stream, encrypted, socket, mail_from, rcpt_count, recipients };
        this.reply(&[At::Greeting], "220 server.test").await?;
        loop {
            let idle_signal = shared.idle_signal.notified();
            let line = tokio::select! {
                line = this.read_line() => line?,
                () = idle_signal => {
                    this.reply(&[At::Idle], "").await?;
                    continue;
                }
            };
            this = this.dispatch(line).await?;
        }
    }

    async fn dispatch(mut self, line: String) -> Result<Self, SessionEnd> {
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => {
                let config = &self.shared.config;
                let in_tls = config.capabilities_in_tls.as_ref().filter(|_| self.encrypted);
                let mut lines = vec!["server.test"];
                lines.extend(
                    in_tls.unwrap_or(&config.capabilities).iter().filter(|o| !self.encrypted || **o != "STARTTLS"),
                );
                let last = lines.len() - 1;
                let dash = |index| if index == last { ' ' } else { '-' };
                let text: Vec<_> =
                    lines.iter().enumerate().map(|(index, line)| format!("250{}{line}", dash(index))).collect();
                self.reply(&[At::Ehlo], &text.join("\r\n")).await?;
            }
            "HELO" => {
                self.reply(&[At::Helo], "250 server.test").await?;
            }
            "STARTTLS" => {
                if self.reply(&[At::StartTls], "220 go ahead").await? == 220 {
                    let acceptor = self.shared.config.acceptor.clone().ok_or(SessionEnd)?;
                    let tls = acceptor.accept(self.stream.into_inner()).await?;
                    self.stream = BufReader::new(Box::new(tls));
                    self.encrypted = true;
                }
            }
            "AUTH" => self.authenticate(&line).await?,
            "MAIL" => {
                if self.reply(&[At::Mail], "250 2.1.0 Ok").await? == 250 {
                    self.mail_from = Some(line);
                    (self.rcpt_count, self.recipients) = (0, Vec::new());
                }
            }
            "RCPT" if self.mail_from.is_none() => self.send("503 5.5.1 MAIL first").await?,
            "RCPT" => {
                self.rcpt_count += 1;
                let number = self.rcpt_count - 1;
                let at = [At::Rcpt, At::RcptNumber(number), At::RcptsFrom(number)];
                if self.reply(&at, "250 2.1.5 Ok").await? == 250 {
                    let (_, address) = line.split_once('<').ok_or(SessionEnd)?;
                    self.recipients.push(address.split('>').next().unwrap_or_default().to_owned());
                }
            }
            "DATA" => self.receive_message().await?,
            "RSET" => {
                self.reply(&[At::Rset], "250 2.0.0 Ok").await?;
                self.mail_from = None;
            }
            "NOOP" => self.send("250 2.0.0 Ok").await?,
            "QUIT" => {
                // Before the reply: the client may connect again as soon as it has it.
                self.shared.record.lock().unwrap().open.remove(&self.connection);
                self.reply(&[At::Quit], "221 2.0.0 Bye").await?;
                return Err(SessionEnd);
            }
            _ => self.send("500 5.5.2 what?").await?,
        }
        Ok(self)
    }

    async fn receive_message(&mut self) -> Result<(), SessionEnd> {
        let usual = match (&self.mail_from, self.recipients.is_empty()) {
            (None, _) => "503 5.5.1 MAIL first",
            (Some(_), true) => "554 5.5.1 no valid recipients",
            (Some(_), false) => "354 go ahead",
        };
        if self.reply(&[At::Data], usual).await? != 354 {
            return Ok(());
        }
        let in_one_read = self.stream.fill_buf().await?.ends_with(b"\r\n.\r\n");
        if let Some(action) = self.take_action(&[At::Body]) {
            self.perform(action, "").await?;
        }
        let mut data = Vec::new();
        loop {
            let mut line = Vec::new();
            if self.stream.read_until(b'\n', &mut line).await? == 0 {
                return Err(SessionEnd);
            }
            match line.as_slice() {
                b".\r\n" => break,
                [b'.', rest @ ..] => data.extend_from_slice(rest),
                line => data.extend_from_slice(line),
            }
        }
        self.shared.record.lock().unwrap().read += 1;
        tokio::time::sleep(self.shared.config.delay).await;
        let queue_id = format!("Q{}", unique_id());
        let empty = self.recipients.is_empty();
        let usual = if empty { "554 5.5.1 nobody".to_owned() } else { format!("250 2.0.0 Ok: queued as {queue_id}") };
        let accepted = Accepted {
            connection: self.connection,
            mail_from: self.mail_from.take().unwrap_or_default(),
            recipients: std::mem::take(&mut self.recipients),
            data,
            in_one_read,
            queue_id,
        };
        let action = self.take_action(&[At::EndOfData]);
        let accepts = match &action {
            None | Some(Action::Hold(_) | Action::ExtraReply(_)) => !empty,
            Some(Action::Reply(text)) => !empty && text.starts_with("250 "),
            Some(_) => false,
        };
        if accepts {
            // Before the reply: the test may check as soon as the client has it.
            self.shared.record.lock().unwrap().accepted.push(accepted);
        }
        match action {
            Some(action) => drop(self.perform(action, &usual).await?),
            None => self.send(&usual).await?,
        }
        Ok(())
    }

    /// Checks only whether a response holds the password.
    async fn authenticate(&mut self, line: &str) -> Result<(), SessionEnd> {
        if let Some(action) = self.take_action(&[At::AuthCommand]) {
            return self.perform(action, "").await.map(drop);
        }
        let sent = match line.split(' ').collect::<Vec<_>>()[..] {
            [_, "LOGIN"] => {
                self.send("334 VXNlciBOYW1lAA==").await?;
                let user = self.read_line().await?;
                self.send("334 UGFzc3dvcmQA").await?;
                format!("{user} {}", self.read_line().await?)
            }
            [_, "PLAIN" | "XOAUTH2", initial] => initial.to_owned(),
            // RFC 4954 section 4: without an initial response, the server sends an empty challenge.
            [_, "PLAIN" | "XOAUTH2"] => {
                self.send("334 ").await?;
                self.read_line().await?
            }
            _ => String::new(),
        };
        let known = sent.split(' ').any(|word| decode_base64(word).contains(self.shared.config.password));
        if known && !self.shared.config.password.is_empty() {
            self.reply(&[At::Auth], "235 2.7.0 welcome").await?;
        } else if line.contains("XOAUTH2") {
            self.send("334 eyJzdGF0dXMiOiI0MDAifQ==").await?;
            let empty = self.read_line().await?;
            self.send(if empty.is_empty() { "535 5.7.8 wrong token" } else { "500 5.5.2 what?" }).await?;
        } else {
            // A careless server repeats the credentials.
            let text = format!("535 5.7.8 wrong: {sent} ({})", decode_base64(&sent).replace('\0', " "));
            self.reply(&[At::Auth], &text).await?;
        }
        Ok(())
    }

    /// Performs the scripted action, or sends the usual reply. Returns the code of the reply.
    async fn reply(&mut self, at: &[At], usual: &str) -> Result<u16, SessionEnd> {
        let sent = match self.take_action(at) {
            Some(action) => self.perform(action, usual).await?,
            None => {
                self.send(usual).await?;
                usual.to_owned()
            }
        };
        Ok(sent.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0))
    }

    async fn perform(&mut self, action: Action, usual: &str) -> Result<String, SessionEnd> {
        match action {
            Action::Reply(text) => {
                self.send(text).await?;
                return Ok(text.to_owned());
            }
            Action::ReplyAndClose(text) => {
                self.send(text).await?;
                // Closing with unread input would reset the connection, and the reply might be lost.
                self.stream.get_mut().shutdown().await?;
                self.drain().await;
            }
            Action::Close => {
                self.stream.get_mut().shutdown().await?;
                self.drain().await;
            }
            Action::Reset => self.socket.set_linger(Some(Duration::ZERO))?,
            Action::PartialReplyAndClose => {
                self.stream.get_mut().write_all(b"250-half\r\n25").await?;
                self.stream.get_mut().shutdown().await?;
                self.drain().await;
            }
            Action::Stall => std::future::pending().await,
            Action::PartialReplyAndStall => {
                self.stream.get_mut().write_all(b"250-half\r\n25").await?;
                self.stream.get_mut().flush().await?;
                std::future::pending::<()>().await;
            }
            Action::Hold(notify) => {
                notify.notified().await;
                self.send(usual).await?;
                return Ok(usual.to_owned());
            }
            Action::ExtraReply(text) => {
                self.send(&format!("{usual}\r\n{text}")).await?;
                return Ok(usual.to_owned());
            }
        }
        Err(SessionEnd)
    }

    /// Reads until the client closes, for 5 seconds at most.
    async fn drain(&mut self) {
        let _ = tokio::time::timeout(Duration::from_secs(5), async { while self.read_line().await.is_ok() {} }).await;
    }

    fn take_action(&self, at: &[At]) -> Option<Action> {
        let mut record = self.shared.record.lock().unwrap();
        let here = |scripted: &ScriptedAction| {
            at.iter().any(|at| match (scripted.at, at) {
                (At::RcptsFrom(first), At::RcptsFrom(number)) => first <= *number,
                (wanted, at) => wanted == *at,
            })
        };
        let index = record.actions.iter().position(here)?;
        record.actions[index].times -= 1;
        let action = record.actions[index].action.clone();
        if record.actions[index].times == 0 {
            record.actions.remove(index);
        }
        Some(action)
    }

    async fn send(&mut self, text: &str) -> Result<(), SessionEnd> {
        self.stream.get_mut().write_all(format!("{text}\r\n").as_bytes()).await?;
        Ok(self.stream.get_mut().flush().await?)
    }

    async fn read_line(&mut self) -> Result<String, SessionEnd> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(SessionEnd);
        }
        let line = line.trim_end_matches(['\r', '\n']).to_owned();
        let pipelined = !self.stream.buffer().is_empty();
        let (connection, encrypted) = (self.connection, self.encrypted);
        self.shared.record.lock().unwrap().received.push(ReceivedLine {
            connection,
            line: line.clone(),
            encrypted,
            pipelined,
        });
        Ok(line)
    }
}

fn unique_id() -> String {
    postrider_transport::DeliveryId::new().as_uuid().simple().to_string()
}

/// Decodes base64. Returns an empty text if it is none.
pub(crate) fn decode_base64(text: &str) -> String {
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

//! A connection to a server: commands out, replies in, with or without TLS.

use std::io;
use std::mem::{self, MaybeUninit};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::error::Cause;
use crate::reply::Reply;
use crate::reply_parser::ReplyParser;
use crate::tls::TlsClient;

/// How long to wait for a reply after the connection broke. A reply that was sent before has arrived by then.
const FINAL_REPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection to a server. Dropping it closes the socket at once.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    parser: ReplyParser,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// The TLS handshake failed or was dropped.
    Closed,
}

impl Connection {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self { stream: Stream::Plain(tcp), parser: ReplyParser::new() }
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Returns the socket, or `None` after a failed TLS handshake.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match &self.stream {
            Stream::Plain(tcp) => Some(tcp),
            Stream::Tls(tls) => Some(tls.get_ref().0),
            Stream::Closed => None,
        }
    }

    /// Starts TLS.
    ///
    /// # Errors
    /// Also if there is unread input. Somebody may have injected it without encryption, and it must not count as encrypted.
    pub(crate) async fn start_tls(&mut self, client: &TlsClient, limit: Duration) -> Result<(), Cause> {
        if !self.parser.is_empty() {
            return Err(Cause::InvalidReply("input before the TLS handshake"));
        }
        match mem::replace(&mut self.stream, Stream::Closed) {
            Stream::Plain(tcp) => {
                let tls = timeout(limit, client.connect(tcp)).await.map_err(|_| Cause::Timeout(limit))?;
                self.stream = Stream::Tls(Box::new(tls.map_err(Cause::Handshake)?));
            }
            other => self.stream = other,
        }
        Ok(())
    }

    /// Reads one complete reply within `limit`.
    pub(crate) async fn read_reply(&mut self, limit: Duration) -> Result<Reply, Cause> {
        // Replies to pipelined commands arrive together.
        if let Some(reply) = self.parser.next_reply().map_err(Cause::InvalidReply)? {
            return Ok(reply);
        }
        let read = async {
            loop {
                if self.stream.read_buf(self.parser.buffer()).await.map_err(Cause::Io)? == 0 {
                    return Err(Cause::ConnectionClosed);
                }
                if let Some(reply) = self.parser.next_reply().map_err(Cause::InvalidReply)? {
                    return Ok(reply);
                }
            }
        };
        timeout(limit, read).await.unwrap_or(Err(Cause::Timeout(limit)))
    }

    /// Writes one or more commands.
    ///
    /// # Errors
    /// Also if there is unread input, since it cannot be the reply to these commands.
    pub(crate) async fn write_command(&mut self, commands: &str, limit: Duration) -> Result<(), Cause> {
        if !self.parser.is_empty() {
            return Err(Cause::InvalidReply("input before the command"));
        }
        self.write(commands.as_bytes(), limit, &mut 0).await
    }

    /// Writes all octets. Each step may take `limit`. `written` counts the octets that the socket took, also on an error.
    pub(crate) async fn write(&mut self, bytes: &[u8], limit: Duration, written: &mut usize) -> Result<(), Cause> {
        let cause = loop {
            let Some(rest) = bytes.get(*written..).filter(|rest| !rest.is_empty()) else {
                match timeout(limit, self.stream.flush()).await {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(error)) => break Cause::Io(error),
                    Err(_) => return Err(Cause::Timeout(limit)),
                }
            };
            match timeout(limit, self.stream.write(rest)).await {
                Ok(Ok(0)) => break Cause::ConnectionClosed,
                Ok(Ok(count)) => *written += count,
                Ok(Err(error)) => break Cause::Io(error),
                Err(_) => return Err(Cause::Timeout(limit)),
            }
        };
        // The server may have sent its reason before it closed: 421, or 552 within a large message.
        match self.read_reply(FINAL_REPLY_TIMEOUT).await {
            Ok(reply) if reply.is_negative() => Err(Cause::Refused(reply)),
            _ => Err(cause),
        }
    }

    /// Writes what the socket takes without waiting. It works in `drop` as well.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) {
        let mut context = Context::from_waker(Waker::noop());
        let mut stream = Pin::new(&mut self.stream);
        let written = stream.as_mut().poll_write(&mut context, bytes);
        if written.is_ready() {
            let _ = stream.poll_flush(&mut context);
        }
    }

    /// Whether there is input that was read from the socket and not yet returned as a reply.
    pub(crate) fn has_buffered_input(&self) -> bool {
        !self.parser.is_empty()
    }

    /// Whether an idle connection is still open and has no input, checked without a round trip. Input on an idle connection is a
    /// 421, the end of the connection or a reply to no command. None of these connections can be used again.
    pub(crate) fn is_alive(&mut self) -> bool {
        // The kernel knows of input before the runtime does.
        let mut byte = [MaybeUninit::uninit()];
        let Some(tcp) = self.tcp() else { return false };
        let peeked = SockRef::from(tcp).peek(&mut byte);
        if !matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            return false;
        }
        // TLS may hold decrypted input that has left the kernel.
        let mut byte = [0];
        let mut context = Context::from_waker(Waker::noop());
        !self.has_buffered_input()
            && Pin::new(&mut self.stream).poll_read(&mut context, &mut ReadBuf::new(&mut byte)).is_pending()
    }
}

fn closed() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            Self::Closed => Poll::Ready(Err(closed())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
            Self::Closed => Poll::Ready(Err(closed())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Self::Closed => Poll::Ready(Err(closed())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::Closed => Poll::Ready(Err(closed())),
        }
    }
}

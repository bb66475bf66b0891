//! The connection as bytes: plain or in TLS, with time limits on every wait.

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

use crate::error::Fault;
use crate::inbound::Inbound;
use crate::reply::Reply;
use crate::tls::TlsClient;

/// How long a server that broke the connection off is given to have said why. Its words have arrived or never will.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A connection to a server. To drop it closes the socket at once.
#[derive(Debug)]
pub(crate) struct Wire {
    io: Io,
    inbound: Inbound,
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
    /// The handshake failed, or was given up.
    Gone,
}

impl Wire {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self { io: Io::Plain(tcp), inbound: Inbound::new() }
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self.io, Io::Encrypted(_))
    }

    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match &self.io {
            Io::Plain(tcp) => Some(tcp),
            Io::Encrypted(tls) => Some(tls.get_ref().0),
            Io::Gone => None,
        }
    }

    /// Goes over to TLS.
    ///
    /// # Errors
    /// Also when the server, or somebody on the way, has already sent more: it would be read as if it had come encrypted.
    pub(crate) async fn encrypt(&mut self, client: &TlsClient, limit: Duration) -> Result<(), Fault> {
        if !self.inbound.is_empty() {
            return Err(Fault::Malformed("words slipped in before the encryption"));
        }
        match mem::replace(&mut self.io, Io::Gone) {
            Io::Plain(tcp) => {
                let tls = timeout(limit, client.connect(tcp)).await.map_err(|_| Fault::Timeout(limit))?;
                self.io = Io::Encrypted(Box::new(tls.map_err(Fault::Handshake)?));
            }
            other => self.io = other,
        }
        Ok(())
    }

    /// Writes a few octets as far as the socket takes them at once, without waiting and also where nobody can wait any more.
    pub(crate) fn write_now(&mut self, bytes: &[u8]) {
        let mut context = Context::from_waker(Waker::noop());
        let mut io = Pin::new(&mut self.io);
        let written = io.as_mut().poll_write(&mut context, bytes);
        if written.is_ready() {
            let _ = io.poll_flush(&mut context);
        }
    }

    /// Reads one whole reply within the limit.
    pub(crate) async fn reply(&mut self, limit: Duration) -> Result<Reply, Fault> {
        // Of the answers to a group of commands, most have come with the first.
        if let Some(reply) = self.inbound.reply().map_err(Fault::Malformed)? {
            return Ok(reply);
        }
        let read = async {
            loop {
                if self.io.read_buf(self.inbound.buffer()).await.map_err(Fault::Io)? == 0 {
                    return Err(Fault::Closed);
                }
                if let Some(reply) = self.inbound.reply().map_err(Fault::Malformed)? {
                    return Ok(reply);
                }
            }
        };
        timeout(limit, read).await.unwrap_or(Err(Fault::Timeout(limit)))
    }

    /// Writes commands, for which nothing may be left unread: an answer that waits here is not an answer to them.
    pub(crate) async fn command(&mut self, commands: &str, limit: Duration) -> Result<(), Fault> {
        if !self.inbound.is_empty() {
            return Err(Fault::Malformed("words before the command"));
        }
        self.write(commands.as_bytes(), limit, &mut 0).await
    }

    /// Writes, with a limit on each step in which nothing moves. `taken` counts the octets that the socket took, also when
    /// the rest fails.
    pub(crate) async fn write(&mut self, bytes: &[u8], limit: Duration, taken: &mut usize) -> Result<(), Fault> {
        let fault = loop {
            let Some(rest) = bytes.get(*taken..).filter(|rest| !rest.is_empty()) else {
                match timeout(limit, self.io.flush()).await {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(error)) => break Fault::Io(error),
                    Err(_) => return Err(Fault::Timeout(limit)),
                }
            };
            match timeout(limit, self.io.write(rest)).await {
                Ok(Ok(0)) => break Fault::Closed,
                Ok(Ok(count)) => *taken += count,
                Ok(Err(error)) => break Fault::Io(error),
                Err(_) => return Err(Fault::Timeout(limit)),
            }
        };
        // A server that closes while it is being spoken to may have said why (421, or 552 in the middle of a large message).
        match self.reply(LAST_WORDS).await {
            Ok(reply) if reply.is_negative() => Err(Fault::Refused(reply)),
            _ => Err(fault),
        }
    }

    /// Whether nothing is left over from the last answer.
    pub(crate) fn is_drained(&self) -> bool {
        self.inbound.is_empty()
    }

    /// Whether the connection is still silent, as it must be between two messages. It costs no round trip. What can be read
    /// now is a farewell (421), the end of the connection, or an answer to nothing; after any of these it is of no use.
    pub(crate) fn is_silent(&mut self) -> bool {
        // The kernel is asked directly: the runtime may not yet have heard that something came.
        let mut byte = [MaybeUninit::uninit()];
        let Some(tcp) = self.tcp() else { return false };
        let peeked = SockRef::from(tcp).peek(&mut byte);
        if !matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            return false;
        }
        // And the layer of TLS, which may hold what it has already decrypted.
        let mut byte = [0];
        let mut context = Context::from_waker(Waker::noop());
        self.is_drained() && Pin::new(&mut self.io).poll_read(&mut context, &mut ReadBuf::new(&mut byte)).is_pending()
    }
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Encrypted(tls) => Pin::new(tls).poll_read(cx, buf),
            Self::Gone => Poll::Ready(Err(gone())),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Encrypted(tls) => Pin::new(tls).poll_write(cx, buf),
            Self::Gone => Poll::Ready(Err(gone())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Encrypted(tls) => Pin::new(tls).poll_flush(cx),
            Self::Gone => Poll::Ready(Err(gone())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Encrypted(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::Gone => Poll::Ready(Err(gone())),
        }
    }
}

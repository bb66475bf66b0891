//! The one way to the standard output.

use std::borrow::Cow;
use std::fmt;
use std::io::{BufWriter, ErrorKind, Stdout, Write};

use crate::fail::Fail;

/// The standard output, buffered. When its reader has gone (`postrider list | head`), the rest is dropped without a word.
#[derive(Debug)]
pub(crate) struct Out {
    to: BufWriter<Stdout>,
    closed: bool,
}

impl Out {
    pub(crate) fn stdout() -> Self {
        Self { to: BufWriter::new(std::io::stdout()), closed: false }
    }

    /// Whether nobody reads any more.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, line: impl fmt::Display) -> Result<(), Fail> {
        self.attempt(|to| writeln!(to, "{line}"))
    }

    /// Writes a text that has its line ends.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Fail> {
        self.attempt(|to| to.write_all(text.as_bytes()))
    }

    /// Lets the reader see what was written so far.
    pub(crate) fn finish(&mut self) -> Result<(), Fail> {
        self.attempt(Write::flush)
    }

    fn attempt(&mut self, write: impl FnOnce(&mut BufWriter<Stdout>) -> std::io::Result<()>) -> Result<(), Fail> {
        if self.closed {
            return Ok(());
        }
        match write(&mut self.to) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            result => result.map_err(|error| Fail::runtime(format!("the output cannot be written: {error}"))),
        }
    }
}

/// A text from outside, such as a server's reply, with nothing in it that could steer a terminal.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        Cow::Owned(
            text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect(),
        )
    } else {
        Cow::Borrowed(text)
    }
}

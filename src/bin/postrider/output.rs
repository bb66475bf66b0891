//! Standard output, and how values are printed to it.

use std::borrow::Cow;
use std::fmt;
use std::io::{BufWriter, ErrorKind, Stdout, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::CliError;

/// Buffered standard output. After its reader has closed it (`postrider list | head`), the remaining output is dropped without an error.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: BufWriter<Stdout>,
    closed: bool,
}

impl Output {
    pub(crate) fn stdout() -> Self {
        Self { stdout: BufWriter::new(std::io::stdout()), closed: false }
    }

    /// Whether the reader has closed the output.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, line: impl fmt::Display) -> Result<(), CliError> {
        self.write(|stdout| writeln!(stdout, "{line}"))
    }

    /// Writes a text that ends with a line end.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), CliError> {
        self.write(|stdout| stdout.write_all(text.as_bytes()))
    }

    /// Writes out the buffer.
    pub(crate) fn flush(&mut self) -> Result<(), CliError> {
        self.write(Write::flush)
    }

    fn write(&mut self, write: impl FnOnce(&mut BufWriter<Stdout>) -> std::io::Result<()>) -> Result<(), CliError> {
        if self.closed {
            return Ok(());
        }
        match write(&mut self.stdout) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            result => result.map_err(|error| CliError::runtime(format!("the output cannot be written: {error}"))),
        }
    }
}

/// Escapes control characters, so that a text from outside, such as a server's reply, cannot control the terminal.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        Cow::Owned(
            text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect(),
        )
    } else {
        Cow::Borrowed(text)
    }
}

/// Formats a time by RFC 3339, in UTC and with milliseconds. Other programs can store a time before 1970 or after 9999; it is printed as
/// the first or last time of that range.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(printable_time(time)).to_string()
}

/// Formats a time as [`rfc3339`] does, in whole seconds.
pub(crate) fn seconds(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(printable_time(time)).to_string()
}

fn printable_time(time: SystemTime) -> SystemTime {
    const MAX: Duration = Duration::from_millis(253_402_300_799_999);
    UNIX_EPOCH + time.duration_since(UNIX_EPOCH).unwrap_or_default().min(MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_can_be_printed() {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        assert_eq!(rfc3339(UNIX_EPOCH - DAY), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(UNIX_EPOCH + DAY * 365 * 10_000), "9999-12-31T23:59:59.999Z");
    }
}

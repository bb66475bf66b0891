//! One message as SMTP carries it: its commands and its octets.

use memchr::memmem;
use postrider_transport::{Address, Email, Failure, Mime, Outgoing, Recipient, Unsupported};

use crate::capabilities::Capabilities;
use crate::error::{Cause, SmtpError};
use crate::stage::Stage;

/// One message with its envelope.
pub(crate) struct PreparedMessage {
    /// Empty for the null reverse-path (RFC 5321 section 4.5.5).
    reverse_path: String,
    pub(crate) recipients: Vec<PreparedRecipient>,
    /// The message with dots doubled, and the line that ends it.
    pub(crate) data: Vec<u8>,
    /// Octets of the message by RFC 1870 section 5: without doubled dots and without the line that ends it.
    size: usize,
    needs_8bitmime: bool,
    needs_smtputf8: bool,
}

/// A recipient and its `RCPT TO`.
pub(crate) struct PreparedRecipient {
    pub(crate) recipient: Recipient,
    pub(crate) command: String,
}

impl PreparedMessage {
    pub(crate) fn new(mime: &Mime, outgoing: &Outgoing<Email>) -> Result<Self, Failure> {
        let email = outgoing.message();
        let reverse_path = email.reverse_path().map_or("", Address::as_str).to_owned();
        let mut needs_smtputf8 = !reverse_path.is_ascii();
        let mut recipients = Vec::with_capacity(outgoing.recipients().len());
        for recipient in outgoing.recipients() {
            let address = recipient.as_str().parse::<Address>().map_err(|error| invalid(error.to_string()))?;
            let address = address.as_str();
            needs_smtputf8 |= !address.is_ascii();
            let command = format!("RCPT TO:<{address}>\r\n");
            recipients.push(PreparedRecipient { recipient: recipient.clone(), command });
        }
        if recipients.is_empty() {
            return Err(invalid("the mail has no recipient left").into());
        }
        let message = mime.render(outgoing)?;
        let header = memmem::find(&message, b"\r\n\r\n").unwrap_or(message.len());
        needs_smtputf8 |= !message[..header].is_ascii();
        let needs_8bitmime = !message.is_ascii();
        let size = message.len();
        Ok(Self { reverse_path, recipients, size, data: dot_stuff(message), needs_8bitmime, needs_smtputf8 })
    }

    /// Returns `MAIL FROM` with the parameters that the message needs and the server offers.
    pub(crate) fn mail_command(&self, capabilities: &Capabilities) -> Result<String, Failure> {
        let mut command = format!("MAIL FROM:<{}>", self.reverse_path);
        if let Some(limit) = capabilities.size {
            if let Some(limit) = limit.filter(|limit| self.size > *limit) {
                return Err(SmtpError::local(Stage::Prepare, Cause::TooLarge { size: self.size, limit }).into());
            }
            command.push_str(&format!(" SIZE={}", self.size));
        }
        if self.needs_smtputf8 {
            if !capabilities.smtputf8 {
                return Err(Unsupported::new("addresses outside ASCII: the server does not offer SMTPUTF8").into());
            }
            command.push_str(" SMTPUTF8");
        }
        if self.needs_8bitmime {
            if !capabilities.eight_bit_mime {
                return Err(Unsupported::new("a message outside ASCII: the server does not offer 8BITMIME").into());
            }
            command.push_str(" BODY=8BITMIME");
        }
        command.push_str("\r\n");
        Ok(command)
    }
}

/// Checks what can be checked without a server.
pub(crate) fn check(email: &Email) -> Result<(), Failure> {
    Mime::new().check(email)?;
    Ok(())
}

fn invalid(reason: impl Into<std::borrow::Cow<'static, str>>) -> SmtpError {
    SmtpError::local(Stage::Prepare, Cause::InvalidMessage(reason.into()))
}

/// Doubles each dot that begins a line, and ends the message with a line of one dot (RFC 5321 section 4.5.2). A message without
/// such dots is not copied.
fn dot_stuff(mut message: Vec<u8>) -> Vec<u8> {
    let first = message.starts_with(b".").then_some(0);
    let dots: Vec<_> = first.into_iter().chain(memmem::find_iter(&message, b"\n.").map(|end| end + 1)).collect();
    if !dots.is_empty() {
        let mut out = Vec::with_capacity(message.len() + dots.len() + 5);
        let mut from = 0;
        for dot in dots {
            out.extend_from_slice(&message[from..=dot]);
            from = dot;
        }
        out.extend_from_slice(&message[from..]);
        message = out;
    }
    if !message.is_empty() && !message.ends_with(b"\r\n") {
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b".\r\n");
    message
}

#[cfg(test)]
mod tests {
    use super::dot_stuff;

    #[test]
    fn dots_are_doubled_and_the_message_ends_once() {
        for (message, data) in [
            ("", ".\r\n"),
            ("a\r\n", "a\r\n.\r\n"),
            ("a", "a\r\n.\r\n"),
            (".\r\n", "..\r\n.\r\n"),
            (".a\r\n..b\r\nc.\r\n", "..a\r\n...b\r\nc.\r\n.\r\n"),
            (".\r\n.\r\n\r\n.", "..\r\n..\r\n\r\n..\r\n.\r\n"),
            ("\r\n.\r\nQUIT\r\n", "\r\n..\r\nQUIT\r\n.\r\n"),
        ] {
            assert_eq!(dot_stuff(message.into()), data.as_bytes(), "{message:?}");
        }
    }
}

//! One message, made ready to be spoken.

use memchr::memmem;
use postrider_transport::{Address, Email, Failure, Mime, Outgoing, Recipient, Unsupported};

use crate::error::{Fault, SmtpError, Stage};
use crate::session::Offers;

/// One message with its envelope.
pub(crate) struct Job {
    /// The reverse-path; empty where failures are reported to nobody.
    from: String,
    /// Each recipient with its command.
    pub(crate) recipients: Vec<(Recipient, String)>,
    /// The message as it travels: dots doubled, its end included.
    pub(crate) body: Vec<u8>,
    /// Its size in the sense of RFC 1870 section 5: without doubled dots and without the end.
    size: usize,
    eight_bit: bool,
    utf8: bool,
}

impl Job {
    pub(crate) fn new(mime: &Mime, outgoing: &Outgoing<Email>) -> Result<Self, Failure> {
        let email = outgoing.message();
        let from = email.reverse_path().map_or("", Address::as_str).to_owned();
        let mut utf8 = !from.is_ascii();
        let mut recipients = Vec::with_capacity(outgoing.recipients().len());
        for recipient in outgoing.recipients() {
            let address = recipient.as_str().parse::<Address>().map_err(|error| unfit(error.to_string()))?;
            let address = address.as_str();
            utf8 |= !address.is_ascii();
            recipients.push((recipient.clone(), format!("RCPT TO:<{address}>\r\n")));
        }
        if recipients.is_empty() {
            return Err(unfit("the mail has no recipient left").into());
        }
        let message = mime.render(outgoing)?;
        let header = memmem::find(&message, b"\r\n\r\n").unwrap_or(message.len());
        utf8 |= !message[..header].is_ascii();
        let eight_bit = !message.is_ascii();
        Ok(Self { from, recipients, size: message.len(), body: stuff(message), eight_bit, utf8 })
    }

    /// MAIL FROM with the parameters that the message needs of this server.
    pub(crate) fn mail_command(&self, offers: &Offers) -> Result<String, Failure> {
        let mut command = format!("MAIL FROM:<{}>", self.from);
        if let Some(limit) = offers.size {
            if let Some(limit) = limit.filter(|limit| self.size > *limit) {
                return Err(SmtpError::unasked(Stage::Prepare, Fault::TooLarge { size: self.size, limit }).into());
            }
            command.push_str(&format!(" SIZE={}", self.size));
        }
        if self.utf8 {
            if !offers.utf8 {
                return Err(Unsupported::new("addresses outside ASCII: the server does not offer SMTPUTF8").into());
            }
            command.push_str(" SMTPUTF8");
        }
        if self.eight_bit {
            if !offers.eight_bit {
                return Err(Unsupported::new("a message outside ASCII: the server does not offer 8BITMIME").into());
            }
            command.push_str(" BODY=8BITMIME");
        }
        command.push_str("\r\n");
        Ok(command)
    }
}

/// What can be said of a message without a server.
pub(crate) fn check(email: &Email) -> Result<(), Failure> {
    Mime::new().check(email)?;
    Ok(())
}

fn unfit(what: impl Into<std::borrow::Cow<'static, str>>) -> SmtpError {
    SmtpError::unasked(Stage::Prepare, Fault::Unfit(what.into()))
}

/// Doubles the dot that begins a line, and ends the message with a line of one dot (RFC 5321 section 4.5.2). A message without such a
/// dot, as nearly all are, stays where it is.
fn stuff(mut message: Vec<u8>) -> Vec<u8> {
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
    use super::stuff;

    #[test]
    fn doubles_dots_and_ends_once() {
        for (message, wire) in [
            ("", ".\r\n"),
            ("a\r\n", "a\r\n.\r\n"),
            ("a", "a\r\n.\r\n"),
            (".\r\n", "..\r\n.\r\n"),
            (".a\r\n..b\r\nc.\r\n", "..a\r\n...b\r\nc.\r\n.\r\n"),
            (".\r\n.\r\n\r\n.", "..\r\n..\r\n\r\n..\r\n.\r\n"),
            ("\r\n.\r\nQUIT\r\n", "\r\n..\r\nQUIT\r\n.\r\n"),
        ] {
            assert_eq!(stuff(message.into()), wire.as_bytes(), "{message:?}");
        }
    }
}

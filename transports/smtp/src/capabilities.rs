//! What a server offers.

use crate::reply::Reply;

/// The service extensions in the reply to `EHLO` (RFC 5321 section 4.1.1.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// RFC 2920.
    pub(crate) pipelining: bool,
    /// RFC 6152.
    pub(crate) eight_bit_mime: bool,
    /// RFC 6531.
    pub(crate) smtputf8: bool,
    /// RFC 3207.
    pub(crate) starttls: bool,
    /// RFC 1870: the largest message in octets. `None` if `SIZE` is not offered, `Some(None)` if it has no limit.
    pub(crate) size: Option<Option<usize>>,
    /// RFC 4954: the mechanisms, in capitals.
    pub(crate) auth: Vec<String>,
}

impl Capabilities {
    /// Reads the reply to `EHLO`. The first line is the server's name.
    pub(crate) fn parse(reply: &Reply) -> Self {
        let mut capabilities = Self::default();
        for line in reply.lines().skip(1) {
            // Some old servers write AUTH= for old clients.
            let line = line.to_ascii_uppercase().replacen("AUTH=", "AUTH ", 1);
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("PIPELINING") => capabilities.pipelining = true,
                Some("8BITMIME") => capabilities.eight_bit_mime = true,
                Some("SMTPUTF8") => capabilities.smtputf8 = true,
                Some("STARTTLS") => capabilities.starttls = true,
                Some("SIZE") => {
                    let limit = words.next().and_then(|word| word.parse().ok());
                    // Zero means no limit (RFC 1870 section 3).
                    capabilities.size = Some(limit.filter(|limit| *limit > 0));
                }
                Some("AUTH") => capabilities.auth.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        capabilities
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply_parser::reply;

    #[test]
    fn known_extensions_are_read() {
        let capabilities = Capabilities::parse(&reply(
            "250-mx.example\n250-pipelining\n250-SIZE 1000\n250-AUTH=LOGIN\n250-AUTH PLAIN\n250-8BITMIME\n250 SMTPUTF8",
        ));
        let expected = Capabilities {
            pipelining: true,
            eight_bit_mime: true,
            smtputf8: true,
            starttls: false,
            size: Some(Some(1000)),
            auth: vec!["LOGIN".to_owned(), "PLAIN".to_owned()],
        };
        assert_eq!(capabilities, expected);
    }

    #[test]
    fn the_first_line_is_no_extension() {
        assert_eq!(Capabilities::parse(&reply("250 PIPELINING")), Capabilities::default());
        assert_eq!(Capabilities::parse(&reply("250-mx\n250 SIZE 0")).size, Some(None));
    }
}

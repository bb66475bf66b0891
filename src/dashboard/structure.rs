//! The parts of a mail as it is sent: types, encodings and sizes.
//!
//! A parser that other programs use reads the source, so that the page shows what a receiver finds in it.

use mail_parser::{Encoding, MessageParser, MessagePart, MimeHeaders, PartType};
use postrider_transport::Email;

use super::deliveries::cut;
use super::format;

/// How many parts are shown.
const SHOWN: usize = 200;

/// The deepest part that is shown. An attached message can nest without an end.
const DEEPEST: usize = 12;

/// The largest size of all attached messages and multiparts that the parser takes apart. It nests without a limit, and looks for the end of
/// each part.
const NESTED: usize = 16_384;

/// Whether the source of a mail can be parsed in a short time, and on a small stack. Attached messages and multiparts are in it as they are.
pub(super) fn is_simple(email: &Email) -> bool {
    let is_nested = |content_type: &str| {
        let main = content_type.split('/').next().unwrap_or_default().trim();
        main.eq_ignore_ascii_case("message") || main.eq_ignore_ascii_case("multipart")
    };
    let nested = email.attachments().iter().filter(|attachment| is_nested(attachment.content_type()));
    nested.map(|attachment| attachment.content().len()).sum::<usize>() <= NESTED
}

/// A part, in the order of the source.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The number of parts around it.
    pub(super) depth: usize,
    /// `multipart/mixed`, `text/plain; charset=utf-8`.
    pub(super) media_type: String,
    /// The name of the file.
    pub(super) name: Option<String>,
    /// `inline`, `attachment`, the encoding, the content id.
    pub(super) facts: Vec<String>,
    /// The size in the source, with the part's headers.
    pub(super) size: String,
    /// The size of the decoded content. `None` for a part that holds parts.
    pub(super) content_size: Option<String>,
}

/// Reads the parts of a message, and how many more there are.
pub(super) fn parts(source: &[u8]) -> (Vec<Part>, usize) {
    let Some(message) = MessageParser::default().parse(source) else { return Default::default() };
    let mut parts = Vec::new();
    let mut more = 0;
    // What is still to be shown, the next one last.
    let mut rest = vec![(0, &message, 0)];
    while let Some((depth, message, id)) = rest.pop() {
        let Some(part) = message.part(id) else { continue };
        if parts.len() == SHOWN || depth > DEEPEST {
            more += 1;
            continue;
        }
        parts.push(describe(depth, part));
        match &part.body {
            PartType::Multipart(ids) => rest.extend(ids.iter().rev().map(|id| (depth + 1, message, *id))),
            PartType::Message(inner) => rest.push((depth + 1, inner, 0)),
            PartType::Text(_) | PartType::Html(_) | PartType::Binary(_) | PartType::InlineBinary(_) => {}
        }
    }
    (parts, more)
}

fn describe(depth: usize, part: &MessagePart<'_>) -> Part {
    // Without the header, it is a text in ASCII (RFC 2045 section 5.2).
    let media_type = part.content_type().map_or("text/plain".to_owned(), |given| {
        let essence = format!("{}/{}", given.ctype(), given.subtype().unwrap_or_default());
        match given.attribute("charset") {
            Some(charset) => format!("{essence}; charset={charset}"),
            None => essence,
        }
    });
    let holds_parts = matches!(part.body, PartType::Multipart(_) | PartType::Message(_));
    let encoding = match part.encoding {
        Encoding::None => None,
        Encoding::QuotedPrintable => Some("quoted-printable".to_owned()),
        Encoding::Base64 => Some("base64".to_owned()),
    };
    let disposition = part.content_disposition().map(|given| given.ctype().to_owned());
    let content_id = part.content_id().map(|id| format!("id {id}"));
    let facts = [disposition, encoding, content_id].into_iter().flatten();
    Part {
        depth,
        media_type: cut(&media_type, 150),
        name: part.attachment_name().map(|name| cut(name, 200)),
        facts: facts.map(|fact| cut(&fact, 200)).collect(),
        size: format::size(usize::try_from(part.offset_end.saturating_sub(part.offset_header)).unwrap_or(usize::MAX)),
        content_size: (!holds_parts).then(|| format::size(part.contents().len())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use postrider_transport::{Attachment, DeliveryId, Email, EmailBuilder, Mime, Outgoing};

    use super::*;

    fn source(builder: EmailBuilder) -> Vec<u8> {
        let email = builder.from("shop@example.com").to("ada@example.com").subject("Hello").build().unwrap();
        Mime::new().render(&Outgoing::new(DeliveryId::new(), SystemTime::UNIX_EPOCH, email)).unwrap()
    }

    fn listed(source: &[u8]) -> Vec<String> {
        let line = |part: Part| format!("{} {} {}", part.depth, part.media_type, part.name.unwrap_or_default());
        parts(source).0.into_iter().map(|part| line(part).trim_end().to_owned()).collect()
    }

    /// The structure of RFC 2046 and RFC 2387: mixed(alternative(text, related(html, image)), attachments).
    #[test]
    fn the_parts_are_listed_in_the_order_of_the_source() {
        let logo = Attachment::inline("logo", "logo.png", "image/png", *b"png").unwrap();
        let invoice = Attachment::new("invoice.pdf", "application/pdf", vec![1; 48_000]).unwrap();
        let builder = Email::builder().text("Grüße").html("<img src=cid:logo>").attach(logo).attach(invoice);
        let source = source(builder);
        let expected = [
            "0 multipart/mixed",
            "1 multipart/alternative",
            "2 text/plain; charset=utf-8",
            "2 multipart/related",
            "3 text/html; charset=utf-8",
            "3 image/png logo.png",
            "1 application/pdf invoice.pdf",
        ];
        assert_eq!(listed(&source), expected);
        let (all, more) = parts(&source);
        assert_eq!(more, 0);
        // The whole message is the first part.
        assert_eq!((all[0].size.as_str(), all[0].content_size.as_ref()), (format::size(source.len()).as_str(), None));
        assert_eq!(all[6].content_size.as_deref(), Some("48 kB"));
        assert!(all[6].facts.contains(&"base64".to_owned()) && all[6].facts.contains(&"attachment".to_owned()));
        assert!(all[5].facts.contains(&"id logo".to_owned()), "{:?}", all[5].facts);
        assert_eq!(listed(&self::source(Email::builder().text("Hello"))), ["0 text/plain; charset=utf-8"]);
    }

    #[test]
    fn an_attached_message_has_parts_of_its_own() {
        let inner = source(Email::builder().text("Hello").html("<p>Hello"));
        let attached = Attachment::new("mail.eml", "message/rfc822", inner).unwrap();
        let expected = [
            "0 multipart/mixed",
            "1 text/plain; charset=utf-8",
            "1 message/rfc822 mail.eml",
            "2 multipart/alternative",
            "3 text/plain; charset=utf-8",
            "3 text/html; charset=utf-8",
        ];
        assert_eq!(listed(&source(Email::builder().text("See below").attach(attached))), expected);
    }

    /// A hundred thousand messages within each other would overflow the stack of the parser's destructor. Half a million multiparts without
    /// an end would be searched for it, each to the end of the message.
    #[test]
    fn a_large_attached_message_is_not_parsed() {
        let with = |content_type: &str, content: String| {
            let attached = Attachment::new("mail.eml", content_type, content.into_bytes()).unwrap();
            let email = Email::builder().from("a@example.com").to("b@example.com").text("See below").attach(attached);
            email.build().unwrap()
        };
        let nested = |levels: usize| "Content-Type: message/rfc822\r\n\r\n".repeat(levels);
        assert!(!is_simple(&with("message/rfc822", nested(100_000))));
        assert!(!is_simple(&with("MESSAGE/rfc822", nested(100_000))));
        assert!(!is_simple(&with("multipart/mixed; boundary=x", "--x\r\n\r\nx\r\n".repeat(500_000))));
        assert!(is_simple(&with("application/octet-stream", nested(100_000))));
        // The deepest one that is parsed.
        let deepest = with("message/rfc822", nested(NESTED / nested(1).len()));
        assert!(is_simple(&deepest));
        let id = DeliveryId::new();
        let outgoing = Outgoing::new(id, SystemTime::UNIX_EPOCH, deepest);
        let source = Mime::new().render(&outgoing).unwrap();
        assert!(!parts(&source).0.is_empty());
    }

    #[test]
    fn a_hostile_message_is_shown_in_part() {
        let mut deep = String::new();
        for level in 0..2_000 {
            deep.push_str(&format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n"));
        }
        let (shown, _) = parts(deep.as_bytes());
        assert!(!shown.is_empty() && shown.iter().all(|part| part.depth <= DEEPEST), "{}", shown.len());
        let wide = "Content-Type: multipart/mixed; boundary=b\r\n\r\n".to_owned() + &"--b\r\n\r\nx\r\n".repeat(5_000);
        let (shown, more) = parts(wide.as_bytes());
        assert_eq!(shown.len(), SHOWN);
        assert!(more > 4_000, "{more}");
        for garbage in [&b""[..], b"\0\xff", b"Content-Type: multipart/mixed\r\n\r\n--"] {
            assert!(parts(garbage).0.len() <= 1);
        }
    }
}

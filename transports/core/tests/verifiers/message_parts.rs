//! Attached messages and multiparts, which are not encoded (RFC 2045 section 6.4, RFC 2046 section 5.2.1).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail_parser::{MessageParser, MimeHeaders, PartType};
use postrider_transport::{Attachment, DeliveryId, Email, Mime, MimeError, Outgoing};

use crate::mails::outgoing;
use crate::python::Python;

fn with(kind: &str, content: impl Into<Vec<u8>>) -> Email {
    let attachment = Attachment::new("a.eml", kind, content.into()).unwrap();
    let mail = Email::builder().from("ada@example.com").to("bob@example.org").subject("Forwarded").text("See there.");
    mail.attach(attachment).build().unwrap()
}

fn rendered(kind: &str, content: impl Into<Vec<u8>>) -> Result<String, MimeError> {
    Ok(String::from_utf8(Mime::new().render(&outgoing(with(kind, content)))?).unwrap())
}

/// The header and the body of the attached part.
fn attached(mail: &str) -> (&str, &str) {
    let boundary = mail.split("boundary=\"").nth(1).unwrap().split('"').next().unwrap();
    let part = mail.split(&format!("\r\n--{boundary}")).nth(2).unwrap().strip_prefix("\r\n").unwrap();
    part.split_once("\r\n\r\n").unwrap()
}

#[test]
fn messages_and_multiparts_are_never_encoded() {
    for (kind, content, encoding, written) in [
        ("message/rfc822", "Subject: a\r\n\r\nb", "7bit", "Subject: a\r\n\r\nb"),
        ("message/rfc822", "Subject: a\n\nb\n", "7bit", "Subject: a\r\n\r\nb\r\n"),
        ("Message/RFC822", "Subject: a\n\nü\n", "8bit", "Subject: a\r\n\r\nü\r\n"),
        ("message/delivery-status", "Reporting-MTA: dns; a\n", "7bit", "Reporting-MTA: dns; a\r\n"),
        ("message/partial; id=x; number=1; total=2", "a\n", "7bit", "a\r\n"),
        (
            "multipart/digest; boundary=b",
            "--b\n\nSubject: a\n\nb\n--b--\n",
            "7bit",
            "--b\r\n\r\nSubject: a\r\n\r\nb\r\n--b--\r\n",
        ),
        ("multipart/mixed; boundary=\"b c\"", "--b c\n\nü\n--b c--", "8bit", "--b c\r\n\r\nü\r\n--b c--"),
        // RFC 6532 section 3.7.
        ("message/global", "Subject: a\r\n\r\nb", "7bit", "Subject: a\r\n\r\nb"),
        ("message/global", "Subject: ü\r\n\r\nb", "base64", "U3ViamVjdDogw7wNCg0KYg=="),
        ("message/global-headers", "Subject: ü\n", "base64", "U3ViamVjdDogw7wK"),
    ] {
        let mail = rendered(kind, content).unwrap();
        let (header, body) = attached(&mail);
        assert!(header.contains(&format!("\r\nContent-Transfer-Encoding: {encoding}")), "{kind}: {header}");
        assert_eq!(body, written, "{kind}");
        // RFC 2045 section 6.4: the enclosing part has the same encoding.
        let around = mail.split("\r\n\r\n").next().unwrap().contains("\r\nContent-Transfer-Encoding: 8bit");
        assert_eq!(around, encoding == "8bit", "{kind}");
    }
}

#[test]
fn content_that_needs_an_encoding_is_refused() {
    let long = "x".repeat(999);
    for (kind, content, why) in [
        ("message/rfc822", "Subject: a\r\n\r\n\0", "NUL"),
        ("message/rfc822", "Subject: a\r\rb", "CR"),
        ("message/rfc822", long.as_str(), "998"),
        ("message/partial; id=x; number=1; total=2", "ü", "ASCII"),
        ("message/external-body; access-type=x", "ü", "ASCII"),
        ("multipart/mixed", "--b\r\n\r\n--b--", "boundary"),
        ("multipart/mixed; boundary=b", "\0", "NUL"),
    ] {
        let error = rendered(kind, content).unwrap_err().to_string();
        assert!(error.contains(why) && !error.contains("xxx"), "{kind}: {error}");
        // The check finds it before sending.
        assert_eq!(Mime::new().check(&with(kind, content)).unwrap_err().to_string(), error);
    }
    let large = with("application/pdf", vec![0; 1_000_000]);
    assert!(Mime::new().check(&large).unwrap().len() < 2_000, "check rendered an encoded attachment");
}

#[test]
#[ignore = "needs Python: scripts/servers/verifiers.sh"]
fn an_attached_mail_reads_back() {
    let inner = Email::builder().from("Zoë <zoe@example.com>").to("ada@example.com").subject("Grüße  ·  =?x?=");
    let inner = inner.text("trüb\n.\nFrom me").html("<p>").build().unwrap();
    let id = DeliveryId::new();
    let now = std::time::SystemTime::now();
    // The same delivery: its boundaries occur in the attached mail.
    let inner_bytes = Mime::new().render(&Outgoing::new(id, now, inner.clone())).unwrap();
    let mail = Mime::new().render(&Outgoing::new(id, now, with("message/rfc822", inner_bytes.clone()))).unwrap();

    let message = MessageParser::default().parse(&mail).unwrap();
    let part = message.parts.iter().find(|part| part.attachment_name() == Some("a.eml")).unwrap();
    let PartType::Message(read) = &part.body else { panic!("not a message: {:?}", part.body) };
    assert_eq!(read.subject(), Some(inner.subject()));
    assert_eq!(read.body_text(0).unwrap().replace("\r\n", "\n"), inner.text().unwrap());
    assert_eq!(message.body_text(0).unwrap(), "See there.");

    let told = Python::start().read(&mail);
    let part = &told["parts"][1];
    assert_eq!(part["subject"], inner.subject());
    assert_eq!(part["defects"], serde_json::json!([]), "{told}");
    let content = STANDARD.decode(part["content"].as_str().unwrap()).unwrap();
    assert_eq!(String::from_utf8(content).unwrap(), String::from_utf8(inner_bytes).unwrap().replace("\r\n", "\n"));
}

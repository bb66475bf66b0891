//! Rendering, read back by mail-parser.

use std::time::{Duration, UNIX_EPOCH};

use mail_parser::{MessageParser, MimeHeaders};
use postrider_transport::{Attachment, DeliveryId, Email, ListUnsubscribe, Mime, Outgoing};
use proptest::prelude::*;

use super::full;

fn outgoing(email: Email) -> Outgoing<Email> {
    Outgoing::new(DeliveryId::new(), UNIX_EPOCH + Duration::from_secs(1_700_000_000), email)
}

#[test]
fn every_field_reads_back() {
    let outgoing = outgoing(full());
    let bytes = Mime::new().render(&outgoing).unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains("secret@example.com"), "bcc is visible");
    let parsed = MessageParser::default().parse(&bytes).unwrap();
    assert_eq!(parsed.subject().unwrap(), outgoing.message().subject());
    assert_eq!(parsed.body_text(0).unwrap().replace("\r\n", "\n"), outgoing.message().text().unwrap());
    assert!(parsed.body_html(0).unwrap().contains("cid:logo"));
    assert_eq!(parsed.message_id().unwrap(), format!("{}@xn--bcher-kva.example", outgoing.id()));
    assert_eq!(parsed.date().unwrap().to_timestamp(), 1_700_000_000);
    assert_eq!(parsed.from().unwrap().first().unwrap().name().unwrap(), "Zoë, the \"Boss\"");
    assert_eq!(parsed.reply_to().unwrap().iter().count(), 2);
    assert_eq!(parsed.header_values("X-Order").count(), 2);
    assert_eq!(parsed.header_raw("List-Unsubscribe-Post").unwrap().trim(), "List-Unsubscribe=One-Click");
    assert_eq!(
        parsed.header_raw("List-Unsubscribe").unwrap().split_whitespace().collect::<String>(),
        "<https://example.com/leave?u=7>,<mailto:leave@example.com>"
    );
    let pdf = parsed.attachments().find(|part| part.content_id().is_none()).unwrap();
    assert_eq!(pdf.attachment_name().unwrap(), "r\u{e9}sum\u{e9} \"1\".pdf");
    assert_eq!(pdf.contents(), (0..=255u8).collect::<Vec<_>>());
    let logo = parsed.parts.iter().find(|part| part.content_id() == Some("logo")).unwrap();
    assert_eq!(logo.contents(), b"\x89PNG\r\n\x1a\n");
}

#[test]
fn attachments_read_back_to_the_octet() {
    for content in ["one\ntwo\n", "one\r\ntwo\r\n", "one\rtwo", ".\n", "", " \n\t\n", "From me\n"] {
        let part = |name: &str| Attachment::new(name, "text/csv", content.as_bytes()).unwrap();
        let image = Attachment::inline("i", "i.svg", "image/svg+xml", content.as_bytes()).unwrap();
        let email = Email::builder().from("a@example.com").to("b@example.com").text("x").html("<img src=\"cid:i\">");
        let email = email.attach(part("a.csv")).attach(part("b.csv")).attach(image).build().unwrap();
        let bytes = Mime::new().render(&outgoing(email)).unwrap();
        let parsed = MessageParser::default().parse(&bytes).unwrap();
        let read: Vec<_> = parsed.parts.iter().filter(|part| part.attachment_name().is_some()).collect();
        assert_eq!(read.len(), 3, "{content:?}");
        assert!(read.iter().all(|part| part.contents() == content.as_bytes()), "{content:?}");
    }
}

#[test]
fn without_labels_omits_tags_and_metadata() {
    let outgoing = outgoing(full());
    let with = String::from_utf8(Mime::new().render(&outgoing).unwrap()).unwrap();
    let without = String::from_utf8(Mime::new().without_labels().render(&outgoing).unwrap()).unwrap();
    assert_eq!(with.replacen("X-Tag: welcome\r\nX-Metadata-user: 7\r\n", "", 1), without);
    assert_ne!(with, without);
}

#[test]
fn every_attempt_renders_the_same_bytes() {
    let first = outgoing(full());
    let later = first.clone().with_attempt(9, 3);
    assert_eq!(Mime::new().render(&first).unwrap(), Mime::new().render(&later).unwrap());
}

#[test]
fn a_long_list_of_recipients_reads_back() {
    let mut builder = Email::builder().from("a@example.com").text("x");
    for n in 0..300 {
        builder = match n % 3 {
            0 => builder.to(format!("recipient-number-{n}@example.com")),
            1 => builder.to((format!("Näme, with \"comma\" {n}"), format!("named-{n}@example.com"))),
            _ => builder.cc(format!("\"quoted local {n}\"@example.com")),
        };
    }
    let outgoing = outgoing(builder.build().unwrap());
    let bytes = Mime::new().render(&outgoing).unwrap();
    let parsed = MessageParser::default().parse(&bytes).unwrap();
    let read: Vec<_> =
        parsed.to().unwrap().iter().map(|m| (m.name().map(str::to_owned), m.address().unwrap().to_owned())).collect();
    let meant: Vec<_> = outgoing
        .message()
        .to()
        .iter()
        .map(|m| (m.name().map(str::to_owned), m.address().as_str().to_owned()))
        .collect();
    assert_eq!(read, meant);
    assert_eq!(parsed.cc().unwrap().iter().count(), 100);
}

#[test]
fn a_long_unsubscribe_link_reads_back() {
    let link = format!("https://example.com/leave?token={}", "a1B2-".repeat(60));
    let email = Email::builder()
        .from("a@example.com")
        .to("b@example.com")
        .text("x")
        .list_unsubscribe(ListUnsubscribe::one_click(&link).unwrap())
        .build()
        .unwrap();
    let bytes = Mime::new().render(&outgoing(email)).unwrap();
    let parsed = MessageParser::default().parse(&bytes).unwrap();
    assert_eq!(parsed.header_raw("List-Unsubscribe").unwrap().trim(), format!("<{link}>"));
}

#[cfg(feature = "dkim")]
#[test]
fn a_signature_covers_the_unsubscribe_headers() {
    // The private key of RFC 8463 appendix A.
    let key = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
    let dkim = postrider_transport::Dkim::ed25519("example.com", "news", key).unwrap();
    assert!(!format!("{dkim:?}").contains("nWGx"));
    let bytes = Mime::new().with_dkim(dkim).render(&outgoing(full())).unwrap();
    let parsed = MessageParser::default().parse(&bytes).unwrap();
    let signature = parsed.header_raw("DKIM-Signature").unwrap().split_whitespace().collect::<String>();
    assert!(
        signature.contains("d=example.com;") && signature.contains("s=news;") && signature.contains("a=ed25519-sha256")
    );
    assert!(signature.contains("list-unsubscribe:list-unsubscribe-post"), "{signature}");
    assert!(postrider_transport::Dkim::rsa("example.com", "news", "no key").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_mail_renders_to_valid_lines(
        subject in "\\PC{0,200}", text in any::<String>(), value in "\\PC{0,300}", name in "\\PC{0,80}",
    ) {
        let email = Email::builder().from((name, "a@example.com")).to("b@example.com").subject(subject.clone())
            .text(text.clone()).header("X-Value", value).build();
        if let Ok(email) = email {
            let bytes = Mime::new().render(&outgoing(email.clone())).unwrap();
            let lines = bytes.split(|b| *b == b'\n').collect::<Vec<_>>();
            for line in &lines[..lines.len() - 1] {
                prop_assert!(line.ends_with(b"\r") && !line[..line.len() - 1].contains(&b'\r') && line.len() <= 999);
            }
            let parsed = MessageParser::default().parse(&bytes).unwrap();
            let read = parsed.body_text(0).unwrap_or_default().replace("\r\n", "\n");
            prop_assert_eq!(&read, email.text().unwrap());
        }
    }
}

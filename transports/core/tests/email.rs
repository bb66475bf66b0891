//! Mails that are built, stored, read back and rendered.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, UNIX_EPOCH};

use postrider_transport::{
    Attachment, DeliveryId, Email, EmailBuilder, EmailError, Encoded, Header, ListUnsubscribe, Message, Outgoing,
    Recipient,
};
use proptest::prelude::*;

fn full() -> Email {
    Email::builder()
        .from(("Zoë, the \"Boss\"", "zoe@bücher.example"))
        .sender("office@example.com")
        .reply_to("one@example.com")
        .reply_to("Two <two@example.com>")
        .to("Ada Lovelace <ada@example.com>")
        .to("bob@example.com")
        .cc("cy@example.com")
        .bcc("secret@example.com")
        .subject("Grüße — a subject that is long enough to be folded over more than one line of the header")
        .text("Dear reader,\n.\n.leading dot\n..two\nUTF-8: ñ ✓\n")
        .html("<p>Hello <img src=\"cid:logo\"></p>")
        .attach(
            Attachment::new("r\u{e9}sum\u{e9} \"1\".pdf", "application/pdf", (0..=255u8).collect::<Vec<_>>()).unwrap(),
        )
        .attach(Attachment::inline("logo", "logo.png", "image/png", b"\x89PNG\r\n\x1a\n".to_vec()).unwrap())
        .header("X-Order", "42")
        .header("X-Order", "43")
        .tag("welcome")
        .metadata("user", "7")
        .template_id("welcome")
        .list_unsubscribe(
            ListUnsubscribe::one_click("https://example.com/leave?u=7")
                .unwrap()
                .or("mailto:leave@example.com")
                .unwrap(),
        )
        .envelope_from("bounces@example.com".parse().unwrap())
        .build()
        .unwrap()
}

#[test]
fn what_says_nothing_is_left_out() {
    let mail = || Email::builder().from("a@example.com").to("b@example.com");
    let bodies = |mail: EmailBuilder| {
        let email = mail.build().unwrap();
        [email.text(), email.html()].map(|body| body.map(str::to_owned))
    };
    assert_eq!(bodies(mail().text("").html("<p>")), [None, Some("<p>".to_owned())]);
    assert_eq!(bodies(mail().text("x").html("")), [Some("x".to_owned()), None]);
    assert_eq!(bodies(mail().text("")), [Some(String::new()), None], "a mail may have nothing to say");
    let email = mail().text("x").tag("b").tag("a").tag("b").tag("A").build().unwrap();
    assert_eq!(email.tags(), ["b", "a", "A"]);
    assert_eq!(Email::decode(&email.encode().unwrap()).unwrap(), email);
}

#[test]
fn the_stored_form_round_trips() {
    let email = full();
    let encoded = email.encode().unwrap();
    assert_eq!(encoded.format, "email/1");
    assert_eq!(Email::decode(&encoded).unwrap(), email);
}

/// A mail as another program might write it, and what comes of it.
fn read(body: &str) -> Result<Email, postrider_transport::CodecError> {
    Email::decode(&Encoded { format: "email/1".into(), body: body.into() })
}

#[test]
fn reads_what_another_language_would_write() {
    let body = r#"{"from":"Shop <shop@example.com>","to":["ada@example.com",{"name":"Bob","address":"bob@example.com"}],
        "subject":"Hi","text":"Dear \u00e9\n\"Bob\"","html":null,
        "attachments":[{"file_name":"a","content_type":"text/plain","content":"aGk="}]}
        "#;
    let email = read(body).unwrap();
    assert_eq!(email.from().name(), Some("Shop"));
    assert_eq!(email.recipients().len(), 2);
    assert_eq!(email.text(), Some("Dear é\n\"Bob\""));
    assert_eq!(email.html(), None);
    assert_eq!(email.attachments()[0].content(), b"hi");
}

/// Wherever a mailbox is written as a text, one is one: no other gets lost in it.
#[test]
fn a_text_with_two_mailboxes_is_refused_in_every_field() {
    let two = r#""L, Ada" <ada@example.com>, "B" <bob@example.com>"#;
    let base = || Email::builder().from("a@example.com").to("b@example.com").text("x");
    for (field, mail) in [
        ("from", base().from(two)),
        ("sender", base().sender(two)),
        ("reply-to", base().reply_to(two)),
        ("to", base().to(two.to_owned())),
        ("cc", base().cc(two)),
        ("bcc", base().bcc(two)),
        ("to", base().to(("Ada", two))),
    ] {
        let error = mail.build().unwrap_err();
        assert!(matches!(error, EmailError::Address { field: at, .. } if at == field), "{field}: {error}");
    }
    let of = |fields: serde_json::Value| {
        let mut mail = serde_json::json!({ "from": "a@example.com", "to": ["b@example.com"], "text": "x" });
        mail.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        read(&mail.to_string())
    };
    for field in ["from", "sender"] {
        let error = of(serde_json::json!({ field: two })).unwrap_err().to_string();
        assert!(error.contains("more than one mailbox") && !error.contains("bob"), "{field}: {error}");
    }
    for field in ["reply_to", "to", "cc", "bcc"] {
        let error = of(serde_json::json!({ field: [two] })).unwrap_err().to_string();
        assert!(error.contains("more than one mailbox") && !error.contains("bob"), "{field}: {error}");
    }
    for field in ["to", "cc"] {
        assert!(of(serde_json::json!({ field: [{ "name": "Ada", "address": two }] })).is_err(), "{field}");
    }
    assert!(of(serde_json::json!({ "envelope_from": two })).is_err());
}

/// The form that docs/sql.md describes, letter by letter: other versions and other programs rely on it.
#[test]
fn what_is_long_stands_behind_the_object_as_it_is() {
    let email = Email::builder().from("shop@example.com").to("ada@example.com").subject("\"Hi\"");
    let email = email
        .text("Dear \"Ada\",\n\\é\n")
        .html("<p>\0</p>")
        .attach(Attachment::new("a", "text/plain", *b"hi").unwrap());
    let email = email.build().unwrap();
    let body = concat!(
        r#"{"from":"shop@example.com","to":["ada@example.com"],"subject":"\"Hi\"","text":16,"html":"<p>\u0000</p>","#,
        r#""attachments":[{"file_name":"a","content_type":"text/plain","content":4}]}"#,
        "\nDear \"Ada\",\n\\é\n\naGk="
    );
    assert_eq!(email.encode().unwrap().body, body);
    assert_eq!(read(body).unwrap(), email);
}

/// The text, the HTML, the attachments, wherever their fields stand within the object.
#[test]
fn what_stands_behind_the_object_has_its_order() {
    let part = |name: &str, content: &[u8]| Attachment::new(name, "text/plain", content).unwrap();
    let email = Email::builder().from("shop@example.com").to("ada@example.com").text("One\n").html("<p>");
    let email = email.attach(part("a", b"")).attach(part("b", b"hi")).build().unwrap();
    let behind = "\nOne\n\n<p>\n\naGk=";
    let written = concat!(
        r#"{"from":"shop@example.com","to":["ada@example.com"],"subject":"","text":4,"html":3,"attachments":["#,
        r#"{"file_name":"a","content_type":"text/plain","content":0},"#,
        r#"{"file_name":"b","content_type":"text/plain","content":4}]}"#,
    );
    let turned = concat!(
        r#" {"attachments":[{"content":0,"file_name":"a","content_type":"text/plain"},"#,
        r#"{"content":4,"file_name":"b","content_type":"text/plain"}],"html":3,"text":4,"#,
        r#""to":["ada@example.com"],"from":"shop@example.com"}"#,
    );
    assert_eq!(email.encode().unwrap().body, format!("{written}{behind}"));
    for object in [written, turned] {
        assert_eq!(read(&format!("{object}{behind}")).unwrap(), email);
    }
    let mixed = turned.replacen(r#""html":3"#, r#""html":"<p>""#, 1);
    assert_eq!(read(&format!("{mixed}\nOne\n\n\naGk=")).unwrap(), email);
}

#[test]
fn a_text_behind_the_object_that_is_not_as_long_as_it_says_is_an_error() {
    let of = |text: &str, behind: &str| {
        read(&format!(r#"{{"from":"shop@example.com","to":["ada@example.com"],"text":{text}}}{behind}"#))
    };
    assert_eq!(of("2", "\né").unwrap().text(), Some("é"));
    assert_eq!(of("0", "\n").unwrap().text(), Some(""));
    assert_eq!(of("\"a\"", "\n\t\r ").unwrap().text(), Some("a"));
    for (text, behind) in [
        ("3", "\né"),
        ("1", "\né"),
        ("2", "é"),
        ("1", "\né!"),
        ("0", ""),
        ("0", "\n\n"),
        ("2", "\né\n"),
        ("2", " \né"),
        ("2", "\r\né"),
        ("\"a\"", "\u{c}"),
        ("2", "\nabc"),
        ("\"a\"", "\nabc"),
        ("\"a\"", "{}"),
        ("-1", "\na"),
        ("1.0", "\na"),
        ("18446744073709551615", "\na"),
        ("18446744073709551616", "\na"),
        ("true", "\na"),
        ("[1]", "\na"),
    ] {
        let error = of(text, behind).unwrap_err();
        assert!(!error.is_unknown_format() && !error.to_string().contains("abc"), "{text} {behind:?}: {error}");
    }
    let array = r#"["shop@example.com",null,[],["ada@example.com"],[],[],"","hi"]"#;
    for other in ["", " ", "\n", "7", "[]", "null", "\"a\"", array] {
        assert!(read(other).is_err(), "{other:?}");
    }
}

#[test]
fn a_damaged_or_unknown_form_is_an_error_that_repeats_nothing() {
    let good = full().encode().unwrap();
    let cases = [
        Encoded { format: "email/2".into(), ..good.clone() },
        Encoded { body: good.body[..good.body.len() / 2].to_owned(), ..good.clone() },
        Encoded { body: good.body.replacen("\"subject\"", "\"subjekt\"", 1), ..good.clone() },
        Encoded {
            body: good.body.replace("ada@example.com", "ada@example.com\\r\\nBcc: eve@example.com"),
            ..good.clone()
        },
        Encoded { body: String::new(), ..good },
    ];
    for case in cases {
        let error = Email::decode(&case).unwrap_err();
        let shown = format!("{error} {error:?} {:?}", std::error::Error::source(&error));
        assert!(!shown.contains("ada") && !shown.contains("Dear reader"), "{shown}");
    }
}

#[test]
fn what_could_break_out_of_a_header_is_refused() {
    let base = || Email::builder().from("a@example.com").to("b@example.com").text("x");
    let builds: [(&str, Result<Email, EmailError>); 9] = [
        ("subject", base().subject("Hi\r\nBcc: eve@example.com").build()),
        ("subject lf", base().subject("Hi\nBcc: eve@example.com").build()),
        ("name", base().header("X-A\r\nBcc", "eve@example.com").build()),
        ("name colon", base().header("X:A", "1").build()),
        ("name space", base().header("X A", "1").build()),
        ("value", base().header("X-A", "1\r\nBcc: eve@example.com").build()),
        ("display name", base().cc(("Eve\r\nBcc: eve@example.com", "c@example.com")).build()),
        ("tag", base().tag("a\nb").build()),
        ("metadata", base().metadata("a b", "c").build()),
    ];
    for (what, built) in builds {
        assert!(built.is_err(), "{what} was accepted");
    }
    let word = "x".repeat(1_000);
    let long = base().header("X-A", word).build();
    assert!(matches!(long, Err(EmailError::LongWord { .. })), "what cannot be written was accepted");
    for own in ["From", "bcc", "Message-Id", "DATE", "Content-Type", "Return-Path", "List-Unsubscribe"] {
        assert!(matches!(Header::new(own, "x"), Err(EmailError::OwnHeader { .. })), "{own}");
    }
    assert!(Attachment::new("a\r\nb", "text/plain", b"".to_vec()).is_err());
    assert!(Attachment::new("a", "text/plain\r\nX: y", b"".to_vec()).is_err());
    assert!(Attachment::inline("a>\r\n", "a", "image/png", b"".to_vec()).is_err());
    assert!(ListUnsubscribe::uri("https://example.com/>\r\nX: y").is_err());
    assert!(ListUnsubscribe::one_click("http://example.com/").is_err());
}

#[test]
fn a_mail_needs_a_sender_a_recipient_a_body_and_must_fit() {
    let of = |b: postrider_transport::EmailBuilder| b.build().unwrap_err();
    assert_eq!(of(Email::builder().to("b@example.com").text("x")), EmailError::NoSender);
    assert_eq!(of(Email::builder().from("a@example.com").text("x")), EmailError::NoRecipient);
    assert_eq!(of(Email::builder().from("a@example.com").bcc("b@example.com")), EmailError::NoBody);
    let large = Email::builder().from("a@example.com").to("b@example.com").text("x".repeat(5_000)).size_limit(4_000);
    assert!(matches!(of(large), EmailError::TooLarge { limit: 4_000, .. }));
    // The first mistake is the one that is reported.
    let two = Email::builder().from("nobody").to("also nobody").text("x");
    assert!(matches!(of(two), EmailError::Address { field: "from", .. }));
}

#[test]
fn a_recipient_named_twice_is_mailed_once() {
    let email =
        Email::builder().from("a@example.com").to("b@example.com").cc("B <b@EXAMPLE.com>").text("x").build().unwrap();
    assert_eq!(email.recipients().len(), 1);
}

#[test]
fn debug_shows_no_words_of_the_mail() {
    let email = full();
    let outgoing = Outgoing::new(DeliveryId::new(), UNIX_EPOCH, email.clone());
    let shown = format!("{email:?} {:?} {outgoing:?}", email.encode().unwrap());
    for secret in ["ada@", "secret", "Dear", "Hello", "Lovelace", "Gr"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

#[test]
fn an_idempotency_key_names_the_request_it_stands_for() {
    let first = Outgoing::new(DeliveryId::new(), UNIX_EPOCH, full());
    let again = first.clone().with_attempt(2, 1);
    let resent = first.clone().with_attempt(3, 2);
    let rest = first.clone().with_recipients(first.recipients()[1..].to_vec());
    assert_eq!(first.idempotency_key(), again.idempotency_key());
    assert_ne!(first.idempotency_key(), resent.idempotency_key());
    assert_ne!(first.idempotency_key(), rest.idempotency_key());
    assert!(rest.idempotency_key().len() <= 96);
}

/// Who enqueues may name others than the mail does, and as many of them may be left as it names.
#[test]
fn who_is_left_of_others_than_the_mail_names_is_a_part_as_well() {
    let mail = Email::builder().from("shop@example.com").to("ada@example.com").text("As ordered.").build().unwrap();
    let others = ["bob@example.com", "carol@example.com"].map(Recipient::new).to_vec();
    let whole = Outgoing::addressed(DeliveryId::new(), UNIX_EPOCH, mail, others.clone(), false);
    let rest = whole.clone().with_recipients(others[1..].to_vec());
    assert!(!whole.is_partial() && rest.is_partial());
    assert_ne!(whole.idempotency_key(), rest.idempotency_key());
    assert!(!whole.clone().with_recipients(others).is_partial());
}

/// With line ends, what JSON escapes, and NUL.
const TEXT: &str = "(\\PC|[\\x00-\\x1f\"\\\\\\n]){0,60}";

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_mail_that_can_be_built_can_be_stored(
        name in "\\PC{0,30}", local in "[a-z0-9.+_-]{1,20}", subject in "\\PC{0,60}",
        text in proptest::option::of(TEXT), html in TEXT, value in "\\PC{0,40}", file in "\\PC{1,20}", content in any::<Vec<u8>>(),
        metadata in "\\PC{0,30}", recipients in 1usize..6, cut in any::<prop::sample::Index>(),
    ) {
        let mut builder = Email::builder()
            .from((name, format!("{local}@example.com")))
            .subject(subject)
            .html(html)
            .header("X-Value", value)
            .metadata("key", metadata);
        if let Some(text) = text {
            builder = builder.text(text);
        }
        for n in 0..recipients {
            builder = builder.to(format!("{local}{n}@example.com"));
        }
        if let Ok(attachment) = Attachment::new(file, "application/octet-stream", content) {
            builder = builder.attach(attachment);
        }
        if let Ok(email) = builder.build() {
            let encoded = email.encode().unwrap();
            prop_assert!(!encoded.body.contains('\0'), "PostgreSQL cannot keep it");
            prop_assert_eq!(Email::decode(&encoded).unwrap(), email);
            let mut ends = encoded.body.char_indices().map(|(end, _)| end).collect::<Vec<_>>();
            let end = ends.swap_remove(cut.index(ends.len()));
            let torn = Encoded { body: encoded.body[..end].to_owned(), ..encoded };
            prop_assert!(Email::decode(&torn).is_err(), "it was read without its end");
        }
    }
}

#[cfg(feature = "mime")]
mod mime {
    use super::*;
    use mail_parser::{MessageParser, MimeHeaders};
    use postrider_transport::Mime;

    fn outgoing(email: Email) -> Outgoing<Email> {
        Outgoing::new(DeliveryId::new(), UNIX_EPOCH + Duration::from_secs(1_700_000_000), email)
    }

    #[test]
    fn a_full_mail_reads_back_as_it_was_meant() {
        let outgoing = outgoing(full());
        let bytes = Mime::new().render(&outgoing).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("secret@example.com"), "bcc shows");
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
    fn attachments_read_back_to_the_octet_whatever_their_line_ends() {
        for content in ["one\ntwo\n", "one\r\ntwo\r\n", "one\rtwo", ".\n", "", " \n\t\n", "From me\n"] {
            let part = |name: &str| Attachment::new(name, "text/csv", content.as_bytes()).unwrap();
            let image = Attachment::inline("i", "i.svg", "image/svg+xml", content.as_bytes()).unwrap();
            let email =
                Email::builder().from("a@example.com").to("b@example.com").text("x").html("<img src=\"cid:i\">");
            let email = email.attach(part("a.csv")).attach(part("b.csv")).attach(image).build().unwrap();
            let bytes = Mime::new().render(&outgoing(email)).unwrap();
            let parsed = MessageParser::default().parse(&bytes).unwrap();
            let read: Vec<_> = parsed.parts.iter().filter(|part| part.attachment_name().is_some()).collect();
            assert_eq!(read.len(), 3, "{content:?}");
            assert!(read.iter().all(|part| part.contents() == content.as_bytes()), "{content:?}");
        }
    }

    #[test]
    fn tags_and_metadata_stay_out_where_they_travel_beside_the_message() {
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
    fn a_long_list_of_recipients_is_folded_and_reads_back() {
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
        let read: Vec<_> = parsed
            .to()
            .unwrap()
            .iter()
            .map(|m| (m.name().map(str::to_owned), m.address().unwrap().to_owned()))
            .collect();
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
    fn a_long_unsubscribe_link_arrives_whole() {
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
    fn a_signature_covers_the_unsubscribe_headers_and_hides_its_key() {
        // The private key of RFC 8463 appendix A.
        let key = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
        let dkim = postrider_transport::Dkim::ed25519("example.com", "news", key).unwrap();
        assert!(!format!("{dkim:?}").contains("nWGx"));
        let bytes = Mime::new().with_dkim(dkim).render(&outgoing(full())).unwrap();
        let parsed = MessageParser::default().parse(&bytes).unwrap();
        let signature = parsed.header_raw("DKIM-Signature").unwrap().split_whitespace().collect::<String>();
        assert!(
            signature.contains("d=example.com;")
                && signature.contains("s=news;")
                && signature.contains("a=ed25519-sha256")
        );
        assert!(signature.contains("list-unsubscribe:list-unsubscribe-post"), "{signature}");
        assert!(postrider_transport::Dkim::rsa("example.com", "news", "no key").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_mail_renders_within_the_rules_of_the_wire(
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
}

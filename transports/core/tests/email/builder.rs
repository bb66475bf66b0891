//! The builder: validation and defaults.

use postrider_transport::{Attachment, Email, EmailBuilder, EmailError, Header, ListUnsubscribe, Message};

use super::read;

#[test]
fn empty_bodies_and_duplicate_tags_are_removed() {
    let mail = || Email::builder().from("a@example.com").to("b@example.com");
    let bodies = |mail: EmailBuilder| {
        let email = mail.build().unwrap();
        [email.text(), email.html()].map(|body| body.map(str::to_owned))
    };
    assert_eq!(bodies(mail().text("").html("<p>")), [None, Some("<p>".to_owned())]);
    assert_eq!(bodies(mail().text("x").html("")), [Some("x".to_owned()), None]);
    assert_eq!(bodies(mail().text("")), [Some(String::new()), None], "a single empty body was removed");
    let email = mail().text("x").tag("b").tag("a").tag("b").tag("A").build().unwrap();
    assert_eq!(email.tags(), ["b", "a", "A"]);
    assert_eq!(Email::decode(&email.encode().unwrap()).unwrap(), email);
}

/// In every field, a text is exactly one mailbox, so that no second one is lost.
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

#[test]
fn header_injection_is_refused() {
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
    assert!(matches!(long, Err(EmailError::LongWord { .. })), "a word that is too long was accepted");
    for own in ["From", "bcc", "Message-Id", "DATE", "Content-Type", "Return-Path", "List-Unsubscribe"] {
        assert!(matches!(Header::new(own, "x"), Err(EmailError::ReservedHeader { .. })), "{own}");
    }
    assert!(Attachment::new("a\r\nb", "text/plain", b"".to_vec()).is_err());
    assert!(Attachment::new("a", "text/plain\r\nX: y", b"".to_vec()).is_err());
    assert!(Attachment::inline("a>\r\n", "a", "image/png", b"".to_vec()).is_err());
    assert!(ListUnsubscribe::uri("https://example.com/>\r\nX: y").is_err());
    assert!(ListUnsubscribe::one_click("http://example.com/").is_err());
}

#[test]
fn incomplete_and_large_mails_are_refused() {
    let of = |b: EmailBuilder| b.build().unwrap_err();
    assert_eq!(of(Email::builder().to("b@example.com").text("x")), EmailError::NoSender);
    assert_eq!(of(Email::builder().from("a@example.com").text("x")), EmailError::NoRecipient);
    assert_eq!(of(Email::builder().from("a@example.com").bcc("b@example.com")), EmailError::NoBody);
    let large = Email::builder().from("a@example.com").to("b@example.com").text("x".repeat(5_000)).size_limit(4_000);
    assert!(matches!(of(large), EmailError::TooLarge { limit: 4_000, .. }));
    // The first error is reported.
    let two = Email::builder().from("nobody").to("also nobody").text("x");
    assert!(matches!(of(two), EmailError::Address { field: "from", .. }));
}

#[test]
fn duplicate_recipients_count_once() {
    let email =
        Email::builder().from("a@example.com").to("b@example.com").cc("B <b@EXAMPLE.com>").text("x").build().unwrap();
    assert_eq!(email.recipients().len(), 1);
}

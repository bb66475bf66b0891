//! Mails: built, stored, decoded and rendered.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod builder;
#[cfg(feature = "mime")]
mod mime;
mod outgoing;
mod stored;

use postrider_transport::{Attachment, CodecError, Email, Encoded, ListUnsubscribe, Message};

/// A mail with every field set.
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

/// Decodes a body in the stored form, as another program could write it.
fn read(body: &str) -> Result<Email, CodecError> {
    Email::decode(&Encoded::new("email/1", body))
}

//! Mails.

use postrider::transport::{Attachment, Email, EmailBuilder};

pub(crate) fn mail() -> EmailBuilder {
    Email::builder().from("shop@example.com").to("ada@example.com").subject("Your order").text("It is on its way.")
}

pub(crate) fn email() -> Email {
    mail().build().unwrap()
}

/// A mail with every part.
pub(crate) fn full() -> Email {
    mail()
        .html("<h1>It is on its way.</h1><img src=\"cid:logo\">")
        .cc("Bob <bob@example.org>")
        .bcc("carol@example.net")
        .reply_to("help@example.com")
        .header("X-Shop", "42")
        .tag("order")
        .metadata("order", "no-1815")
        .template_id("shipped")
        .attach(Attachment::inline("logo", "logo.png", "image/png", *b"png").unwrap())
        .attach(Attachment::new("invoice.pdf", "application/pdf", vec![1; 1_500]).unwrap())
        .build()
        .unwrap()
}

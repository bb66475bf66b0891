//! One mail with a bit of everything, for the providers' examples.

#![allow(dead_code, reason = "each example uses its share")]

use postrider::transport::EmailBuilder;
use postrider::{Attachment, Email, EmailError};

/// [`order`] with metadata and a second address for answers.
pub(crate) fn example_mail(from: &str, to: &str) -> Result<Email, EmailError> {
    order(from, to)?.reply_to(to).metadata("order_id", "42").build()
}

/// Text and HTML with an inline image, an attachment, copies, an address for answers, a header and a tag. The copies go to subaddresses
/// of `to`, `ada+cc@…` and `ada+bcc@…`.
pub(crate) fn order(from: &str, to: &str) -> Result<EmailBuilder, EmailError> {
    let copy = |kind: &str| to.replacen('@', &format!("+{kind}@"), 1);
    // One red pixel.
    let pixel = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\x00\x00\xff\xff\xff,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";
    let email = Email::builder()
        .from(from)
        .to(to)
        .cc(copy("cc"))
        .bcc(copy("bcc"))
        .reply_to(from)
        .subject("Your order 42")
        .text("It is on its way. The terms are attached.")
        .html("<p>It is <b>on its way</b>. <img src=\"cid:pixel\" width=\"20\" height=\"20\" alt=\"\"> The terms are attached.</p>")
        .attach(Attachment::new("terms.txt", "text/plain", *b"Nothing is ever lost.\n")?)
        .attach(Attachment::inline("pixel", "pixel.gif", "image/gif", *pixel)?)
        .header("X-Order", "42")
        .tag("order");
    Ok(email)
}

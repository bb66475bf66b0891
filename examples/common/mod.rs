//! Code that the examples share: a mail, sent through an outbox in SQLite.

#![allow(dead_code, reason = "each example uses only some of these functions")]
#![allow(clippy::print_stdout, reason = "an example prints its results")]

use std::env;

use postrider::transport::EmailBuilder;
use postrider::{Attachment, Email, Outbox, SqliteStore, Transport};

/// What an example's `main` returns.
pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Enqueues the mail, sends it, and prints the result.
pub(crate) async fn send<T: Transport<Message = Email>>(outbox: &Outbox<SqliteStore, T>, email: Email) -> Result {
    outbox.migrate().await?;
    let id = outbox.enqueue(email).await?;

    // One pass over what is due. A service runs `outbox.relay().run(shutdown)` instead.
    outbox.relay().drain().await?;

    let delivery = outbox.get(id).await?.ok_or("the delivery is missing")?;
    println!("{id} is {}", delivery.state);
    for attempt in &delivery.attempts {
        let by = attempt.transport.as_deref().unwrap_or("unknown");
        let detail = attempt.error.as_ref().or(attempt.reply.as_ref()).or(attempt.provider_id.as_ref());
        let detail = detail.map(String::as_str).unwrap_or_default();
        println!("attempt {} by {by}: {}: {detail}", attempt.number, attempt.outcome);
    }
    Ok(())
}

/// A mail from `MAIL_FROM` to `MAIL_TO` that uses what most providers support: [`order`] with metadata and a second Reply-To address.
pub(crate) fn full_mail() -> Result<Email> {
    Ok(order()?.reply_to(variable("MAIL_TO")?).metadata("order_id", "42").build()?)
}

/// [`simple_order`] with an inline image.
pub(crate) fn order() -> Result<EmailBuilder> {
    // One red pixel.
    let pixel = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\x00\x00\xff\xff\xff,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";
    Ok(simple_order()?
        .html("<p>It is <b>on its way</b>. <img src=\"cid:pixel\" width=\"20\" height=\"20\" alt=\"\"> The terms are attached.</p>")
        .attach(Attachment::inline("pixel", "pixel.gif", "image/gif", *pixel)?))
}

/// Text and HTML with an attachment, Cc, Bcc, Reply-To, a header and a tag. The copies go to subaddresses of `MAIL_TO`: `ada+cc@…` and
/// `ada+bcc@…`.
pub(crate) fn simple_order() -> Result<EmailBuilder> {
    let (from, to) = (variable("MAIL_FROM")?, variable("MAIL_TO")?);
    let subaddress = |tag: &str| to.replacen('@', &format!("+{tag}@"), 1);
    Ok(Email::builder()
        .from(&from)
        .to(&to)
        .cc(subaddress("cc"))
        .bcc(subaddress("bcc"))
        .reply_to(&from)
        .subject("Your order 42")
        .text("It is on its way. The terms are attached.")
        .html("<p>It is <b>on its way</b>. The terms are attached.</p>")
        .attach(Attachment::new("terms.txt", "text/plain", *b"Nothing is ever lost.\n")?)
        .header("X-Order", "42")
        .tag("order"))
}

/// The value of an environment variable that must be set.
pub(crate) fn variable(name: &str) -> Result<String> {
    Ok(env::var(name).map_err(|_| format!("set {name}"))?)
}

/// Replaces the host of the provider's API by the URL in an environment variable, if that is set.
#[cfg(feature = "http")]
pub(crate) fn base_url<P: postrider::http::Provider>(
    builder: postrider::http::HttpBuilder<P>,
    name: &str,
) -> postrider::http::HttpBuilder<P> {
    match env::var(name) {
        Ok(url) => builder.base_url(url),
        Err(_) => builder,
    }
}

//! Making a mail of the command line, and putting it into the outbox.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use postrider::transport::AddressError;
use postrider::{AdminStore, Attachment, Email, Mailbox, NewDelivery, Outbox, Priority, WhenInDoubt};

use crate::args::Enqueue;
use crate::fail::Fail;
use crate::output::Out;

/// No more than this is put into one transaction, so that others get their turn at the database.
const MOST_AT_ONCE: usize = 1_000;
const MOST_OCTETS_AT_ONCE: usize = 64 * 1024 * 1024;

pub(crate) async fn run<S: AdminStore>(asked: Enqueue, store: S, out: &mut Out) -> Result<(), Fail> {
    let email = email(&asked)?;
    let outbox = Outbox::enqueue_only(store);
    let size = octets(&email);
    let at_once = u32::try_from((MOST_OCTETS_AT_ONCE / size).clamp(1, MOST_AT_ONCE)).unwrap_or(1);
    let mut next = 1;
    while next <= asked.count {
        let last = asked.count.min(next.saturating_add(at_once - 1));
        let deliveries = (next..=last).map(|number| delivery(&asked, &email, number)).collect::<Result<Vec<_>, _>>()?;
        for id in outbox.enqueue_all(deliveries).await? {
            out.line(id)?;
        }
        // What is committed is told at once, in case that the rest fails.
        out.finish()?;
        match last.checked_add(1) {
            Some(following) => next = following,
            None => break,
        }
    }
    Ok(())
}

fn delivery(asked: &Enqueue, email: &Email, number: u32) -> Result<NewDelivery<Email>, Fail> {
    let priority = Priority::new(asked.priority).ok_or_else(|| Fail::usage("--priority is from 0 to 9"))?;
    let mut delivery = NewDelivery::new(email.clone()).priority(priority);
    if let Some(key) = &asked.key {
        delivery = delivery.key(if asked.count > 1 { format!("{key}-{number}") } else { key.clone() });
    }
    if let Some(time) = asked.send_at {
        delivery = delivery.send_at(time);
    }
    if let Some(age) = asked.expires_in {
        delivery = delivery.expires_in(age);
    }
    if asked.hold {
        delivery = delivery.when_in_doubt(WhenInDoubt::Hold);
    }
    Ok(delivery)
}

fn email(asked: &Enqueue) -> Result<Email, Fail> {
    if asked.text.as_deref() == Some("-") && asked.html.as_deref() == Some("-") {
        return Err(Fail::usage("the standard input can be the text or the HTML, not both"));
    }
    let mut email = Email::builder().from(mailbox("--from", 1, &asked.from)?).subject(asked.subject.as_str());
    for (number, to) in (1..).zip(&asked.to) {
        email = email.to(mailbox("--to", number, to)?);
    }
    for (number, cc) in (1..).zip(&asked.cc) {
        email = email.cc(mailbox("--cc", number, cc)?);
    }
    for (number, bcc) in (1..).zip(&asked.bcc) {
        email = email.bcc(mailbox("--bcc", number, bcc)?);
    }
    for (number, reply_to) in (1..).zip(&asked.reply_to) {
        email = email.reply_to(mailbox("--reply-to", number, reply_to)?);
    }
    if let Some(text) = &asked.text {
        email = email.text(body("--text", text)?);
    }
    if let Some(html) = &asked.html {
        email = email.html(body("--html", html)?);
    }
    for header in &asked.header {
        let (name, value) = header
            .split_once(':')
            .ok_or_else(|| Fail::usage("a --header is written 'Name: value', and this one has no colon"))?;
        email = email.header(name, value.trim());
    }
    for path in &asked.attach {
        email = email.attach(attachment(path)?);
    }
    if let Some(template) = &asked.template_id {
        email = email.template_id(template);
    }
    Ok(email.build()?)
}

fn mailbox(option: &str, number: usize, text: &str) -> Result<Mailbox, Fail> {
    let which = if number > 1 { format!("{option} (number {number})") } else { option.to_owned() };
    text.parse().map_err(|error: AddressError| Fail::usage(format!("{which}: {error}")))
}

/// The text itself, `@FILE` or `-`.
fn body(option: &str, text: &str) -> Result<String, Fail> {
    let (what, octets) = match (text, text.strip_prefix('@')) {
        ("-", _) => ("the standard input", read(io::stdin())),
        (_, Some(path)) => (path, File::open(path).and_then(read)),
        _ => return Ok(text.to_owned()),
    };
    let octets = octets.map_err(|error| Fail::runtime(format!("{option}: {what} cannot be read: {error}")))?;
    String::from_utf8(octets).map_err(|_| Fail::usage(format!("{option}: {what} is no UTF-8 text")))
}

fn attachment(path: &Path) -> Result<Attachment, Fail> {
    let shown = path.display();
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Fail::usage(format!("--attach: {shown} has no name that could be sent")))?;
    let content = File::open(path).and_then(read);
    let content = content.map_err(|error| Fail::runtime(format!("--attach: {shown} cannot be read: {error}")))?;
    let kind = mime_guess::from_path(path).first_or_octet_stream();
    Ok(Attachment::new(name, kind.essence_str(), content)?)
}

/// No more than what is too much for a mail anyway: some files have no end.
fn read(from: impl Read) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    let limit = u64::try_from(Email::DEFAULT_SIZE_LIMIT).unwrap_or(u64::MAX);
    from.take(limit.saturating_add(1)).read_to_end(&mut octets)?;
    Ok(octets)
}

/// About how much a stored copy takes.
fn octets(email: &Email) -> usize {
    let bodies = email.text().map_or(0, str::len) + email.html().map_or(0, str::len);
    1_000 + bodies + email.attachments().iter().map(|a| a.content().len() * 4 / 3).sum::<usize>()
}

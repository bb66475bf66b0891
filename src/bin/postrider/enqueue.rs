//! The command `enqueue`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use postrider::transport::AddressError;
use postrider::{AdminStore, Attachment, Email, EnqueueOnly, Mailbox, NewDelivery, Outbox, Priority, WhenInDoubt};

use crate::args::EnqueueArgs;
use crate::error::CliError;
use crate::output::Output;

/// The limits of one transaction. A longer one would keep other writers waiting.
const MAX_BATCH: usize = 1_000;
const MAX_BATCH_BYTES: usize = 64 * 1024 * 1024;

pub(crate) async fn run<S: AdminStore>(args: EnqueueArgs, store: S, out: &mut Output) -> Result<(), CliError> {
    let email = email(&args)?;
    let mut checks = EnqueueOnly::new();
    // An empty variable counts as not set.
    if let Some(transport) = args.check_as.as_ref().filter(|name| !name.is_empty()) {
        checks = checks.check_as(transport).map_err(|error| CliError::usage(format!("--check-as: {error}")))?;
    }
    let outbox = Outbox::new(store, checks);
    let batch = u32::try_from((MAX_BATCH_BYTES / stored_bytes(&email)).clamp(1, MAX_BATCH)).unwrap_or(1);
    let mut next = 1;
    while next <= args.count {
        let last = args.count.min(next.saturating_add(batch - 1));
        let deliveries = (next..=last).map(|number| delivery(&args, &email, number)).collect::<Result<Vec<_>, _>>()?;
        for id in outbox.enqueue_all(deliveries).await? {
            out.line(id)?;
        }
        // Print the committed ids now, because the next batch can fail.
        out.flush()?;
        match last.checked_add(1) {
            Some(number) => next = number,
            None => break,
        }
    }
    Ok(())
}

fn delivery(args: &EnqueueArgs, email: &Email, number: u32) -> Result<NewDelivery<Email>, CliError> {
    let priority = Priority::new(args.priority).ok_or_else(|| CliError::usage("--priority must be from 0 to 9"))?;
    let mut delivery = NewDelivery::new(email.clone()).priority(priority).traceparent(args.traceparent);
    if let Some(key) = &args.key {
        delivery = delivery.key(if args.count > 1 { format!("{key}-{number}") } else { key.clone() });
    }
    if let Some(time) = args.send_at {
        delivery = delivery.send_at(time);
    }
    if let Some(age) = args.expires_in {
        delivery = delivery.expires_in(age);
    }
    if args.hold {
        delivery = delivery.when_in_doubt(WhenInDoubt::Hold);
    }
    Ok(delivery)
}

fn email(args: &EnqueueArgs) -> Result<Email, CliError> {
    if args.text.as_deref() == Some("-") && args.html.as_deref() == Some("-") {
        return Err(CliError::usage("standard input can be the text or the HTML, not both"));
    }
    let mut email = Email::builder().from(mailbox("--from", 1, &args.from)?).subject(args.subject.as_str());
    for (number, to) in (1..).zip(&args.to) {
        email = email.to(mailbox("--to", number, to)?);
    }
    for (number, cc) in (1..).zip(&args.cc) {
        email = email.cc(mailbox("--cc", number, cc)?);
    }
    for (number, bcc) in (1..).zip(&args.bcc) {
        email = email.bcc(mailbox("--bcc", number, bcc)?);
    }
    for (number, reply_to) in (1..).zip(&args.reply_to) {
        email = email.reply_to(mailbox("--reply-to", number, reply_to)?);
    }
    if let Some(text) = &args.text {
        email = email.text(body("--text", text)?);
    }
    if let Some(html) = &args.html {
        email = email.html(body("--html", html)?);
    }
    for header in &args.header {
        let (name, value) =
            header.split_once(':').ok_or_else(|| CliError::usage("--header has no colon: use 'Name: value'"))?;
        email = email.header(name, value.trim());
    }
    for path in &args.attach {
        email = email.attach(attachment(path)?);
    }
    if let Some(template) = &args.template_id {
        email = email.template_id(template);
    }
    Ok(email.build()?)
}

fn mailbox(option: &str, number: usize, text: &str) -> Result<Mailbox, CliError> {
    let which = if number > 1 { format!("{option} (number {number})") } else { option.to_owned() };
    text.parse().map_err(|error: AddressError| CliError::usage(format!("{which}: {error}")))
}

/// Reads a body: the text itself, `@FILE`, or `-` for standard input.
fn body(option: &str, text: &str) -> Result<String, CliError> {
    let (source, bytes) = match (text, text.strip_prefix('@')) {
        ("-", _) => ("standard input", read_limited(io::stdin())),
        (_, Some(path)) => (path, File::open(path).and_then(read_limited)),
        _ => return Ok(text.to_owned()),
    };
    let bytes = bytes.map_err(|error| CliError::runtime(format!("{option}: {source} cannot be read: {error}")))?;
    String::from_utf8(bytes).map_err(|_| CliError::usage(format!("{option}: {source} is not UTF-8")))
}

fn attachment(path: &Path) -> Result<Attachment, CliError> {
    let shown = path.display();
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| CliError::usage(format!("--attach: {shown} has no file name in UTF-8")))?;
    let content = File::open(path).and_then(read_limited);
    let content = content.map_err(|error| CliError::runtime(format!("--attach: {shown} cannot be read: {error}")))?;
    let media_type = mime_guess::from_path(path).first_or_octet_stream();
    Ok(Attachment::new(name, media_type.essence_str(), content)?)
}

/// Reads at most one byte more than a mail can have. A special file such as `/dev/zero` has no end.
fn read_limited(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(Email::DEFAULT_SIZE_LIMIT).unwrap_or(u64::MAX);
    from.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// An upper estimate of the size of the stored mail, as if every attachment were in the body as Base64.
fn stored_bytes(email: &Email) -> usize {
    let bodies = email.text().map_or(0, str::len) + email.html().map_or(0, str::len);
    1_000 + bodies + email.attachments().iter().map(|a| a.content().len() * 4 / 3).sum::<usize>()
}

//! The command `list`. The JSON keys are a stable interface.

use std::time::Duration;

use postrider::{AdminStore, DeliverySummary, Filter, Outbox};
use serde_json::{Value, json};

use crate::args::{FilterArgs, ListArgs};
use crate::error::{CliError, warn};
use crate::output::{Output, printable, rfc3339, seconds};

const PAGE_SIZE: u32 = 500;

/// How often a search that takes long shows what it has found.
const SEARCH: Duration = Duration::from_secs(1);

/// The columns of recipient and subject are cut to this many characters. JSON has the whole texts.
const WIDTH: usize = 32;

pub(crate) async fn list<S: AdminStore>(args: &ListArgs, store: &S, out: &mut Output) -> Result<(), CliError> {
    let mut filter = filter(&args.filter);
    filter.newest_first = args.newest;
    filter.after = args.after;
    if args.count {
        filter.limit = args.limit.unwrap_or(u32::MAX);
        return out.line(store.count(&filter).await?);
    }
    let outbox = Outbox::enqueue_only(store.clone());
    let mut left = args.limit.unwrap_or(u32::MAX);
    let mut needs_header = !args.json;
    let mut found_any = false;
    while left > 0 && !out.closed() {
        filter.limit = left.min(PAGE_SIZE);
        let page = outbox.search(&filter, SEARCH).await?;
        if std::mem::take(&mut needs_header) {
            out.line(row(["ID", "STATE", "ATTEMPTS", "ENQUEUED", "DUE OR FINISHED", "TO", "SUBJECT", "LAST ERROR"]))?;
        }
        for summary in &page.deliveries {
            if args.json { out.line(summary_json(summary))? } else { out.line(summary_line(summary))? }
        }
        out.flush()?;
        found_any |= !page.deliveries.is_empty();
        left = left.saturating_sub(u32::try_from(page.deliveries.len()).unwrap_or(u32::MAX));
        match page.next {
            Some(next) => filter.after = Some(next),
            None => break,
        }
    }
    if !found_any && !args.json {
        warn("no delivery matches; old ones may have been deleted");
    }
    Ok(())
}

/// The filter of the command line.
pub(crate) fn filter(args: &FilterArgs) -> Filter {
    let mut filter = Filter::new();
    filter.state = args.state;
    filter.recipient = args.to.clone();
    filter.subject_prefix = args.subject.clone();
    filter.template_id = args.template_id.clone();
    filter.tag = args.tag.clone();
    filter.key = args.key.clone();
    filter.provider_id = args.provider_id.clone();
    filter.transport = args.transport.clone();
    filter.error = args.error.clone();
    filter.created_from = args.since;
    filter.created_before = args.until;
    filter.finished_from = args.finished_since;
    filter.finished_before = args.finished_until;
    filter
}

fn summary_json(summary: &DeliverySummary) -> Value {
    json!({
        "id": summary.id.to_string(),
        "state": summary.state.as_str(),
        "recipient": summary.recipient.as_ref().map(|recipient| recipient.as_str()),
        "recipient_state": summary.recipient_state.as_str(),
        "recipients": summary.recipients,
        "failed_recipients": summary.failed_recipients,
        "subject": summary.subject,
        "template_id": summary.template_id,
        "attempts": summary.attempts,
        "created_at": rfc3339(summary.created_at),
        "due_at": summary.due_at.map(rfc3339),
        "finished_at": summary.finished_at.map(rfc3339),
        "last_error": summary.last_error,
    })
}

fn summary_line(summary: &DeliverySummary) -> String {
    let time = summary.due_at.or(summary.finished_at).map_or_else(|| "-".to_owned(), seconds);
    let recipient = summary.recipient.as_ref().map_or("-", |recipient| recipient.as_str());
    let notes = notes(summary);
    let to = cut(recipient, WIDTH.saturating_sub(notes.chars().count())) + &notes;
    row([
        &summary.id.to_string(),
        summary.state.as_str(),
        &summary.attempts.to_string(),
        &seconds(summary.created_at),
        &time,
        &to,
        &cut(summary.subject.as_deref().unwrap_or("-"), WIDTH),
        &summary.last_error.as_deref().map(printable).unwrap_or_default(),
    ])
}

/// What follows the recipient: its own state if that differs, the number of others, and how many of these did not get a sent mail.
fn notes(summary: &DeliverySummary) -> String {
    let own = summary.differing_recipient_state();
    let mut notes = own.map(|own| format!(" ({own})")).unwrap_or_default();
    let others = summary.recipients.saturating_sub(1);
    if others > 0 {
        notes += &format!(" +{others}");
    }
    let failed = summary.failed_recipients.saturating_sub(u32::from(own.is_some()));
    if failed > 0 {
        notes += &format!(", {failed} failed");
    }
    notes
}

fn row([id, state, attempts, enqueued, time, to, subject, error]: [&str; 8]) -> String {
    let line =
        format!("{id:36}  {state:9}  {attempts:>8}  {enqueued:20}  {time:20}  {to:WIDTH$}  {subject:WIDTH$}  {error}");
    line.trim_end().to_owned()
}

/// Shows at most `width` characters. Control characters are escaped.
fn cut(text: &str, width: usize) -> String {
    let text = printable(text);
    if text.chars().count() <= width {
        return text.into_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut() {
        assert_eq!(cut("Grüße", 5), "Grüße");
        assert_eq!(cut("Grüße!", 5), "Grüß…");
        assert_eq!(cut("\u{1b}[2J", 32), "\\u{1b}[2J");
    }
}

//! One delivery: its timeline, and the state of each recipient.

use std::collections::BTreeMap;
use std::time::SystemTime;

use askama::Template;
use axum::extract::{RawPathParams, RawQuery, State};
use axum::response::Response;

use super::App;
use super::deliveries::{back_pair, back_query, cut, label};
use super::format;
use super::page::{self, Page, Problem};
use super::pauses;
use super::query;
use super::timeline::{self, Event, LONGEST, SHOWN};
use crate::store::AdminStore;
use crate::{AuditEntry, AuditFilter, Delivery, Pause, State as DeliveryState, WhenInDoubt};

/// How many actions of operators are shown, the newest ones.
const MAX_ENTRIES: u32 = 100;

#[derive(Template)]
#[template(path = "delivery.html")]
struct DeliveryPage<'a> {
    page: &'a Page,
    section: &'static str,
    id: String,
    state: &'static str,
    label: &'static str,
    subject: Option<String>,
    facts: Vec<(&'static str, String)>,
    malformed: Option<String>,
    recipients: Vec<Recipient>,
    recipient_count: String,
    /// The number of recipients in each state.
    recipient_states: Vec<(String, usize)>,
    more_recipients: usize,
    events: Vec<Event>,
    earlier_attempts: usize,
    can_resend: bool,
    can_cancel: bool,
    can_dismiss: bool,
    /// Where to pause the mail of the same template.
    pause_template: Option<String>,
    back: Option<String>,
    /// The query that leads back to the list, with its question mark. Empty if there is none.
    back_suffix: String,
    notice: Option<Notice>,
}

struct Recipient {
    address: String,
    /// All mail to this address.
    href: String,
    state: &'static str,
    reply: Option<String>,
}

/// The result of an action, shown once.
struct Notice {
    level: &'static str,
    text: &'static str,
}

pub(super) async fn show<S: AdminStore>(
    State(app): State<App<S>>,
    page: Page,
    params: RawPathParams,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let id = page::delivery_id(&params)?;
    let (delivery, now) = app.reader.delivery(id).await?.ok_or(Problem::NoDelivery)?;
    let wanted = AuditFilter::new().delivery(id).limit(MAX_ENTRIES);
    let read = async { Ok((app.outbox.audit(&wanted).await?, app.outbox.controls().await?.pauses)) };
    let (entries, pauses) = app.reader.run(read).await?;
    Ok(page::render(&delivery_page(&page, &delivery, &entries, &pauses, now, query.as_deref())))
}

fn delivery_page<'a>(
    page: &'a Page,
    delivery: &Delivery,
    entries: &[AuditEntry],
    pauses: &[Pause],
    now: SystemTime,
    query: Option<&str>,
) -> DeliveryPage<'a> {
    let back = back_query(query);
    let recipients = delivery.recipients.iter().take(SHOWN).map(|status| Recipient {
        address: status.recipient.as_str().to_owned(),
        href: query::link(&[("to", status.recipient.as_str())]),
        state: status.state.as_str(),
        reply: status.reply.as_deref().map(|reply| cut(reply, LONGEST)),
    });
    let mut states = BTreeMap::new();
    for status in &delivery.recipients {
        *states.entry(status.state.as_str().replace('_', " ")).or_insert(0) += 1;
    }
    DeliveryPage {
        page,
        section: "deliveries",
        id: delivery.id.to_string(),
        state: delivery.state.as_str(),
        label: label(delivery.state),
        subject: page::subject(delivery),
        facts: facts(delivery),
        malformed: delivery.malformed.clone(),
        recipients: recipients.collect(),
        recipient_count: format::count(u64::try_from(delivery.recipients.len()).unwrap_or(u64::MAX)),
        recipient_states: states.into_iter().collect(),
        more_recipients: delivery.recipients.len().saturating_sub(SHOWN),
        events: timeline::events(delivery, entries, pauses, now),
        earlier_attempts: delivery.attempts.len().saturating_sub(SHOWN),
        can_resend: page.can_operate && delivery.state.is_finished(),
        can_cancel: page.can_operate && delivery.state == DeliveryState::Pending,
        can_dismiss: page.can_operate && matches!(delivery.state, DeliveryState::Dead | DeliveryState::InDoubt),
        pause_template: delivery.template_id.as_deref().filter(|_| page.can_operate).map(pauses::link_to_template),
        back_suffix: back.as_deref().map(|back| format!("?{}", back_pair(back))).unwrap_or_default(),
        back,
        notice: notice(query),
    }
}

/// The notice after an action. A link can name only these texts.
fn notice(query: Option<&str>) -> Option<Notice> {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let done = pairs.into_iter().find(|(name, _)| name == "done")?.1;
    let (level, text) = match done.as_ref() {
        "resent" => ("ok", "The delivery is pending again."),
        "cancelled" => ("ok", "The delivery is cancelled."),
        "dismissed" => ("ok", "The delivery is dismissed."),
        "unchanged" => ("warn", "Nothing was changed: the state of the delivery does not allow it."),
        "deleted" => ("warn", "Nothing was changed: the message is deleted, so it cannot be sent again."),
        _ => return None,
    };
    Some(Notice { level, text })
}

fn facts(delivery: &Delivery) -> Vec<(&'static str, String)> {
    let in_doubt = match delivery.when_in_doubt {
        WhenInDoubt::Resend => "send it again",
        WhenInDoubt::Hold => "hold it",
    };
    let tags = (!delivery.tags.is_empty()).then(|| delivery.tags.join(", "));
    [
        ("Template", delivery.template_id.clone()),
        ("Tags", tags),
        ("Idempotency key", delivery.key.clone()),
        ("Priority", Some(delivery.priority.level().to_string())),
        ("If in doubt", Some(in_doubt.to_owned())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, cut(&value?, 500))))
    .collect()
}

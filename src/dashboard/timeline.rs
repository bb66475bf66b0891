//! One delivery: its life as a timeline, and the state of each recipient.

use std::collections::BTreeMap;
use std::time::SystemTime;

use askama::Template;
use axum::extract::{RawPathParams, RawQuery, State};
use axum::response::Response;
use postrider_transport::{Scope, mask_addresses};

use super::App;
use super::deliveries::{back_pair, back_query, cut, label};
use super::format::{self, Moment};
use super::page::{self, Page, Problem};
use super::query;
use crate::store::AdminStore;
use crate::{Attempt, Delivery, Outcome, State as DeliveryState, WhenInDoubt};

/// How many recipients and how many attempts are shown.
const SHOWN: usize = 200;

/// The longest text of a server that is shown, in characters.
const LONGEST: usize = 4_000;

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
    back: Option<String>,
    /// The query that carries the list, with its question mark. Empty if there is none.
    carry: String,
    notice: Option<Notice>,
}

struct Recipient {
    address: String,
    /// All mail to this address.
    href: String,
    state: &'static str,
    reply: Option<String>,
}

/// The result of an act, shown once.
struct Notice {
    level: &'static str,
    text: &'static str,
}

/// An entry of the timeline.
#[derive(Default)]
struct Event {
    /// The kind, for the style: `plain`, `ok`, `bad`, `doubt` or `next`.
    kind: &'static str,
    title: String,
    time: Option<Moment>,
    /// Short facts, such as the duration.
    facts: Vec<String>,
    /// Longer texts with their names.
    texts: Vec<(&'static str, String)>,
}

pub(super) async fn show<S: AdminStore>(
    State(app): State<App<S>>,
    page: Page,
    params: RawPathParams,
    RawQuery(query): RawQuery,
) -> Response {
    let read = async {
        let id = page::delivery_id(&params)?;
        app.reader.delivery(id).await?.ok_or(Problem::NoDelivery)
    };
    match read.await {
        Ok((delivery, now)) => page::render(&delivery_page(&page, &delivery, now, query.as_deref())),
        Err(problem) => problem.respond(&page),
    }
}

fn delivery_page<'a>(page: &'a Page, delivery: &Delivery, now: SystemTime, query: Option<&str>) -> DeliveryPage<'a> {
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
        events: events(delivery, now),
        earlier_attempts: delivery.attempts.len().saturating_sub(SHOWN),
        can_resend: page.can_operate && delivery.state.is_finished(),
        can_cancel: page.can_operate && delivery.state == DeliveryState::Pending,
        can_dismiss: page.can_operate && matches!(delivery.state, DeliveryState::Dead | DeliveryState::InDoubt),
        carry: back.as_deref().map(|back| format!("?{}", back_pair(back))).unwrap_or_default(),
        back,
        notice: notice(query),
    }
}

/// The notice after an act. A link can name only these texts.
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

fn events(delivery: &Delivery, now: SystemTime) -> Vec<Event> {
    let mut events = vec![Event {
        kind: "plain",
        title: "Enqueued".to_owned(),
        time: Some(Moment::new(delivery.created_at, now)),
        facts: delivery.traceparent.map(|parent| format!("trace {parent}")).into_iter().collect(),
        ..Event::default()
    }];
    let skipped = delivery.attempts.len().saturating_sub(SHOWN);
    let mut before: Option<&Attempt> = None;
    for attempt in delivery.attempts.iter().skip(skipped) {
        if attempt.cycle > before.map_or(1, |before| before.cycle) {
            events.push(resent());
        }
        events.push(attempted(attempt, before, now));
        before = Some(attempt);
    }
    if delivery.cycle > before.map_or(1, |before| before.cycle) {
        events.push(resent());
    }
    events.extend(ended(delivery, now));
    events.push(next(delivery, now));
    events
}

/// An act of an operator, whose time is not recorded.
fn resent() -> Event {
    Event { kind: "plain", title: "Resent by an operator, with a new budget".to_owned(), ..Event::default() }
}

fn attempted(attempt: &Attempt, before: Option<&Attempt>, now: SystemTime) -> Event {
    let (kind, outcome) = match attempt.outcome {
        Outcome::Sent => ("ok", "accepted by the next hop"),
        Outcome::Transient => ("bad", "failed, a later attempt may succeed"),
        Outcome::Permanent => ("bad", "refused for good"),
        Outcome::InDoubt => ("doubt", "in doubt, the next hop may have accepted it"),
        Outcome::Lost => ("doubt", "lost with its relay, the next hop may have accepted it"),
    };
    let took = attempt.finished_at.duration_since(attempt.started_at).unwrap_or_default();
    let mut facts = vec![format!("took {}", format::duration(took))];
    if let Some(waited) = before.and_then(|before| attempt.started_at.duration_since(before.finished_at).ok()) {
        facts.push(format!("{} after the attempt before", format::duration(waited)));
    }
    if let Some(transport) = &attempt.transport {
        facts.push(format!("by {}", cut(transport, 200)));
    }
    facts.extend(attempt.scope.map(|scope| match scope {
        Scope::Message => "concerns this message".to_owned(),
        Scope::Sender => "concerns all mail of the sender".to_owned(),
        Scope::Transport => "concerns all mail of the transport".to_owned(),
    }));
    if !attempt.sure {
        facts.push("a guess: no rule knows the reply".to_owned());
    }
    if !attempt.charged {
        facts.push("not charged".to_owned());
    }
    // The error is often the reply, with masked addresses.
    let masked = attempt.reply.as_deref().map(mask_addresses);
    let error = if attempt.error.as_deref() == masked.as_deref() { &None } else { &attempt.error };
    let texts = [
        ("Reply", &attempt.reply),
        ("Error", error),
        ("Decision", &attempt.note),
        ("Id at the next hop", &attempt.provider_id),
    ];
    let texts = texts.into_iter().filter_map(|(name, text)| Some((name, cut(text.as_deref()?, LONGEST))));
    Event {
        kind,
        title: format!("Attempt {}: {outcome}", attempt.number),
        time: Some(Moment::new(attempt.started_at, now)),
        facts,
        texts: texts.collect(),
    }
}

fn ended(delivery: &Delivery, now: SystemTime) -> Option<Event> {
    let (kind, title) = match delivery.state {
        DeliveryState::Pending | DeliveryState::Leased => return None,
        DeliveryState::Sent => ("ok", "Sent"),
        DeliveryState::Dead => ("bad", "Given up"),
        DeliveryState::InDoubt => ("doubt", "Held"),
        DeliveryState::Cancelled => ("plain", "Cancelled"),
        DeliveryState::Dismissed => ("plain", "Dismissed by an operator"),
    };
    let reason = delivery.reason.as_deref().map(|reason| ("Reason", cut(reason, LONGEST)));
    Some(Event {
        kind,
        title: title.to_owned(),
        time: delivery.finished_at.map(|time| Moment::new(time, now)),
        facts: Vec::new(),
        texts: reason.into_iter().collect(),
    })
}

/// What happens next, and when.
fn next(delivery: &Delivery, now: SystemTime) -> Event {
    let due = delivery.due_at;
    let is_due = due.is_none_or(|due| due <= now);
    let title = match delivery.state {
        DeliveryState::Pending if is_due => "Next: a relay takes it as soon as one is free",
        DeliveryState::Pending if delivery.attempts.is_empty() => "Next: scheduled for later",
        DeliveryState::Pending => "Next: another attempt",
        DeliveryState::Leased if is_due => "Next: its relay is gone, and another one takes it over",
        DeliveryState::Leased => "Now: a relay is sending it. If the relay dies, another one takes it over",
        DeliveryState::Sent => "Nothing more happens. A recipient need not have read it",
        DeliveryState::Dead => "Nothing more happens by itself. Resend it when the cause is gone, or dismiss it",
        DeliveryState::InDoubt => {
            "Nothing more happens by itself. Ask the recipient or the next hop, then resend it or dismiss it"
        }
        DeliveryState::Cancelled | DeliveryState::Dismissed => "Nothing more happens. It can be resent",
    };
    let expires = delivery.expires_at.map(|time| Moment::new(time, now));
    let facts = expires.map(|time| format!("expires {} ({})", time.text, time.relative));
    Event {
        kind: "next",
        title: title.to_owned(),
        time: due.map(|due| Moment::new(due, now)),
        facts: facts.into_iter().collect(),
        texts: Vec::new(),
    }
}

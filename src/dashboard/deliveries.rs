//! The list of deliveries, and the search field of every page.

use std::time::{Duration, SystemTime};

use askama::Template;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use postrider_transport::DeliveryId;

use super::format::{self, Moment};
use super::page::{self, Page, Problem};
use super::query::{self, Field, ListQuery};
use super::{App, action};
use crate::store::AdminStore;
use crate::{Action, Change, DeliverySummary, Filter, RecipientState, State as DeliveryState};

#[derive(Template)]
#[template(path = "deliveries.html")]
struct ListPage<'a> {
    page: &'a Page,
    section: &'static str,
    fields: &'a [Field],
    state: Option<&'static str>,
    oldest_first: bool,
    tabs: Vec<Tab>,
    is_filtered: bool,
    is_open: bool,
    is_valid: bool,
    /// The names of values in the URL that cannot be read.
    invalid: String,
    count: Option<String>,
    rows: Vec<Row>,
    first: Option<String>,
    back: Option<String>,
    next: Option<String>,
    unsearched: Option<Unsearched>,
    /// What can be done to all that match. Empty if the list has no state, or nothing.
    actions: Vec<BulkAction>,
}

/// What a search left, because it took too long.
struct Unsearched {
    /// The query that searches further.
    query: String,
    /// Whether it is older than what was searched.
    is_older: bool,
    /// About when the last delivery that was looked at was enqueued.
    end: Option<Moment>,
}

/// A link to a bulk change of all that match.
struct BulkAction {
    name: Action,
    verb: &'static str,
    query: String,
}

/// A link to the same list with another state.
struct Tab {
    label: &'static str,
    query: String,
    is_current: bool,
}

struct Row {
    href: String,
    state: &'static str,
    label: &'static str,
    recipient: Option<String>,
    /// The recipient's own state, if it differs from the delivery's.
    own_state: Option<RecipientState>,
    others: u32,
    /// How many of the others did not get a sent delivery.
    failed: u32,
    subject: Option<String>,
    template: Option<String>,
    attempts: u32,
    created: Moment,
    /// A second time with its label, such as when the delivery finished.
    then: Option<(&'static str, Moment)>,
    error: Option<String>,
}

/// The time in a delivery's id.
fn enqueued_about(id: DeliveryId) -> Option<SystemTime> {
    let (seconds, nanos) = id.as_uuid().get_timestamp()?.to_unix();
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

/// The name of a state for people.
pub(super) fn label(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Pending => "pending",
        DeliveryState::Leased => "sending",
        DeliveryState::Sent => "sent",
        DeliveryState::Dead => "dead",
        DeliveryState::InDoubt => "in doubt",
        DeliveryState::Cancelled => "cancelled",
        DeliveryState::Dismissed => "dismissed",
    }
}

/// Cuts a text to a number of characters.
pub(super) fn cut(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

impl Row {
    fn new(delivery: DeliverySummary, query: &ListQuery, now: SystemTime) -> Self {
        let first_page = query.first_page();
        let back = if first_page.is_empty() { String::new() } else { format!("?{}", back_pair(&first_page)) };
        let then = match (delivery.state, delivery.due_at, delivery.finished_at) {
            (DeliveryState::Leased, Some(due), _) => Some(("lease until", due)),
            (_, Some(due), _) if due > now => Some(("due", due)),
            (_, Some(due), _) => Some(("due since", due)),
            (_, None, Some(end)) => Some(("finished", end)),
            (_, None, None) => None,
        };
        let own_state = delivery.differing_recipient_state();
        Self {
            href: format!("deliveries/{}{back}", delivery.id),
            state: delivery.state.as_str(),
            label: label(delivery.state),
            own_state,
            recipient: delivery.recipient.map(|recipient| cut(recipient.as_str(), 100)),
            failed: delivery.failed_recipients.saturating_sub(u32::from(own_state.is_some())),
            others: delivery.recipients.saturating_sub(1),
            subject: delivery.subject.filter(|subject| !subject.trim().is_empty()).map(|subject| cut(&subject, 120)),
            template: delivery.template_id.map(|template| cut(&template, 60)),
            attempts: delivery.attempts,
            created: Moment::new(delivery.created_at, now),
            then: then.map(|(label, time)| (label, Moment::new(time, now))),
            error: delivery.last_error.map(|error| cut(&error, 200)),
        }
    }
}

/// The pair that carries a list's query through other pages, so that they can lead back to it.
pub(super) fn back_pair(list: &str) -> String {
    form_urlencoded::Serializer::new(String::new()).append_pair("back", list).finish()
}

/// The query of the list that a page was reached from. It is read and written again, so that it can be nothing else.
pub(super) fn back_query(query: Option<&str>) -> Option<String> {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let (_, back) = pairs.into_iter().find(|(name, _)| name == "back")?;
    let back = ListQuery::parse(&back, SystemTime::now()).first_page();
    (!back.is_empty()).then_some(back)
}

pub(super) async fn list<S: AdminStore>(
    State(app): State<App<S>>,
    page: Page,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let page = &page;
    let query = ListQuery::parse(query.as_deref().unwrap_or_default(), SystemTime::now());
    let (mut found, mut unsearched) = (Vec::new(), None);
    let (mut count, mut now) = (None, SystemTime::now());
    let page_size = usize::try_from(query::PAGE).unwrap_or(usize::MAX);
    if query.is_valid() {
        // One more shows whether there is another page.
        let mut filter = query.filter.clone().limit(query::PAGE + 1);
        filter.after = query.before.or(query.after);
        if query.before.is_some() {
            filter.newest_first = !filter.newest_first;
        }
        let all = query.filter.clone().limit(query::COUNT_LIMIT);
        let is_first = query.after.is_none() && query.before.is_none();
        let searched;
        (searched, count, now) = app.reader.list(&filter, is_first.then_some(&all)).await?;
        // A full page ends with a delivery that is not shown.
        unsearched = searched.next.filter(|_| searched.deliveries.len() <= page_size);
        found = searched.deliveries;
    }
    let has_more = found.len() > page_size;
    found.truncate(page_size);
    if query.before.is_some() {
        found.reverse();
    }
    let (first_id, last_id) = (found.first().map(|found| found.id), found.last().map(|found| found.id));
    // Backwards, there is always a page after this one, since this one was reached from it.
    let (has_back, has_next) = match query.before {
        Some(_) => (has_more, true),
        None => (query.after.is_some(), has_more),
    };
    let cursor = if query.before.is_some() { "before" } else { "after" };
    let unsearched = unsearched.map(|id| Unsearched {
        query: query.next_to(cursor, id),
        is_older: query.before.is_some() == query.oldest_first,
        end: enqueued_about(id).map(|time| Moment::new(time, now)),
    });
    let every_state = [None].into_iter().chain(DeliveryState::ALL.map(Some));
    let tabs = every_state.map(|state| Tab {
        label: state.map_or("all", label),
        query: query.with_state(state),
        is_current: query.state == state,
    });
    let template = ListPage {
        page,
        section: "deliveries",
        fields: &query.fields,
        state: query.state.map(DeliveryState::as_str),
        oldest_first: query.oldest_first,
        tabs: tabs.collect(),
        is_filtered: query.is_filtered(),
        is_open: query.has_fields() || query.oldest_first,
        is_valid: query.is_valid(),
        invalid: query.invalid.join(", "),
        count: count.map(|count| match count >= u64::from(query::COUNT_LIMIT) {
            true => format!("{} or more", format::count(count)),
            false => format::count(count),
        }),
        first: (query.after.is_some() || query.before.is_some()).then(|| query.first_page()),
        back: first_id.filter(|_| has_back).map(|id| query.next_to("before", id)),
        next: last_id.filter(|_| has_next).map(|id| query.next_to("after", id)),
        unsearched,
        actions: bulk_actions(page, &query, !found.is_empty()),
        rows: found.into_iter().map(|found| Row::new(found, &query, now)).collect(),
    };
    let mut response = page::render(&template);
    if !query.is_valid() {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    Ok(response)
}

fn bulk_actions(page: &Page, query: &ListQuery, has_rows: bool) -> Vec<BulkAction> {
    let state = query.state.filter(|_| page.can_operate && has_rows);
    let actions = Change::ALL.into_iter().filter(|change| state.is_some_and(|state| change.applies_to(state)));
    actions
        .map(|change| BulkAction { name: change.action(), verb: action::verb(change), query: query.first_page() })
        .collect()
}

/// Redirects from the search field to a delivery or to a list.
pub(super) async fn find(RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let pairs = form_urlencoded::parse(query.as_bytes());
    let wanted = pairs.into_iter().find(|(name, _)| name == "q").map(|(_, value)| value.trim().to_owned());
    let wanted = wanted.unwrap_or_default();
    if let Ok(id) = wanted.parse::<DeliveryId>() {
        return page::redirect(&format!("deliveries/{id}"));
    }
    if wanted.is_empty() {
        return page::redirect("deliveries");
    }
    let (name, wanted) = match Filter::parse_recipient(&wanted) {
        Ok(recipient) => ("to", recipient),
        Err(_) => ("subject", wanted),
    };
    page::redirect(&query::link(&[(name, &wanted)]))
}

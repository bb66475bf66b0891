//! The audit trail: who did what, when and why.

use std::time::SystemTime;

use askama::Template;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use form_urlencoded::Serializer;
use postrider_transport::DeliveryId;

use super::App;
use super::deliveries::cut;
use super::format::{self, Moment};
use super::page::{self, Page, Problem};
use crate::audit::AuditContext;
use crate::store::AdminStore;
use crate::{Action, AuditEntry, AuditFilter, Outbox, StoreError};

/// The number of rows on a page.
const PAGE: usize = 50;

/// The number of entries that are read at once, and how often for one page. A bulk action has an entry for each delivery, and one row.
const BATCH: u32 = 500;
const BATCHES: usize = 10;

/// How many deliveries of a bulk action are listed.
const SHOWN: usize = 10;

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage<'a> {
    page: &'a Page,
    section: &'static str,
    query: &'a AuditQuery,
    actions: [Action; 8],
    rows: Vec<Row>,
    first: Option<String>,
    next: Option<String>,
}

struct Row {
    /// When. For a bulk action, the time of its last entry on this page.
    at: Moment,
    operator: String,
    action: &'static str,
    /// The first deliveries.
    deliveries: Vec<String>,
    /// The number of deliveries, if there are several, and whether all are listed.
    count: Option<(String, bool)>,
    target: Option<String>,
    note: Option<String>,
}

/// Entries that are shown as one row: those of one bulk action, the newest first.
struct Group {
    newest: AuditEntry,
    /// The number of the oldest entry.
    oldest: i64,
    deliveries: Vec<DeliveryId>,
    count: usize,
}

impl Group {
    fn new(entry: AuditEntry) -> Self {
        let deliveries: Vec<_> = entry.delivery.into_iter().collect();
        Self { oldest: entry.number, count: deliveries.len(), deliveries, newest: entry }
    }

    /// Takes an entry that belongs to the same action. The target of a bulk action is its filter, with the time at which it was fixed.
    fn take(&mut self, entry: AuditEntry) -> Option<AuditEntry> {
        let same =
            |entry: &AuditEntry| (entry.operator.clone(), entry.action, entry.target.clone(), entry.note.clone());
        match entry.delivery {
            Some(id) if entry.target.is_some() && same(&entry) == same(&self.newest) => {
                self.oldest = entry.number;
                self.count += 1;
                if self.deliveries.len() < SHOWN {
                    self.deliveries.push(id);
                }
                None
            }
            _ => Some(entry),
        }
    }

    fn row(self, now: SystemTime) -> Row {
        let Self { newest: entry, deliveries, count, .. } = self;
        Row {
            at: Moment::new(entry.at, now),
            operator: cut(&entry.operator, AuditContext::MAX_OPERATOR),
            action: entry.action.as_str(),
            deliveries: deliveries.iter().map(ToString::to_string).collect(),
            count: (count > 1)
                .then(|| (format::count(u64::try_from(count).unwrap_or(u64::MAX)), count == deliveries.len())),
            target: entry.target.map(|target| cut(&target, 500)),
            note: entry.note.map(|note| cut(&note, AuditContext::MAX_TEXT)),
        }
    }
}

/// Reads a page of groups. Returns whether there may be more.
async fn read<S: AdminStore>(outbox: &Outbox<S>, filter: &AuditFilter) -> Result<(Vec<Group>, bool), StoreError> {
    let mut filter = filter.clone().limit(BATCH);
    let mut groups: Vec<Group> = Vec::new();
    for _ in 0..BATCHES {
        let entries = outbox.audit(&filter).await?;
        let is_last = entries.len() < usize::try_from(BATCH).unwrap_or(usize::MAX);
        for entry in entries {
            filter.before = Some(entry.number);
            let rest = match groups.last_mut() {
                Some(group) => group.take(entry),
                None => Some(entry),
            };
            match rest {
                Some(_) if groups.len() == PAGE => return Ok((groups, true)),
                Some(entry) => groups.push(Group::new(entry)),
                None => {}
            }
        }
        if is_last {
            return Ok((groups, false));
        }
    }
    Ok((groups, true))
}

/// The filter in the URL. The names are those of the options of `postrider audit`, where it has them.
#[derive(Default)]
struct AuditQuery {
    id: String,
    operator: String,
    action: String,
    before: Option<i64>,
    id_error: Option<&'static str>,
    operator_error: Option<&'static str>,
    action_error: Option<&'static str>,
    filter: AuditFilter,
}

impl AuditQuery {
    /// Reads a query. Unknown names are ignored; a value that cannot be read is an error of its field.
    fn parse(query: &str) -> Self {
        let mut parsed = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = || value.trim().chars().take(AuditContext::MAX_OPERATOR).collect();
            match name.as_ref() {
                "id" => parsed.id = value(),
                "operator" => parsed.operator = value(),
                "action" => parsed.action = value(),
                "before" => parsed.before = value().parse().ok(),
                _ => {}
            }
        }
        let (id, operator, action) = (&parsed.id, &parsed.operator, &parsed.action);
        let mut filter = AuditFilter::new();
        filter.before = parsed.before;
        filter.delivery = id.parse::<DeliveryId>().ok();
        filter.operator = Some(operator.clone()).filter(|name| !name.is_empty());
        filter.action = action.parse().ok();
        let id_error = !id.is_empty() && filter.delivery.is_none();
        let operator_error = operator.contains('\0');
        let action_error = !action.is_empty() && filter.action.is_none();
        parsed.id_error = id_error.then_some("it is not the id of a delivery");
        parsed.operator_error = operator_error.then_some("it has a NUL, which no database can store");
        parsed.action_error = action_error.then_some("there is no such action");
        parsed.filter = filter;
        parsed
    }

    fn is_valid(&self) -> bool {
        self.id_error.is_none() && self.operator_error.is_none() && self.action_error.is_none()
    }

    fn is_filtered(&self) -> bool {
        !(self.id.is_empty() && self.operator.is_empty() && self.action.is_empty())
    }

    fn has_action(&self, action: &Action) -> bool {
        self.filter.action == Some(*action)
    }

    /// The query of the page before an entry, or of the first one.
    fn page_before(&self, number: Option<i64>) -> String {
        let mut out = Serializer::new(String::new());
        let set = [("id", &self.id), ("operator", &self.operator), ("action", &self.action)];
        out.extend_pairs(set.into_iter().filter(|(_, value)| !value.is_empty()));
        if let Some(number) = number {
            out.append_pair("before", &number.to_string());
        }
        out.finish()
    }
}

pub(super) async fn show<S: AdminStore>(
    State(app): State<App<S>>,
    page: Page,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = AuditQuery::parse(query.as_deref().unwrap_or_default());
    let ((found, has_more), now) = match query.is_valid() {
        true => {
            let read = async { Ok((read(&app.outbox, &query.filter).await?, app.outbox.store().now().await?)) };
            app.reader.run(read).await?
        }
        false => ((Vec::new(), false), SystemTime::now()),
    };
    let template = AuditPage {
        page: &page,
        section: "audit",
        query: &query,
        actions: Action::ALL,
        first: query.before.map(|_| query.page_before(None)),
        next: found.last().filter(|_| has_more).map(|last| query.page_before(Some(last.oldest))),
        rows: found.into_iter().map(|group| group.row(now)).collect(),
    };
    let mut response = page::render(&template);
    if !query.is_valid() {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, Email, Filter, MemoryStore, PauseTarget, State as DeliveryState};

    /// The numbers of deliveries in each row of all pages.
    async fn counts(outbox: &Outbox<MemoryStore>) -> Vec<Vec<usize>> {
        let (mut filter, mut pages) = (AuditFilter::new(), Vec::new());
        loop {
            let (groups, has_more) = read(outbox, &filter).await.unwrap();
            pages.push(groups.iter().map(|group| group.count).collect());
            match groups.last() {
                Some(last) if has_more => filter.before = Some(last.oldest),
                _ => return pages,
            }
        }
    }

    #[tokio::test]
    async fn a_bulk_action_is_one_row_of_a_page() {
        let outbox: Outbox<MemoryStore> = Outbox::enqueue_only(MemoryStore::new());
        assert_eq!(counts(&outbox).await, [Vec::<usize>::new()]);
        let email = Email::builder().from("shop@example.com").to("ada@example.com").text("Hello").build().unwrap();
        let ids = outbox.enqueue_all(vec![email; 6_003]).await.unwrap();
        let ada = outbox.operator("ada");
        // Actions on single deliveries stay apart.
        for id in ids.iter().take(3) {
            let _ = ada.change(Change::Cancel, *id).await.unwrap();
        }
        let _ = ada.change_all(Change::Cancel, &Filter::new().state(DeliveryState::Pending)).await.unwrap();
        let again = Filter::new().state(DeliveryState::Cancelled);
        let _ = ada.change_step(Change::Resend, &again.clone().limit(5)).await.unwrap();
        let _ = outbox.operator("bob").change_step(Change::Resend, &again.limit(7)).await.unwrap();
        ada.pause(PauseTarget::Outbox).await.unwrap();
        // The first page ends after 5,000 entries. The rest of the same action follows.
        assert_eq!(counts(&outbox).await, [vec![0, 7, 5, 4_987], vec![1_013, 1, 1, 1]]);
    }

    #[tokio::test]
    async fn a_page_has_fifty_rows() {
        let outbox: Outbox<MemoryStore> = Outbox::enqueue_only(MemoryStore::new());
        for _ in 0..50 {
            outbox.operator("ada").probe().await.unwrap();
        }
        assert_eq!(counts(&outbox).await, [vec![0; 50]]);
        outbox.operator("ada").probe().await.unwrap();
        assert_eq!(counts(&outbox).await, [vec![0; 50], vec![0]]);
    }

    #[test]
    fn a_query_is_read_and_written_again() {
        let id = DeliveryId::new();
        let query = format!("id={id}&operator=ada+%3Cb%3E%26&action=resend");
        let parsed = AuditQuery::parse(&format!("{query}&before=7&unknown=1"));
        assert!(parsed.is_valid() && parsed.is_filtered());
        assert_eq!((parsed.filter.delivery, parsed.filter.before), (Some(id), Some(7)));
        assert_eq!(parsed.filter.operator.as_deref(), Some("ada <b>&"));
        assert_eq!(parsed.filter.action, Some(Action::Resend));
        assert_eq!(parsed.page_before(None), query);
        assert_eq!(parsed.page_before(Some(3)), format!("{query}&before=3"));
    }

    #[test]
    fn a_bad_value_is_an_error_of_its_field() {
        assert!(AuditQuery::parse("id=1").id_error.is_some());
        assert!(AuditQuery::parse("operator=a%00b").operator_error.is_some());
        assert!(AuditQuery::parse("action=delete").action_error.is_some());
        let bare = AuditQuery::parse("before=x");
        assert!(bare.is_valid() && !bare.is_filtered() && bare.filter.before.is_none());
    }
}

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
use super::format::Moment;
use super::page::{self, Page, Problem};
use crate::audit::Act;
use crate::store::AdminStore;
use crate::{Action, AuditEntry, AuditFilter};

/// The number of entries on a page.
const PAGE: u32 = 50;

#[derive(Template)]
#[template(path = "audit.html")]
struct TrailPage<'a> {
    page: &'a Page,
    section: &'static str,
    query: &'a TrailQuery,
    actions: [Action; 8],
    rows: Vec<Row>,
    first: Option<String>,
    next: Option<String>,
}

struct Row {
    at: Moment,
    operator: String,
    action: &'static str,
    delivery: Option<String>,
    target: Option<String>,
    note: Option<String>,
}

impl Row {
    fn new(entry: AuditEntry, now: SystemTime) -> Self {
        Self {
            at: Moment::new(entry.at, now),
            operator: cut(&entry.operator, Act::MAX_OPERATOR),
            action: entry.action.as_str(),
            delivery: entry.delivery.map(|id| id.to_string()),
            target: entry.target.map(|target| cut(&target, 500)),
            note: entry.note.map(|note| cut(&note, Act::MAX_TEXT)),
        }
    }
}

/// The filter in the URL. The names are those of the options of `postrider audit`, where it has them.
#[derive(Default)]
struct TrailQuery {
    id: String,
    operator: String,
    action: String,
    before: Option<i64>,
    id_error: Option<&'static str>,
    operator_error: Option<&'static str>,
    action_error: Option<&'static str>,
    filter: AuditFilter,
}

impl TrailQuery {
    /// Reads a query. Unknown names are ignored; a value that cannot be read is an error of its field.
    fn parse(query: &str) -> Self {
        let mut parsed = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = || value.trim().chars().take(Act::MAX_OPERATOR).collect();
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
        parsed.action_error = action_error.then_some("there is no such act");
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
    let query = TrailQuery::parse(query.as_deref().unwrap_or_default());
    let (mut found, mut now) = (Vec::new(), SystemTime::now());
    if query.is_valid() {
        // One more shows whether there is another page.
        let filter = query.filter.clone().limit(PAGE + 1);
        let read = async { Ok((app.outbox.audit(&filter).await?, app.outbox.store().now().await?)) };
        (found, now) = app.reader.run(read).await?;
    }
    let page_size = usize::try_from(PAGE).unwrap_or(usize::MAX);
    let has_more = found.len() > page_size;
    found.truncate(page_size);
    let template = TrailPage {
        page: &page,
        section: "audit",
        query: &query,
        actions: Action::ALL,
        first: query.before.map(|_| query.page_before(None)),
        next: found.last().filter(|_| has_more).map(|last| query.page_before(Some(last.number))),
        rows: found.into_iter().map(|entry| Row::new(entry, now)).collect(),
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

    #[test]
    fn a_query_is_read_and_written_again() {
        let id = DeliveryId::new();
        let query = format!("id={id}&operator=ada+%3Cb%3E%26&action=resend");
        let parsed = TrailQuery::parse(&format!("{query}&before=7&unknown=1"));
        assert!(parsed.is_valid() && parsed.is_filtered());
        assert_eq!((parsed.filter.delivery, parsed.filter.before), (Some(id), Some(7)));
        assert_eq!(parsed.filter.operator.as_deref(), Some("ada <b>&"));
        assert_eq!(parsed.filter.action, Some(Action::Resend));
        assert_eq!(parsed.page_before(None), query);
        assert_eq!(parsed.page_before(Some(3)), format!("{query}&before=3"));
    }

    #[test]
    fn a_bad_value_is_an_error_of_its_field() {
        assert!(TrailQuery::parse("id=1").id_error.is_some());
        assert!(TrailQuery::parse("operator=a%00b").operator_error.is_some());
        assert!(TrailQuery::parse("action=delete").action_error.is_some());
        let bare = TrailQuery::parse("before=x");
        assert!(bare.is_valid() && !bare.is_filtered() && bare.filter.before.is_none());
    }
}

//! Lists and counts deliveries by a filter.
//!
//! Each filter has its own statement, with its own conditions alone, so that the server plans for these.

use std::time::{Duration, SystemTime};

use postrider_transport::DeliveryId;
use sqlx::postgres::Postgres;
use sqlx::query_builder::QueryBuilder;
use uuid::Uuid;

use super::rows::Moment;
use crate::filter::Filter;
use crate::state::State;

/// How far the clock of a program that makes ids may be from the database's.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 3600);

/// The statement for a page of summaries.
pub(super) fn list(schema: &str, filter: &Filter, ids_tell_time: bool) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new("WITH page AS (");
    let mut search = Search { sql: &mut sql, schema, filter, ids_tell_time };
    search.push_ids();
    search.push("), found AS (SELECT ").push_recipient_to_show();
    let order = order(filter);
    sql.push(format!(
        r#" AS recipient, d.id, d.created_at, d.subject, d.template_id,
               CASE WHEN json_typeof(d.recipients) = 'array' THEN json_array_length(d.recipients) END::bigint AS recipient_count,
               CASE WHEN q.leased_at IS NULL THEN q.due_at ELSE q.lease_until END AS due_at, e.reason,
               CASE WHEN q.leased_at IS NOT NULL THEN 'leased' WHEN q.delivery_id IS NOT NULL THEN 'pending'
                    ELSE coalesce(e.state, 'sent') END AS state,
               (SELECT count(*) FROM "{schema}".attempts a WHERE a.delivery_id = d.id) AS attempts,
               last.error AS last_error, CASE WHEN q.delivery_id IS NULL THEN coalesce(e.ended_at, last.finished_at) END AS finished_at
           FROM page JOIN "{schema}".deliveries d ON d.id = page.id
           LEFT JOIN "{schema}".queue q ON q.delivery_id = d.id
           LEFT JOIN "{schema}".ended e ON e.delivery_id = d.id
           LEFT JOIN LATERAL (SELECT error, finished_at FROM "{schema}".attempts a
                              WHERE a.delivery_id = d.id ORDER BY number DESC LIMIT 1) last ON true)
           SELECT found.*,
               (SELECT r.outcome FROM "{schema}".recipients r WHERE r.delivery_id = found.id AND r.address = found.recipient) AS recipient_outcome,
               CASE WHEN found.state = 'sent' THEN (SELECT count(*) FROM "{schema}".recipients r
                   WHERE r.delivery_id = found.id AND r.outcome <> 'sent') ELSE 0 END AS failed_recipients
           FROM found ORDER BY id {order}"#
    ));
    sql
}

const FIRST_RECIPIENT: &str = r#"reverse(lower(d.recipients ->> 0)) COLLATE "C""#;
const OTHER_RECIPIENT: &str = r#"reverse(lower(r.address)) COLLATE "C""#;

/// The statement that counts up to the filter's limit.
pub(super) fn count(schema: &str, filter: &Filter, ids_tell_time: bool) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new("SELECT count(*) FROM (");
    Search { sql: &mut sql, schema, filter, ids_tell_time }.push_ids();
    sql.push(") found");
    sql
}

/// The statement for [`AdminStore::search_end`](crate::AdminStore::search_end). `None` if an index answers the search.
pub(super) fn end(schema: &str, filter: &Filter, rows: u32, ids_tell_time: bool) -> Option<QueryBuilder<Postgres>> {
    if rows == 0 || filter.is_indexed(true) {
        return None;
    }
    let mut sql = QueryBuilder::new("");
    Search { sql: &mut sql, schema, filter, ids_tell_time }.push_end(rows - 1);
    Some(sql)
}

fn order(filter: &Filter) -> &'static str {
    if filter.newest_first { "DESC" } else { "ASC" }
}

struct Search<'a> {
    sql: &'a mut QueryBuilder<Postgres>,
    schema: &'a str,
    filter: &'a Filter,
    /// Whether an id tells when its delivery was enqueued: not with a test clock, which ids do not follow.
    ids_tell_time: bool,
}

impl Search<'_> {
    fn push(&mut self, text: &str) -> &mut Self {
        self.sql.push(text.replace("{s}", self.schema));
        self
    }

    fn bind(&mut self, text: &str) -> &mut Self {
        self.sql.push_bind(text.to_owned());
        self
    }

    fn bind_time(&mut self, time: SystemTime) -> &mut Self {
        self.sql.push_bind(Moment(time));
        self
    }

    /// The ids of the page. The first recipient of a delivery and the other ones are in different indexes, so a search for a recipient has
    /// a part for each. Each part reads no more than a page from its index.
    fn push_ids(&mut self) {
        let (limit, order) = (self.filter.limit, order(self.filter));
        if self.filter.recipient.is_none() {
            self.push_part(None);
            return;
        }
        self.push("SELECT id FROM ((");
        self.push_part(Some(FIRST_RECIPIENT));
        self.push(") UNION (");
        self.push_part(Some(OTHER_RECIPIENT));
        self.push(&format!(")) part ORDER BY id {order} LIMIT {limit}"));
    }

    /// A recipient that the filter looks for, otherwise the first one.
    fn push_recipient_to_show(&mut self) {
        let Some(wanted) = self.filter.recipient.as_ref() else {
            self.push("d.recipients ->> 0");
            return;
        };
        self.push("CASE WHEN true");
        self.push_recipient(wanted, FIRST_RECIPIENT);
        self.push(
            r#" THEN d.recipients ->> 0 ELSE (SELECT r.address FROM "{s}".recipients r WHERE r.delivery_id = d.id"#,
        );
        self.push_recipient(wanted, OTHER_RECIPIENT);
        self.push(" ORDER BY r.address LIMIT 1) END");
    }

    /// The ids that meet the conditions, with the column to look for the recipient in.
    fn push_part(&mut self, recipient: Option<&str>) {
        let filter = self.filter;
        // The smallest table that knows the state comes first. Its index is in the order of the ids too.
        let (id, tables) = match filter.state {
            Some(State::Pending | State::Leased) => (
                "q.delivery_id",
                r#""{s}".queue q JOIN "{s}".deliveries d ON d.id = q.delivery_id LEFT JOIN "{s}".ended e ON false"#,
            ),
            Some(State::Dead | State::InDoubt | State::Cancelled | State::Dismissed) => {
                ("e.delivery_id", r#""{s}".ended e JOIN "{s}".deliveries d ON d.id = e.delivery_id"#)
            }
            Some(State::Sent) | None => {
                ("d.id", r#""{s}".deliveries d LEFT JOIN "{s}".ended e ON e.delivery_id = d.id"#)
            }
        };
        let distinct = if recipient == Some(OTHER_RECIPIENT) { "DISTINCT " } else { "" };
        self.push(&format!("SELECT {distinct}{id} AS id FROM {tables}"));
        if !distinct.is_empty() {
            self.push(r#" JOIN "{s}".recipients r ON r.delivery_id = d.id"#);
        }
        if filter.transport.is_some() || self.wants_end() {
            self.push(
                r#" LEFT JOIN LATERAL (SELECT transport, finished_at FROM "{s}".attempts a
                    WHERE a.delivery_id = d.id ORDER BY number DESC LIMIT 1) last ON true"#,
            );
        }
        self.push(" WHERE d.key_until IS NULL");
        self.push_state();
        self.push_attempted();
        if let (Some(wanted), Some(column)) = (&filter.recipient, recipient) {
            self.push_recipient(wanted, column);
        }
        self.push_message();
        self.push_attempts(id);
        self.push_times();
        self.push_range("d.id");
        let (limit, order) = (filter.limit, order(filter));
        self.push(&format!(" ORDER BY 1 {order} LIMIT {limit}"));
    }

    /// The id behind which the next part of a search begins, `skipped` ids after the first one of this part.
    fn push_end(&mut self, skipped: u32) {
        let state = self.filter.state;
        let (id, table) = match state {
            Some(State::Pending | State::Leased) => ("q.delivery_id", r#""{s}".queue q"#),
            Some(State::Dead | State::InDoubt | State::Cancelled | State::Dismissed) => {
                ("e.delivery_id", r#""{s}".ended e"#)
            }
            Some(State::Sent) | None => ("d.id", r#""{s}".deliveries d"#),
        };
        self.push(&format!("SELECT {id} FROM {table} WHERE true"));
        if let Some(state) = state.filter(|_| id == "e.delivery_id") {
            self.push(" AND e.state = ").bind(state.as_str());
        }
        self.push_attempted();
        self.push_range(id);
        let order = order(self.filter);
        self.push(&format!(" ORDER BY 1 {order} LIMIT 1 OFFSET {skipped}"));
    }

    /// Skips new deliveries that cannot match. Only these searches begin at the table of all deliveries, and the others at a small one.
    fn push_attempted(&mut self) {
        let filter = self.filter;
        if matches!(filter.state, None | Some(State::Sent)) {
            if filter.state.is_some() || filter.transport.is_some() {
                self.push(ATTEMPTED);
            } else if filter.error.is_some() || self.wants_end() {
                self.push(ATTEMPTED_OR_ENDED);
            }
        }
    }

    /// The ids between those of the filter, and between the ids of its times.
    fn push_range(&mut self, id: &str) {
        let filter = self.filter;
        let (behind, until) = if filter.newest_first { ("<", ">=") } else { (">", "<=") };
        for (sign, bound) in [(behind, filter.after), (until, filter.through)] {
            if let Some(bound) = bound {
                self.push(&format!(" AND {id} {sign} "));
                self.sql.push_bind(bound.as_uuid());
            }
        }
        if let Some(from) = filter.created_from {
            self.push(&format!(" AND {id} >= "));
            self.sql.push_bind(first_id(from.checked_sub(CLOCK_SKEW)));
        }
        // A delivery ended after it was enqueued.
        let latest = [filter.created_before, filter.finished_before].into_iter().flatten().min();
        if let Some(latest) = latest.and_then(|latest| latest.checked_add(CLOCK_SKEW)).filter(|_| self.ids_tell_time) {
            self.push(&format!(" AND {id} < "));
            self.sql.push_bind(first_id(Some(latest)));
        }
    }

    fn push_state(&mut self) {
        match self.filter.state {
            None => {}
            Some(State::Pending) => _ = self.push(" AND q.leased_at IS NULL"),
            Some(State::Leased) => _ = self.push(" AND q.leased_at IS NOT NULL"),
            Some(State::Sent) => _ = self.push(NOT_ENDED).push(NOT_QUEUED),
            Some(state) => _ = self.push(" AND e.state = ").bind(state.as_str()),
        }
    }

    fn push_recipient(&mut self, wanted: &str, column: &str) {
        if wanted.starts_with('@') {
            // A reversed address at the domain begins with the reversed domain and the at sign, which sorts right before A.
            self.push(&format!(" AND {column} >= reverse(lower(")).bind(wanted).push("))");
            self.push(&format!(" AND {column} < left(reverse(lower(")).bind(wanted).push(")), -1) || 'A'");
        } else {
            self.push(&format!(" AND {column} = reverse(lower(")).bind(wanted).push("))");
        }
    }

    fn push_message(&mut self) {
        let filter = self.filter;
        if let Some(prefix) = &filter.subject_prefix {
            self.push(" AND starts_with(d.subject, ").bind(prefix).push(")");
        }
        if let Some(template) = &filter.template_id {
            self.push(" AND d.template_id = ").bind(template);
        }
        if let Some(tag) = &filter.tag {
            self.push(" AND EXISTS (SELECT FROM json_array_elements_text(d.tags) tag WHERE tag = ").bind(tag).push(")");
        }
        if let Some(key) = &filter.key {
            self.push(" AND d.key = ").bind(key);
        }
    }

    fn push_attempts(&mut self, id: &str) {
        let filter = self.filter;
        if let Some(id) = &filter.provider_id {
            self.push(r#" AND d.id IN (SELECT delivery_id FROM "{s}".attempts WHERE provider_id = "#)
                .bind(id)
                .push(")");
        }
        if let Some(transport) = &filter.transport {
            self.push(" AND (last.transport = ").bind(transport);
            self.push(" OR starts_with(last.transport, ").bind(transport).push(" || '/'))");
        }
        if let Some(error) = &filter.error {
            self.push(&LAST_ERROR.replace("{id}", id)).bind(error).push(") > 0");
        }
    }

    fn wants_end(&self) -> bool {
        self.filter.finished_from.is_some() || self.filter.finished_before.is_some()
    }

    fn push_times(&mut self) {
        let filter = self.filter;
        if let Some(from) = filter.created_from {
            self.push(" AND d.created_at >= ").bind_time(from);
        }
        if let Some(before) = filter.created_before {
            self.push(" AND d.created_at < ").bind_time(before);
        }
        if self.wants_end() {
            self.push(NOT_QUEUED);
        }
        if let Some(from) = filter.finished_from {
            self.push(" AND coalesce(e.ended_at, last.finished_at) >= ").bind_time(from);
        }
        if let Some(before) = filter.finished_before {
            self.push(" AND coalesce(e.ended_at, last.finished_at) < ").bind_time(before);
        }
    }
}

/// Leaves out deliveries that ended in another state than sent. A comparison of `coalesce(e.state, 'sent')` would be slower: the server
/// would expect that one in 200 deliveries was sent, and sort all of them.
const NOT_ENDED: &str =
    r#" AND NOT EXISTS (SELECT FROM "{s}".ended x WHERE x.delivery_id = d.id AND x.state <> 'sent')"#;

/// Skips a backlog of new deliveries: none with a larger id than the largest one in the history was tried.
const ATTEMPTED: &str = r#" AND d.id <= (SELECT delivery_id FROM "{s}".attempts ORDER BY delivery_id DESC LIMIT 1)"#;

const ATTEMPTED_OR_ENDED: &str = r#" AND d.id <= greatest(
    (SELECT delivery_id FROM "{s}".attempts ORDER BY delivery_id DESC LIMIT 1),
    (SELECT delivery_id FROM "{s}".ended ORDER BY delivery_id DESC LIMIT 1))"#;

/// A condition on the last error. The attempt is read only if there is no reason. `{id}` is a column of the first table, so that the
/// condition is checked before the joins.
const LAST_ERROR: &str = r#" AND strpos(coalesce(e.reason, (
    SELECT a.error FROM "{s}".attempts a WHERE a.delivery_id = {id} ORDER BY number DESC LIMIT 1)), "#;

const NOT_QUEUED: &str = r#" AND NOT EXISTS (SELECT FROM "{s}".queue w WHERE w.delivery_id = d.id)"#;

/// The smallest id of a delivery that is enqueued at this time.
fn first_id(time: Option<SystemTime>) -> Uuid {
    let millis = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default().as_millis();
    let millis = u64::try_from(millis).unwrap_or(u64::MAX).min((1 << 48) - 1);
    let id: DeliveryId = Uuid::from_u64_pair(millis << 16, 0).into();
    id.as_uuid()
}

//! Lists and counts deliveries by a filter.

use std::time::{Duration, SystemTime};

use sqlx::Sqlite;
use sqlx::query_builder::QueryBuilder;

use crate::clock::to_millis;
use crate::filter::Filter;
use crate::state::State;

/// How far the clock of a program that makes ids may be from the database's.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 3600);

/// The statement for a page of summaries.
pub(super) fn list(filter: &Filter, ids_tell_time: bool) -> QueryBuilder<Sqlite> {
    let mut sql = QueryBuilder::new("WITH page AS MATERIALIZED (");
    let mut search = Search { sql: &mut sql, filter, ids_tell_time };
    search.push_ids();
    search.push("), found AS (SELECT ").push_recipient_to_show();
    let order = order(filter);
    sql.push(format!(
        " AS recipient, d.id, d.created_at, d.subject, d.template_id, q.due_at, e.reason,
               CASE WHEN json_valid(d.recipients) THEN json_array_length(d.recipients) ELSE 0 END AS recipient_count,
               CASE WHEN q.leased_at IS NOT NULL THEN 'leased' WHEN q.delivery_id IS NOT NULL THEN 'pending'
                    ELSE coalesce(e.state, 'sent') END AS state,
               (SELECT count(*) FROM postrider_attempts a WHERE a.delivery_id = d.id) AS attempts,
               last.error AS last_error, CASE WHEN q.delivery_id IS NULL THEN coalesce(e.ended_at, last.finished_at) END AS finished_at
           FROM page JOIN postrider_deliveries d ON d.id = page.id
           LEFT JOIN postrider_queue q ON q.delivery_id = d.id
           LEFT JOIN postrider_ended e ON e.delivery_id = d.id
           {LAST_ATTEMPT})
           SELECT found.*,
               (SELECT r.outcome FROM postrider_recipients r WHERE r.delivery_id = found.id AND r.address = found.recipient) AS recipient_outcome,
               CASE WHEN found.state = 'sent' THEN (SELECT count(*) FROM postrider_recipients r
                   WHERE r.delivery_id = found.id AND r.outcome <> 'sent') ELSE 0 END AS failed_recipients
           FROM found ORDER BY id {order}"
    ));
    sql
}

const FIRST_RECIPIENT: &str = "lower(json_extract(d.recipients, '$[0]'))";
const OTHER_RECIPIENT: &str = "lower(r.address)";

/// The statement that counts up to the filter's limit.
pub(super) fn count(filter: &Filter, ids_tell_time: bool) -> QueryBuilder<Sqlite> {
    let mut sql = QueryBuilder::new("SELECT count(*) FROM (");
    Search { sql: &mut sql, filter, ids_tell_time }.push_ids();
    sql.push(") found");
    sql
}

/// The statement for [`AdminStore::search_end`](crate::AdminStore::search_end). `None` if an index answers the search.
pub(super) fn end(filter: &Filter, rows: u32, ids_tell_time: bool) -> Option<QueryBuilder<Sqlite>> {
    if rows == 0 || filter.is_indexed(false) {
        return None;
    }
    let mut sql = QueryBuilder::new("");
    Search { sql: &mut sql, filter, ids_tell_time }.push_end(rows - 1);
    Some(sql)
}

const LAST_ATTEMPT: &str = "LEFT JOIN postrider_attempts last ON last.delivery_id = d.id
    AND last.number = (SELECT max(number) FROM postrider_attempts WHERE delivery_id = d.id)";

fn order(filter: &Filter) -> &'static str {
    if filter.newest_first { "DESC" } else { "ASC" }
}

struct Search<'a> {
    sql: &'a mut QueryBuilder<Sqlite>,
    filter: &'a Filter,
    /// Whether an id tells when its delivery was enqueued: not with a test clock, which ids do not follow.
    ids_tell_time: bool,
}

impl Search<'_> {
    fn push(&mut self, text: &str) -> &mut Self {
        self.sql.push(text);
        self
    }

    fn bind(&mut self, text: &str) -> &mut Self {
        self.sql.push_bind(text.to_owned());
        self
    }

    fn bind_time(&mut self, time: SystemTime) -> &mut Self {
        self.sql.push_bind(to_millis(time));
        self
    }

    /// The ids of the page. The first recipient of a delivery and the other ones are in different indexes, so a search for a recipient has
    /// a part for each. Each part reads no more than a page.
    fn push_ids(&mut self) {
        let (limit, order) = (self.filter.limit, order(self.filter));
        if self.filter.recipient.is_none() {
            self.push_part(None);
            return;
        }
        self.push("SELECT id FROM (SELECT * FROM (");
        self.push_part(Some(FIRST_RECIPIENT));
        self.push(") UNION SELECT * FROM (");
        self.push_part(Some(OTHER_RECIPIENT));
        self.push(&format!(")) ORDER BY id {order} LIMIT {limit}"));
    }

    /// A recipient that the filter looks for, otherwise the first one.
    fn push_recipient_to_show(&mut self) {
        self.push("CASE WHEN NOT json_valid(d.recipients) THEN NULL ");
        if let Some(wanted) = self.filter.recipient.as_ref() {
            self.push("WHEN NOT coalesce(true");
            self.push_recipient(wanted, FIRST_RECIPIENT);
            self.push(", false) THEN (SELECT r.address FROM postrider_recipients r WHERE r.delivery_id = d.id");
            self.push_recipient(wanted, OTHER_RECIPIENT);
            self.push(" ORDER BY r.address LIMIT 1) ");
        }
        self.push("ELSE json_extract(d.recipients, '$[0]') END");
    }

    /// The ids that meet the conditions, with the column to look for the recipient in.
    fn push_part(&mut self, recipient: Option<&str>) {
        let filter = self.filter;
        // The smallest table that knows the state comes first.
        let (id, tables) = match filter.state {
            Some(State::Pending | State::Leased) => (
                "q.delivery_id",
                "postrider_queue q JOIN postrider_deliveries d ON d.id = q.delivery_id LEFT JOIN postrider_ended e ON e.delivery_id = ''",
            ),
            Some(State::Dead | State::InDoubt | State::Cancelled | State::Dismissed) => {
                ("e.delivery_id", "postrider_ended e JOIN postrider_deliveries d ON d.id = e.delivery_id")
            }
            Some(State::Sent) | None => {
                ("d.id", "postrider_deliveries d LEFT JOIN postrider_ended e ON e.delivery_id = d.id")
            }
        };
        let in_recipients = recipient == Some(OTHER_RECIPIENT);
        let distinct = if in_recipients { "DISTINCT " } else { "" };
        self.push(&format!("SELECT {distinct}{id} AS id FROM {tables}"));
        if in_recipients {
            self.push(" JOIN postrider_recipients r ON r.delivery_id = d.id");
        }
        if filter.transport.is_some() || self.wants_end() {
            self.push(" ").push(LAST_ATTEMPT);
        }
        self.push(" WHERE d.key_until IS NULL");
        self.push_state();
        self.push_attempted();
        if let (Some(wanted), Some(column)) = (&filter.recipient, recipient) {
            self.push_recipient(wanted, column);
        }
        self.push_message();
        self.push_attempts();
        self.push_times();
        self.push_range("d.id");
        let (limit, order) = (filter.limit, order(filter));
        self.push(&format!(" ORDER BY 1 {order} LIMIT {limit}"));
    }

    /// The id behind which the next part of a search begins, `skipped` ids after the first one of this part.
    fn push_end(&mut self, skipped: u32) {
        let state = self.filter.state;
        let (id, table) = match state {
            Some(State::Pending | State::Leased) => ("q.delivery_id", "postrider_queue q"),
            Some(State::Dead | State::InDoubt | State::Cancelled | State::Dismissed) => {
                ("e.delivery_id", "postrider_ended e")
            }
            Some(State::Sent) | None => ("d.id", "postrider_deliveries d"),
        };
        self.push(&format!("SELECT {id} AS id FROM {table} WHERE true"));
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
                self.push(&format!(" AND {id} {sign} ")).bind(&bound.to_string());
            }
        }
        if let Some(from) = filter.created_from {
            let first = first_id(from.checked_sub(CLOCK_SKEW).map_or(0, to_millis));
            self.push(&format!(" AND {id} >= ")).bind(&first);
        }
        // A delivery ended after it was enqueued.
        let latest = [filter.created_before, filter.finished_before].into_iter().flatten().min();
        if let Some(latest) = latest.and_then(|latest| latest.checked_add(CLOCK_SKEW)).filter(|_| self.ids_tell_time) {
            self.push(&format!(" AND {id} < ")).bind(&first_id(to_millis(latest)));
        }
    }

    fn push_state(&mut self) {
        match self.filter.state {
            None => {}
            Some(State::Pending) => _ = self.push(" AND q.leased_at IS NULL"),
            Some(State::Leased) => _ = self.push(" AND q.leased_at IS NOT NULL"),
            Some(State::Sent) => _ = self.push(" AND coalesce(e.state, 'sent') = 'sent'").push(NOT_QUEUED),
            Some(state) => _ = self.push(" AND e.state = ").bind(state.as_str()),
        }
    }

    fn push_recipient(&mut self, wanted: &str, column: &str) {
        if wanted.starts_with('@') {
            self.push(&format!(" AND substr({column}, -length("))
                .bind(wanted)
                .push(")) = lower(")
                .bind(wanted)
                .push(")");
        } else {
            self.push(&format!(" AND {column} = lower(")).bind(wanted).push(")");
        }
    }

    fn push_message(&mut self) {
        let filter = self.filter;
        if let Some(prefix) = &filter.subject_prefix {
            self.push(" AND substr(d.subject, 1, length(").bind(prefix).push(")) = ").bind(prefix);
        }
        if let Some(template) = &filter.template_id {
            self.push(" AND d.template_id = ").bind(template);
        }
        if let Some(tag) = &filter.tag {
            self.push(" AND EXISTS (SELECT 1 FROM json_each(d.tags) WHERE value = ").bind(tag).push(")");
        }
        if let Some(key) = &filter.key {
            self.push(" AND d.key = ").bind(key);
        }
    }

    fn push_attempts(&mut self) {
        let filter = self.filter;
        if let Some(id) = &filter.provider_id {
            self.push(" AND d.id IN (SELECT delivery_id FROM postrider_attempts WHERE provider_id = ")
                .bind(id)
                .push(")");
        }
        if let Some(transport) = &filter.transport {
            self.push(" AND (last.transport = ").bind(transport);
            self.push(" OR substr(last.transport, 1, length(").bind(transport);
            self.push(") + 1) = ").bind(transport).push(" || '/')");
        }
        if let Some(error) = &filter.error {
            self.push(LAST_ERROR).bind(error).push(") > 0");
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

/// Skips a backlog of new deliveries: none with a larger id than the largest one in the history was tried.
const ATTEMPTED: &str = " AND d.id <= (SELECT max(delivery_id) FROM postrider_attempts)";

const ATTEMPTED_OR_ENDED: &str = " AND d.id <= max(
    coalesce((SELECT max(delivery_id) FROM postrider_attempts), ''), coalesce((SELECT max(delivery_id) FROM postrider_ended), ''))";

/// A condition on the last error. The attempt is read only if there is no reason.
const LAST_ERROR: &str = " AND instr(coalesce(e.reason, (
    SELECT error FROM postrider_attempts WHERE delivery_id = d.id ORDER BY number DESC LIMIT 1)), ";

const NOT_QUEUED: &str = " AND NOT EXISTS (SELECT 1 FROM postrider_queue w WHERE w.delivery_id = d.id)";

/// The beginning of the ids of deliveries that are enqueued at this time, in milliseconds since 1970.
fn first_id(millis: i64) -> String {
    let millis = millis.clamp(0, (1 << 48) - 1);
    format!("{:08x}-{:04x}", millis >> 16, millis & 0xffff)
}

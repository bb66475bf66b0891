//! Lists and counts deliveries by a filter.
//!
//! Each filter has its own statement, with its own conditions alone, so that the server plans for these. The statement begins at the index
//! of the condition that finds the fewest deliveries, and names this index: on a table that was filled a moment ago, MySQL still plans for
//! an empty table. For a domain, which may have few deliveries or most of them, the server chooses.

use std::time::{Duration, SystemTime};

use sqlx::MySql;
use sqlx::query_builder::QueryBuilder;
use uuid::Uuid;

use crate::clock::{to_micros, to_millis};
use crate::filter::Filter;
use crate::state::State;

/// How far the clock of a program that makes ids may be from the database's.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 3600);

/// The statement for a page of summaries.
pub(super) fn list(prefix: &str, filter: &Filter, ids_tell_time: bool) -> QueryBuilder<MySql> {
    let mut sql = QueryBuilder::new(fill(
        prefix,
        "SELECT found.*,
             (SELECT o.outcome FROM {p}recipients o FORCE INDEX (PRIMARY) WHERE o.delivery_id = found.id
                  AND o.address = CONVERT(found.recipient USING utf8mb4) COLLATE utf8mb4_bin) AS recipient_outcome,
             IF(found.state = 'sent', (SELECT COUNT(*) FROM {p}recipients o FORCE INDEX (PRIMARY)
                  WHERE o.delivery_id = found.id AND o.outcome <> 'sent'), 0) AS failed_recipients
         FROM (SELECT ",
    ));
    Search { sql: &mut sql, prefix, filter, ids_tell_time }.push_recipient_to_show();
    sql.push(
        " AS recipient, d.id, d.created_at, d.subject, d.template_id, q.due_at, e.reason,
             IF(JSON_VALID(d.recipients), JSON_LENGTH(d.recipients), NULL) AS recipient_count,
             CASE WHEN q.leased_at <> 0 THEN 'leased' WHEN q.delivery_id IS NOT NULL THEN 'pending'
                  ELSE COALESCE(e.state, 'sent') END AS state, ",
    );
    sql.push(fill(
        prefix,
        "(SELECT COUNT(*) FROM {p}attempts c FORCE INDEX (PRIMARY) WHERE c.delivery_id = d.id) AS attempts, last.error AS last_error,
         IF(q.delivery_id IS NULL, COALESCE(e.ended_at, last.finished_at), NULL) AS finished_at
         FROM (",
    ));
    Search { sql: &mut sql, prefix, filter, ids_tell_time }.push_ids();
    let order = order(filter);
    sql.push(fill(
        prefix,
        &format!(
            ") page STRAIGHT_JOIN {{p}}deliveries d FORCE INDEX (PRIMARY) ON d.id = page.id {JOIN_QUEUE} {JOIN_ENDED} {JOIN_LAST_ATTEMPT}) found ORDER BY found.id {order}"
        ),
    ));
    sql
}

/// The statement that counts up to the filter's limit.
pub(super) fn count(prefix: &str, filter: &Filter, ids_tell_time: bool) -> QueryBuilder<MySql> {
    let mut sql = QueryBuilder::new("SELECT COUNT(*) FROM (");
    Search { sql: &mut sql, prefix, filter, ids_tell_time }.push_ids();
    sql.push(") found");
    sql
}

/// The statement for [`AdminStore::search_end`](crate::AdminStore::search_end). `None` if an index answers the search.
pub(super) fn end(prefix: &str, filter: &Filter, rows: u32, ids_tell_time: bool) -> Option<QueryBuilder<MySql>> {
    if rows == 0 || filter.is_indexed(true) {
        return None;
    }
    let mut sql = QueryBuilder::new("");
    Search { sql: &mut sql, prefix, filter, ids_tell_time }.push_end(rows - 1);
    Some(sql)
}

const JOIN_QUEUE: &str = "LEFT JOIN {p}queue q FORCE INDEX (PRIMARY) ON q.delivery_id = d.id";
const JOIN_ENDED: &str = "LEFT JOIN {p}ended e FORCE INDEX (PRIMARY) ON e.delivery_id = d.id";
const JOIN_LAST_ATTEMPT: &str = "LEFT JOIN {p}attempts last FORCE INDEX (PRIMARY) ON last.delivery_id = d.id
    AND last.number = (SELECT MAX(a.number) FROM {p}attempts a FORCE INDEX (PRIMARY) WHERE a.delivery_id = d.id)";

/// A bound address, or a part of one, in the form of the columns `reversed`, and with their collation instead of the session's.
const REVERSED: &str = "LEFT(REVERSE(LOWER(CONVERT(? USING utf8mb4) COLLATE utf8mb4_bin)), 700)";

/// MariaDB's `JSON_CONTAINS` does not know that an escape stands for a character. With `EXISTS`, MySQL 9.7 reads the tags of one delivery
/// and takes them for those of all.
const HAS_TAG: &str = " AND (
    SELECT COUNT(*) FROM JSON_TABLE(IF(JSON_VALID(d.tags), d.tags, '[]'), '$[*]' COLUMNS (tag LONGTEXT CHARACTER SET utf8mb4 PATH '$')) t
    WHERE t.tag = CONVERT(? USING utf8mb4) COLLATE utf8mb4_bin) > 0";

/// Skips a backlog of new deliveries: none with a larger id than the largest one in the history was tried.
const NEWEST_ATTEMPT: &str = "(SELECT MAX(n.delivery_id) FROM {p}attempts n FORCE INDEX (PRIMARY))";
const NEWEST_END: &str = "(SELECT MAX(n.delivery_id) FROM {p}ended n FORCE INDEX (PRIMARY))";

/// The error of the last attempt. It is read only if there is no reason.
const LAST_ERROR: &str = "(SELECT l.error FROM {p}attempts l FORCE INDEX (PRIMARY)
    WHERE l.delivery_id = d.id ORDER BY l.number DESC LIMIT 1)";

fn fill(prefix: &str, text: &str) -> String {
    text.replace("{p}", prefix)
}

fn order(filter: &Filter) -> &'static str {
    if filter.newest_first { "DESC" } else { "ASC" }
}

/// Which recipients a part of the statement looks at. They are in different tables.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Recipients {
    Any,
    First,
    Others,
}

struct Search<'a> {
    sql: &'a mut QueryBuilder<MySql>,
    prefix: &'a str,
    filter: &'a Filter,
    /// Whether an id tells when its delivery was enqueued: not with a test clock, which ids do not follow.
    ids_tell_time: bool,
}

impl Search<'_> {
    fn push(&mut self, text: &str) -> &mut Self {
        self.sql.push(fill(self.prefix, text));
        self
    }

    /// Adds a text with one placeholder, and its value. (The builder adds a placeholder of its own.)
    fn bind(&mut self, text: &str, value: &str) -> &mut Self {
        let (before, after) = text.split_once('?').unwrap_or((text, ""));
        self.push(before);
        self.sql.push_bind(value.to_owned());
        self.push(after)
    }

    fn bind_time(&mut self, text: &str, time: SystemTime) -> &mut Self {
        self.push(text);
        self.sql.push_bind(to_micros(time));
        self
    }

    fn bind_id(&mut self, text: &str, id: Uuid) -> &mut Self {
        self.push(text);
        self.sql.push_bind(id);
        self
    }

    /// The ids of the page. The first recipient of a delivery and the other ones are in different indexes, so a search for a recipient has
    /// a part for each. Each part reads no more than a page from its index.
    fn push_ids(&mut self) {
        let (limit, order) = (self.filter.limit, order(self.filter));
        if self.filter.recipient.is_none() {
            self.push_part(Recipients::Any);
            return;
        }
        self.push("SELECT part.id FROM ((");
        self.push_part(Recipients::First);
        self.push(") UNION (");
        self.push_part(Recipients::Others);
        self.push(&format!(")) part ORDER BY part.id {order} LIMIT {limit}"));
    }

    /// A recipient that the filter looks for, otherwise the first one.
    fn push_recipient_to_show(&mut self) {
        self.push("CASE WHEN NOT JSON_VALID(d.recipients) THEN NULL ");
        if self.filter.recipient.is_some() {
            self.push("WHEN NOT COALESCE(TRUE");
            self.push_recipient(Recipients::First);
            self.push(
                ", FALSE) THEN (SELECT r.address FROM {p}recipients r FORCE INDEX (PRIMARY) WHERE r.delivery_id = d.id",
            );
            self.push_recipient(Recipients::Others);
            self.push(" ORDER BY r.address LIMIT 1) ");
        }
        self.push("ELSE JSON_UNQUOTE(JSON_EXTRACT(d.recipients, '$[0]')) END");
    }

    /// The ids that meet the conditions.
    fn push_part(&mut self, recipients: Recipients) {
        let filter = self.filter;
        let in_domain = filter.recipient.as_ref().is_some_and(|wanted| wanted.starts_with('@'));
        // A domain may have most of the deliveries, an address has few.
        let by_address = filter.recipient.is_some() && !in_domain;
        let state = filter.state;
        let queued = matches!(state, Some(State::Pending | State::Leased));
        let ended = matches!(state, Some(State::Dead | State::InDoubt | State::Cancelled | State::Dismissed));
        let (id, table) = if filter.key.is_some() {
            ("d.id", None)
        } else if filter.provider_id.is_some() {
            let found = "(SELECT DISTINCT delivery_id FROM {p}attempts FORCE INDEX (attempts_provider_id) WHERE provider_id = ?) i";
            ("i.delivery_id", Some(("i", found)))
        } else if recipients == Recipients::Others && (by_address || !(queued || ended)) {
            let by_index = "{p}recipients r FORCE INDEX (recipients_reversed)";
            ("r.delivery_id", Some(("r", if by_address { by_index } else { "{p}recipients r" })))
        } else if by_address {
            ("d.id", None)
        } else if queued {
            ("q.delivery_id", Some(("q", "{p}queue q FORCE INDEX (PRIMARY)")))
        } else if ended {
            ("e.delivery_id", Some(("e", "{p}ended e FORCE INDEX (ended_state)")))
        } else {
            ("d.id", None)
        };
        let begins_at = |name: &str| table.is_some_and(|(alias, _)| alias == name);
        self.push(&format!("SELECT {id} AS id FROM "));
        match (table, &filter.provider_id) {
            (None, _) if filter.key.is_some() => _ = self.push("{p}deliveries d FORCE INDEX (deliveries_key)"),
            (None, _) if by_address => _ = self.push("{p}deliveries d FORCE INDEX (deliveries_reversed)"),
            (None, _) if in_domain => _ = self.push("{p}deliveries d"),
            (None, _) => _ = self.push("{p}deliveries d FORCE INDEX (PRIMARY)"),
            (Some(("i", found)), Some(provider_id)) => _ = self.bind(found, provider_id),
            (Some((_, table)), _) => _ = self.push(table),
        }
        let joins_others = recipients == Recipients::Others && !begins_at("r");
        if joins_others && table.is_some() {
            // Most deliveries have no row there, and need not be read.
            self.push(&format!(" STRAIGHT_JOIN {{p}}recipients r FORCE INDEX (PRIMARY) ON r.delivery_id = {id}"));
        }
        if table.is_some() {
            self.push(&format!(" STRAIGHT_JOIN {{p}}deliveries d FORCE INDEX (PRIMARY) ON d.id = {id}"));
        }
        if joins_others && table.is_none() {
            self.push(" JOIN {p}recipients r FORCE INDEX (PRIMARY) ON r.delivery_id = d.id");
        }
        if (state.is_some() || self.wants_end()) && !begins_at("q") {
            self.push(" ").push(JOIN_QUEUE);
        }
        if (state.is_some() || self.wants_end() || filter.error.is_some()) && !begins_at("e") {
            self.push(" ").push(JOIN_ENDED);
        }
        if filter.transport.is_some() || self.wants_end() {
            self.push(" ").push(JOIN_LAST_ATTEMPT);
        }
        self.push(" WHERE d.key_until IS NULL");
        self.push_state();
        self.push_attempted(id);
        self.push_recipient(recipients);
        self.push_message();
        self.push_attempts(begins_at("i"));
        self.push_times();
        self.push_range(id);
        if recipients == Recipients::Others {
            // Several addresses at one domain, or one address in several spellings. (For DISTINCT the server would build a temporary
            // table.)
            self.push(&format!(" GROUP BY {id}"));
        }
        let (limit, order) = (filter.limit, order(filter));
        self.push(&format!(" ORDER BY {id} {order} LIMIT {limit}"));
    }

    /// The id behind which the next part of a search begins, `skipped` ids after the first one of this part.
    fn push_end(&mut self, skipped: u32) {
        let state = self.filter.state;
        let (id, table) = match state {
            Some(State::Pending | State::Leased) => ("q.delivery_id", "{p}queue q FORCE INDEX (PRIMARY)"),
            Some(State::Dead | State::InDoubt | State::Cancelled | State::Dismissed) => {
                ("e.delivery_id", "{p}ended e FORCE INDEX (ended_state)")
            }
            Some(State::Sent) | None => ("d.id", "{p}deliveries d FORCE INDEX (PRIMARY)"),
        };
        self.push(&format!("SELECT {id} AS id FROM {table} WHERE true"));
        if let Some(state) = state.filter(|_| id == "e.delivery_id") {
            self.bind(" AND e.state = ?", state.as_str());
        }
        self.push_attempted(id);
        self.push_range(id);
        let order = order(self.filter);
        self.push(&format!(" ORDER BY {id} {order} LIMIT 1 OFFSET {skipped}"));
    }

    /// Skips new deliveries that cannot match. Only these searches begin at the table of all deliveries, and the others at a small one.
    fn push_attempted(&mut self, id: &str) {
        let filter = self.filter;
        if matches!(filter.state, None | Some(State::Sent)) {
            if filter.state.is_some() || filter.transport.is_some() {
                self.push(&format!(" AND {id} <= {NEWEST_ATTEMPT}"));
            } else if filter.error.is_some() || self.wants_end() {
                self.push(&format!(
                    " AND {id} <= GREATEST(COALESCE({NEWEST_ATTEMPT}, ''), COALESCE({NEWEST_END}, ''))"
                ));
            }
        }
    }

    /// The ids between those of the filter, and between the ids of its times.
    fn push_range(&mut self, id: &str) {
        let filter = self.filter;
        let (behind, until) = if filter.newest_first { ("<", ">=") } else { (">", "<=") };
        for (sign, bound) in [(behind, filter.after), (until, filter.through)] {
            if let Some(bound) = bound {
                self.bind_id(&format!(" AND {id} {sign} "), bound.as_uuid());
            }
        }
        if let Some(from) = filter.created_from {
            self.bind_id(&format!(" AND {id} >= "), first_id(from.checked_sub(CLOCK_SKEW)));
        }
        // A delivery ended after it was enqueued.
        let latest = [filter.created_before, filter.finished_before].into_iter().flatten().min();
        if let Some(latest) = latest.and_then(|latest| latest.checked_add(CLOCK_SKEW)).filter(|_| self.ids_tell_time) {
            self.bind_id(&format!(" AND {id} < "), first_id(Some(latest)));
        }
    }

    fn push_state(&mut self) {
        match self.filter.state {
            None => {}
            Some(State::Pending) => _ = self.push(" AND q.leased_at = 0"),
            Some(State::Leased) => _ = self.push(" AND q.leased_at <> 0"),
            Some(State::Sent) => _ = self.push(" AND COALESCE(e.state, 'sent') = 'sent' AND q.delivery_id IS NULL"),
            Some(state) => _ = self.bind(" AND e.state = ?", state.as_str()).push(" AND q.delivery_id IS NULL"),
        }
    }

    fn push_recipient(&mut self, recipients: Recipients) {
        let Some(wanted) = self.filter.recipient.as_deref() else { return };
        let column = if recipients == Recipients::Others { "r.reversed" } else { "d.reversed" };
        match wanted.strip_prefix('@') {
            // A reversed address at the domain begins with the reversed domain and the at sign, which sorts right before A.
            Some(domain) => {
                self.bind(&format!(" AND {column} >= CONCAT({REVERSED}, '@')"), domain);
                self.bind(&format!(" AND {column} < CONCAT({REVERSED}, 'A')"), domain);
            }
            None => _ = self.bind(&format!(" AND {column} = {REVERSED}"), wanted),
        }
    }

    fn push_message(&mut self) {
        let filter = self.filter;
        if let Some(prefix) = &filter.subject_prefix {
            self.bind(" AND LOCATE(?, d.subject) = 1", prefix);
        }
        if let Some(template) = &filter.template_id {
            self.bind(" AND d.template_id = ?", template);
        }
        if let Some(tag) = &filter.tag {
            self.bind(HAS_TAG, tag);
        }
        if let Some(key) = &filter.key {
            self.push(" AND d.`key` = ");
            self.sql.push_bind(key.as_bytes().to_vec());
        }
    }

    fn push_attempts(&mut self, provider_id_is_found: bool) {
        let filter = self.filter;
        if let Some(id) = filter.provider_id.as_ref().filter(|_| !provider_id_is_found) {
            self.bind(" AND d.id IN (SELECT delivery_id FROM {p}attempts FORCE INDEX (attempts_provider_id) WHERE provider_id = ?)", id);
        }
        if let Some(transport) = &filter.transport {
            self.bind(" AND (last.transport = ?", transport);
            self.bind(" OR LOCATE(CONCAT(?, '/'), last.transport) = 1)", transport);
        }
        if let Some(error) = &filter.error {
            self.bind(&format!(" AND LOCATE(?, COALESCE(e.reason, {LAST_ERROR})) > 0"), error);
        }
    }

    fn wants_end(&self) -> bool {
        self.filter.finished_from.is_some() || self.filter.finished_before.is_some()
    }

    fn push_times(&mut self) {
        let filter = self.filter;
        if let Some(from) = filter.created_from {
            self.bind_time(" AND d.created_at >= ", from);
        }
        if let Some(before) = filter.created_before {
            self.bind_time(" AND d.created_at < ", before);
        }
        if self.wants_end() {
            self.push(" AND q.delivery_id IS NULL");
        }
        if let Some(from) = filter.finished_from {
            self.bind_time(" AND COALESCE(e.ended_at, last.finished_at) >= ", from);
        }
        if let Some(before) = filter.finished_before {
            self.bind_time(" AND COALESCE(e.ended_at, last.finished_at) < ", before);
        }
    }
}

/// The smallest id of a delivery that is enqueued at this time.
fn first_id(time: Option<SystemTime>) -> Uuid {
    let millis = u64::try_from(time.map_or(0, to_millis)).unwrap_or(0).min((1 << 48) - 1);
    Uuid::from_u64_pair(millis << 16, 0)
}

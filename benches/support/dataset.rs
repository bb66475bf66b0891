//! A data set of millions of deliveries, which plain SQL writes into the tables in minutes.
//!
//! Of `count` deliveries, 1 in 50 is dead, and a few are cancelled or in doubt. The newest `unfinished` ones are pending or leased.
//! All others were sent. A recipient has four mails on average, except `alerts@ops.example`, which has 1 in 100. Of the recipients, 4 in 10
//! are at `mail-one.example`, 2 in 10 at `mail-two.example`, and the rest at 20,011 domains. 1 in 10 mails has a second recipient.

use std::time::{Duration, SystemTime};

use postrider::{MySqlStore, PgStore, SqliteStore};
use sqlx::{AssertSqlSafe, Executor};

/// How many deliveries one statement writes.
const CHUNK: usize = 100_000;

/// How many of the unfinished deliveries are leased.
const LEASED: usize = 50;

/// The size and the age of the data set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dataset {
    /// The number of deliveries.
    pub(crate) count: usize,
    /// How many of the newest deliveries are not finished.
    pub(crate) unfinished: usize,
    /// The age of the newest delivery. The oldest is 30 days older.
    pub(crate) newest: Duration,
}

/// The SQL that differs between the databases. All else is the same, and uses `||` on MariaDB too.
struct Dialect {
    /// Selects `g` from `{first}` to `{last}`.
    numbers: &'static str,
    /// The id for the milliseconds `ms` and the number `g`.
    id: &'static str,
    /// A time from milliseconds.
    time: fn(&str) -> String,
    /// The beginning of the hour of the time `finished_at`.
    hour: &'static str,
    /// The prefix of the names of the tables.
    prefix: &'static str,
    /// Whether the message is in a table of its own, instead of in the row of the delivery.
    bodies: bool,
    /// The queue's columns for a pending and a leased delivery.
    queue: &'static str,
    /// An expression for the slot of a counter. `None` if counters have no slots.
    slot: Option<&'static str>,
}

const POSTGRES: Dialect = Dialect {
    numbers: "SELECT g FROM generate_series({first}::bigint, {last}::bigint) s (g)",
    id: "(lpad(to_hex(ms), 12, '0') || '70008000' || lpad(to_hex(g), 12, '0'))::uuid",
    time: |ms| format!("to_timestamp(({ms}) / 1000.0)"),
    hour: "date_trunc('hour', finished_at)",
    prefix: "postrider.",
    bodies: true,
    queue: "(delivery_id, priority, size, cycle_started_at, due_at, lease_until, leased_at, token)
            SELECT id, 5, 800, at, at, CASE WHEN state = 'leased' THEN now() + interval '1 day' ELSE '-infinity' END,
                   CASE WHEN state = 'leased' THEN now() END, CASE WHEN state = 'leased' THEN 1 ELSE -1 END",
    slot: Some("extract(second FROM finished_at)::int % 16"),
};

const MARIADB: Dialect = Dialect {
    numbers: "SELECT seq AS g FROM seq_{first}_to_{last}",
    id: "UNHEX(LPAD(HEX(ms), 12, '0') || '70008000' || LPAD(HEX(g), 12, '0'))",
    time: |ms| format!("({ms}) * 1000"),
    hour: "finished_at DIV 3600000000 * 3600000000",
    prefix: "postrider_",
    bodies: false,
    queue: "(delivery_id, priority, size, cycle_started_at, due_at, leased_at, token)
            SELECT id, 5, 800, at, IF(state = 'leased', at + 172800000000, at), IF(state = 'leased', at, 0), IF(state = 'leased', 1, 0)",
    slot: Some("finished_at DIV 1000000 % 16"),
};

const SQLITE: Dialect = Dialect {
    numbers: "WITH RECURSIVE s (g) AS (SELECT {first} UNION ALL SELECT g + 1 FROM s WHERE g < {last}) SELECT g FROM s",
    id: "printf('%08x-%04x-7000-8000-%012x', ms >> 16, ms & 65535, g)",
    time: |ms| format!("({ms})"),
    hour: "finished_at / 3600000 * 3600000",
    prefix: "postrider_",
    bodies: false,
    queue: "(delivery_id, priority, size, cycle_started_at, due_at, leased_at, token)
            SELECT id, 5, 800, at, CASE WHEN state = 'leased' THEN at + 172800000 ELSE at END,
                   CASE WHEN state = 'leased' THEN at END, state = 'leased'",
    slot: None,
};

const SUBJECT: &str = "CASE WHEN g % 3 = 0 THEN 'Your invoice ' || g ELSE 'Order ' || g || ' has left our store' END";
const TEMPLATE: &str = "'template-' || (g % 50)";
const KEY: &str = "CASE WHEN g % 2 = 0 THEN 'order-' || g END";
const TRANSPORT: &str = "CASE WHEN g % 10 = 0 THEN 'failover/ses' ELSE 'failover/smtp' END";
const ERROR: &str = "CASE WHEN g % 50000 = 7 THEN '552 5.2.2 mailbox full' ELSE '550 5.1.1 no such user' END";

/// A seventh of a mail's text.
const TEXT: &str = "Hello, your order has been packed this morning and leaves our store this afternoon. ";

impl Dataset {
    pub(crate) async fn fill_postgres(&self, store: &PgStore) {
        let mut connection = store.pool().acquire().await.expect("a connection");
        self.fill(&mut *connection, &POSTGRES, &[], &[]).await;
        super::databases::quiesce_postgres(store).await;
    }

    pub(crate) async fn fill_mysql(&self, store: &MySqlStore) {
        let mut connection = store.pool().acquire().await.expect("a connection").detach();
        // The triggers would put each delivery into the queue.
        let text = "SELECT trigger_name, action_statement FROM information_schema.triggers
                    WHERE trigger_schema = DATABASE() AND event_manipulation = 'INSERT'";
        let triggers: Vec<(String, String)> = sqlx::query_as(text).fetch_all(&mut connection).await.expect("a list");
        let mut before = vec!["SET SESSION sql_mode = 'PIPES_AS_CONCAT'".to_owned()];
        let mut after = vec!["SET SESSION sql_mode = DEFAULT".to_owned()];
        for (name, statement) in triggers {
            before.push(format!("DROP TRIGGER {name}"));
            after.push(format!("CREATE TRIGGER {name} AFTER INSERT ON postrider_deliveries FOR EACH ROW {statement}"));
        }
        self.fill(&mut connection, &MARIADB, &before, &after).await;
        super::databases::quiesce_mysql(store.pool()).await;
    }

    pub(crate) async fn fill_sqlite(&self, store: &SqliteStore) {
        let mut connection = store.pool().acquire().await.expect("a connection");
        // The trigger would put each delivery into the queue.
        let text = "SELECT sql FROM sqlite_master WHERE name = 'postrider_enqueue'";
        let trigger: String = sqlx::query_scalar(text).fetch_one(&mut *connection).await.expect("a trigger");
        self.fill(&mut *connection, &SQLITE, &["DROP TRIGGER postrider_enqueue".to_owned()], &[trigger]).await;
        super::databases::quiesce_sqlite(store.pool()).await;
    }

    async fn fill<C>(&self, connection: &mut C, dialect: &Dialect, before: &[String], after: &[String])
    where
        for<'c> &'c mut C: Executor<'c>,
    {
        let start = std::time::Instant::now();
        let mut run = async |text: &str| {
            connection.execute(sqlx::raw_sql(AssertSqlSafe(text.to_owned()))).await.expect("the statement works");
        };
        for text in before {
            run(text).await;
        }
        for first in (0..self.count).step_by(CHUNK) {
            let rows = self.rows(dialect, first, self.count.min(first + CHUNK) - 1);
            for text in inserts(dialect) {
                let text = text.replace("{rows}", &rows).replace("{p}", dialect.prefix);
                run(&text.replace("{text}", &TEXT.repeat(7))).await;
            }
        }
        for text in counters(dialect) {
            run(&text.replace("{p}", dialect.prefix)).await;
        }
        for text in after {
            run(text).await;
        }
        eprintln!("{} deliveries written in {:.0} s", self.count, start.elapsed().as_secs_f64());
    }

    /// Selects the deliveries with these numbers: `g`, `ms`, `id`, `at`, `address`, `state`.
    fn rows(&self, dialect: &Dialect, first: usize, last: usize) -> String {
        const SPAN: Duration = Duration::from_secs(30 * 24 * 3600);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970");
        let step = SPAN.as_millis() / self.count as u128;
        // The whole hour, so that all statements of one run agree.
        let base = u128::from((now - self.newest - SPAN).as_secs() / 3600 * 3600 * 1000);
        let (numbers, id) = (dialect.numbers, dialect.id);
        let (unfinished, leased) = (self.count - self.unfinished, self.count - LEASED.min(self.unfinished));
        let numbers = numbers.replace("{first}", &first.to_string()).replace("{last}", &last.to_string());
        format!(
            "(SELECT g, ms, {id} AS id, {} AS at,
                CASE WHEN g % 100 = 3 THEN 'alerts@ops.example' WHEN u % 10 < 4 THEN 'user-' || u || '@mail-one.example'
                     WHEN u % 10 < 6 THEN 'user-' || u || '@mail-two.example'
                     ELSE 'user-' || u || '@company-' || (u % 20011) || '.example' END AS address,
                CASE WHEN g >= {leased} THEN 'leased' WHEN g >= {unfinished} THEN 'pending' WHEN g % 50 = 7 THEN 'dead'
                     WHEN g % 10000 = 1 THEN 'in_doubt' WHEN g % 1000 = 2 THEN 'cancelled' ELSE 'sent' END AS state
              FROM (SELECT g, {base} + g * {step} AS ms, g * 7919 % {} AS u FROM ({numbers}) n) m) r",
            (dialect.time)("ms"),
            (self.count / 4).max(1),
        )
    }
}

/// The statements that write one chunk.
fn inserts(dialect: &Dialect) -> Vec<String> {
    let (body, columns) = (
        "'{\"from\":\"Shop <orders@shop.example>\",\"to\":[\"' || address || '\"]}'",
        "id, created_at, recipients, subject, template_id, tags",
    );
    let tags = "CASE WHEN g % 100000 = 11 THEN '[\"lost-parcel\"]' WHEN g % 2 = 1 THEN '[\"campaign-' || (g % 1000) || '\"]' END";
    let recipients = "'[\"' || address || CASE WHEN g % 10 = 5 THEN '\",\"copy-' || address ELSE '' END || '\"]'";
    let key = if dialect.prefix.ends_with('.') { "key" } else { "`key`" };
    let json = |text: &str| if dialect.bodies { format!("({text})::json") } else { text.to_owned() };
    let values = format!("id, at, {}, {SUBJECT}, {TEMPLATE}, {}, {KEY}", json(recipients), json(tags));
    let mut texts = Vec::new();
    if dialect.bodies {
        texts.push(format!("INSERT INTO {{p}}deliveries ({columns}, {key}) SELECT {values} FROM {{rows}}"));
        texts.push(format!(
            "INSERT INTO {{p}}bodies (delivery_id, format, body, text) SELECT id, 'email/1', {body}, '{{text}}' FROM {{rows}}"
        ));
    } else {
        texts.push(format!(
            "INSERT INTO {{p}}deliveries ({columns}, {key}, format, body, text) SELECT {values}, 'email/1', {body}, '{{text}}' FROM {{rows}}"
        ));
    }
    texts.push(
        "INSERT INTO {p}recipients (delivery_id, address) SELECT id, 'copy-' || address FROM {rows} WHERE g % 10 = 5"
            .to_owned(),
    );
    texts.push(format!("INSERT INTO {{p}}queue {} FROM {{rows}} WHERE state IN ('pending', 'leased')", dialect.queue));
    let finished = (dialect.time)("ms + 2000");
    texts.push(format!(
        "INSERT INTO {{p}}ended (delivery_id, state, reason, ended_at, token, attempts, cycle)
         SELECT id, state, CASE WHEN state = 'dead' THEN {ERROR} END, {finished}, 1, 1, 1
         FROM {{rows}} WHERE state IN ('dead', 'in_doubt', 'cancelled')"
    ));
    // One in twenty was sent by its second attempt.
    texts.push(format!(
        "INSERT INTO {{p}}attempts
             (delivery_id, number, cycle, token, started_at, finished_at, outcome, error, reply, provider_id, transport)
         SELECT id, a.number, 1, a.number, {}, {finished},
                CASE WHEN a.number < a.last THEN 'transient' WHEN state = 'dead' THEN 'permanent' ELSE state END,
                CASE WHEN a.number < a.last THEN '451 4.3.0 try again later' WHEN state = 'dead' THEN {ERROR} END,
                CASE WHEN a.number = a.last AND state = 'sent' THEN '250 2.0.0 Ok: queued' END,
                CASE WHEN a.number = a.last AND state = 'sent' THEN 'queued-' || g END, {TRANSPORT}
         FROM {{rows}} JOIN (SELECT 1 AS number, 1 AS last UNION ALL SELECT 1, 2 UNION ALL SELECT 2, 2) a
              ON a.last = CASE WHEN g % 20 = 9 THEN 2 ELSE 1 END
         WHERE state IN ('sent', 'dead', 'in_doubt')",
        (dialect.time)("ms + 1000")
    ));
    texts
}

/// The statements that write the counters, as settlements would have.
fn counters(dialect: &Dialect) -> [String; 3] {
    let (slot, into, group) = match dialect.slot {
        Some(slot) => (format!("{slot}, "), "slot, ", ", 4"),
        None => (String::new(), "", ""),
    };
    let (first_slot, hour) = (if into.is_empty() { "" } else { "0, " }, dialect.hour);
    let count = if dialect.prefix.ends_with('.') { "count" } else { "`count`" };
    [
        format!("INSERT INTO {{p}}totals (state, {into}{count}) SELECT state, {first_slot}count(*) FROM {{p}}ended GROUP BY state"),
        format!(
            "INSERT INTO {{p}}totals (state, {into}{count})
             SELECT 'sent', {first_slot}(SELECT count(*) FROM {{p}}deliveries) - (SELECT count(*) FROM {{p}}ended) - (SELECT count(*) FROM {{p}}queue)"
        ),
        format!(
            "INSERT INTO {{p}}hourly (hour, event, transport, {into}{count})
             SELECT {hour}, outcome, transport, {slot}count(*) FROM {{p}}attempts GROUP BY 1, 2, 3{group}"
        ),
    ]
}

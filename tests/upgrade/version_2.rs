//! The upgrade of PostgreSQL's functions to version 3, which gave them one more argument, under programs that were written for version 2.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::{DeliveryId, Email, NewDelivery, Outbox, PgStore, State};
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection};

use crate::added::Upgrade;
use crate::support::database::{Database, Postgres, unique_name};
use crate::support::fixture::ada;
use crate::support::wait::until;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-01";

const MAIL: &str = r#"{"from": "shop@example.com", "to": ["ada@example.com"], "text": "Hello"}"#;

/// Each way to enqueue, as programs of version 2 do it. `{s}` is the schema, and `$1` the id or the key.
const WAYS: [&str; 4] = [
    // The library, one mail and several.
    r#"SELECT {s}.insert_delivery(NULL, $1::uuid, 'email/1', '{mail}', NULL, NULL, 100, '["ada@example.com"]', NULL, 'Hi', NULL, NULL, NULL,
                                  5::smallint, 'resend', false, NULL, false, NULL)"#,
    r#"SELECT {s}.insert_deliveries(NULL, ARRAY[$1::uuid], NULL, ARRAY['{mail}'], NULL, NULL, ARRAY[100], NULL, ARRAY['["ada@example.com"]'],
                                    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"#,
    // Other programs.
    "SELECT {s}.enqueue('{mail}', $1)",
    r#"INSERT INTO {s}.outbox (id, format, body, recipients) VALUES ($1::uuid, 'email/1', '{mail}', '["ada@example.com"]')"#,
];

/// The rights that each of the ways needs.
const RIGHTS: [&str; 4] = [
    "EXECUTE ON FUNCTION {s}.insert_delivery",
    "EXECUTE ON FUNCTION {s}.insert_deliveries",
    "EXECUTE ON FUNCTION {s}.enqueue",
    "INSERT ON {s}.outbox",
];

/// The statements that create version 2, which its owner runs in a schema that exists.
fn version_2(server: &Postgres) -> String {
    let (all, later) = (server.schema(), server.schema_from(2).unwrap());
    let statements = all.strip_suffix(&later).expect("later versions are at the end");
    statements.replace(&format!("CREATE SCHEMA IF NOT EXISTS \"{}\";", server.schema), "")
}

struct Upgraded {
    server: Postgres,
    /// The superuser, who is not the owner of the tables.
    pool: PgPool,
    outbox: Outbox<PgStore, ScriptedTransport<Email>>,
}

impl Upgraded {
    /// Tables of version 2, with an owner of their own.
    async fn version_2(server: Postgres) -> Self {
        let (pool, owner) = (server.pool(4).await, unique_name());
        let outbox = Outbox::new(server.store(pool.clone()), ScriptedTransport::<Email>::new());
        let upgraded = Self { server, pool, outbox };
        upgraded.run(&format!("CREATE ROLE {owner} LOGIN; CREATE SCHEMA {{s}} AUTHORIZATION {owner}")).await;
        let mut by_owner = upgraded.connect(&owner).await;
        Postgres::execute(&mut by_owner, version_2(&upgraded.server)).await.unwrap();
        upgraded
    }

    fn sql(&self, text: &str) -> String {
        text.replace("{s}", &format!("\"{}\"", self.server.schema)).replace("{mail}", MAIL)
    }

    async fn run(&self, sql: &str) {
        Postgres::execute(&mut *self.pool.acquire().await.unwrap(), self.sql(sql)).await.unwrap();
    }

    async fn text(&self, sql: &str) -> String {
        sqlx::query_scalar(AssertSqlSafe(self.sql(sql))).fetch_one(&self.pool).await.unwrap()
    }

    /// A connection of a role.
    async fn connect(&self, role: &str) -> PgConnection {
        PgConnection::connect_with(&self.server.options().username(role)).await.unwrap()
    }

    /// Enqueues by a statement that the connection prepares once.
    async fn enqueue(&self, connection: &mut PgConnection, way: &str) -> Result<(), sqlx::Error> {
        let query = sqlx::query(AssertSqlSafe(self.sql(way))).bind(DeliveryId::new().to_string());
        query.execute(connection).await.map(drop)
    }
}

/// Rights, owners and dependent objects stay. Statements that were prepared before the upgrade work after it, and new ones too.
pub(crate) async fn roles_that_enqueue_need_no_new_right(server: Postgres) {
    let old = Upgraded::version_2(server).await;
    let [library, shop, stranger] = [unique_name(), unique_name(), unique_name()];
    for role in [&library, &shop, &stranger] {
        old.run(&format!("CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {{s}} TO {role}")).await;
    }
    for (right, role) in RIGHTS.iter().zip([&library, &library, &shop, &shop]) {
        let option = if right.ends_with("enqueue") { " WITH GRANT OPTION" } else { "" };
        old.run(&format!("GRANT {right} TO {role}{option}")).await;
    }
    // A function whose body the server has parsed, and a view. A function with arguments of its own would be dropped with its parts.
    old.run("CREATE FUNCTION {s}.welcome() RETURNS uuid BEGIN ATOMIC SELECT {s}.enqueue('{mail}', 'welcome'); END")
        .await;
    old.run("CREATE VIEW {s}.greeting AS SELECT {s}.enqueue('{mail}', key => 'greeting', priority => 7) AS id").await;
    let rights = "SELECT string_agg(p.proname || ' ' || p.proowner::regrole || ' ' || right_of::text, E'\\n' ORDER BY p.proname, right_of::text)
                  FROM pg_proc p, unnest(p.proacl) right_of
                  WHERE p.pronamespace = '{s}'::regnamespace AND p.proname IN ('insert_delivery', 'insert_deliveries', 'enqueue', 'enqueue_delivery')";
    let before = old.text(rights).await;
    assert!(before.contains(&library) && before.contains(&shop), "{before}");
    let (mut by_library, mut by_shop) = (old.connect(&library).await, old.connect(&shop).await);
    for _ in 0..2 {
        for way in &WAYS[..2] {
            old.enqueue(&mut by_library, way).await.unwrap();
        }
        for way in &WAYS[2..] {
            old.enqueue(&mut by_shop, way).await.unwrap();
        }
    }

    old.outbox.migrate().await.unwrap();
    let new = old;
    assert_eq!(new.text(rights).await, before);
    for way in &WAYS[..2] {
        new.enqueue(&mut by_library, way).await.unwrap();
        assert!(new.enqueue(&mut by_shop, way).await.is_err(), "{way}");
    }
    for way in &WAYS[2..] {
        new.enqueue(&mut by_shop, way).await.unwrap();
        assert!(new.enqueue(&mut by_library, way).await.is_err(), "{way}");
    }
    assert_eq!(new.text("SELECT count(*)::text FROM {s}.deliveries").await, "12");
    let welcome = new.text("SELECT {s}.welcome()::text").await;
    let greeting = new.text("SELECT id::text FROM {s}.greeting").await;
    assert_eq!(new.text("SELECT {s}.enqueue('{mail}', 'welcome')::text").await, welcome);
    assert_ne!(welcome, greeting);

    // What is new in version 3 needs no other right.
    let options = new.server.options().username(&library);
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let traced = || NewDelivery::new(ada()).traceparent(TRACEPARENT.parse::<postrider::TraceParent>().ok());
    let application = Outbox::enqueue_only(new.server.store(pool));
    application.enqueue(traced()).await.unwrap();
    application.enqueue_all([traced(), NewDelivery::new(ada())]).await.unwrap();
    let with_trace = [
        WAYS[2].replace("$1)", &format!("$1, traceparent => '{TRACEPARENT}')")),
        WAYS[3].replace("recipients)", "recipients, traceparent)").replace("]')", &format!("]', '{TRACEPARENT}')")),
    ];
    for way in &with_trace {
        new.enqueue(&mut by_shop, way).await.unwrap();
    }
    let traced = format!("SELECT count(*)::text FROM {{s}}.deliveries WHERE traceparent = '{TRACEPARENT}'");
    assert_eq!(new.text(&traced).await, "4");
    let mut by_stranger = new.connect(&stranger).await;
    for way in WAYS.iter().copied().chain(with_trace.iter().map(String::as_str)) {
        let refused = new.enqueue(&mut by_stranger, way).await.unwrap_err();
        let code = refused.as_database_error().and_then(|error| error.code());
        assert_eq!(code.as_deref(), Some("42501"), "{refused}");
    }
    let grant = new.sql(&format!("GRANT EXECUTE ON FUNCTION {{s}}.enqueue TO {stranger}"));
    Postgres::execute(&mut by_shop, grant).await.expect("the right to grant it stays");
    new.enqueue(&mut by_stranger, WAYS[2]).await.unwrap();
    assert_eq!(new.outbox.relay().drain().await.unwrap().sent, 20);
    assert_eq!(new.outbox.transport().calls().iter().filter(|call| call.traceparent.is_some()).count(), 4);
}

/// Programs enqueue in each way without a break while the functions are replaced. No call fails, and no mail is lost. Invariant 1.
pub(crate) async fn no_call_fails_while_the_functions_are_replaced(server: Postgres) {
    let old = Arc::new(Upgraded::version_2(server).await);
    let stop: Arc<AtomicBool> = Arc::default();
    let writers = WAYS.iter().flat_map(|way| [*way; 2]).map(|way| {
        let (old, stop) = (Arc::clone(&old), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut connection = PgConnection::connect_with(&old.server.options()).await.unwrap();
            let mut enqueued = 0;
            while !stop.load(Ordering::SeqCst) {
                old.enqueue(&mut connection, way).await.unwrap_or_else(|error| panic!("{way}: {error}"));
                enqueued += 1;
            }
            enqueued
        })
    });
    let writers: Vec<_> = writers.collect();
    let count = || async { old.text("SELECT count(*)::text FROM {s}.deliveries").await.parse::<u64>().unwrap() };
    until("all have begun", || async { count().await >= 200 }).await;
    old.outbox.migrate().await.unwrap();
    let before = count().await;
    until("all continue", || async { count().await >= before + 200 }).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.store(true, Ordering::SeqCst);
    let mut enqueued = 0;
    for writer in writers {
        let by_one = writer.await.expect("no call failed");
        assert!(by_one > 0);
        enqueued += by_one;
    }
    assert_eq!(count().await, enqueued);
    assert_eq!(old.outbox.relay().drain().await.unwrap().sent, enqueued);
    assert_eq!(
        old.outbox.count(&postrider::Filter::new().state(State::Sent).limit(1_000_000)).await.unwrap(),
        enqueued
    );
}

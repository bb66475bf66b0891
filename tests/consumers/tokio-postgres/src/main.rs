//! Enqueues with another driver. The parameters have the columns' own types, and are read back. Takes the URL of a PostgreSQL server.

use std::error::Error;
use std::time::{Duration, SystemTime};

use driver::error::SqlState;
use driver::{Client, NoTls};
use postrider::PgStore;
use uuid::Uuid;

const SCHEMA: &str = "consumer_tokio_postgres";
const MAIL: &str = r#"{"from": "Shop <shop@example.com>", "to": ["ada@example.com"], "subject": "Welcome", "text": "Good to have you."}"#;

fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("the URL of a PostgreSQL server is missing")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (client, connection) = driver::connect(&url, NoTls).await?;
        let connection = tokio::spawn(connection);
        client.batch_execute(&format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; {}", PgStore::schema(SCHEMA)?)).await?;
        let done = enqueue(&client).await;
        client.batch_execute(&format!("DROP SCHEMA {SCHEMA} CASCADE")).await?;
        drop(client);
        connection.await??;
        done
    })
}

async fn enqueue(client: &Client) -> Result<(), Box<dyn Error>> {
    // Every column, with its own type.
    let insert = format!(
        "INSERT INTO {SCHEMA}.outbox (id, format, body, recipients, template_id, key, priority, when_in_doubt, send_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
    );
    let insert = client.prepare(&insert).await?;
    let (recipients, tomorrow) =
        (serde_json::json!(["ada@example.com"]), SystemTime::now() + Duration::from_secs(24 * 3600));
    for expected in [1, 0] {
        let (id, key) = (Uuid::from_u128(0x0198c0de_0000_7000_8000_000000000001 + expected), "welcome-4711");
        let inserted = client
            .execute(
                &insert,
                &[
                    &id,
                    &"email/1",
                    &MAIL,
                    &recipients,
                    &"welcome",
                    &key,
                    &7_i16,
                    &"hold",
                    &tomorrow,
                    &None::<SystemTime>,
                ],
            )
            .await?;
        same("an insert that is made twice", u128::from(inserted), expected)?;
    }
    let row = client.query_one(&format!("SELECT * FROM {SCHEMA}.outbox"), &[]).await?;
    same("priority", row.try_get::<_, i16>("priority")?, 7)?;
    same("recipients", row.try_get::<_, serde_json::Value>("recipients")?, recipients)?;
    same("when_in_doubt", row.try_get::<_, String>("when_in_doubt")?, "hold".to_owned())?;
    same("created_at", row.try_get::<_, SystemTime>("created_at")? < tomorrow, true)?;
    same("expires_at", row.try_get::<_, Option<SystemTime>>("expires_at")?, None)?;

    // Recipients as text, by a cast.
    let cast =
        format!("INSERT INTO {SCHEMA}.outbox (format, body, recipients) VALUES ('email/1', $1, $2::text::json)");
    same("a cast", client.execute(&cast, &[&MAIL, &r#"["ada@example.com"]"#]).await?, 1)?;
    // The error has the rule and the column.
    let error = client.execute(&cast, &[&MAIL, &r#"["nobody"]"#]).await.expect_err("nobody has no address");
    let error = error.as_db_error().ok_or("the error is not from the server")?;
    same("the kind of error", error.code(), &SqlState::CHECK_VIOLATION)?;
    same("the column", error.column(), Some("recipients"))?;

    let function = format!("SELECT {SCHEMA}.enqueue($1, key => $2, priority => $3)");
    let mail: serde_json::Value = serde_json::from_str(MAIL)?;
    let id: Uuid = client.query_one(&function, &[&mail, &"order-1", &9_i32]).await?.try_get(0)?;
    let again: Uuid = client.query_one(&function, &[&mail, &"order-1", &9_i32]).await?.try_get(0)?;
    same("the id of a key", again, id)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, actual: T, expected: T) -> Result<(), Box<dyn Error>> {
    if actual == expected { Ok(()) } else { Err(format!("{what}: {actual:?} instead of {expected:?}").into()) }
}

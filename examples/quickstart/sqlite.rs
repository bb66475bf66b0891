//! The application's data and its mail in one transaction, in SQLite.

use std::error::Error;
use std::str::FromStr;

use postrider::smtp::Smtp;
use postrider::{Outbox, SqliteStore};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

use crate::{ada, deliver, ensure_empty, welcome};

pub(crate) async fn run(url: &str, smtp: Smtp) -> Result<(), Box<dyn Error>> {
    // The outbox uses the application's own database.
    let pool = SqlitePool::connect_with(SqliteConnectOptions::from_str(url)?.create_if_missing(true)).await?;
    let outbox = Outbox::new(SqliteStore::new(pool.clone()), smtp);
    outbox.migrate().await?;
    ensure_empty(&outbox).await?;
    sqlx::query("DROP TABLE IF EXISTS quickstart_users").execute(&pool).await?;
    sqlx::query("CREATE TABLE quickstart_users (name TEXT NOT NULL, mail TEXT NOT NULL)").execute(&pool).await?;
    let sign_up = "INSERT INTO quickstart_users (name, mail) VALUES (?1, ?2)";

    // SQLite has one writer at a time, so the transaction takes the write lock at once. The user and her mail are committed together …
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query(sign_up).bind("Ada").bind(ada()).execute(&mut *tx).await?;
    let for_ada = outbox.enqueue_in(&mut tx, welcome("Ada", &ada())?).await?;
    tx.commit().await?;

    // … and rolled back together.
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query(sign_up).bind("Bob").bind("bob@example.com").execute(&mut *tx).await?;
    let for_bob = outbox.enqueue_in(&mut tx, welcome("Bob", "bob@example.com")?).await?;
    tx.rollback().await?;

    let users: Vec<String> = sqlx::query_scalar("SELECT name FROM quickstart_users").fetch_all(&pool).await?;
    sqlx::query("DROP TABLE quickstart_users").execute(&pool).await?;
    deliver(&outbox, &users, for_ada, for_bob).await
}

//! The application's data and its mail in one transaction, in MySQL or MariaDB.

use std::error::Error;

use postrider::smtp::Smtp;
use postrider::{MySqlStore, Outbox};
use sqlx::mysql::MySqlPoolOptions;

use crate::{ACQUIRE_TIMEOUT, ada, deliver, ensure_empty, welcome};

pub(crate) async fn run(url: &str, smtp: Smtp) -> Result<(), Box<dyn Error>> {
    // The outbox uses the application's own database.
    let pool = MySqlPoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT).connect(url).await?;
    let outbox = Outbox::new(MySqlStore::new(pool.clone()), smtp);
    outbox.migrate().await?;
    ensure_empty(&outbox).await?;
    sqlx::query("DROP TABLE IF EXISTS quickstart_users").execute(&pool).await?;
    sqlx::query("CREATE TABLE quickstart_users (name TEXT NOT NULL, mail TEXT NOT NULL)").execute(&pool).await?;
    let sign_up = "INSERT INTO quickstart_users (name, mail) VALUES (?, ?)";

    // The user and her mail are committed together …
    let mut tx = pool.begin().await?;
    sqlx::query(sign_up).bind("Ada").bind(ada()).execute(&mut *tx).await?;
    let for_ada = outbox.enqueue_in(&mut tx, welcome("Ada", &ada())?).await?;
    tx.commit().await?;

    // … and rolled back together.
    let mut tx = pool.begin().await?;
    sqlx::query(sign_up).bind("Bob").bind("bob@example.com").execute(&mut *tx).await?;
    let for_bob = outbox.enqueue_in(&mut tx, welcome("Bob", "bob@example.com")?).await?;
    tx.rollback().await?;

    let users: Vec<String> = sqlx::query_scalar("SELECT name FROM quickstart_users").fetch_all(&pool).await?;
    sqlx::query("DROP TABLE quickstart_users").execute(&pool).await?;
    deliver(&outbox, &users, for_ada, for_bob).await
}

//! Mail that is committed with data, from the transaction to the mail server.
//!
//! ```text
//! cargo run --example quickstart --features sqlite,smtp
//! ```
//!
//! It sends to a small mail server that it starts by itself, or to yours: `SMTP_URL=smtp://localhost MAIL_TO=you@example.com`.

#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::env;
use std::error::Error;

use postrider::smtp::Smtp;
use postrider::{DeliveryId, Email, Outbox, SqliteStore, State};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqliteTransaction};

#[path = "support/catcher.rs"]
mod catcher;

use catcher::Catcher;

type Shop = Outbox<SqliteStore, Smtp>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A mail server, an ordinary database, and the outbox in it.
    let catcher = Catcher::start().await?;
    let url = env::var("SMTP_URL").ok();
    let smtp = Smtp::from_url(url.as_deref().unwrap_or(&catcher.url()))?;
    println!("sending to  {}", smtp.redacted_url());

    let directory = tempfile::tempdir()?;
    let file = directory.path().join("shop.db");
    println!("database    {}", file.display());
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&file).create_if_missing(true)).await?;
    sqlx::query("CREATE TABLE users (name TEXT NOT NULL, mail TEXT NOT NULL)").execute(&pool).await?;

    let outbox = Outbox::new(SqliteStore::new(pool.clone()), smtp);
    outbox.migrate().await?;

    // The user and her mail are committed together …
    let ada = env::var("MAIL_TO").unwrap_or_else(|_| "ada@example.com".to_owned());
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    let for_ada = sign_up(&outbox, &mut tx, "Ada", &ada).await?;
    tx.commit().await?;
    println!("\nAda signed up, and her mail is in the outbox: {for_ada}");

    // … or neither is.
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    let for_bob = sign_up(&outbox, &mut tx, "Bob", "bob@example.com").await?;
    tx.rollback().await?;
    println!("Bob's sign-up was rolled back, and his mail with it: {for_bob}");

    // In a service: `outbox.relay().run(shutdown)`, in this process or another.
    let pass = outbox.relay().drain().await?;
    println!("\nthe relay sent {}, and will try {} again", pass.sent, pass.retried + pass.released);
    if let Some(pause) = pass.paused {
        return Err(format!("the transport {} is paused: {}", pause.transport, pause.reason).into());
    }

    show(&outbox, for_ada).await?;
    check(&outbox, &pool, for_ada, for_bob).await?;
    if url.is_none() {
        check_caught(&catcher, &ada)?;
        println!("\nAs promised: one user, one mail. Nobody was mailed about what never happened.");
    } else {
        println!("\nThe server behind SMTP_URL has it now.");
    }
    Ok(())
}

/// What an application does: its own data and a mail, in one transaction.
async fn sign_up(
    outbox: &Shop,
    tx: &mut SqliteTransaction<'_>,
    name: &str,
    mail: &str,
) -> Result<DeliveryId, Box<dyn Error>> {
    sqlx::query("INSERT INTO users (name, mail) VALUES (?1, ?2)").bind(name).bind(mail).execute(&mut **tx).await?;
    let from = env::var("MAIL_FROM").unwrap_or_else(|_| "The shop <shop@example.com>".to_owned());
    let welcome = Email::builder()
        .from(from)
        .to((name, mail))
        .subject("Welcome!")
        .text(format!("Good to have you, {name}."))
        .template_id("welcome")
        .build()?;
    Ok(outbox.enqueue_in(tx, welcome).await?)
}

async fn show(outbox: &Shop, id: DeliveryId) -> Result<(), Box<dyn Error>> {
    let delivery = outbox.get(id).await?.ok_or("the delivery is gone")?;
    println!("\n{id} is {}", delivery.state);
    for attempt in &delivery.attempts {
        let took = attempt.finished_at.duration_since(attempt.started_at).unwrap_or_default();
        let said = attempt.error.as_deref().or(attempt.reply.as_deref()).unwrap_or_default();
        println!("  attempt {}: {} after {took:?}: {said}", attempt.number, attempt.outcome);
    }
    Ok(())
}

/// Does the database bear out what was said?
async fn check(outbox: &Shop, pool: &SqlitePool, ada: DeliveryId, bob: DeliveryId) -> Result<(), Box<dyn Error>> {
    let users: Vec<String> = sqlx::query_scalar("SELECT name FROM users").fetch_all(pool).await?;
    ensure(users == ["Ada"], "Ada, and nobody else, must be a user")?;
    ensure(outbox.get(bob).await?.is_none(), "Bob's mail must not be in the outbox")?;
    let sent = outbox.get(ada).await?.is_some_and(|delivery| delivery.state == State::Sent);
    ensure(sent, "Ada's mail must be sent")
}

/// Does the mail server?
fn check_caught(catcher: &Catcher, ada: &str) -> Result<(), Box<dyn Error>> {
    let caught = catcher.caught();
    println!("\nwhat arrived:");
    for mail in &caught {
        println!("  for {}", mail.to.join(", "));
        for name in ["Subject", "Message-ID"] {
            println!("  {name}: {}", mail.header(name).unwrap_or("-"));
        }
    }
    ensure(caught.len() == 1, "exactly one mail must arrive")?;
    ensure(caught[0].to == [ada], "it must be for Ada")?;
    ensure(caught[0].content.contains("Good to have you, Ada."), "it must say what was written")
}

fn ensure(holds: bool, what: &str) -> Result<(), Box<dyn Error>> {
    if holds { Ok(()) } else { Err(what.into()) }
}

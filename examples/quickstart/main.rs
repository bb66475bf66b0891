//! Mail that is committed with data, from the transaction to the mail server.
//!
//! ```text
//! cargo run --example quickstart --features sqlite,smtp
//! cargo run --example quickstart --features postgres,smtp -- --database postgres://localhost/shop
//! cargo run --example quickstart --features mysql,smtp -- --database mysql://root@localhost/shop
//! ```
//!
//! What a program does is in `sqlite.rs`, `postgres.rs` and `mysql.rs`: the same, as each database has it. Without a URL, here or in
//! `DATABASE_URL`, the database is an SQLite file that the end removes.
//!
//! It sends to a small mail server that it starts by itself, or to yours: `SMTP_URL=smtp://localhost MAIL_TO=you@example.com`.

#![allow(clippy::print_stdout, reason = "an example talks to its reader")]
#![cfg_attr(
    not(any(feature = "sqlite", feature = "postgres", feature = "mysql")),
    allow(dead_code, unreachable_code, unused_variables, reason = "without a store there is nothing to do")
)]

#[path = "../common/catcher.rs"]
mod catcher;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::env;
use std::error::Error;

use postrider::smtp::Smtp;
use postrider::{AdminStore, DeliveryId, Email, EmailError, Outbox, State};

use catcher::Catcher;

/// How long to wait for a database that does not answer; the pool's own 30 s are long for whoever sits before it.
#[cfg(any(feature = "postgres", feature = "mysql"))]
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let catcher = Catcher::start().await?;
    let server = env::var("SMTP_URL").ok();
    let smtp = Smtp::from_url(server.as_deref().unwrap_or(&catcher.url()))?;
    println!("sending to  {}", smtp.redacted_url());

    let directory = tempfile::tempdir()?;
    let url = match database()? {
        Some(url) => url,
        None if cfg!(feature = "sqlite") => format!("sqlite://{}", directory.path().join("shop.db").display()),
        None => return Err("which database? --database postgres://user:password@host/database, or mysql://…".into()),
    };
    let scheme = url.split(':').next().unwrap_or_default();
    println!("database    {scheme}");
    match scheme {
        #[cfg(feature = "sqlite")]
        "sqlite" => sqlite::tour(&url, smtp).await?,
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => postgres::tour(&url, smtp).await?,
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => mysql::tour(&url, smtp).await?,
        _ => return Err("this was built without the database's feature: sqlite, postgres or mysql".into()),
    }

    if server.is_none() {
        check_caught(&catcher)?;
        println!("\nAs promised: one user, one mail. Nobody was mailed about what never happened.");
    } else {
        println!("\nThe server behind SMTP_URL has it now.");
    }
    Ok(())
}

/// The database's URL, if one is given.
fn database() -> Result<Option<String>, Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => Ok(env::var("DATABASE_URL").ok()),
        (Some("--database"), Some(url)) => Ok(Some(url)),
        _ => Err("the only option is --database URL".into()),
    }
}

fn ada() -> String {
    env::var("MAIL_TO").unwrap_or_else(|_| "ada@example.com".to_owned())
}

fn welcome(name: &str, mail: &str) -> Result<Email, EmailError> {
    let from = env::var("MAIL_FROM").unwrap_or_else(|_| "The shop <shop@example.com>".to_owned());
    Email::builder()
        .from(from)
        .to((name, mail))
        .subject("Welcome!")
        .text(format!("Good to have you, {name}."))
        .template_id("welcome")
        .build()
}

/// What follows would send all that is due: in an outbox that is in use, that is not for an example to do.
async fn is_empty<S: AdminStore>(outbox: &Outbox<S, Smtp>) -> Result<(), Box<dyn Error>> {
    let stats = outbox.stats().await?;
    ensure(stats.pending + stats.leased == 0, "there is mail in this database's outbox: take another database")
}

/// Sends what is due, and looks whether the database bears out what was said.
async fn deliver<S: AdminStore>(
    outbox: &Outbox<S, Smtp>,
    users: &[String],
    ada: DeliveryId,
    bob: DeliveryId,
) -> Result<(), Box<dyn Error>> {
    println!("\nAda signed up, and her mail is in the outbox: {ada}");
    println!("Bob's sign-up was rolled back, and his mail with it: {bob}");

    // In a service: `outbox.relay().run(shutdown.cancelled_owned())`, in this process or another.
    let pass = outbox.relay().drain().await?;
    println!("\nthe relay sent {}, and will try {} again", pass.sent, pass.retried + pass.released);
    if let Some(pause) = pass.paused {
        return Err(format!("the transport {} is paused: {}", pause.transport, pause.reason).into());
    }

    let delivery = outbox.get(ada).await?.ok_or("the delivery is gone")?;
    println!("\n{ada} is {}", delivery.state);
    for attempt in &delivery.attempts {
        let took = attempt.finished_at.duration_since(attempt.started_at).unwrap_or_default();
        let said = attempt.error.as_deref().or(attempt.reply.as_deref()).unwrap_or_default();
        println!("  attempt {}: {} after {took:?}: {said}", attempt.number, attempt.outcome);
    }
    ensure(users == ["Ada"], "Ada, and nobody else, must be a user")?;
    ensure(outbox.get(bob).await?.is_none(), "Bob's mail must not be in the outbox")?;
    ensure(delivery.state == State::Sent, "Ada's mail must be sent")
}

/// Does the mail server bear it out?
fn check_caught(catcher: &Catcher) -> Result<(), Box<dyn Error>> {
    let caught = catcher.caught();
    println!("\nwhat arrived:");
    for mail in &caught {
        println!("  for {}", mail.to.join(", "));
        for name in ["Subject", "Message-ID"] {
            println!("  {name}: {}", mail.header(name).unwrap_or("-"));
        }
    }
    ensure(caught.len() == 1, "exactly one mail must arrive")?;
    ensure(caught[0].to == [ada()], "it must be for Ada")?;
    ensure(caught[0].content.contains("Good to have you, Ada."), "it must say what was written")
}

fn ensure(holds: bool, what: &str) -> Result<(), Box<dyn Error>> {
    if holds { Ok(()) } else { Err(what.into()) }
}

//! Mail that is committed together with data, from the transaction to the mail server.
//!
//! ```text
//! cargo run --example quickstart --features sqlite,smtp
//! cargo run --example quickstart --features postgres,smtp -- --database postgres://localhost/shop
//! cargo run --example quickstart --features mysql,smtp -- --database mysql://root@localhost/shop
//! ```
//!
//! `sqlite.rs`, `postgres.rs` and `mysql.rs` hold the application's part, for each database. Without `--database` and `DATABASE_URL`,
//! the database is a temporary SQLite file.
//!
//! The example starts a small mail server and sends to it. To send to your own server, set
//! `SMTP_URL=smtp://localhost MAIL_TO=you@example.com`.

#![allow(clippy::print_stdout, reason = "an example prints its results")]
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

/// How long to wait for a database that does not answer. The pool's default of 30 s is long for an interactive program.
#[cfg(any(feature = "postgres", feature = "mysql"))]
const ACQUIRE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

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
        None => return Err("set --database postgres://user:password@host/database, or mysql://…".into()),
    };
    let scheme = url.split(':').next().unwrap_or_default();
    println!("database    {scheme}");
    match scheme {
        #[cfg(feature = "sqlite")]
        "sqlite" => sqlite::run(&url, smtp).await?,
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => postgres::run(&url, smtp).await?,
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => mysql::run(&url, smtp).await?,
        _ => return Err("this build has no feature for this database: sqlite, postgres or mysql".into()),
    }

    if server.is_none() {
        check_caught(&catcher)?;
        println!("\nOne user was committed, and one mail was sent. The sign-up that was rolled back caused no mail.");
    } else {
        println!("\nThe server of SMTP_URL has accepted the mail.");
    }
    Ok(())
}

/// The URL of the database. `None` if none is given.
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

/// Fails if the outbox has pending mail, because this example would send it.
async fn ensure_empty<S: AdminStore>(outbox: &Outbox<S, Smtp>) -> Result<(), Box<dyn Error>> {
    let stats = outbox.stats().await?;
    ensure(stats.pending + stats.leased == 0, "the outbox of this database has pending mail: use another database")
}

/// Sends the committed mail, and checks the database.
async fn deliver<S: AdminStore>(
    outbox: &Outbox<S, Smtp>,
    users: &[String],
    ada: DeliveryId,
    bob: DeliveryId,
) -> Result<(), Box<dyn Error>> {
    println!("\nAda signed up, and her mail is in the outbox: {ada}");
    println!("Bob's sign-up was rolled back, and his mail with it: {bob}");

    // A service calls `outbox.relay().run(shutdown.cancelled_owned())` instead, in this process or another one.
    let summary = outbox.relay().drain().await?;
    println!("\nthe relay sent {}, and will retry {}", summary.sent, summary.retried + summary.released);
    if let Some(pause) = summary.paused {
        return Err(format!("the transport {} is paused: {}", pause.transport, pause.reason).into());
    }

    let delivery = outbox.get(ada).await?.ok_or("the delivery is missing")?;
    println!("\n{ada} is {}", delivery.state);
    for attempt in &delivery.attempts {
        let took = attempt.finished_at.duration_since(attempt.started_at).unwrap_or_default();
        let detail = attempt.error.as_deref().or(attempt.reply.as_deref()).unwrap_or_default();
        println!("  attempt {}: {} after {took:?}: {detail}", attempt.number, attempt.outcome);
    }
    ensure(users == ["Ada"], "Ada must be the only user")?;
    ensure(outbox.get(bob).await?.is_none(), "Bob's mail must not be in the outbox")?;
    ensure(delivery.state == State::Sent, "Ada's mail must be sent")
}

/// Checks the mail that the server received.
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
    ensure(caught[0].content.contains("Good to have you, Ada."), "the mail must contain its text")
}

fn ensure(holds: bool, what: &str) -> Result<(), Box<dyn Error>> {
    if holds { Ok(()) } else { Err(what.into()) }
}

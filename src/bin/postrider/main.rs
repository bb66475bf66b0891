//! The operator's tool: makes the outbox's tables, enqueues, sends, and shows and mends what became of it.
#![cfg_attr(
    not(any(feature = "sqlite", feature = "postgres", feature = "mysql")),
    allow(dead_code, reason = "without a store, the tool can only say what it lacks")
)]

mod args;
mod change;
mod combined;
mod database;
mod enqueue;
#[cfg(feature = "smtp")]
mod explain;
mod fail;
mod logs;
mod output;
mod progress;
mod schemes;
mod show;
mod signals;
mod signing;
mod transport;
mod words;
mod work;

use std::process::ExitCode;

use clap::Parser;
use postrider::AdminStore;

use args::{Args, Command};
use database::Missing;
use fail::Fail;
use output::Out;
use signals::Caught;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return fail::usage(&error),
    };
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Fail::runtime(format!("the program cannot start: {error}")))
        .and_then(|runtime| {
            runtime.block_on(async {
                // Before anything is waited for.
                let signals = signals::catch()?;
                run(args, &signals).await
            })
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fail) => fail.tell(),
    }
}

async fn run(args: Args, signals: &Caught) -> Result<(), Fail> {
    if let Command::Migrate { print: true } = args.command {
        let mut out = Out::stdout();
        out.text(&database::schema(&args.which)?)?;
        return out.finish();
    }
    #[cfg(feature = "smtp")]
    if let Command::Explain(how) = &args.command {
        return explain::run(how, &mut Out::stdout());
    }
    // Without a store there is nothing to wait for.
    #[cfg(not(any(feature = "sqlite", feature = "postgres", feature = "mysql")))]
    let _ = signals;
    let missing = if matches!(args.command, Command::Migrate { .. }) { Missing::Create } else { Missing::Refuse };
    match database::open(&args.which, missing).await? {
        #[cfg(feature = "sqlite")]
        database::Database::Sqlite(store) => obey(args.command, store, signals).await,
        #[cfg(feature = "postgres")]
        database::Database::Postgres(store) => obey(args.command, store, signals).await,
        #[cfg(feature = "mysql")]
        database::Database::MySql(store) => obey(args.command, store, signals).await,
    }
}

/// Any store will do.
async fn obey<S: AdminStore>(command: Command, store: S, signals: &Caught) -> Result<(), Fail> {
    let mut out = Out::stdout();
    match command {
        Command::Migrate { .. } => store.migrate().await?,
        Command::Enqueue(mail) => enqueue::run(*mail, store, &mut out).await?,
        Command::Work(how) => work::run(how, store, signals, &mut out).await?,
        // It needs no store, and has been obeyed before one is opened.
        #[cfg(feature = "smtp")]
        Command::Explain(how) => explain::run(&how, &mut out)?,
        Command::List(which) => show::list(&which, &store, &mut out).await?,
        Command::Show { id, json } => show::one(id, json, &store, &mut out).await?,
        Command::Resend { ids } => change::resend(&ids, &store, &mut out).await?,
        Command::Cancel { ids } => change::cancel(&ids, &store, &mut out).await?,
        Command::Stats { json } => show::stats(json, &store, &mut out).await?,
    }
    out.finish()
}

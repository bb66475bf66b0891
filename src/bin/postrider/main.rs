//! The operator's command-line tool: creates the outbox's tables, enqueues mail, runs the relay, and shows and changes deliveries.
#![cfg_attr(
    not(any(feature = "sqlite", feature = "postgres", feature = "mysql")),
    allow(dead_code, reason = "without a store, the tool only reports the missing feature")
)]

mod admin;
mod args;
mod database;
mod dkim;
#[cfg(feature = "prometheus")]
mod endpoint;
mod enqueue;
mod error;
#[cfg(feature = "smtp")]
mod explain;
mod list;
mod logs;
mod output;
mod parsers;
mod progress;
mod prune;
mod redact;
#[cfg(feature = "dashboard")]
mod serve;
mod show;
mod signals;
mod stats;
mod transport;
mod transport_expr;
mod url_scheme;
mod work;

use std::process::ExitCode;

use clap::Parser;
use postrider::{AdminStore, AuditFilter, Change};

use args::{Cli, Command};
use database::{AcquireTimeout, IfMissing};
use error::CliError;
use output::Output;
use signals::Signals;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return error::report_clap(&error),
    };
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::runtime(format!("the tokio runtime cannot start: {error}")))
        .and_then(|runtime| {
            runtime.block_on(async {
                // Before the first await, so that no signal is missed.
                let signals = signals::listen()?;
                run(cli, &signals).await
            })
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

async fn run(cli: Cli, signals: &Signals) -> Result<(), CliError> {
    if let Command::Migrate { print: true, from } = cli.command {
        let mut out = Output::stdout();
        out.text(&database::schema(&cli.outbox, from)?)?;
        return out.flush();
    }
    #[cfg(feature = "smtp")]
    if let Command::Explain(args) = &cli.command {
        return explain::run(args, &mut Output::stdout());
    }
    // Only a command that opens a store uses the signals.
    #[cfg(not(any(feature = "sqlite", feature = "postgres", feature = "mysql")))]
    let _ = signals;
    let if_missing = if matches!(cli.command, Command::Migrate { .. }) { IfMissing::Create } else { IfMissing::Refuse };
    let timeout = if matches!(cli.command, Command::Work(_)) { AcquireTimeout::Relay } else { AcquireTimeout::Command };
    match database::open(&cli.outbox, if_missing, timeout).await? {
        #[cfg(feature = "sqlite")]
        database::Database::Sqlite(store) => dispatch(cli.command, store, signals).await,
        #[cfg(feature = "postgres")]
        database::Database::Postgres(store) => dispatch(cli.command, store, signals).await,
        #[cfg(feature = "mysql")]
        database::Database::MySql(store) => dispatch(cli.command, store, signals).await,
    }
}

/// Runs a command on an open store.
async fn dispatch<S: AdminStore>(command: Command, store: S, signals: &Signals) -> Result<(), CliError> {
    let mut out = Output::stdout();
    match command {
        Command::Migrate { .. } => store.migrate().await?,
        Command::Enqueue(args) => enqueue::run(*args, store, &mut out).await?,
        Command::Work(args) => work::run(*args, store, signals, &mut out).await?,
        // `run` handles it before a store is opened.
        #[cfg(feature = "smtp")]
        Command::Explain(args) => explain::run(&args, &mut out)?,
        Command::List(args) => list::list(&args, &store, &mut out).await?,
        Command::Show { id, json } => show::delivery(id, json, &store, &mut out).await?,
        Command::Resend(args) => admin::change(Change::Resend, &args, &store, signals, &mut out).await?,
        Command::Cancel(args) => admin::change(Change::Cancel, &args, &store, signals, &mut out).await?,
        Command::Dismiss(args) => admin::change(Change::Dismiss, &args, &store, signals, &mut out).await?,
        Command::Pause(args) => admin::pause(args, &store, &mut out).await?,
        Command::Resume(args) => admin::resume(args, &store, &mut out).await?,
        Command::Probe { by } => admin::probe(&by, &store, &mut out).await?,
        Command::Audit { id, operator, action, limit, json } => {
            let mut filter = AuditFilter::new().limit(limit);
            (filter.delivery, filter.operator, filter.action) = (id, operator, action);
            admin::audit(&filter, json, &store, &mut out).await?;
        }
        Command::Prune(args) => prune::prune(&args, &store, &mut out).await?,
        Command::Erase { address, by } => prune::erase(&address, &by, &store, &mut out).await?,
        #[cfg(feature = "dashboard")]
        Command::Serve(args) => serve::run(args, store, signals, &mut out).await?,
        Command::Stats { json, since } => stats::stats(json, since, &store, &mut out).await?,
    }
    out.flush()
}

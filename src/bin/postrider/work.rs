//! The command `work`: runs a relay.

use postrider::transport::mask_addresses;
use postrider::{AdminStore, Outbox, RetryPolicy, RunSummary};
use serde_json::json;

use crate::args::WorkArgs;
#[cfg(feature = "prometheus")]
use crate::endpoint::Endpoint;
use crate::error::{CliError, warn};
use crate::output::{Output, printable};
use crate::progress::Progress;
use crate::signals::Signals;
use crate::{dkim, logs, prune, transport};

pub(crate) async fn run<S: AdminStore>(
    args: WorkArgs,
    store: S,
    signals: &Signals,
    out: &mut Output,
) -> Result<(), CliError> {
    if args.retry_base > args.retry_cap {
        return Err(CliError::usage("--retry-base must not be longer than --retry-cap"));
    }
    #[cfg(feature = "prometheus")]
    let endpoint = match args.metrics {
        Some(address) => Some(Endpoint::bind(address).await?),
        None => None,
    };
    #[cfg(not(feature = "prometheus"))]
    if args.metrics.is_some() {
        return Err(CliError::usage(
            "--metrics needs the feature `prometheus`, and this postrider was built without it",
        ));
    }
    let concurrency = usize::from(args.concurrency);
    let signer = dkim::signer(&args.dkim)?;
    let (transport, connections) = transport::open(args.transport.as_deref(), concurrency, signer.as_ref()).await?;
    // The first query, so that missing tables are reported in one line before the logs start.
    store.next_due().await?;
    let progress = Progress::on_terminal();
    logs::start(progress.as_ref())?;
    let stop = signals.stop_relay_on_signal(progress.clone());

    let outbox = Outbox::new(store, transport);
    let mut relay = outbox
        .relay()
        .concurrency(concurrency)
        .lease(args.lease)
        .poll(args.poll)
        .retry(retry_policy(&args))
        .abandon_on(stop.abandon.cancelled_owned());
    // The library finds the name only on Linux or in a variable; this works on every system.
    #[cfg(feature = "prometheus")]
    {
        relay = relay.host(gethostname::gethostname().to_string_lossy());
    }
    let retention = prune::retention(&args.keep);
    if !retention.is_empty() {
        relay = relay.retention(retention);
    }
    let redraw = progress.clone().map(|progress| tokio::spawn(progress.run()));
    if let Some(progress) = &progress {
        relay = relay.observer(progress.clone());
    }
    #[cfg(feature = "prometheus")]
    if let Some(endpoint) = &endpoint {
        relay = relay.observer(endpoint.metrics());
    }
    #[cfg(feature = "prometheus")]
    let serving = endpoint.map(|endpoint| tokio::spawn(endpoint.serve(outbox.handle(), relay.handle())));
    let graceful = stop.graceful.clone();
    let result = if args.drain {
        relay.drain_until(stop.graceful.cancelled_owned()).await
    } else {
        relay.run(stop.graceful.cancelled_owned()).await
    };
    connections.close().await;
    #[cfg(feature = "prometheus")]
    if let Some(serving) = serving {
        serving.abort();
    }
    if let Some(redraw) = redraw {
        redraw.abort();
    }
    drop(progress.as_ref().map(Progress::hide));
    let summary = result?;
    let paused_by_operators = if args.drain { outbox.controls().await?.pauses } else { Vec::new() };

    if args.json {
        out.line(summary_json(&summary))?
    } else {
        out.line(summary_line(&summary))?
    }
    out.flush()?;
    for pause in paused_by_operators {
        let (target, operator) = (mask_addresses(&pause.target.to_string()).into_owned(), &pause.operator);
        warn(&printable(&format!("paused by {operator}: {target}; its mail is still pending")));
    }
    report_pauses(&summary, args.drain, graceful.is_cancelled())
}

fn retry_policy(args: &WorkArgs) -> RetryPolicy {
    RetryPolicy::default()
        .backoff(args.retry_base, args.retry_cap)
        .factor(args.factor)
        .jitter(args.jitter)
        .attempts(args.attempts)
        .max_age(args.max_age)
}

/// Prints why mail is still pending. A paused transport is an error, unless a signal stopped the relay.
fn report_pauses(summary: &RunSummary, drain: bool, stopped: bool) -> Result<(), CliError> {
    for paused in &summary.paused_senders {
        let sender = mask_addresses(&paused.sender);
        let message = format!("the sender {sender} is refused: {}; its mail is still pending", paused.reason);
        warn(&printable(&message));
    }
    match &summary.paused {
        Some(pause) => {
            let (transport, reason) = (&pause.transport, &pause.reason);
            let message = format!("the transport {transport} is paused: {reason}; unsent mail is still pending");
            if stopped {
                warn(&message);
                return Ok(());
            }
            Err(CliError::paused(message))
        }
        None => {
            if stopped && drain {
                warn("stopped by a signal; unsent mail is still pending");
            }
            Ok(())
        }
    }
}

fn summary_json(summary: &RunSummary) -> serde_json::Value {
    json!({
        "sent": summary.sent,
        "retried": summary.retried,
        "released": summary.released,
        "dead": summary.dead,
        "in_doubt": summary.in_doubt,
        "lease_lost": summary.lease_lost,
        "paused": summary.paused.as_ref().map(|pause| format!("{}: {}", pause.transport, pause.reason)),
        "paused_senders": summary.paused_senders.iter().map(|paused| json!({
            "sender": paused.sender,
            "reason": paused.reason,
        })).collect::<Vec<_>>(),
    })
}

fn summary_line(summary: &RunSummary) -> String {
    let RunSummary { sent, retried, dead, in_doubt, .. } = summary;
    let mut line = format!("sent {sent}, retried {retried}, dead {dead}, in doubt {in_doubt}");
    for (name, count) in [("released", summary.released), ("lease lost", summary.lease_lost)] {
        if count > 0 {
            line = format!("{line}, {name} {count}");
        }
    }
    line
}

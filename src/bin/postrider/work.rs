//! Sending.

use postrider::transport::mask_addresses;
use postrider::{AdminStore, Outbox, RetryPolicy, RunSummary};
use serde_json::json;

use crate::args::Work;
use crate::fail::{Fail, warn};
use crate::output::{Out, printable};
use crate::progress::Progress;
use crate::signals::Caught;
use crate::{logs, signing, transport};

pub(crate) async fn run<S: AdminStore>(how: Work, store: S, signals: &Caught, out: &mut Out) -> Result<(), Fail> {
    if how.retry_base > how.retry_cap {
        return Err(Fail::usage("--retry-base must not be longer than --retry-cap"));
    }
    let concurrency = usize::from(how.concurrency);
    let signer = signing::signer(&how.dkim)?;
    let (transport, connections) = transport::open(how.transport.as_deref(), concurrency, signer.as_ref()).await?;
    // Asked first, so that missing tables are one clear line before the work begins.
    store.next_due().await?;
    let progress = Progress::on_terminal();
    logs::start(progress.as_ref())?;
    let stop = signals.stop_work(progress.clone());

    let retry = RetryPolicy::default()
        .backoff(how.retry_base, how.retry_cap)
        .factor(how.factor)
        .jitter(how.jitter)
        .attempts(how.attempts)
        .max_age(how.max_age);
    let mut relay = Outbox::new(store, transport)
        .relay()
        .concurrency(concurrency)
        .lease(how.lease)
        .poll(how.poll)
        .retry(retry)
        .abandon_on(stop.abandon.cancelled_owned());
    let drawing = progress.clone().map(|progress| tokio::spawn(progress.draw()));
    if let Some(progress) = &progress {
        relay = relay.observer(progress.clone());
    }
    let stopping = stop.graceful.clone();
    let pass = if how.drain {
        relay.drain_until(stop.graceful.cancelled_owned()).await
    } else {
        relay.run(stop.graceful.cancelled_owned()).await
    };
    connections.close().await;
    if let Some(drawing) = drawing {
        drawing.abort();
    }
    drop(progress.as_ref().map(Progress::hide));
    let pass = pass?;

    if how.json {
        out.line(summary_json(&pass))?
    } else {
        out.line(summary(&pass))?
    }
    out.finish()?;
    for paused in &pass.paused_senders {
        let line = format!(
            "the sender {} is refused: {}; its mail is still pending",
            mask_addresses(&paused.sender),
            paused.reason
        );
        warn(&printable(&line));
    }
    let stopped = stopping.is_cancelled();
    match &pass.paused {
        Some(pause) => {
            let (transport, reason) = (&pause.transport, &pause.reason);
            let line = format!("the transport {transport} is paused: {reason}; what was not sent is still pending");
            // A service that is told to stop did as it was told.
            if stopped {
                warn(&line);
                return Ok(());
            }
            Err(Fail::paused(line))
        }
        None => {
            if stopped && how.drain {
                warn("stopped by a signal; what was not sent is still pending");
            }
            Ok(())
        }
    }
}

fn summary_json(pass: &RunSummary) -> serde_json::Value {
    json!({
        "sent": pass.sent,
        "retried": pass.retried,
        "released": pass.released,
        "dead": pass.dead,
        "in_doubt": pass.in_doubt,
        "lease_lost": pass.lease_lost,
        "paused": pass.paused.as_ref().map(|pause| format!("{}: {}", pause.transport, pause.reason)),
        "paused_senders": pass.paused_senders.iter().map(|paused| json!({
            "sender": paused.sender,
            "reason": paused.reason,
        })).collect::<Vec<_>>(),
    })
}

fn summary(pass: &RunSummary) -> String {
    let RunSummary { sent, retried, dead, in_doubt, .. } = pass;
    let mut line = format!("sent {sent}, retried {retried}, dead {dead}, in doubt {in_doubt}");
    for (name, count) in [("given back", pass.released), ("lease lost", pass.lease_lost)] {
        if count > 0 {
            line = format!("{line}, {name} {count}");
        }
    }
    line
}

//! What the signals to stop do: the first one asks, the second presses, the third ends the program.

use std::process;

use tokio_util::sync::CancellationToken;

use crate::fail::{Fail, warn};
use crate::progress::Progress;

/// What stops the work.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    /// Cancelled by the first signal: finish what is being sent.
    pub(crate) graceful: CancellationToken,
    /// Cancelled by the second: wait no longer.
    pub(crate) abandon: CancellationToken,
}

/// Listens from now on. What it says stands above the progress line, where there is one.
pub(crate) fn listen(progress: Option<Progress>) -> Result<Stop, Fail> {
    let stop = Stop { graceful: CancellationToken::new(), abandon: CancellationToken::new() };
    let mut signals = Signals::new().map_err(|error| Fail::runtime(format!("signals cannot be caught: {error}")))?;
    let stopping = stop.clone();
    let say = move |line: &str| {
        drop(progress.as_ref().map(Progress::hide));
        warn(line);
    };
    tokio::spawn(async move {
        signals.next().await;
        say("stopping once what is being sent is finished; a second signal waits no longer");
        stopping.graceful.cancel();
        signals.next().await;
        say("waiting no longer; what is being sent is in doubt");
        stopping.abandon.cancel();
        signals.next().await;
        // Like a crash, from which the outbox recovers: leases run out, and their attempts are written down as lost.
        process::exit(1);
    });
    Ok(stop)
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}

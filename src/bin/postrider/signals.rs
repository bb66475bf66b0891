//! SIGINT and SIGTERM. While a relay runs, the first signal stops it gracefully, the second one ends the wait for its sends, and the third
//! one exits. While a server runs, the first signal stops it gracefully, and the second one exits. Otherwise the first signal exits.
//!
//! The tool always handles these signals itself. The first process of a container (PID 1) has no default action for them, and would ignore
//! them (signal(7), pid_namespaces(7)).

use std::process;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::error::{CliError, warn};
use crate::progress::Progress;

/// The tokens that stop a relay.
#[derive(Debug, Clone)]
pub(crate) struct StopTokens {
    /// The first signal cancels it: the relay finishes the sends in progress.
    pub(crate) graceful: CancellationToken,
    /// The second signal cancels it: the relay stops waiting for them.
    pub(crate) abandon: CancellationToken,
}

/// The handler of the signals.
#[derive(Clone)]
pub(crate) struct Signals {
    /// `None` until a relay, a server or a bulk change runs.
    running: Arc<Mutex<Option<Running>>>,
}

#[derive(Clone)]
enum Running {
    Relay(RunningRelay),
    /// A server, or a bulk change.
    Other(CancellationToken),
}

#[derive(Clone)]
struct RunningRelay {
    stop: StopTokens,
    progress: Option<Progress>,
}

/// Starts a task that handles the signals. It runs even while the main task blocks on a read.
pub(crate) fn listen() -> Result<Signals, CliError> {
    let mut stream =
        SignalStream::new().map_err(|error| CliError::runtime(format!("signals cannot be handled: {error}")))?;
    let signals = Signals { running: Arc::default() };
    let handler = signals.clone();
    tokio::spawn(async move {
        loop {
            let number = stream.next().await;
            handler.handle(number);
        }
    });
    Ok(signals)
}

impl Signals {
    /// From now on, signals stop the relay by the returned tokens. Messages about them appear above the progress line, if there is one.
    pub(crate) fn stop_relay_on_signal(&self, progress: Option<Progress>) -> StopTokens {
        let stop = StopTokens { graceful: CancellationToken::new(), abandon: CancellationToken::new() };
        let relay = RunningRelay { stop: stop.clone(), progress };
        self.set(Running::Relay(relay));
        stop
    }

    /// From now on, the first signal cancels the returned token.
    pub(crate) fn stop_on_signal(&self) -> CancellationToken {
        let stop = CancellationToken::new();
        self.set(Running::Other(stop.clone()));
        stop
    }

    fn set(&self, running: Running) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
    }

    fn handle(&self, number: i32) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (stop, progress) = match running {
            Some(Running::Relay(RunningRelay { stop, progress })) => (stop, progress),
            Some(Running::Other(stop)) if !stop.is_cancelled() => return stop.cancel(),
            // A shell reports the same code for a process that a signal has ended.
            _ => process::exit(128 + number),
        };
        let print = |message: &str| {
            drop(progress.as_ref().map(Progress::hide));
            warn(message);
        };
        if !stop.graceful.is_cancelled() {
            print("stopping after the sends in progress; a second signal ends the wait");
            stop.graceful.cancel();
        } else if !stop.abandon.is_cancelled() {
            print("not waiting any longer; the sends in progress are in doubt");
            stop.abandon.cancel();
        } else {
            // The outbox recovers as from a crash: the leases end, and their attempts are recorded as lost.
            process::exit(1);
        }
    }
}

#[cfg(unix)]
struct SignalStream {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl SignalStream {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next signal and returns its number.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
        }
    }
}

#[cfg(not(unix))]
struct SignalStream;

#[cfg(not(unix))]
impl SignalStream {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> i32 {
        match tokio::signal::ctrl_c().await {
            Ok(()) => 2,
            Err(_) => std::future::pending().await,
        }
    }
}

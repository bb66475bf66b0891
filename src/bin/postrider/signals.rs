//! What the signals to stop do. Until the work begins, and for every other command, the first one ends the program; then the first one
//! asks, the second presses, the third ends it.
//!
//! They are caught from the start on, and not left to the system: a process that is the first of its container (PID 1) has no default
//! for them, and would live on (signal(7), pid_namespaces(7)).

use std::process;
use std::sync::{Arc, Mutex, PoisonError};

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

/// The signals, caught.
#[derive(Clone)]
pub(crate) struct Caught {
    work: Arc<Mutex<Option<Work>>>,
}

/// The work that the next signal stops, once it has begun.
#[derive(Clone)]
struct Work {
    stop: Stop,
    progress: Option<Progress>,
}

/// Catches the signals from now on, on a task of its own: it runs also where the program waits for what it reads.
pub(crate) fn catch() -> Result<Caught, Fail> {
    let mut signals = Signals::new().map_err(|error| Fail::runtime(format!("signals cannot be caught: {error}")))?;
    let caught = Caught { work: Arc::default() };
    let mine = caught.clone();
    tokio::spawn(async move {
        loop {
            let number = signals.next().await;
            mine.obey(number);
        }
    });
    Ok(caught)
}

impl Caught {
    /// From now on a signal stops the work in good order. What it says stands above the progress line, where there is one.
    pub(crate) fn stop_work(&self, progress: Option<Progress>) -> Stop {
        let stop = Stop { graceful: CancellationToken::new(), abandon: CancellationToken::new() };
        let work = Work { stop: stop.clone(), progress };
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) = Some(work);
        stop
    }

    fn obey(&self, number: i32) {
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(Work { stop, progress }) = work else {
            // As the system would have it.
            process::exit(128 + number);
        };
        let say = |line: &str| {
            drop(progress.as_ref().map(Progress::hide));
            warn(line);
        };
        if !stop.graceful.is_cancelled() {
            say("stopping once what is being sent is finished; a second signal waits no longer");
            stop.graceful.cancel();
        } else if !stop.abandon.is_cancelled() {
            say("waiting no longer; what is being sent is in doubt");
            stop.abandon.cancel();
        } else {
            // Like a crash, from which the outbox recovers: leases run out, and their attempts are written down as lost.
            process::exit(1);
        }
    }
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

    /// The number of the next one.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
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

    async fn next(&mut self) -> i32 {
        match tokio::signal::ctrl_c().await {
            Ok(()) => 2,
            Err(_) => std::future::pending().await,
        }
    }
}

//! One calm line on a terminal that says how the work goes.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postrider::{Event, Observer};

use crate::output::printable;

/// How often the line may change: slowly enough to be read.
const BEAT: Duration = Duration::from_millis(300);

/// The line, and what it counts. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<Mutex<Line>>);

#[derive(Debug, Default)]
struct Line {
    counts: Counts,
    shown: Option<String>,
}

#[derive(Debug, Default)]
struct Counts {
    sent: u64,
    retried: u64,
    dead: u64,
    in_doubt: u64,
    in_flight: u64,
    paused: Option<String>,
    database: Option<String>,
}

impl Progress {
    /// A line, if the standard error is a terminal.
    pub(crate) fn on_terminal() -> Option<Self> {
        io::stderr().is_terminal().then(Self::default)
    }

    /// Draws until the future is dropped.
    pub(crate) async fn draw(self) {
        loop {
            tokio::time::sleep(BEAT).await;
            self.line().draw();
        }
    }

    /// Takes the line away as long as the guard lives; the next beat draws it again.
    pub(crate) fn hide(&self) -> impl Drop + use<'_> {
        let mut line = self.line();
        line.wipe();
        line
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Progress {
    fn on_event(&self, event: &Event<'_>) {
        self.line().counts.count(event);
    }
}

impl Counts {
    fn count(&mut self, event: &Event<'_>) {
        let counter = match event {
            Event::Claimed { count } => {
                self.in_flight += u64::try_from(*count).unwrap_or(0);
                return;
            }
            Event::TransportPaused { transport, reason, .. } => {
                self.paused = Some(format!("{transport}: {reason}"));
                return;
            }
            Event::TransportResumed { .. } => {
                self.paused = None;
                return;
            }
            Event::StoreUnavailable { error } => {
                self.database = Some(error.to_string());
                return;
            }
            Event::StoreRecovered => {
                self.database = None;
                return;
            }
            Event::Sent { .. } => Some(&mut self.sent),
            Event::RetryScheduled { charged: true, .. } => Some(&mut self.retried),
            Event::DeadLettered { .. } => Some(&mut self.dead),
            Event::Held { .. } => Some(&mut self.in_doubt),
            Event::RetryScheduled { charged: false, .. } | Event::LeaseLost { .. } => None,
            _ => return,
        };
        if let Some(counter) = counter {
            *counter += 1;
        }
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    fn text(&self) -> String {
        let Self { sent, retried, dead, in_doubt, in_flight, .. } = self;
        let mut text = format!("sent {sent} · retried {retried} · dead {dead}");
        if *in_doubt > 0 {
            let _ = write!(text, " · in doubt {in_doubt}");
        }
        let _ = write!(text, " · in flight {in_flight}");
        if let Some(why) = &self.paused {
            let _ = write!(text, " · paused: {why}");
        }
        if let Some(why) = &self.database {
            let _ = write!(text, " · waiting for the database: {why}");
        }
        printable(&text).into_owned()
    }
}

impl Line {
    fn draw(&mut self) {
        let text = self.counts.text();
        if self.shown.as_ref() != Some(&text) {
            // Without automatic margins a long line is cut at the edge, instead of scrolling the screen at each beat.
            let _ = write!(io::stderr(), "\r\x1b[?7l{text}\x1b[K\x1b[?7h");
            self.shown = Some(text);
        }
    }

    fn wipe(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use postrider::DeliveryId;

    use super::*;

    #[test]
    fn the_line_follows_the_events() {
        let mut counts = Counts::default();
        let id = DeliveryId::new();
        counts.count(&Event::Claimed { count: 5 });
        counts.count(&Event::Sent { id, refused: 0 });
        counts.count(&Event::RetryScheduled { id, after: BEAT, charged: true });
        counts.count(&Event::RetryScheduled { id, after: BEAT, charged: false });
        counts.count(&Event::DeadLettered { id, template_id: None, reason: "permanent" });
        assert_eq!(counts.text(), "sent 1 · retried 1 · dead 1 · in flight 1");
        counts.count(&Event::TransportPaused { transport: "smtp", reason: "535\x1b[2J", pause: BEAT });
        counts.count(&Event::Held { id, reason: "who knows" });
        assert_eq!(
            counts.text(),
            "sent 1 · retried 1 · dead 1 · in doubt 1 · in flight 0 · paused: smtp: 535\\u{1b}[2J"
        );
        counts.count(&Event::TransportResumed { transport: "smtp" });
        counts.count(&Event::LeaseLost { id });
        assert_eq!(counts.text(), "sent 1 · retried 1 · dead 1 · in doubt 1 · in flight 0");
    }
}

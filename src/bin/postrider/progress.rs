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
            Event::Claimed { count, .. } => {
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
            Event::StoreUnavailable { error, .. } => {
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
    use postrider::transport::{Outgoing, Receipt};
    use postrider::{Email, Failure, MemoryStore, NewDelivery, Outbox, Priority, Scope, Transport, WhenInDoubt};

    use super::*;

    /// Does as the recipient's name says.
    struct ByName;

    impl Transport for ByName {
        type Message = Email;

        fn name(&self) -> &'static str {
            "smtp"
        }

        async fn send(&self, outgoing: &Outgoing<Email>) -> Result<Receipt, Failure> {
            match outgoing.recipients()[0].as_str() {
                "busy@example.com" => Err(Failure::transient(Scope::Message, "later")),
                "nobody@example.com" => Err(Failure::permanent(Scope::Message, "never")),
                "who-knows@example.com" => Err(Failure::maybe_accepted("no answer")),
                "out@example.com" => Err(Failure::permanent(Scope::Transport, "535\x1b[2J")),
                _ => Ok(Receipt::new()),
            }
        }
    }

    fn to(name: &str) -> NewDelivery<Email> {
        let email = Email::builder().from("shop@example.com").to(format!("{name}@example.com")).text("Hello").build();
        NewDelivery::new(email.unwrap()).when_in_doubt(WhenInDoubt::Hold)
    }

    #[tokio::test]
    async fn the_line_follows_a_relay() {
        let outbox = Outbox::new(MemoryStore::new(), ByName);
        let progress = Progress::default();
        let drain = || outbox.relay().concurrency(1).observer(progress.clone()).drain();
        outbox.enqueue_all(["ada", "busy", "nobody"].map(to)).await.unwrap();
        drain().await.unwrap();
        assert_eq!(progress.line().counts.text(), "sent 1 · retried 1 · dead 1 · in flight 0");
        outbox.enqueue_all([to("who-knows"), to("out").priority(Priority::BULK)]).await.unwrap();
        drain().await.unwrap();
        let text = progress.line().counts.text();
        assert!(text.starts_with("sent 1 · retried 1 · dead 1 · in doubt 1 · in flight 0 · paused: smtp: "), "{text}");
    }

    #[tokio::test]
    async fn a_pause_is_shown_until_another_message_is_accepted() {
        let outbox = Outbox::new(MemoryStore::new(), ByName);
        let progress = Progress::default();
        progress.line().counts.paused = Some("smtp: 535".to_owned());
        outbox.enqueue_all([to("out").priority(Priority::URGENT), to("bob")]).await.unwrap();
        let summary = outbox.relay().concurrency(1).observer(progress.clone()).drain().await.unwrap();
        assert_eq!((summary.sent, summary.released), (1, 1));
        assert_eq!(progress.line().counts.text(), "sent 1 · retried 0 · dead 0 · in flight 0");
    }

    #[test]
    fn what_would_move_a_cursor_is_shown_and_not_done() {
        let counts = Counts { paused: Some("smtp: 535\x1b[2J".to_owned()), ..Counts::default() };
        assert_eq!(counts.text(), "sent 0 · retried 0 · dead 0 · in flight 0 · paused: smtp: 535\\u{1b}[2J");
    }
}

//! The progress line: one line on a terminal with the relay's counts and pauses.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postrider::{Event, Observer};

use crate::output::printable;

/// The shortest time between two versions of the line.
const REDRAW_INTERVAL: Duration = Duration::from_millis(300);

/// The progress line. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<Mutex<Line>>);

#[derive(Debug, Default)]
struct Line {
    status: Status,
    /// The text on the terminal. `None` if the line is hidden.
    shown: Option<String>,
}

#[derive(Debug, Default)]
struct Status {
    sent: u64,
    retried: u64,
    dead: u64,
    in_doubt: u64,
    in_flight: u64,
    /// The paused transport and the reason. `None` if it is not paused.
    paused: Option<String>,
    /// The error of the database. `None` if it is available.
    database_error: Option<String>,
}

impl Progress {
    /// `None` if standard error is not a terminal.
    pub(crate) fn on_terminal() -> Option<Self> {
        io::stderr().is_terminal().then(Self::default)
    }

    /// Redraws the line until the future is dropped.
    pub(crate) async fn run(self) {
        loop {
            tokio::time::sleep(REDRAW_INTERVAL).await;
            self.line().draw();
        }
    }

    /// Clears the line. It stays hidden while the guard lives, and the next redraw shows it again.
    pub(crate) fn hide(&self) -> impl Drop + use<'_> {
        let mut line = self.line();
        line.clear();
        line
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Progress {
    fn on_event(&self, event: &Event<'_>) {
        self.line().status.update(event);
    }
}

impl Status {
    fn update(&mut self, event: &Event<'_>) {
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
                self.database_error = Some(error.to_string());
                return;
            }
            Event::StoreRecovered => {
                self.database_error = None;
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
        if let Some(why) = &self.database_error {
            let _ = write!(text, " · waiting for the database: {why}");
        }
        printable(&text).into_owned()
    }
}

impl Line {
    fn draw(&mut self) {
        let text = self.status.text();
        if self.shown.as_ref() != Some(&text) {
            // Without automatic margins, the terminal cuts a long line at the edge. It would otherwise scroll at each redraw.
            let _ = write!(io::stderr(), "\r\x1b[?7l{text}\x1b[K\x1b[?7h");
            self.shown = Some(text);
        }
    }

    fn clear(&mut self) {
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

    /// A transport whose result depends on the recipient.
    struct ByRecipient;

    impl Transport for ByRecipient {
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
    async fn the_line_shows_what_a_relay_does() {
        let outbox = Outbox::new(MemoryStore::new(), ByRecipient);
        let progress = Progress::default();
        let drain = || outbox.relay().concurrency(1).observer(progress.clone()).drain();
        outbox.enqueue_all(["ada", "busy", "nobody"].map(to)).await.unwrap();
        drain().await.unwrap();
        assert_eq!(progress.line().status.text(), "sent 1 · retried 1 · dead 1 · in flight 0");
        outbox.enqueue_all([to("who-knows"), to("out").priority(Priority::BULK)]).await.unwrap();
        drain().await.unwrap();
        let text = progress.line().status.text();
        assert!(text.starts_with("sent 1 · retried 1 · dead 1 · in doubt 1 · in flight 0 · paused: smtp: "), "{text}");
    }

    #[tokio::test]
    async fn a_pause_is_shown_until_a_message_is_accepted() {
        let outbox = Outbox::new(MemoryStore::new(), ByRecipient);
        let progress = Progress::default();
        progress.line().status.paused = Some("smtp: 535".to_owned());
        outbox.enqueue_all([to("out").priority(Priority::URGENT), to("bob")]).await.unwrap();
        let summary = outbox.relay().concurrency(1).observer(progress.clone()).drain().await.unwrap();
        assert_eq!((summary.sent, summary.released), (1, 1));
        assert_eq!(progress.line().status.text(), "sent 1 · retried 0 · dead 0 · in flight 0");
    }

    #[test]
    fn control_characters_are_escaped() {
        let status = Status { paused: Some("smtp: 535\x1b[2J".to_owned()), ..Status::default() };
        assert_eq!(status.text(), "sent 0 · retried 0 · dead 0 · in flight 0 · paused: smtp: 535\\u{1b}[2J");
    }
}

//! A database, relay processes and an SMTP server. Compares the mails that were enqueued, sent and recorded.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::database::{Attempt, Database, HeldLease};
use crate::smtp_server::{Answer, Mail, SmtpServer, Step};
use crate::tool::{Output, Running, wait_until, wait_within};

/// The concurrency of each relay.
pub(crate) const CONCURRENCY: usize = 8;

/// More mails than the relays send between two checks of a test.
const BACKLOG: usize = 500;

/// The time limit for sending all mails, enough for long runs on small machines.
const LONG: Duration = Duration::from_secs(600);

pub(crate) struct Harness {
    pub(crate) database: Database,
    pub(crate) server: SmtpServer,
    /// The deliveries that must arrive.
    pub(crate) ids: HashSet<String>,
}

impl Harness {
    /// The server takes 10 to 40 ms for each mail, so that there are always mails in flight.
    pub(crate) fn slow(database: Database) -> Self {
        let server = SmtpServer::with_script(|step| {
            if let Step::Content = step {
                std::thread::sleep(Duration::from_micros(rand::random_range(10_000..40_000)));
            }
            Answer::Accept
        });
        Self { database, server, ids: HashSet::new() }
    }

    pub(crate) fn with(database: Database, server: SmtpServer) -> Self {
        Self { database, server, ids: HashSet::new() }
    }

    pub(crate) fn enqueue(&mut self, mails: usize) {
        let printed = self.start_enqueueing(mails).wait();
        self.enqueued(mails, &printed);
    }

    /// Starts a process that enqueues.
    pub(crate) fn start_enqueueing(&self, mails: usize) -> Running {
        let mails = mails.to_string();
        let args = ["enqueue", "--from", "a@example.com", "--to", "b@example.com", "--text", "x", "--count", &mails];
        self.database.tool.start(&args)
    }

    /// Records the ids that the process printed.
    pub(crate) fn enqueued(&mut self, mails: usize, by: &Output) {
        assert_eq!(by.code, 0, "{}", by.stderr);
        let before = self.ids.len();
        self.ids.extend(by.stdout.lines().map(str::to_owned));
        assert_eq!(self.ids.len(), before + mails);
    }

    /// Starts a relay process.
    pub(crate) fn relay(&self, lease: &str) -> Running {
        let (concurrency, url) = (CONCURRENCY.to_string(), self.server.url());
        let args = ["work", "--json", "--concurrency", &concurrency, "--lease", lease, "--poll", "50ms"];
        self.database.tool.start(&[&args[..], &["--transport", &url]].concat())
    }

    /// Waits until the relays have sent a random number of further mails. Enqueues more, so that mail is always due.
    pub(crate) fn wait_amid_work(&mut self, random: &mut StdRng) {
        if self.ids.len() < self.by_delivery().len() + BACKLOG {
            self.enqueue(BACKLOG);
        }
        let goal = self.server.accepted_count() + random.random_range(1..=BACKLOG / 4);
        wait_until("the relays send more mails", || self.server.accepted_count() >= goal);
        std::thread::sleep(Duration::from_micros(random.random_range(0..20_000)));
    }

    /// Waits until all mails are sent, and shuts the relays down.
    pub(crate) fn finish(&self, relays: Vec<Running>) -> Vec<Output> {
        wait_within(LONG, "all mails are sent", || {
            self.database.tool.stats()["sent"].as_u64() >= Some(self.ids.len() as u64)
        });
        relays.iter().for_each(|relay| relay.signal("TERM"));
        let ended: Vec<_> = relays.into_iter().map(Running::wait).collect();
        assert!(ended.iter().all(|relay| relay.code == 0));
        ended
    }

    fn by_delivery(&self) -> HashMap<String, Vec<Mail>> {
        let mut by_delivery: HashMap<_, Vec<_>> = HashMap::new();
        for mail in self.server.accepted() {
            by_delivery.entry(mail.delivery_id()).or_default().push(mail);
        }
        by_delivery
    }

    /// Compares the mails that were enqueued, those that arrived, and the history, after all are sent.
    pub(crate) fn report(&self) -> FaultReport {
        let (arrived, history) = (self.by_delivery(), self.database.history());
        assert!(arrived.keys().all(|id| self.ids.contains(id)), "a mail arrived that was not enqueued");
        let lost = check_history(&self.ids, &history);
        for (id, mails) in &arrived {
            assert!(mails.iter().all(|mail| *mail == mails[0]), "two attempts sent different bytes");
            let lost = history[id].iter().filter(|attempt| attempt.outcome == "lost").count();
            assert!(mails.len() - 1 <= lost, "{id} arrived {} times, and {lost} attempts are lost", mails.len());
        }
        FaultReport {
            mails: self.ids.len(),
            missing: self.ids.len() - arrived.len(),
            duplicates: arrived.values().map(|mails| mails.len() - 1).sum(),
            lost,
        }
    }
}

/// The mails that are missing or duplicated, and the attempts that are lost.
pub(crate) struct FaultReport {
    mails: usize,
    /// Deliveries that are recorded as sent, and never arrived.
    pub(crate) missing: usize,
    /// Further copies of mails that had arrived.
    pub(crate) duplicates: usize,
    /// Attempts that are recorded as lost.
    pub(crate) lost: HashSet<HeldLease>,
}

impl std::fmt::Display for FaultReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mails, missing, duplicates, lost } = self;
        write!(f, "of {mails} mails lost {missing}, duplicated {duplicates}; attempts lost {}", lost.len())
    }
}

/// Checks that each delivery has attempts 1, 2, 3 …, of which the last sent it and the others are lost. Returns the lost attempts.
fn check_history(ids: &HashSet<String>, history: &HashMap<String, Vec<Attempt>>) -> HashSet<HeldLease> {
    assert_eq!(history.keys().cloned().collect::<HashSet<_>>(), *ids);
    let mut lost = HashSet::new();
    for (id, attempts) in history {
        let (last, earlier) = attempts.split_last().unwrap();
        assert_eq!(last.outcome, "sent", "{id}");
        for (expected, attempt) in (1..).zip(attempts) {
            assert_eq!(attempt.number, expected, "{id}");
            assert!(attempt.started_at <= attempt.finished_at, "{id}");
        }
        for pair in attempts.windows(2) {
            assert!(pair[0].token < pair[1].token, "{id}: the token does not grow");
            assert!(pair[0].finished_at <= pair[1].started_at, "{id}: two attempts overlap");
        }
        for attempt in earlier {
            assert_eq!(attempt.outcome, "lost", "{id}");
            assert!(lost.insert((id.clone(), attempt.token)), "{id}");
        }
    }
    lost
}

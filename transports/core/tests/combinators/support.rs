//! A scripted transport.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use postrider_transport::{
    Backoff, Class, DeliveryId, Email, Failure, Outgoing, Receipt, Refusal, Scope, Transport, Unsupported,
};

type Answer = Result<Receipt, Failure>;

/// Accepts every message by default. Clones share the state.
#[derive(Clone)]
pub(crate) struct Fake {
    name: &'static str,
    batch: usize,
    /// The subject that it does not support. `None` if it supports all.
    unsupported: Option<&'static str>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    answers: VecDeque<Answer>,
    always: Option<fn() -> Answer>,
    hang: bool,
    /// The mails of each call.
    calls: Vec<Vec<Outgoing<Email>>>,
}

impl Fake {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, batch: 1, unsupported: None, state: Arc::default() }
    }

    pub(crate) fn with_max_batch(mut self, batch: usize) -> Self {
        self.batch = batch;
        self
    }

    pub(crate) fn without_support_for(mut self, subject: &'static str) -> Self {
        self.unsupported = Some(subject);
        self
    }

    pub(crate) fn then(self, answer: Answer) -> Self {
        self.state.lock().unwrap().answers.push_back(answer);
        self
    }

    pub(crate) fn always(self, answer: fn() -> Answer) -> Self {
        self.state.lock().unwrap().always = Some(answer);
        self
    }

    pub(crate) fn repair(&self) {
        self.state.lock().unwrap().always = None;
    }

    pub(crate) fn hang(&self, hang: bool) {
        self.state.lock().unwrap().hang = hang;
    }

    /// The number of mails in each call.
    pub(crate) fn calls(&self) -> Vec<usize> {
        self.state.lock().unwrap().calls.iter().map(Vec::len).collect()
    }

    pub(crate) fn mails(&self) -> Vec<Outgoing<Email>> {
        self.state.lock().unwrap().calls.concat()
    }

    fn answer(&self, mail: &Outgoing<Email>) -> Answer {
        self.check(mail.message())?;
        let mut state = self.state.lock().unwrap();
        let always = state.always;
        state.answers.pop_front().or_else(|| always.map(|answer| answer())).unwrap_or_else(|| Ok(Receipt::new()))
    }

    async fn call(&self, mails: &[Outgoing<Email>]) {
        let hang = {
            let mut state = self.state.lock().unwrap();
            state.calls.push(mails.to_vec());
            state.hang
        };
        if hang {
            std::future::pending::<()>().await;
        }
    }
}

impl Transport for Fake {
    type Message = Email;

    fn name(&self) -> &str {
        self.name
    }

    async fn send(&self, outgoing: &Outgoing<Email>) -> Answer {
        self.call(std::slice::from_ref(outgoing)).await;
        self.answer(outgoing)
    }

    fn check(&self, email: &Email) -> Result<(), Failure> {
        if self.unsupported == Some(email.subject()) { Err(Unsupported::new("such a subject").into()) } else { Ok(()) }
    }

    fn max_batch(&self) -> usize {
        self.batch
    }

    async fn send_batch(&self, batch: &[Outgoing<Email>]) -> Vec<Answer> {
        assert!(batch.len() <= self.batch, "{} were given {} mails", self.name, batch.len());
        self.call(batch).await;
        batch.iter().map(|outgoing| self.answer(outgoing)).collect()
    }
}

pub(crate) fn mail() -> Outgoing<Email> {
    mail_about("Hello")
}

pub(crate) fn mail_about(subject: &str) -> Outgoing<Email> {
    let email = Email::builder().from("ada@example.com").to("bob@example.org").cc("eve@example.org");
    let email = email.subject(subject).text("Hi!").build().unwrap();
    Outgoing::new(DeliveryId::new(), SystemTime::now(), email)
}

pub(crate) fn mails(count: usize) -> Vec<Outgoing<Email>> {
    (0..count).map(|_| mail()).collect()
}

/// A transient failure with the scope of the transport.
pub(crate) fn down() -> Answer {
    Err(Failure::transient(Scope::Transport, "421 closing <ada@example.com>").with_reply("421 closing"))
}

/// A permanent failure with the scope of the transport.
pub(crate) fn down_for_good() -> Answer {
    Err(Failure::permanent(Scope::Transport, "535 wrong"))
}

pub(crate) fn rejected() -> Answer {
    Err(Failure::permanent(Scope::Message, "550 spam").with_reply("550 spam"))
}

pub(crate) fn busy() -> Answer {
    Err(Failure::transient(Scope::Message, "450 greylisted"))
}

pub(crate) fn in_doubt() -> Answer {
    Err(Failure::maybe_accepted("no answer"))
}

pub(crate) fn refusal(recipient: &str) -> Refusal {
    Refusal::new(recipient, Class::Permanent, "550 unknown")
}

/// Pauses that end at once.
pub(crate) fn no_pause() -> Backoff {
    Backoff::new(Duration::ZERO, Duration::ZERO)
}

/// Pauses longer than any test.
pub(crate) fn long() -> Backoff {
    Backoff::new(Duration::from_secs(3600), Duration::from_secs(3600))
}

pub(crate) fn via(result: &Answer) -> Option<&str> {
    match result {
        Ok(receipt) => receipt.via.as_deref(),
        Err(failure) => failure.via(),
    }
}

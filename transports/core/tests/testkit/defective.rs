//! A transport with one defect, and its peer.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider_transport::testkit::{Accepted, Answer, ScriptedPeer, TransportUnderTest};
use postrider_transport::{Attachment, Email, Failure, Outgoing, Receipt, Recipient, Scope, Transport, Unsupported};
use tokio::sync::Notify;

pub(crate) const SECRET: &str = "hunter2-and-more";

/// The defect of the transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    Nothing,
    TriesTwice,
    TriesTwiceAndReportsTheFirst,
    RefusalIsTransient,
    RefusalBlamesTheTransport,
    BusyIsPermanent,
    CredentialsBlameTheMessage,
    OutageIsPermanent,
    LimitWithoutWait,
    LimitBlamesTheMessage,
    CloseIsNotInDoubt,
    CloseChargesTheMessage,
    HangIsNotInDoubt,
    NoTimeLimit,
    GarbageIsSuccess,
    AlwaysInDoubt,
    AcceptedWithoutPeer,
    IsBrokenByAFault,
    AddressesAllRecipients,
    AddressesOnlyTheFirst,
    RepeatsTheFirstReceipt,
    InventsRefusals,
    LosesTheText,
    LosesTheHtml,
    DiffersByAttempt,
    SendsTwice,
    MixesUpConcurrentCalls,
    BatchIsReversed,
    BatchLacksOne,
    BatchFailsAsAWhole,
    NoBatchAtAll,
    SendsUnsupportedMail,
    UnsupportedIsJustPermanent,
    CheckAcceptsEverything,
    ReadsTheDroppedCallsAnswer,
    IsBrokenByADroppedCall,
    SendsADroppedCallAgain,
    NameIsEmpty,
    NameShowsSecret,
    DebugShowsSecret,
    DebugShowsTheLastMail,
    FailureShowsSecret,
    ReplyShowsSecret,
    SourceShowsAddresses,
    FailureShowsTheSubject,
}

use Defect as D;

/// The peer: gives each message the planned answer.
#[derive(Clone, Default)]
pub(crate) struct Server {
    record: Arc<Mutex<Record>>,
    released: Arc<Notify>,
}

#[derive(Default)]
struct Record {
    planned: VecDeque<Answer>,
    read: usize,
    accepted: Vec<Accepted>,
}

impl Server {
    fn accept(&self, mail: &Outgoing<Email>, recipients: &[Recipient], text: &str) -> String {
        let id = mail.id().to_string();
        let recipients = recipients.iter().map(|recipient| recipient.as_str().to_owned()).collect();
        let content = format!("{} {text}", mail.message().subject());
        self.record.lock().unwrap().accepted.push(Accepted::new(recipients, Some(id.clone()), content));
        id
    }
}

impl ScriptedPeer for Server {
    fn plan(&self, answer: Answer) {
        self.record.lock().unwrap().planned.push_back(answer);
    }

    fn release(&self) {
        self.released.notify_waiters();
    }

    fn read(&self) -> usize {
        self.record.lock().unwrap().read
    }

    fn accepted(&self) -> Vec<Accepted> {
        self.record.lock().unwrap().accepted.clone()
    }
}

pub(crate) struct Defective {
    defect: Defect,
    server: Option<Server>,
    limit: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    broken: bool,
    running: usize,
    first_id: Option<String>,
    dropped: Option<Outgoing<Email>>,
    last: String,
}

/// Records whether the call was dropped.
struct Call<'a> {
    transport: &'a Defective,
    mail: &'a Outgoing<Email>,
    ended: bool,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut state = self.transport.state.lock().unwrap();
        state.running -= 1;
        if !self.ended {
            state.dropped = Some(self.mail.clone());
            state.broken |= self.transport.defect == D::IsBrokenByADroppedCall;
        }
    }
}

impl Defective {
    fn is(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    fn in_doubt_unless(&self, failure: Failure, defect: Defect) -> Failure {
        if self.is(defect) {
            failure.with_scope(Scope::Transport)
        } else {
            Failure::maybe_accepted(failure.to_string())
        }
    }

    async fn attempt(&self, server: &Server, mail: &Outgoing<Email>) -> Result<Receipt, Failure> {
        let answer = {
            let mut record = server.record.lock().unwrap();
            let answer = record.planned.pop_front().unwrap_or(Answer::Accept);
            record.read += usize::from(answer != Answer::CloseBeforeReading);
            answer
        };
        // Yield as on a network, so that other calls run in between.
        tokio::task::yield_now().await;
        let transport_failed = |text: &str| Failure::transient(Scope::Transport, text);
        let text = if self.is(D::ReplyShowsSecret) { format!("refused, {SECRET}") } else { "refused".to_owned() };
        let refused = Failure::permanent(Scope::Message, "refused <bob.builder@example.org>").with_reply(text);
        Err(match answer {
            Answer::RefuseMessage if self.is(D::RefusalIsTransient) => Failure::transient(Scope::Message, "refused"),
            Answer::RefuseMessage if self.is(D::RefusalBlamesTheTransport) => refused.with_scope(Scope::Transport),
            Answer::RefuseMessage if self.is(D::SourceShowsAddresses) => Failure::permanent(Scope::Message, Leaky),
            Answer::RefuseMessage if self.is(D::FailureShowsTheSubject) => {
                Failure::permanent(Scope::Message, format!("refused: {}", mail.message().subject()))
            }
            Answer::RefuseMessage => refused,
            Answer::Busy if self.is(D::BusyIsPermanent) => Failure::permanent(Scope::Message, "later"),
            Answer::Busy => Failure::transient(Scope::Message, "later"),
            Answer::RefuseCredentials if self.is(D::CredentialsBlameTheMessage) => {
                Failure::permanent(Scope::Message, "wrong")
            }
            Answer::RefuseCredentials if self.is(D::FailureShowsSecret) => {
                transport_failed(&format!("wrong: {SECRET}"))
            }
            Answer::RefuseCredentials => Failure::permanent(Scope::Transport, "wrong"),
            Answer::RateLimit(_) if self.is(D::LimitWithoutWait) => transport_failed("too much"),
            Answer::RateLimit(wait) if self.is(D::LimitBlamesTheMessage) => {
                Failure::transient(Scope::Message, "too much").with_retry_after(wait)
            }
            Answer::RateLimit(wait) => transport_failed("too much").with_retry_after(wait),
            Answer::Unavailable if self.is(D::OutageIsPermanent) => Failure::permanent(Scope::Transport, "closed"),
            Answer::Unavailable => transport_failed("closed"),
            Answer::CloseBeforeReading if self.is(D::CloseChargesTheMessage) => {
                Failure::transient(Scope::Message, "closed")
            }
            Answer::CloseBeforeReading => transport_failed("closed"),
            Answer::CloseAfterReading => {
                self.in_doubt_unless(Failure::transient(Scope::Message, "closed"), D::CloseIsNotInDoubt)
            }
            Answer::Garbage if self.is(D::GarbageIsSuccess) => return Ok(Receipt::new()),
            Answer::Garbage => Failure::maybe_accepted("what?"),
            Answer::Hang => {
                let released = async {
                    server.released.notified().await;
                    server.accept(mail, mail.recipients(), mail.message().text().unwrap_or_default());
                };
                if self.is(D::NoTimeLimit) {
                    released.await;
                } else {
                    let _ = tokio::time::timeout(self.limit, released).await;
                }
                self.in_doubt_unless(Failure::transient(Scope::Message, "silence"), D::HangIsNotInDoubt)
            }
            _ => return Ok(self.accepted(server, mail)),
        })
    }

    fn accepted(&self, server: &Server, mail: &Outgoing<Email>) -> Receipt {
        let everybody = Outgoing::new(mail.id(), mail.dated_at(), mail.message().clone());
        let recipients = match self.defect {
            D::AddressesAllRecipients => everybody.recipients(),
            D::AddressesOnlyTheFirst => &mail.recipients()[..1],
            _ => mail.recipients(),
        };
        let [text, html] = [mail.message().text(), mail.message().html()].map(Option::unwrap_or_default);
        let text = match self.defect {
            D::LosesTheText => html.to_owned(),
            D::LosesTheHtml => text.to_owned(),
            D::DiffersByAttempt => format!("{text} {html} {}", mail.attempt()),
            _ => format!("{text} {html}"),
        };
        let id = server.accept(mail, recipients, &text);
        if self.is(D::SendsTwice) {
            server.accept(mail, recipients, &text);
        }
        let mut state = self.state.lock().unwrap();
        let first = state.first_id.get_or_insert_with(|| id.clone()).clone();
        let mixed_up = self.is(D::MixesUpConcurrentCalls) && state.running > 1;
        let id = if self.is(D::RepeatsTheFirstReceipt) || mixed_up { first } else { id };
        let receipt = Receipt::new().with_provider_id(id).with_reply("accepted <bob.builder@example.org>");
        if self.is(D::InventsRefusals) {
            let refusal =
                postrider_transport::Refusal::new("x@example.org", postrider_transport::Class::Permanent, "no");
            return receipt.with_refused(vec![refusal]);
        }
        receipt
    }
}

#[derive(Debug)]
struct Leaky;

impl fmt::Display for Leaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused")
    }
}

impl std::error::Error for Leaky {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&Underneath)
    }
}

#[derive(Debug)]
struct Underneath;

impl fmt::Display for Underneath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused: eve.adams@example.net")
    }
}

impl std::error::Error for Underneath {}

impl fmt::Debug for Defective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.defect {
            D::DebugShowsSecret => write!(f, "Defective({SECRET})"),
            D::DebugShowsTheLastMail => write!(f, "Defective({})", self.state.lock().unwrap().last),
            _ => write!(f, "Defective"),
        }
    }
}

impl Transport for Defective {
    type Message = Email;

    fn name(&self) -> &str {
        match self.defect {
            D::NameIsEmpty => "",
            D::NameShowsSecret => SECRET,
            _ => "defective",
        }
    }

    fn check(&self, email: &Email) -> Result<(), Failure> {
        match self.defect {
            _ if email.attachments().is_empty() => Ok(()),
            D::CheckAcceptsEverything => Ok(()),
            D::UnsupportedIsJustPermanent => Err(Failure::permanent(Scope::Message, "attachments")),
            _ => Err(Unsupported::new("attachments").into()),
        }
    }

    async fn send(&self, mail: &Outgoing<Email>) -> Result<Receipt, Failure> {
        if !self.is(D::SendsUnsupportedMail) {
            self.check(mail.message())?;
        }
        let Some(server) = &self.server else {
            return match self.defect {
                D::AcceptedWithoutPeer => Ok(Receipt::new()),
                D::AlwaysInDoubt => Err(Failure::maybe_accepted("nobody")),
                _ => Err(Failure::transient(Scope::Transport, "nobody")),
            };
        };
        let dropped = {
            let mut state = self.state.lock().unwrap();
            if state.broken {
                return Err(Failure::transient(Scope::Message, "broken"));
            }
            state.running += 1;
            state.last = format!("{} {}", mail.message().subject(), mail.recipients()[0].as_str());
            state.dropped.take()
        };
        let mut call = Call { transport: self, mail, ended: false };
        if let Some(dropped) = dropped {
            if self.is(D::SendsADroppedCallAgain) {
                server.accept(&dropped, dropped.recipients(), "again");
                server.accept(&dropped, dropped.recipients(), "and again");
            }
            if self.is(D::ReadsTheDroppedCallsAnswer) {
                call.ended = true;
                server.record.lock().unwrap().planned.clear();
                return Ok(Receipt::new().with_provider_id(dropped.id().to_string()));
            }
        }
        let mut result = self.attempt(server, mail).await;
        if result.is_err() && self.is(D::TriesTwice) {
            result = self.attempt(server, mail).await;
        }
        if result.is_err() && self.is(D::TriesTwiceAndReportsTheFirst) {
            let _ = self.attempt(server, mail).await;
        }
        call.ended = true;
        if self.is(D::IsBrokenByAFault) && result.as_ref().is_err_and(Failure::in_doubt) {
            self.state.lock().unwrap().broken = true;
        }
        result
    }

    fn max_batch(&self) -> usize {
        if self.is(D::NoBatchAtAll) { 0 } else { 4 }
    }

    async fn send_batch(&self, batch: &[Outgoing<Email>]) -> Vec<Result<Receipt, Failure>> {
        let mut results = Vec::new();
        for mail in batch {
            results.push(self.send(mail).await);
        }
        match self.defect {
            D::BatchIsReversed => results.reverse(),
            D::BatchLacksOne => drop(results.pop()),
            D::BatchFailsAsAWhole if results.iter().any(Result::is_err) => {
                return batch.iter().map(|_| Err(Failure::permanent(Scope::Message, "one was bad"))).collect();
            }
            _ => {}
        }
        results
    }
}

pub(crate) struct Fixture(pub(crate) Defect);

impl TransportUnderTest for Fixture {
    type Transport = Defective;
    type Peer = Server;

    async fn start(&self, limit: Duration) -> (Defective, Server) {
        let server = Server::default();
        let transport = Defective { defect: self.0, server: Some(server.clone()), limit, state: Mutex::default() };
        (transport, server)
    }

    async fn unreachable(&self) -> Defective {
        Defective { defect: self.0, server: None, limit: Duration::from_secs(1), state: Mutex::default() }
    }

    fn secrets(&self) -> Vec<String> {
        vec![SECRET.to_owned()]
    }

    fn unsupported(&self) -> Option<Email> {
        let file = Attachment::new("a.txt", "text/plain", b"a".to_vec()).unwrap();
        Some(Email::builder().from("ada@example.com").to("bob@example.org").text("Hi!").attach(file).build().unwrap())
    }
}

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider_transport::testkit::{Accepted, Answer, ScriptedPeer, TransportUnderTest};
use postrider_transport::{Scope, Email, Failure, Outgoing, Receipt, Transport, Unsupported};

/// The transport: hands mail over to a server in the same process.
struct Courier {
    server: Server,
    limit: Duration,
}

impl fmt::Debug for Courier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Courier").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Transport for Courier {
    type Message = Email;

    fn name(&self) -> &str {
        "courier"
    }

    fn check(&self, email: &Email) -> Result<(), Failure> {
        if email.attachments().is_empty() { Ok(()) } else { Err(Unsupported::new("attachments").into()) }
    }

    async fn send(&self, mail: &Outgoing<Email>) -> Result<Receipt, Failure> {
        self.check(mail.message())?;
        let server_failed = |text: &str| Failure::transient(Scope::Transport, text);
        let reply = match tokio::time::timeout(self.limit, self.server.take(mail)).await {
            Ok(reply) => reply,
            Err(_) => return Err(Failure::maybe_accepted("no answer")),
        };
        match reply.as_deref().map(|reply| reply.split_at(3)) {
            Some(("200", id)) => Ok(Receipt::new().with_provider_id(id)),
            Some(("400", _)) => Err(Failure::permanent(Scope::Message, "refused")),
            Some(("409", _)) => Err(Failure::transient(Scope::Message, "later")),
            Some(("401", _)) => Err(Failure::permanent(Scope::Transport, "wrong key")),
            Some(("429", wait)) => {
                let wait = Duration::from_secs(wait.parse().unwrap_or(60));
                Err(server_failed("too much").with_retry_after(wait))
            }
            Some(("503", _)) => Err(server_failed("out of service")),
            Some(("000", _)) => Err(server_failed("the server is closed")),
            _ => Err(Failure::maybe_accepted("malformed answer")),
        }
    }
}

/// The peer: the server, which replies with a code of three digits and a text.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Record>>);

#[derive(Default)]
struct Record {
    planned: VecDeque<Answer>,
    read: usize,
    accepted: Vec<Accepted>,
    closed: bool,
}

impl Server {
    async fn take(&self, mail: &Outgoing<Email>) -> Option<String> {
        let answer = {
            let mut record = self.0.lock().unwrap();
            let answer = record.planned.pop_front().unwrap_or(Answer::Accept);
            record.read += usize::from(answer != Answer::CloseBeforeReading && !record.closed);
            if record.closed { Answer::CloseBeforeReading } else { answer }
        };
        if answer == Answer::Hang {
            // The future is dropped with its call, so no answer can reach another call.
            std::future::pending::<()>().await;
        }
        let reply = match answer {
            Answer::RefuseMessage => "400",
            Answer::Busy => "409",
            Answer::RefuseCredentials => "401",
            Answer::RateLimit(wait) => return Some(format!("429{}", wait.as_secs())),
            Answer::Unavailable => "503",
            Answer::CloseBeforeReading => "000",
            Answer::CloseAfterReading => return None,
            Answer::Garbage => "what?",
            _ => {
                let id = mail.id().to_string();
                let recipients = mail.recipients().iter().map(|recipient| recipient.as_str().to_owned()).collect();
                let email = mail.message();
                let bodies = [email.text(), email.html()].map(Option::unwrap_or_default);
                let content = format!("{}\n{}", email.subject(), bodies.join("\n"));
                self.0.lock().unwrap().accepted.push(Accepted::new(recipients, Some(id.clone()), content));
                return Some(format!("200{id}"));
            }
        };
        Some(reply.to_owned())
    }
}

impl ScriptedPeer for Server {
    fn plan(&self, answer: Answer) {
        self.0.lock().unwrap().planned.push_back(answer);
    }

    fn release(&self) {}

    fn read(&self) -> usize {
        self.0.lock().unwrap().read
    }

    fn accepted(&self) -> Vec<Accepted> {
        self.0.lock().unwrap().accepted.clone()
    }
}

struct CourierTest;

impl TransportUnderTest for CourierTest {
    type Transport = Courier;
    type Peer = Server;

    async fn start(&self, limit: Duration) -> (Courier, Server) {
        let server = Server::default();
        (Courier { server: server.clone(), limit }, server)
    }

    async fn unreachable(&self) -> Courier {
        let server = Server::default();
        server.0.lock().unwrap().closed = true;
        Courier { server, limit: Duration::from_secs(60) }
    }

    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }

    fn unsupported(&self) -> Option<Email> {
        let file = postrider_transport::Attachment::new("a.txt", "text/plain", b"a".to_vec()).unwrap();
        let mail = Email::builder().from("ada@example.com").to("bob@example.org").text("Hi!").attach(file);
        Some(mail.build().unwrap())
    }
}

// In a test file: generates one #[tokio::test] per function of the suite.
postrider_transport::transport_tests!(CourierTest);

//! The suite that every transport passes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider_smtp::{Credentials, Smtp, SmtpBuilder, Timeouts, Tls};
use postrider_transport::testkit::{Accepted, Answer, ScriptedPeer, TransportUnderTest};
use postrider_transport::{Attachment, Email};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::support::{Action, At, TestServer, email};

const SECRET: &str = "hunter2-and-more";

struct Server {
    server: TestServer,
    /// Notified to release the replies that are held.
    held: Mutex<Vec<Arc<Notify>>>,
}

impl ScriptedPeer for Server {
    fn plan(&self, answer: Answer) {
        let (at, action) = match answer {
            // The default. There are no batches, so the order does not matter.
            Answer::Accept => return,
            Answer::RefuseMessage => {
                (At::EndOfData, Action::Reply("550 5.7.1 <bob.builder@example.org> does not want it"))
            }
            Answer::Busy => (At::EndOfData, Action::Reply("451 4.7.1 <ada.lovelace@example.com> come back later")),
            Answer::RateLimit(wait) => {
                let text = format!("454 4.7.0 Throttling failure: try again in {} seconds", wait.as_secs());
                (At::EndOfData, Action::Reply(text.leak()))
            }
            Answer::RefuseCredentials => (At::Auth, Action::Reply("535 5.7.8 hunter2-and-more is wrong")),
            Answer::Unavailable => (At::EndOfData, Action::ReplyAndClose("421 4.3.2 closing")),
            Answer::CloseBeforeReading => (At::Greeting, Action::Close),
            Answer::CloseAfterReading => (At::EndOfData, Action::Close),
            Answer::Hang => {
                let notify = Arc::new(Notify::new());
                self.held.lock().unwrap().push(Arc::clone(&notify));
                (At::EndOfData, Action::Hold(notify))
            }
            Answer::Garbage => (At::EndOfData, Action::Reply("I beg your pardon, <bob.builder@example.org>")),
            other => panic!("SMTP has no {other:?}"),
        };
        self.server.once(at, action);
    }

    fn release(&self) {
        for held in self.held.lock().unwrap().drain(..) {
            held.notify_one();
        }
    }

    fn read(&self) -> usize {
        self.server.read()
    }

    fn accepted(&self) -> Vec<Accepted> {
        let accepted = self.server.accepted().into_iter();
        accepted
            .map(|mail| Accepted::new(mail.recipients, Some(mail.queue_id), String::from_utf8_lossy(&mail.data)))
            .collect()
    }
}

struct SmtpTest {
    pipelining: bool,
}

impl SmtpTest {
    fn to(&self, port: u16) -> SmtpBuilder {
        let credentials = Credentials::new("ada.lovelace@example.com", SECRET);
        Smtp::builder("127.0.0.1").port(port).tls(Tls::None).credentials(credentials)
    }
}

impl TransportUnderTest for SmtpTest {
    type Transport = Smtp;
    type Peer = Server;

    async fn start(&self, limit: Duration) -> (Smtp, Server) {
        let server = TestServer::builder().offer("AUTH PLAIN").password(SECRET);
        let server = if self.pipelining { server.offer("PIPELINING") } else { server };
        let server = server.start().await;
        let smtp = self.to(server.port()).timeouts(Timeouts::at_most(limit)).build().unwrap();
        (smtp, Server { server, held: Mutex::default() })
    }

    async fn unreachable(&self) -> Smtp {
        // A port without a listener.
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        self.to(port).build().unwrap()
    }

    fn secrets(&self) -> Vec<String> {
        vec![SECRET.to_owned()]
    }

    fn unsupported(&self) -> Option<Email> {
        // It must be sent without an encoding, which the NUL makes impossible.
        let odd = Attachment::new("a", "message/rfc822", b"Subject: a\0\r\n".to_vec()).unwrap();
        Some(email().to("bob.builder@example.org").attach(odd).build().unwrap())
    }
}

mod pipelined {
    use super::SmtpTest;

    postrider_transport::transport_tests!(SmtpTest { pipelining: true });
}

mod unpipelined {
    use super::SmtpTest;

    postrider_transport::transport_tests!(SmtpTest { pipelining: false });
}

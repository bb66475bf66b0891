//! The suite that every transport passes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider_smtp::{Credentials, Smtp, SmtpBuilder, Timeouts, Tls};
use postrider_transport::testkit::{Accepted, Answer, ScriptedPeer, TransportUnderTest};
use postrider_transport::{Attachment, Email};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::support::{Act, At, Peer, email};

const SECRET: &str = "hunter2-and-more";

struct Server {
    peer: Peer,
    /// Rung for each answer that is held back.
    held: Mutex<Vec<Arc<Notify>>>,
}

impl ScriptedPeer for Server {
    fn plan(&self, answer: Answer) {
        let (at, act) = match answer {
            // What it does anyway. There are no batches for which it would matter in what order.
            Answer::Accept => return,
            Answer::RefuseMessage => (At::Dot, Act::Say("550 5.7.1 <bob.builder@example.org> does not want it")),
            Answer::Busy => (At::Dot, Act::Say("451 4.7.1 <ada.lovelace@example.com> come back later")),
            Answer::RateLimit(wait) => {
                let text = format!("454 4.7.0 Throttling failure: try again in {} seconds", wait.as_secs());
                (At::Dot, Act::Say(text.leak()))
            }
            Answer::RefuseCredentials => (At::Auth, Act::Say("535 5.7.8 hunter2-and-more is wrong")),
            Answer::Unavailable => (At::Dot, Act::SayAndClose("421 4.3.2 closing")),
            Answer::CloseBeforeReading => (At::Greeting, Act::Close),
            Answer::CloseAfterReading => (At::Dot, Act::Close),
            Answer::Hang => {
                let notify = Arc::new(Notify::new());
                self.held.lock().unwrap().push(Arc::clone(&notify));
                (At::Dot, Act::Hold(notify))
            }
            Answer::Garbage => (At::Dot, Act::Say("I beg your pardon, <bob.builder@example.org>")),
            other => panic!("SMTP has no {other:?}"),
        };
        self.peer.once(at, act);
    }

    fn release(&self) {
        for held in self.held.lock().unwrap().drain(..) {
            held.notify_one();
        }
    }

    fn read(&self) -> usize {
        self.peer.read()
    }

    fn accepted(&self) -> Vec<Accepted> {
        let accepted = self.peer.accepted().into_iter();
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
        let peer = Peer::builder().offer("AUTH PLAIN").password(SECRET);
        let peer = if self.pipelining { peer.offer("PIPELINING") } else { peer };
        let peer = peer.start().await;
        let smtp = self.to(peer.port()).timeouts(Timeouts::at_most(limit)).build().unwrap();
        (smtp, Server { peer, held: Mutex::default() })
    }

    async fn unreachable(&self) -> Smtp {
        // A port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        self.to(port).build().unwrap()
    }

    fn secrets(&self) -> Vec<String> {
        vec![SECRET.to_owned()]
    }

    fn unsupported(&self) -> Option<Email> {
        // What has to travel as it is, and cannot.
        let odd = Attachment::new("a", "message/rfc822", b"Subject: a\0\r\n".to_vec()).unwrap();
        Some(email().to("bob.builder@example.org").attach(odd).build().unwrap())
    }
}

mod pipelined {
    use super::SmtpTest;

    postrider_transport::transport_tests!(SmtpTest { pipelining: true });
}

mod word_by_word {
    use super::SmtpTest;

    postrider_transport::transport_tests!(SmtpTest { pipelining: false });
}

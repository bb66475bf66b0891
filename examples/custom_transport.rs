//! A custom transport for a mail gateway. A request is a line of JSON, and the response is a line: `200 ID` or a refusal.
//! `tests/custom_transport.rs` runs the conformance suite of transports on it.
//!
//! ```text
//! GATEWAY=127.0.0.1:2500 GATEWAY_TOKEN=secret cargo run --example custom_transport
//! ```

#![allow(clippy::print_stdout, reason = "an example prints its results")]

use std::time::Duration;
use std::{env, error::Error, fmt};

use postrider::transport::{Outgoing, Receipt, Unsupported};
use postrider::{Email, Failure, MemoryStore, Message, Outbox, Scope, Transport};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) struct Gateway {
    pub(crate) address: String,
    pub(crate) token: String,
    pub(crate) timeout: Duration,
}

impl Transport for Gateway {
    type Message = Email;

    fn name(&self) -> &str {
        "gateway"
    }

    /// Refuses what the gateway does not support, so that no part of a mail is silently dropped. This gateway accepts mail in its stored
    /// form: an object, with text and HTML beside it.
    fn check(&self, email: &Email) -> Result<(), Failure> {
        let encoded = email.encode()?;
        match (encoded.size(), encoded.blobs.as_slice()) {
            (0..=1_000_000, []) => Ok(()),
            (0..=1_000_000, _) => Err(Unsupported::new("a large attachment").into()),
            _ => Err(Unsupported::new("a mail of more than a megabyte").into()),
        }
    }

    async fn send(&self, mail: &Outgoing<Email>) -> Result<Receipt, Failure> {
        self.check(mail.message())?;
        let unavailable = |what: &str| Failure::transient(Scope::Transport, what);
        let connecting = timeout(self.timeout, TcpStream::connect(&self.address)).await;
        let Ok(Ok(mut stream)) = connecting else { return Err(unavailable("the gateway is unreachable")) };

        let to: Vec<_> = mail.recipients().iter().map(|recipient| recipient.as_str()).collect();
        let email = mail.message().encode()?;
        let request = json!({
            "token": self.token,
            "id": mail.id().to_string(),
            "to": to,
            "email": email.body,
            "text": email.text,
            "html": email.html,
        });
        let mut response = String::new();
        let exchange = async {
            stream.write_all(format!("{request}\n").as_bytes()).await?;
            BufReader::new(stream).read_line(&mut response).await
        };
        // From here on, the gateway may have accepted the mail. Only a complete line shows the result.
        let exchanged = timeout(self.timeout, exchange).await;
        let line = response.strip_suffix('\n').filter(|_| matches!(exchanged, Ok(Ok(_)))).unwrap_or_default();
        match line.split_once(' ').unwrap_or((line, "")) {
            ("200", id) => Ok(Receipt::new().with_provider_id(id)),
            ("400", _) => Err(Failure::permanent(Scope::Message, "the gateway refuses the mail")),
            ("401", _) => Err(Failure::permanent(Scope::Transport, "the token is wrong")),
            ("409", _) => Err(Failure::transient(Scope::Message, "the gateway asks to send the mail later")),
            ("429", wait) => Err(unavailable("the gateway limits the rate")
                .with_retry_after(Duration::from_secs(wait.parse().unwrap_or(60)))),
            ("503", _) => Err(unavailable("the gateway is unavailable")),
            _ => Err(Failure::maybe_accepted("the gateway gave no valid response")),
        }
    }
}

/// Omits the token.
impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("address", &self.address).finish_non_exhaustive()
    }
}

#[allow(dead_code, reason = "the test of this file does not use it")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let need = |name: &str| env::var(name).map_err(|_| format!("set {name}"));
    let gateway =
        Gateway { address: need("GATEWAY")?, token: need("GATEWAY_TOKEN")?, timeout: Duration::from_secs(30) };
    let outbox = Outbox::new(MemoryStore::new(), gateway);
    let email = Email::builder().from("shop@example.com").to("ada@example.com").subject("Hello").text("It works.");
    let id = outbox.enqueue(email.build()?).await?;
    outbox.relay().drain().await?;

    let delivery = outbox.get(id).await?.ok_or("the delivery is missing")?;
    println!("{id} is {}", delivery.state);
    for attempt in &delivery.attempts {
        let detail = attempt.error.as_deref().or(attempt.provider_id.as_deref()).unwrap_or_default();
        println!("attempt {}: {}: {detail}", attempt.number, attempt.outcome);
    }
    Ok(())
}

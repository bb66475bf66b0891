//! Sends all mail to one address.

use crate::{Address, Email, Failure, Mailbox, Outgoing, Receipt, Recipient, Refusal, Transport};

/// Sends every mail to one address instead of its recipients, for staging systems with real data.
///
/// ```
/// use postrider_transport::{Email, Redirect, Transport};
/// # fn example(smtp: impl Transport<Message = Email>) -> Result<(), postrider_transport::AddressError> {
/// let transport = Redirect::new(smtp, "staging@example.com".parse()?);
/// # Ok(()) }
/// ```
///
/// To and the envelope recipient become that address. Cc and Bcc are removed. The header [`HEADER`](Self::HEADER) lists the original
/// recipients, Bcc included. From, Reply-To and Sender stay, so a reply still reaches the real people behind them.
///
/// A mail that has the header already keeps its value. After two redirects it lists the first recipients.
///
/// The result is reported for the original recipients: if the address is refused, each of them is refused. A retry for some of the
/// original recipients sends the same mail.
#[derive(Debug, Clone)]
pub struct Redirect<T> {
    inner: T,
    to: Mailbox,
}

impl<T: Transport<Message = Email>> Redirect<T> {
    /// Redirects all mail of `inner` to the address `to`.
    pub fn new(inner: T, to: Address) -> Self {
        Self { inner, to: to.into() }
    }

    fn redirected(&self, outgoing: &Outgoing<Email>) -> Outgoing<Email> {
        let rewritten = outgoing.clone().map(|email| email.redirected_to(&self.to, Self::HEADER));
        rewritten.with_recipients(vec![Recipient::from(self.to.address())])
    }

    /// Replaces a refusal of the address by a refusal of each original recipient.
    fn translated(&self, outgoing: &Outgoing<Email>, result: Result<Receipt, Failure>) -> Result<Receipt, Failure> {
        let each = |refused: &[Refusal]| -> Vec<Refusal> {
            let for_each = |refusal: &Refusal| {
                let Refusal { class, reply, .. } = refusal.clone();
                outgoing.recipients().iter().map(move |one| Refusal::new(one.as_str(), class, reply.clone()))
            };
            // Only one address can be refused; a second refusal would be of the same.
            refused.first().into_iter().flat_map(for_each).collect()
        };
        match result {
            Ok(receipt) => {
                let refused = each(&receipt.refused);
                Ok(receipt.with_refused(refused))
            }
            Err(failure) => {
                let refused = each(failure.refused());
                Err(failure.with_refused(refused))
            }
        }
    }
}

impl<T> Redirect<T> {
    /// The header with the original recipients: `X-Postrider-Original-To`.
    ///
    /// Other programs use `X-Original-To`, but Postfix adds that to every mail it delivers.
    pub const HEADER: &'static str = "X-Postrider-Original-To";
}

#[deny(clippy::missing_trait_methods)]
impl<T: Transport<Message = Email>> Transport for Redirect<T> {
    type Message = Email;

    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn send(&self, outgoing: &Outgoing<Email>) -> Result<Receipt, Failure> {
        let result = self.inner.send(&self.redirected(outgoing)).await;
        self.translated(outgoing, result)
    }

    /// Checks the redirected mail.
    fn check(&self, email: &Email) -> Result<(), Failure> {
        self.inner.check(&email.clone().redirected_to(&self.to, Self::HEADER))
    }

    fn max_batch(&self) -> usize {
        self.inner.max_batch()
    }

    async fn send_batch(&self, batch: &[Outgoing<Email>]) -> Vec<Result<Receipt, Failure>> {
        let redirected: Vec<_> = batch.iter().map(|outgoing| self.redirected(outgoing)).collect();
        let results = self.inner.send_batch(&redirected).await;
        batch.iter().zip(results).map(|(outgoing, result)| self.translated(outgoing, result)).collect()
    }

    fn paused(&self) -> Vec<(String, String)> {
        self.inner.paused()
    }
}

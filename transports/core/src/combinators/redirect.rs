//! All mail to one address.

use crate::{Address, Email, Failure, Mailbox, Outgoing, Receipt, Recipient, Refusal, Transport};

/// Sends every mail to one address instead of its recipients, for systems that work with real data and must not write to real
/// people.
///
/// ```
/// use postrider_transport::{Email, Redirect, Transport};
/// # fn example(smtp: impl Transport<Message = Email>) -> Result<(), postrider_transport::AddressError> {
/// let transport = Redirect::new(smtp, "staging@example.com".parse()?);
/// # Ok(()) }
/// ```
///
/// To, and the recipient in the envelope, become that address; Cc and Bcc are left out. The original recipients, those of Bcc
/// included, stand in the header [`HEADER`](Self::HEADER). From, Reply-To and Sender stay, and with them whom an answer reaches.
///
/// A mail that has the header already keeps it as it is: redirected twice, it still says whom it was first for, and not the address in
/// between.
///
/// To the outbox it looks as if the original recipients had been mailed: if the one address is refused, so is each of them. Whoever
/// of them a retry is for, the mail is the same.
#[derive(Debug, Clone)]
pub struct Redirect<T> {
    inner: T,
    to: Mailbox,
}

impl<T: Transport<Message = Email>> Redirect<T> {
    /// Redirects what the transport is given.
    pub fn new(inner: T, to: Address) -> Self {
        Self { inner, to: to.into() }
    }

    fn redirected(&self, outgoing: &Outgoing<Email>) -> Outgoing<Email> {
        let rewritten = outgoing.clone().map(|email| email.redirected_to(&self.to, Self::HEADER));
        rewritten.with_recipients(vec![Recipient::from(self.to.address())])
    }

    /// What was said of the one address, said of each that it stands for.
    fn translated(&self, outgoing: &Outgoing<Email>, result: Result<Receipt, Failure>) -> Result<Receipt, Failure> {
        let each = |refused: &[Refusal]| -> Vec<Refusal> {
            let said = |refusal: &Refusal| {
                let Refusal { class, reply, .. } = refusal.clone();
                outgoing.recipients().iter().map(move |one| Refusal::new(one.as_str(), class, reply.clone()))
            };
            // Only one can be named, and naming it twice changes nothing.
            refused.first().into_iter().flat_map(said).collect()
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
    /// The header that holds the original recipients: `X-Postrider-Original-To`. (`X-Original-To`, which other programs use for
    /// this, is what Postfix adds to every mail that it delivers, with the address that it delivers to.)
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

    /// Asks about the mail as it will be sent.
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

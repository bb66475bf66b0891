//! One message on its way through several transports.

use std::borrow::Cow;
use std::time::Duration;

use super::AllFailed;
use crate::{Failure, Message, Outgoing, Receipt, Refusal, Scope};

pub(super) struct Job<'a, M: Clone> {
    outgoing: Cow<'a, Outgoing<M>>,
    /// What is known of each transport.
    known: Vec<Known>,
    /// What was said so far, each with its speaker, oldest first.
    said: Vec<(String, Failure)>,
    /// Who was called so far.
    called: Vec<String>,
    /// Who was refused on the way, by transports that then failed for the others.
    refused: Vec<Refusal>,
    end: Option<Result<Receipt, Failure>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Nothing,
    CanExpress,
    /// It could not carry the message, and said why.
    Failed,
}

impl<'a, M: Message> Job<'a, M> {
    pub(super) fn new(outgoing: &'a Outgoing<M>, transports: usize) -> Self {
        Self {
            outgoing: Cow::Borrowed(outgoing),
            known: vec![Known::Nothing; transports],
            said: Vec::new(),
            called: Vec::new(),
            refused: Vec::new(),
            end: None,
        }
    }

    pub(super) fn outgoing(&self) -> &Outgoing<M> {
        &self.outgoing
    }

    pub(super) fn is_open(&self) -> bool {
        self.end.is_none()
    }

    pub(super) fn end(&mut self, result: Result<Receipt, Failure>) {
        self.end = Some(result);
    }

    pub(super) fn into_result(self) -> Option<Result<Receipt, Failure>> {
        self.end
    }

    /// Asks at most once: a check may write out the whole mail.
    pub(super) fn can_be_expressed_by(
        &mut self,
        index: usize,
        label: &str,
        check: impl FnOnce(&M) -> Result<(), Failure>,
    ) -> bool {
        if self.known[index] == Known::Nothing {
            self.known[index] = match check(self.outgoing.message()) {
                Ok(()) => Known::CanExpress,
                Err(failure) => {
                    self.said.push((label.to_owned(), failure));
                    Known::Failed
                }
            };
        }
        self.known[index] == Known::CanExpress
    }

    /// Takes note of an answer, and ends unless another transport is to be asked.
    pub(super) fn take(&mut self, index: usize, label: &str, result: Result<Receipt, Failure>) {
        match result {
            Ok(mut receipt) => {
                receipt.via = Some(path(label, receipt.via.as_deref()));
                receipt.refused.append(&mut self.refused);
                self.end(Ok(receipt));
            }
            Err(failure) => {
                let via = path(label, failure.via());
                self.called.push(via.clone());
                if may_move_on(&failure) && self.remove_completed(&failure) {
                    self.known[index] = Known::Failed;
                    self.said.push((via, failure));
                } else {
                    let failure = self.last(via, failure);
                    self.end(Err(failure));
                }
            }
        }
    }

    /// Leaves out who was refused by name: the outbox decides about them. False if nobody is left.
    fn remove_completed(&mut self, failure: &Failure) -> bool {
        if failure.refused().is_empty() {
            return true;
        }
        let mut left = self.outgoing.recipients().to_vec();
        left.retain(|recipient| !failure.refused().iter().any(|refusal| refusal.recipient == *recipient));
        if left.is_empty() {
            return false;
        }
        self.refused.extend_from_slice(failure.refused());
        self.outgoing = Cow::Owned(self.outgoing.as_ref().clone().with_recipients(left));
        true
    }

    /// The failure that ends the message, with what others said before it.
    fn last(&mut self, via: String, failure: Failure) -> Failure {
        let mut refused = std::mem::take(&mut self.refused);
        refused.extend_from_slice(failure.refused());
        let said = std::mem::take(&mut self.said);
        let failure = if said.is_empty() { failure } else { AllFailed::ended_by(said, via, failure) };
        failure.with_refused(refused).with_via(self.called.join(", "))
    }

    /// The failure of a message that no transport could carry. `wait` is how long all of them are paused.
    pub(super) fn nobody(&mut self, paused: Vec<(String, Failure)>, wait: Option<Duration>) -> Failure {
        let refused = std::mem::take(&mut self.refused);
        let mut said = std::mem::take(&mut self.said);
        let never = paused.is_empty() && said.iter().all(|(_, failure)| failure.scope() == Scope::Message);
        said.extend(paused);
        let failure = if never { AllFailed::never(said) } else { AllFailed::for_now(said, wait) };
        let failure = failure.with_refused(refused);
        if self.called.is_empty() { failure } else { failure.with_via(self.called.join(", ")) }
    }
}

/// Another transport may carry what this one cannot for a condition of its own, of the sender there, or because it cannot express it. In
/// doubt, it may have carried the message.
fn may_move_on(failure: &Failure) -> bool {
    !failure.in_doubt() && (failure.scope() != Scope::Message || failure.is_unsupported())
}

fn path(label: &str, inner: Option<&str>) -> String {
    inner.map_or_else(|| label.to_owned(), |inner| format!("{label}/{inner}"))
}

//! The attempts to send one message, through one transport after the other.

use std::borrow::Cow;
use std::time::Duration;

use super::AllFailed;
use crate::{Failure, Message, Outgoing, Receipt, Refusal, Scope};

/// A message and the results of the transports so far. Transports are identified by their index.
pub(super) struct Attempts<'a, M: Clone> {
    outgoing: Cow<'a, Outgoing<M>>,
    states: Vec<RouteState>,
    /// The failures so far, each with the transport's name, oldest first.
    errors: Vec<(String, Failure)>,
    /// The names of the transports that were called.
    called: Vec<String>,
    /// The recipients that were refused individually by transports that then failed.
    refused: Vec<Refusal>,
    /// `None` while another transport may be tried.
    result: Option<Result<Receipt, Failure>>,
}

/// The result of one transport for the message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RouteState {
    Unknown,
    /// Its check accepted the message.
    Supported,
    /// Its check refused the message, or the attempt failed.
    Failed,
}

impl<'a, M: Message> Attempts<'a, M> {
    pub(super) fn new(outgoing: &'a Outgoing<M>, transports: usize) -> Self {
        Self {
            outgoing: Cow::Borrowed(outgoing),
            states: vec![RouteState::Unknown; transports],
            errors: Vec::new(),
            called: Vec::new(),
            refused: Vec::new(),
            result: None,
        }
    }

    pub(super) fn outgoing(&self) -> &Outgoing<M> {
        &self.outgoing
    }

    pub(super) fn is_open(&self) -> bool {
        self.result.is_none()
    }

    pub(super) fn end(&mut self, result: Result<Receipt, Failure>) {
        self.result = Some(result);
    }

    pub(super) fn into_result(self) -> Option<Result<Receipt, Failure>> {
        self.result
    }

    /// Whether a transport supports the message and has not failed. Runs the check once at most: it may render the whole mail.
    pub(super) fn can_use(&mut self, index: usize, label: &str, check: impl FnOnce(&M) -> Result<(), Failure>) -> bool {
        if self.states[index] == RouteState::Unknown {
            self.states[index] = match check(self.outgoing.message()) {
                Ok(()) => RouteState::Supported,
                Err(failure) => {
                    self.errors.push((label.to_owned(), failure));
                    RouteState::Failed
                }
            };
        }
        self.states[index] == RouteState::Supported
    }

    /// Records the result of a call. Ends the attempts unless another transport may be tried.
    pub(super) fn record(&mut self, index: usize, label: &str, result: Result<Receipt, Failure>) {
        match result {
            Ok(mut receipt) => {
                receipt.via = Some(path(label, receipt.via.as_deref()));
                receipt.refused.append(&mut self.refused);
                self.end(Ok(receipt));
            }
            Err(failure) => {
                let via = path(label, failure.via());
                self.called.push(via.clone());
                if may_try_another(&failure) && self.remove_refused(&failure) {
                    self.states[index] = RouteState::Failed;
                    self.errors.push((via, failure));
                } else {
                    let failure = self.final_failure(via, failure);
                    self.end(Err(failure));
                }
            }
        }
    }

    /// Removes the recipients that were refused individually. Returns `false` if none is left.
    fn remove_refused(&mut self, failure: &Failure) -> bool {
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

    /// A failure that ends the attempts, together with the failures before it.
    fn final_failure(&mut self, via: String, failure: Failure) -> Failure {
        let mut refused = std::mem::take(&mut self.refused);
        refused.extend_from_slice(failure.refused());
        let errors = std::mem::take(&mut self.errors);
        let failure = if errors.is_empty() { failure } else { AllFailed::ended_by(errors, via, failure) };
        failure.with_refused(refused).with_via(self.called.join(", "))
    }

    /// The failure if no transport can be tried now. `paused` holds a failure for each paused transport; `wait` is the time until the
    /// first probe, if all are paused.
    pub(super) fn no_candidate(&mut self, paused: Vec<(String, Failure)>, wait: Option<Duration>) -> Failure {
        let refused = std::mem::take(&mut self.refused);
        let mut errors = std::mem::take(&mut self.errors);
        let unsupported = paused.is_empty() && errors.iter().all(|(_, failure)| failure.scope() == Scope::Message);
        errors.extend(paused);
        let failure = if unsupported { AllFailed::unsupported(errors) } else { AllFailed::unavailable(errors, wait) };
        let failure = failure.with_refused(refused);
        if self.called.is_empty() { failure } else { failure.with_via(self.called.join(", ")) }
    }
}

/// Whether another transport may carry the message. Not if this one may have carried it.
fn may_try_another(failure: &Failure) -> bool {
    !failure.in_doubt() && (failure.scope() != Scope::Message || failure.is_unsupported())
}

fn path(label: &str, inner: Option<&str>) -> String {
    inner.map_or_else(|| label.to_owned(), |inner| format!("{label}/{inner}"))
}

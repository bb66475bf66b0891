//! Calls the transport, within the relay's time limit and until the relay stops.

use std::collections::HashSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;

use futures_util::FutureExt;
use postrider_transport::{Class, Classify, Failure, Outgoing, Receipt, Scope, Transport};
use tracing::{Instrument, Span};

use super::shared::Shared;
use crate::store::{Lease, Store};

/// The result of a call for one message.
#[derive(Debug)]
pub(super) enum CallResult {
    /// The result of the transport. A panic, a time-out and a wrong number of results count as failures of the transport.
    Answered(Result<Receipt, Failure>),
    /// The relay ended the call while the message was being sent. This is no evidence about the transport.
    Interrupted(Interrupted),
    /// The relay ended the call while the message only waited in it, so the message was not sent.
    NotSent,
}

/// Calls the transport once for a group of messages. Always returns one result for each message. `lease` is that of the first message.
pub(super) async fn call<S: Store, T: Transport>(
    shared: &Shared<S, T>,
    lease: &Lease,
    messages: &[Outgoing<T::Message>],
) -> Vec<CallResult> {
    let span = tracing::info_span!(
        "delivery",
        id = %lease.key.id,
        template_id = lease.template_id.as_deref(),
        attempt = lease.attempts + 1,
        cycle_attempt = lease.charged_attempts + 1,
        batch = messages.len(),
        traceparent = lease.traceparent.map(tracing::field::display),
    );
    link(shared, &span, messages);
    let transport = &shared.transport;
    let sending = async {
        match messages {
            [one] => vec![transport.send(one).await],
            many => transport.send_batch(many).await,
        }
    };
    // Pinned here, because each of the futures around it would copy it.
    let sending = pin!(sending.instrument(span.clone()));
    let sending = AssertUnwindSafe(sending).catch_unwind();
    let mut sending = pin!(tokio::time::timeout(shared.settings.send_timeout, sending));
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = &mut sending => break match outcome {
                Ok(Ok(results)) => Ok(results),
                Ok(Err(_)) => Err(Interrupted::Panicked),
                Err(_) => Err(Interrupted::TimedOut),
            },
            () = shared.settings.abandon.cancelled() => break Err(Interrupted::Stopped),
            () = shared.in_flight.some_lost() => {
                // Another relay has taken a delivery over and sends it. End the call only if no request has begun.
                let lost = messages.iter().any(|message| shared.in_flight.is_lost(message.id()));
                if lost && messages.iter().all(Outgoing::is_waiting) {
                    break Err(Interrupted::LeaseLost);
                }
            }
        }
    };
    match outcome {
        Ok(results) if results.len() == messages.len() => results.into_iter().map(CallResult::Answered).collect(),
        Ok(_) => messages.iter().map(|_| CallResult::Answered(Err(Interrupted::WrongResultCount.into()))).collect(),
        Err(why) => {
            span.in_scope(|| tracing::error!("{why}"));
            // The call holds the marks of waiting messages, so read them before it is dropped. A panic leaves them set.
            let any_sent = messages.iter().any(|message| !message.is_waiting());
            let each = messages.iter().map(|message| match why {
                // All messages only waited, so none of the others can have caused the panic.
                Interrupted::Panicked if !any_sent => CallResult::Answered(Err(why.into())),
                _ if message.is_waiting() => CallResult::NotSent,
                Interrupted::Panicked => CallResult::Answered(Err(why.into())),
                Interrupted::TimedOut => CallResult::Answered(Err(why.into())),
                _ => CallResult::Interrupted(why),
            });
            each.collect()
        }
    }
}

/// Links the span of a call to the requests that enqueued its messages.
fn link<S: Store, T: Transport>(shared: &Shared<S, T>, span: &Span, messages: &[Outgoing<T::Message>]) {
    let Some(link) = shared.settings.link_spans.as_ref().filter(|_| !span.is_disabled()) else {
        return;
    };
    let mut linked = HashSet::new();
    for parent in messages.iter().filter_map(Outgoing::traceparent) {
        if linked.insert(parent) && catch_unwind(AssertUnwindSafe(|| link(span, parent))).is_err() {
            tracing::error!("the function of `link_spans` panicked");
        }
    }
}

/// Why a call ended without a usable answer. A message that was being sent may have been accepted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Interrupted {
    Panicked,
    TimedOut,
    Stopped,
    LeaseLost,
    WrongResultCount,
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Panicked => "the transport panicked",
            Self::TimedOut => "the transport did not answer within the relay's time limit",
            Self::Stopped => "the relay was stopped while the message was being sent",
            Self::LeaseLost => "the lease was lost while the message waited to be sent",
            Self::WrongResultCount => "the transport did not answer for each message of a batch",
        })
    }
}

impl std::error::Error for Interrupted {}

impl Classify for Interrupted {
    fn class(&self) -> Class {
        Class::Transient
    }

    /// A panic may concern this message only. A transport that does not answer may not answer for any message.
    fn scope(&self) -> Scope {
        match self {
            Self::Panicked | Self::Stopped | Self::LeaseLost => Scope::Message,
            Self::TimedOut | Self::WrongResultCount => Scope::Transport,
        }
    }

    fn in_doubt(&self) -> bool {
        true
    }
}

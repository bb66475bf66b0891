//! Calls that are dropped half-way, at each place where they wait.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// Polls a call so often, and drops it right after the last poll, with what it waits for under way; returns whether it had ended.
pub(crate) async fn dropped_after<T>(polls: usize, call: impl Future<Output = T>) -> bool {
    let mut call = pin!(call);
    let mut polled = 0;
    poll_fn(|context| {
        polled += 1;
        match call.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if polled >= polls => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

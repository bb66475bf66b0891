//! A request body that reports when the connection has taken all of it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

/// Size of the blocks in which the connection takes a body, in octets.
const BLOCK: usize = 16 * 1024;

/// Whether the connection has taken the whole request.
#[derive(Debug, Default)]
pub(crate) struct RequestTaken {
    done: AtomicBool,
    notify: Notify,
}

impl RequestTaken {
    pub(crate) fn set(&self) {
        self.done.store(true, Ordering::SeqCst);
        self.notify.notify_one();
    }

    pub(crate) fn is_set(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }

    pub(crate) async fn wait(&self) {
        self.notify.notified().await;
    }
}

/// A body that sets `request_taken` with its last block. The connection takes a block just before it writes it.
pub(crate) struct TrackedBody {
    pub(crate) rest: Bytes,
    pub(crate) request_taken: Arc<RequestTaken>,
}

impl Body for TrackedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            self.request_taken.set();
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(BLOCK);
        let block = self.rest.split_to(length);
        if self.rest.is_empty() {
            self.request_taken.set();
        }
        Poll::Ready(Some(Ok(Frame::data(block))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

//! What passes between the SDK and its connection: how much of a request went out, and how much of an answer comes in.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use aws_sdk_sesv2::config::interceptors::{
    BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextMut,
};
use aws_sdk_sesv2::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_sesv2::error::BoxError;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Limited;
use tokio::sync::Notify;

use crate::Stage;

/// The body is given to the connection in pieces, since the connection takes a piece whole before it writes any of it: only
/// so does a break in mid-message show as one.
const PIECE: usize = 16 * 1024;

/// No answer of SES comes near it, in octets; what an answer holds is kept in memory.
const ANSWER_LIMIT: usize = 64 * 1024;

/// How far one call has come. Clones watch the same call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    handed_over: AtomicBool,
    notify: Notify,
}

impl Progress {
    /// As the connection sees it: what it has taken, it may have written.
    pub(crate) fn stage(&self) -> Stage {
        if self.0.handed_over.load(Ordering::Acquire) { Stage::Answer } else { Stage::Send }
    }

    /// Returns once the whole request is handed to the connection. To be called by one task.
    pub(crate) async fn handed_over(&self) {
        while self.stage() == Stage::Send {
            self.0.notify.notified().await;
        }
    }

    fn hand_over(&self) {
        self.0.handed_over.store(true, Ordering::Release);
        self.0.notify.notify_one();
    }
}

/// Stands between the SDK and its connection for one call.
#[derive(Debug)]
pub(crate) struct Watch(pub(crate) Progress);

impl Intercept for Watch {
    fn name(&self) -> &'static str {
        "postrider"
    }

    /// Here the request is signed and complete.
    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // The SDK decodes no content coding, and without the header any would be acceptable (RFC 9110 section 12.5.3). It is added after
        // the signature, since proxies may change it.
        context.request_mut().headers_mut().insert("accept-encoding", "identity");
        let body = context.request_mut().body_mut();
        *body = SdkBody::from_body_1_x(Tracked::new(std::mem::replace(body, SdkBody::taken()), self.0.clone()));
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response_mut().body_mut();
        *body = SdkBody::from_body_1_x(Limited::new(std::mem::replace(body, SdkBody::taken()), ANSWER_LIMIT));
        Ok(())
    }
}

/// A request's body that tells when the last of it is taken.
struct Tracked {
    body: SdkBody,
    /// What the body has given and the connection has not taken yet.
    rest: Bytes,
    progress: Progress,
}

impl Tracked {
    fn new(body: SdkBody, progress: Progress) -> Self {
        Self { body, rest: Bytes::new(), progress }
    }
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => this.rest = data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    this.progress.hand_over();
                    return Poll::Ready(None);
                }
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE));
        if this.is_end_stream() {
            this.progress.hand_over();
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let inner = Body::size_hint(&self.body);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_request_is_out_only_with_its_last_piece() {
        let progress = Progress::default();
        let whole: Vec<u8> = (0..3 * PIECE + 1).map(|i| (i % 251) as u8).collect();
        let mut body = Tracked::new(SdkBody::from(whole.clone()), progress.clone());
        assert_eq!(body.size_hint().exact(), Some(whole.len() as u64));
        let mut taken = Vec::new();
        while taken.len() < whole.len() {
            assert_eq!(progress.stage(), Stage::Send, "after {} octets", taken.len());
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(piece.len() <= PIECE);
            taken.extend_from_slice(&piece);
            assert_eq!(body.size_hint().exact(), Some((whole.len() - taken.len()) as u64));
        }
        assert_eq!(taken, whole);
        assert_eq!(progress.stage(), Stage::Answer);
        progress.handed_over().await;
        assert!(body.is_end_stream());
        assert!(body.frame().await.is_none());
    }
}

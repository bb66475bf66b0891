//! An SDK interceptor that records the progress of a request and limits the size of the response.

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

/// Size of the chunks in which the connection takes a body, in octets.
///
/// The connection takes a whole chunk before it writes any of it. With small chunks, a connection that breaks within the message is noticed
/// before the last chunk is taken.
const CHUNK: usize = 16 * 1024;

/// Maximum size of a response, in octets. Responses of SES are far smaller.
const MAX_RESPONSE: usize = 64 * 1024;

/// Progress of one request. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestProgress(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    request_taken: AtomicBool,
    notify: Notify,
}

impl RequestProgress {
    /// Stage of the request: `Response` once the connection has taken all of it, since it may then have written it.
    pub(crate) fn stage(&self) -> Stage {
        if self.0.request_taken.load(Ordering::Acquire) { Stage::Response } else { Stage::Request }
    }

    /// Waits until the connection has taken the whole request. Only one task may wait.
    pub(crate) async fn request_taken(&self) {
        while self.stage() == Stage::Request {
            self.0.notify.notified().await;
        }
    }

    fn set_request_taken(&self) {
        self.0.request_taken.store(true, Ordering::Release);
        self.0.notify.notify_one();
    }
}

/// Tracks the request body and limits the response body of one call.
#[derive(Debug)]
pub(crate) struct ProgressInterceptor(pub(crate) RequestProgress);

impl Intercept for ProgressInterceptor {
    fn name(&self) -> &'static str {
        "postrider"
    }

    /// Runs when the request is complete and signed.
    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // The SDK does not decode content codings. Without the header any coding is acceptable (RFC 9110 section 12.5.3). The signature
        // must not cover the header, since proxies may change it.
        context.request_mut().headers_mut().insert("accept-encoding", "identity");
        let body = context.request_mut().body_mut();
        *body = SdkBody::from_body_1_x(TrackedBody::new(std::mem::replace(body, SdkBody::taken()), self.0.clone()));
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response_mut().body_mut();
        *body = SdkBody::from_body_1_x(Limited::new(std::mem::replace(body, SdkBody::taken()), MAX_RESPONSE));
        Ok(())
    }
}

/// A request body that records when its last chunk is taken.
struct TrackedBody {
    body: SdkBody,
    /// Data of the inner body that the connection has not taken yet.
    rest: Bytes,
    progress: RequestProgress,
}

impl TrackedBody {
    fn new(body: SdkBody, progress: RequestProgress) -> Self {
        Self { body, rest: Bytes::new(), progress }
    }
}

impl Body for TrackedBody {
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
                    this.progress.set_request_taken();
                    return Poll::Ready(None);
                }
            }
        }
        let chunk = this.rest.split_to(this.rest.len().min(CHUNK));
        if this.is_end_stream() {
            this.progress.set_request_taken();
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
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
    async fn a_request_is_taken_with_its_last_chunk() {
        let progress = RequestProgress::default();
        let whole: Vec<u8> = (0..3 * CHUNK + 1).map(|i| (i % 251) as u8).collect();
        let mut body = TrackedBody::new(SdkBody::from(whole.clone()), progress.clone());
        assert_eq!(body.size_hint().exact(), Some(whole.len() as u64));
        let mut taken = Vec::new();
        while taken.len() < whole.len() {
            assert_eq!(progress.stage(), Stage::Request, "after {} octets", taken.len());
            let chunk = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(chunk.len() <= CHUNK);
            taken.extend_from_slice(&chunk);
            assert_eq!(body.size_hint().exact(), Some((whole.len() - taken.len()) as u64));
        }
        assert_eq!(taken, whole);
        assert_eq!(progress.stage(), Stage::Response);
        progress.request_taken().await;
        assert!(body.is_end_stream());
        assert!(body.frame().await.is_none());
    }
}

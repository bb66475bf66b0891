//! One request and its answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH};
use http::{HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use postrider_transport::{Classify as _, Failure};
use tokio::sync::Notify;
use url::Url;

use crate::answer::{Answer, Cut};
use crate::error::{HttpError, HttpErrorKind};
use crate::provider::Request;
use crate::{Secret, Timeouts};

/// No provider's answer is longer, in octets, save for what it says of single recipients.
const LONGEST_ANSWER: usize = 1024 * 1024;

/// How much that may be for each: Mailtrap has an id for it, Mailjet its address, two ids and a link, Postmark its address twice.
const OF_A_RECIPIENT: usize = 1024;

/// Answers are small, so that compression gains nothing. Without the header any coding would be acceptable (RFC 9110 section 12.5.3).
/// Answers in gzip or deflate are decoded all the same: some gateways compress whatever they are asked.
const NO_CODING: HeaderValue = HeaderValue::from_static("identity");

/// How much of a body is handed to the connection at once.
const BLOCK: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) provider: &'static str,
    pub(crate) client: reqwest::Client,
    pub(crate) base: Url,
    pub(crate) timeouts: Timeouts,
}

impl Exchange {
    /// Asks once, for mail to so many recipients. Any answer is `Ok`, whatever its status.
    pub(crate) async fn post(
        &self,
        authorization: (HeaderName, &Secret),
        request: Request,
        recipients: usize,
    ) -> Result<Answer, HttpError> {
        // A path that begins with a slash would replace that of the base.
        let path = format!("./{}", request.path.trim_start_matches('/'));
        let url = self.base.join(&path).map_err(|_| self.unavailable("the request's path is no path"))?;
        let handed_over = Arc::new(HandedOver::default());
        let post = self.client.post(url).header(authorization.0, authorization.1.header());
        let mut post = post.header(ACCEPT_ENCODING, NO_CODING);
        for (name, value) in request.headers {
            post = post.header(name, value);
        }
        if request.body.is_empty() {
            // Nobody takes a block of it.
            handed_over.set();
        }
        let length = HeaderValue::from(request.body.len());
        let body = TrackedBody { rest: request.body, handed_over: Arc::clone(&handed_over) };
        let post = post.header(CONTENT_LENGTH, length).body(reqwest::Body::wrap(body));

        let call = post.send();
        tokio::pin!(call);
        let answered = tokio::select! {
            biased;
            answered = &mut call => answered,
            () = handed_over.wait() => match tokio::time::timeout(self.timeouts.answer, &mut call).await {
                Ok(answered) => answered,
                Err(_) => return Err(self.no_answer("no answer came in time")),
            },
            () = tokio::time::sleep(self.timeouts.request) => {
                return Err(self.unavailable("the request could not be written in time"));
            }
        };
        match answered {
            Ok(response) => {
                let mut answer = self.read(response, LONGEST_ANSWER + recipients * OF_A_RECIPIENT).await;
                authorization.1.blot_out(&mut answer.body);
                Ok(answer)
            }
            Err(error) => Err(self.broken(error, handed_over.is_done())),
        }
    }

    async fn read(&self, mut response: reqwest::Response, longest: usize) -> Answer {
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        let whole = async {
            loop {
                match response.chunk().await {
                    Ok(Some(chunk)) if body.len() + chunk.len() > longest => break Some(Cut::TooLong),
                    Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                    Ok(None) => break None,
                    Err(_) => break Some(Cut::Broken),
                }
            }
        };
        let cut = tokio::time::timeout(self.timeouts.answer, whole).await.unwrap_or(Some(Cut::TimedOut));
        Answer { provider: self.provider, status, headers, body, cut }
    }

    /// No answer. What was not handed to the connection wholly cannot have been accepted; what was, may have been.
    fn broken(&self, error: reqwest::Error, handed_over: bool) -> HttpError {
        // The client's own text names the URL, which is the operator's business and not this message's.
        let error = error.without_url();
        let failure = if error.is_connect() {
            let text = format!("cannot connect: {}", root_cause(&error));
            HttpError::new(HttpErrorKind::Unavailable, self.provider, text)
        } else if handed_over {
            self.no_answer("the connection broke before an answer came")
        } else {
            self.unavailable("the connection broke before the request was written")
        };
        failure.with_source(error)
    }

    pub(crate) fn unavailable(&self, text: &'static str) -> HttpError {
        HttpError::new(HttpErrorKind::Unavailable, self.provider, text)
    }

    /// What this failure means for the messages that were to be asked for after it, if it means anything for them. What may not be sent from
    /// one address may be from another, and a guess at what is wrong holds for nobody else.
    pub(crate) fn obstacle(&self, failure: &Failure) -> Option<HttpError> {
        let error = failure.downcast_ref::<HttpError>()?;
        match error.kind() {
            HttpErrorKind::Account | HttpErrorKind::Quota | HttpErrorKind::Rate | HttpErrorKind::Unavailable
                if error.sure() =>
            {
                Some(error.repeated())
            }
            // They were not asked for, so that they cannot be in doubt.
            HttpErrorKind::NoAnswer => Some(self.unavailable("the message before it was not answered")),
            _ => None,
        }
    }

    pub(crate) fn no_answer(&self, text: &'static str) -> HttpError {
        HttpError::new(HttpErrorKind::NoAnswer, self.provider, text)
    }
}

/// What the system or the handshake said.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Whether the connection has been given the whole of a request.
#[derive(Debug, Default)]
struct HandedOver {
    done: AtomicBool,
    notify: Notify,
}

impl HandedOver {
    fn set(&self) {
        self.done.store(true, Ordering::SeqCst);
        self.notify.notify_one();
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }

    async fn wait(&self) {
        self.notify.notified().await;
    }
}

/// A body that tells when its last block was taken. The connection takes it when it is about to write it.
struct TrackedBody {
    rest: Bytes,
    handed_over: Arc<HandedOver>,
}

impl Body for TrackedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            self.handed_over.set();
            return Poll::Ready(None);
        }
        let block = self.rest.len().min(BLOCK);
        let block = self.rest.split_to(block);
        if self.rest.is_empty() {
            self.handed_over.set();
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

//! The HTTP client: sends one request and reads its response.

use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH};
use http::{HeaderName, HeaderValue};
use postrider_transport::{Classify as _, Failure};
use url::Url;

use crate::error::HttpError;
use crate::error_kind::HttpErrorKind;
use crate::provider::Request;
use crate::response::{Incomplete, Response};
use crate::tracked_body::{RequestTaken, TrackedBody};
use crate::{Secret, Timeouts};

/// Maximum size of a response, in octets, without the part for each recipient.
const MAX_RESPONSE: usize = 1024 * 1024;

/// Size that a response may have in addition for each recipient, in octets.
///
/// Mailtrap returns an id for each, Mailjet the address, two ids and a link, Postmark the address twice.
const MAX_RESPONSE_PER_RECIPIENT: usize = 1024;

/// Value of `Accept-Encoding`. Without the header any coding is acceptable (RFC 9110 section 12.5.3).
///
/// Responses are small, so compression gains nothing. The client decodes gzip and deflate anyway, since some gateways compress
/// regardless of this header.
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// Sends requests to one provider.
#[derive(Debug)]
pub(crate) struct ApiClient {
    /// Name of the provider, for errors.
    pub(crate) provider: &'static str,
    pub(crate) http: reqwest::Client,
    pub(crate) base: Url,
    pub(crate) timeouts: Timeouts,
}

impl ApiClient {
    /// Sends a request once, without retries. A response with any status is `Ok`.
    ///
    /// `recipients` is the number of recipients of all messages in the request.
    pub(crate) async fn post(
        &self,
        authorization: (HeaderName, &Secret),
        request: Request,
        recipients: usize,
    ) -> Result<Response, HttpError> {
        // A path that begins with a slash would replace the path of the base URL.
        let path = format!("./{}", request.path.trim_start_matches('/'));
        let url = self.base.join(&path).map_err(|_| self.unavailable("the request has an invalid path"))?;
        let request_taken = Arc::new(RequestTaken::default());
        let post = self.http.post(url).header(authorization.0, authorization.1.header());
        let mut post = post.header(ACCEPT_ENCODING, IDENTITY);
        for (name, value) in request.headers {
            post = post.header(name, value);
        }
        if request.body.is_empty() {
            // The connection never polls an empty body.
            request_taken.set();
        }
        let length = HeaderValue::from(request.body.len());
        let body = TrackedBody { rest: request.body, request_taken: Arc::clone(&request_taken) };
        let post = post.header(CONTENT_LENGTH, length).body(reqwest::Body::wrap(body));

        let call = post.send();
        tokio::pin!(call);
        let result = tokio::select! {
            biased;
            result = &mut call => result,
            () = request_taken.wait() => match tokio::time::timeout(self.timeouts.response, &mut call).await {
                Ok(result) => result,
                Err(_) => return Err(self.no_response("no response within the time limit")),
            },
            () = tokio::time::sleep(self.timeouts.request) => {
                return Err(self.unavailable("the request was not written within the time limit"));
            }
        };
        match result {
            Ok(response) => {
                let max_octets = MAX_RESPONSE + recipients * MAX_RESPONSE_PER_RECIPIENT;
                let mut response = self.read_response(response, max_octets).await;
                authorization.1.redact(&mut response.body);
                Ok(response)
            }
            Err(error) => Err(self.connection_error(error, request_taken.is_set())),
        }
    }

    async fn read_response(&self, mut response: reqwest::Response, max_octets: usize) -> Response {
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        let read_body = async {
            loop {
                match response.chunk().await {
                    Ok(Some(chunk)) if body.len() + chunk.len() > max_octets => break Some(Incomplete::TooLong),
                    Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                    Ok(None) => break None,
                    Err(_) => break Some(Incomplete::ConnectionClosed),
                }
            }
        };
        let incomplete = tokio::time::timeout(self.timeouts.response, read_body).await;
        let incomplete = incomplete.unwrap_or(Some(Incomplete::TimedOut));
        Response { provider: self.provider, status, headers, body, incomplete }
    }

    /// Returns the error for a request without a response. Only a request that the connection has taken as a whole is in doubt.
    fn connection_error(&self, error: reqwest::Error, request_taken: bool) -> HttpError {
        // reqwest's text contains the URL, which is the same for every message.
        let error = error.without_url();
        let failure = if error.is_connect() {
            let text = format!("cannot connect: {}", root_cause(&error));
            HttpError::new(HttpErrorKind::Unavailable, self.provider, text)
        } else if request_taken {
            self.no_response("the connection broke before a response arrived")
        } else {
            self.unavailable("the connection broke before the request was written")
        };
        failure.with_source(error)
    }

    pub(crate) fn unavailable(&self, text: &'static str) -> HttpError {
        HttpError::new(HttpErrorKind::Unavailable, self.provider, text)
    }

    pub(crate) fn no_response(&self, text: &'static str) -> HttpError {
        HttpError::new(HttpErrorKind::NoResponse, self.provider, text)
    }

    /// Returns the error for the messages that are still to be sent, if this failure of another message concerns them too.
    ///
    /// `None` for a failure of the message or the sender, and for an unknown refusal.
    pub(crate) fn stop_error(&self, failure: &Failure) -> Option<HttpError> {
        let error = failure.downcast_ref::<HttpError>()?;
        match error.kind() {
            HttpErrorKind::Account | HttpErrorKind::Quota | HttpErrorKind::RateLimit | HttpErrorKind::Unavailable
                if error.sure() =>
            {
                Some(error.duplicate())
            }
            // The following messages were not sent, so they are not in doubt.
            HttpErrorKind::NoResponse => Some(self.unavailable("not sent: the request before it had no response")),
            _ => None,
        }
    }
}

/// Returns the text of the innermost error: of the operating system or the TLS handshake.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

//! The transport: sends single messages and batches to one provider.

use std::fmt;
use std::sync::{Arc, OnceLock};

use futures_util::stream::{self, StreamExt as _};
use postrider_transport::{Email, Failure, Outgoing, Receipt, Transport};

use crate::batch::{Batch, group_into_batches};
use crate::client::ApiClient;
use crate::error::HttpError;
use crate::provider::{BatchOutcome, Provider, Request};
use crate::{HttpBuilder, HttpConfigError, ProviderUrl, Response};

/// Number of single-message requests that one call of `send_batch` has in flight at once.
const CONCURRENCY: usize = 8;

/// Number of unknown refusals in a row after which the rest of a refused batch is not sent.
///
/// The messages are then unlikely to be the cause, and a batch may hold hundreds of them.
const MAX_UNKNOWN_REFUSALS: usize = 3;

/// Sends mail through a provider's HTTP API. Cheap to clone; clones share their connections.
///
/// # Cancel safety
/// The future of any method may be dropped at any time. Its connection is then closed and not used again.
pub struct Http<P>(Arc<Inner<P>>);

struct Inner<P> {
    provider: P,
    client: ApiClient,
}

impl<P: Provider> Http<P> {
    /// Creates a transport with the provider's own base URL and the default timeouts.
    ///
    /// # Errors
    /// If the root certificates of this machine cannot be read.
    pub fn new(provider: P) -> Result<Self, HttpConfigError> {
        Self::builder(provider).build()
    }

    /// Creates a builder, to set the base URL or the timeouts.
    pub fn builder(provider: P) -> HttpBuilder<P> {
        HttpBuilder::new(provider)
    }

    /// Creates a transport from a URL. The [crate documentation](crate#urls) lists the formats.
    ///
    /// # Errors
    /// If the URL is invalid, and as [`HttpBuilder::build`].
    pub fn from_url(url: &str) -> Result<Self, HttpConfigError> {
        let mut url = ProviderUrl::parse(const { &[P::NAME] }, url)?;
        let mut builder = Self::builder(P::from_url(&mut url)?);
        if let Some(base) = url.finish()? {
            builder = builder.base_url(base);
        }
        builder.build()
    }

    pub(crate) fn from_parts(provider: P, client: ApiClient) -> Self {
        Self(Arc::new(Inner { provider, client }))
    }

    /// Builds the request for a message, if the API can express all of it.
    fn build_request(&self, outgoing: &Outgoing<Email>) -> Result<Request, Failure> {
        self.0.provider.check(outgoing.message())?;
        self.0.provider.build_request(outgoing)
    }

    async fn post(&self, request: Request, recipients: usize) -> Result<Response, HttpError> {
        let response = self.0.client.post(self.0.provider.authorization(), request, recipients).await?;
        tracing::debug!(provider = P::NAME, status = response.status(), "response received");
        Ok(response)
    }

    async fn send_one(&self, outgoing: &Outgoing<Email>, request: Request) -> Result<Receipt, Failure> {
        let response = self.post(request, outgoing.recipients().len()).await?;
        self.0.provider.parse_response(outgoing, &response)
    }

    /// Sends a batch, unless `stop` holds an error, and returns one result for each message.
    ///
    /// An error that concerns the following messages too is stored in `stop`.
    async fn send_unless_stopped<'a>(
        &self,
        mut batch: Batch<'a>,
        stop: &OnceLock<HttpError>,
    ) -> (Batch<'a>, Vec<Result<Receipt, Failure>>) {
        // The messages no longer wait: from here on they are sent or failed.
        batch.waiting.clear();
        if let Some(error) = stop.get() {
            let results = batch.requests.iter().map(|_| Err(error.duplicate().into())).collect();
            return (batch, results);
        }
        let results = self.send_requests(&batch.requests, stop).await;
        let failures = results.iter().filter_map(|result| result.as_ref().err());
        if let Some(error) = failures.filter_map(|failure| self.0.client.stop_error(failure)).next() {
            stop.get_or_init(|| error);
        }
        (batch, results)
    }

    /// Sends messages in one request, and then sends those that the provider did not accept one by one. Returns one result for each.
    async fn send_requests(
        &self,
        requests: &[(&Outgoing<Email>, Request)],
        stop: &OnceLock<HttpError>,
    ) -> Vec<Result<Receipt, Failure>> {
        if let [(outgoing, request)] = requests {
            return vec![self.send_one(outgoing, request.clone()).await];
        }
        let recipients = requests.iter().map(|(outgoing, _)| outgoing.recipients().len()).sum();
        let response = match self.post(self.0.provider.build_batch_request(requests), recipients).await {
            Ok(response) => response,
            Err(error) => return requests.iter().map(|_| Err(error.duplicate().into())).collect(),
        };
        let outgoing: Vec<_> = requests.iter().map(|(outgoing, _)| *outgoing).collect();
        let accepted = match self.0.provider.parse_batch_response(&outgoing, &response) {
            BatchOutcome::Results(results) => return results,
            BatchOutcome::SendEach => Vec::new(),
            BatchOutcome::PartlyAccepted(receipts) => receipts,
        };
        self.send_each(requests, accepted, stop).await
    }

    /// Sends the messages without a receipt in `accepted` one by one, until `stop` holds an error.
    async fn send_each(
        &self,
        requests: &[(&Outgoing<Email>, Request)],
        accepted: Vec<Option<Receipt>>,
        stop: &OnceLock<HttpError>,
    ) -> Vec<Result<Receipt, Failure>> {
        let mut accepted = accepted.into_iter();
        let mut results = Vec::with_capacity(requests.len());
        let mut unknown_refusals = 0;
        for (outgoing, request) in requests {
            results.push(match (accepted.next().flatten(), stop.get()) {
                (Some(receipt), _) => Ok(receipt),
                (None, Some(error)) => Err(error.duplicate().into()),
                (None, None) => {
                    let result = self.send_one(outgoing, request.clone()).await;
                    let is_unknown = result.as_ref().is_err_and(|failure| !failure.is_sure());
                    unknown_refusals = if is_unknown { unknown_refusals + 1 } else { 0 };
                    if unknown_refusals == MAX_UNKNOWN_REFUSALS {
                        let text = "not sent: the messages before it were refused for an unknown reason";
                        stop.get_or_init(|| self.0.client.unavailable(text));
                    }
                    if let Some(error) = result.as_ref().err().and_then(|failure| self.0.client.stop_error(failure)) {
                        stop.get_or_init(|| error);
                    }
                    result
                }
            });
        }
        results
    }
}

impl<P: Provider> Transport for Http<P> {
    type Message = Email;

    fn name(&self) -> &str {
        P::NAME
    }

    async fn send(&self, outgoing: &Outgoing<Email>) -> Result<Receipt, Failure> {
        self.send_one(outgoing, self.build_request(outgoing)?).await
    }

    fn check(&self, email: &Email) -> Result<(), Failure> {
        Ok(self.0.provider.check(email)?)
    }

    fn max_batch(&self) -> usize {
        self.0.provider.batch_limits().map_or(1, |limits| limits.messages)
    }

    async fn send_batch(&self, outgoing: &[Outgoing<Email>]) -> Vec<Result<Receipt, Failure>> {
        let mut results: Vec<Option<Result<Receipt, Failure>>> = outgoing.iter().map(|_| None).collect();
        let mut requests = Vec::with_capacity(outgoing.len());
        for (index, outgoing) in outgoing.iter().enumerate() {
            match self.build_request(outgoing) {
                Ok(request) => requests.push((index, outgoing, request)),
                Err(failure) => results[index] = Some(Err(failure)),
            }
        }
        let stop = OnceLock::new();
        let mut store_results = |batch: &Batch<'_>, new: Vec<_>| {
            for (index, result) in batch.indexes.iter().zip(new) {
                results[*index] = Some(result);
            }
        };
        let (batches, singles): (Vec<_>, Vec<_>) =
            group_into_batches(&self.0.provider, requests).into_iter().partition(|batch| batch.is_batchable);
        for batch in batches {
            let (batch, new) = self.send_unless_stopped(batch, &stop).await;
            store_results(&batch, new);
        }
        // They are sent at the same time, so that the last one does not wait for all the others.
        let calls: Vec<_> = singles.into_iter().map(|batch| self.send_unless_stopped(batch, &stop)).collect();
        let mut calls = stream::iter(calls).buffer_unordered(CONCURRENCY);
        while let Some((batch, new)) = calls.next().await {
            store_results(&batch, new);
        }
        let missing = || Err(self.0.client.no_response("the batch response has no result for this message").into());
        results.into_iter().map(|result| result.unwrap_or_else(missing)).collect()
    }
}

impl<P> Clone for Http<P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Shows the provider's name and the base URL.
impl<P: Provider> fmt::Debug for Http<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = self.0.client.base.as_str();
        f.debug_struct("Http").field("provider", &P::NAME).field("base_url", &base).finish_non_exhaustive()
    }
}

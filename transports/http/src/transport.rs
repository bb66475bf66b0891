//! The transport.

use std::fmt;
use std::sync::{Arc, OnceLock};

use futures_util::stream::{self, StreamExt as _};
use postrider_transport::{Email, Failure, Outgoing, Receipt, Transport, Waiting};

use crate::error::HttpError;
use crate::exchange::Exchange;
use crate::provider::{BatchLimits, BatchOutcome, Provider, Request};
use crate::{HttpBuilder, HttpConfigError, ProviderUrl};

/// Carries mail by a provider's HTTP API. Cheap to clone; clones share the connections.
///
/// # Cancel safety
/// The future of any method may be dropped at any time. The connection that it used is then closed, and never used again.
pub struct Http<P>(Arc<Inner<P>>);

struct Inner<P> {
    provider: P,
    exchange: Exchange,
}

impl<P: Provider> Http<P> {
    /// The provider at its own address, with the usual time limits.
    ///
    /// # Errors
    /// When this machine's root certificates cannot be read.
    pub fn new(provider: P) -> Result<Self, HttpConfigError> {
        Self::builder(provider).build()
    }

    /// For more than [`new`](Self::new).
    pub fn builder(provider: P) -> HttpBuilder<P> {
        HttpBuilder::new(provider)
    }

    /// Reads everything from a URL; the [crate's manual](crate#urls) has the forms.
    ///
    /// # Errors
    /// When the URL cannot be read, and as [`HttpBuilder::build`].
    pub fn from_url(url: &str) -> Result<Self, HttpConfigError> {
        let mut url = ProviderUrl::parse(const { &[P::NAME] }, url)?;
        let mut builder = Self::builder(P::from_url(&mut url)?);
        if let Some(base) = url.finish()? {
            builder = builder.base_url(base);
        }
        builder.build()
    }

    pub(crate) fn from_parts(provider: P, exchange: Exchange) -> Self {
        Self(Arc::new(Inner { provider, exchange }))
    }

    async fn post(&self, request: Request, recipients: usize) -> Result<crate::Answer, HttpError> {
        let answer = self.0.exchange.post(self.0.provider.authorization(), request, recipients).await?;
        tracing::debug!(provider = P::NAME, status = answer.status(), "answered");
        Ok(answer)
    }

    async fn one(&self, outgoing: &Outgoing<Email>, request: Request) -> Result<Receipt, Failure> {
        let answer = self.post(request, outgoing.recipients().len()).await?;
        self.0.provider.receipt(outgoing, &answer)
    }

    /// What is to go into one call; nothing is asked for any more once there is an obstacle. The result has one entry for each message.
    async fn ask(&self, pack: &mut Pack<'_>, obstacle: &OnceLock<HttpError>) -> Vec<Result<Receipt, Failure>> {
        // From here on it does not only wait for its turn.
        pack.turns.clear();
        if let Some(error) = obstacle.get() {
            return pack.requests.iter().map(|_| Err(error.repeated().into())).collect();
        }
        let results = self.together(&pack.requests, obstacle).await;
        let failures = results.iter().filter_map(|result| result.as_ref().err());
        if let Some(error) = failures.filter_map(|failure| self.0.exchange.obstacle(failure)).next() {
            obstacle.get_or_init(|| error);
        }
        results
    }

    /// The same, with what was asked for.
    async fn settled<'a>(
        &self,
        mut pack: Pack<'a>,
        obstacle: &OnceLock<HttpError>,
    ) -> (Pack<'a>, Vec<Result<Receipt, Failure>>) {
        let answers = self.ask(&mut pack, obstacle).await;
        (pack, answers)
    }

    /// Messages that go out together. The result has one entry for each.
    async fn together(
        &self,
        batch: &[(&Outgoing<Email>, Request)],
        obstacle: &OnceLock<HttpError>,
    ) -> Vec<Result<Receipt, Failure>> {
        if let [(outgoing, request)] = batch {
            return vec![self.one(outgoing, request.clone()).await];
        }
        let recipients = batch.iter().map(|(outgoing, _)| outgoing.recipients().len()).sum();
        let answer = match self.post(self.0.provider.batch_request(batch), recipients).await {
            Ok(answer) => answer,
            Err(error) => return batch.iter().map(|_| Err(error.repeated().into())).collect(),
        };
        let outgoing: Vec<_> = batch.iter().map(|(outgoing, _)| *outgoing).collect();
        let taken = match self.0.provider.batch_receipts(&outgoing, &answer) {
            BatchOutcome::Each(results) => return results,
            BatchOutcome::OneByOne => Vec::new(),
            BatchOutcome::Taken(receipts) => receipts,
        };
        let mut taken = taken.into_iter();
        let mut results = Vec::with_capacity(batch.len());
        let mut guesses = 0;
        for (outgoing, request) in batch {
            results.push(match (taken.next().flatten(), obstacle.get()) {
                (Some(receipt), _) => Ok(receipt),
                (None, Some(error)) => Err(error.repeated().into()),
                (None, None) => {
                    let result = self.one(outgoing, request.clone()).await;
                    guesses = if result.as_ref().is_err_and(|failure| !failure.is_sure()) { guesses + 1 } else { 0 };
                    if guesses == GUESSES {
                        obstacle.get_or_init(|| self.0.exchange.unavailable(UNKNOWN));
                    }
                    // Where it is too fast or out of reach, the others would fare no better.
                    if let Some(error) = result.as_ref().err().and_then(|failure| self.0.exchange.obstacle(failure)) {
                        obstacle.get_or_init(|| error);
                    }
                    result
                }
            });
        }
        results
    }

    /// The request for a message, when all of it can be expressed.
    fn request(&self, outgoing: &Outgoing<Email>) -> Result<Request, Failure> {
        self.0.provider.check(outgoing.message())?;
        self.0.provider.request(outgoing)
    }
}

impl<P: Provider> Transport for Http<P> {
    type Message = Email;

    fn name(&self) -> &str {
        P::NAME
    }

    async fn send(&self, outgoing: &Outgoing<Email>) -> Result<Receipt, Failure> {
        self.one(outgoing, self.request(outgoing)?).await
    }

    fn check(&self, email: &Email) -> Result<(), Failure> {
        Ok(self.0.provider.check(email)?)
    }

    fn max_batch(&self) -> usize {
        self.0.provider.batch_limits().map_or(1, |limits| limits.messages)
    }

    async fn send_batch(&self, batch: &[Outgoing<Email>]) -> Vec<Result<Receipt, Failure>> {
        let alone = BatchLimits { messages: 1, octets: 0 };
        let limits = self.0.provider.batch_limits();
        let (has_batches, limits) = (limits.is_some(), limits.unwrap_or(alone));
        let mut results: Vec<Option<Result<Receipt, Failure>>> = batch.iter().map(|_| None).collect();
        let mut packs: Vec<Pack<'_>> = Vec::new();
        for (place, outgoing) in batch.iter().enumerate() {
            match self.request(outgoing) {
                Err(failure) => results[place] = Some(Err(failure)),
                Ok(request) => {
                    let joins = has_batches && self.0.provider.is_batchable(outgoing);
                    // The first that has room, since one message that goes alone must not end a batch.
                    match packs.iter_mut().find(|pack| joins && pack.takes(&request, limits)) {
                        Some(pack) => pack.add(place, outgoing, request),
                        None => packs.push(Pack::of(place, outgoing, request, joins)),
                    }
                }
            }
        }
        let obstacle = OnceLock::new();
        let mut settle = |pack: &Pack<'_>, answers: Vec<_>| {
            for (place, answer) in pack.places.iter().zip(answers) {
                results[*place] = Some(answer);
            }
        };
        let (batches, alone): (Vec<_>, Vec<_>) = packs.into_iter().partition(|pack| pack.open);
        for pack in batches {
            let (pack, answers) = self.settled(pack, &obstacle).await;
            settle(&pack, answers);
        }
        // What no batch takes would otherwise wait for all that is before it.
        let calls: Vec<_> = alone.into_iter().map(|pack| self.settled(pack, &obstacle)).collect();
        let mut calls = stream::iter(calls).buffer_unordered(ABREAST);
        while let Some((pack, answers)) = calls.next().await {
            settle(&pack, answers);
        }
        let missing = || Err(self.0.exchange.no_answer("it did not answer for each message of a batch").into());
        results.into_iter().map(|result| result.unwrap_or_else(missing)).collect()
    }
}

/// How many messages that go alone are asked for at once, in one call for many.
const ABREAST: usize = 8;

/// After so many refusals in a row that no documentation knows, the messages of a batch that was refused are not asked for any more: what is
/// wrong is hardly theirs, and they are as many as a batch holds.
const GUESSES: usize = 3;

/// What those are told.
const UNKNOWN: &str = "the messages before it were refused for a reason that is not known";

/// What goes into one call.
struct Pack<'a> {
    places: Vec<usize>,
    /// Marks that its messages only wait.
    turns: Vec<Waiting>,
    requests: Vec<(&'a Outgoing<Email>, Request)>,
    octets: usize,
    open: bool,
}

/// What surrounds a message in a batch, with room to spare.
const ENVELOPE: usize = 256;

impl<'a> Pack<'a> {
    fn of(place: usize, outgoing: &'a Outgoing<Email>, request: Request, open: bool) -> Self {
        let octets = request.body.len() + 2 * ENVELOPE;
        Self { places: vec![place], turns: vec![outgoing.waiting()], requests: vec![(outgoing, request)], octets, open }
    }

    fn takes(&self, request: &Request, limits: BatchLimits) -> bool {
        let fits = self.octets + request.body.len() + ENVELOPE <= limits.octets;
        self.open && fits && self.places.len() < limits.messages
    }

    fn add(&mut self, place: usize, outgoing: &'a Outgoing<Email>, request: Request) {
        self.octets += request.body.len() + ENVELOPE;
        self.places.push(place);
        self.turns.push(outgoing.waiting());
        self.requests.push((outgoing, request));
    }
}

impl<P> Clone for Http<P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Shows the provider's name and where its API is.
impl<P: Provider> fmt::Debug for Http<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = self.0.exchange.base.as_str();
        f.debug_struct("Http").field("provider", &P::NAME).field("base_url", &base).finish_non_exhaustive()
    }
}

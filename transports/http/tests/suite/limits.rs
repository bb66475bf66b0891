//! Size limits, tested with smaller values.

use http::HeaderName;
use postrider_http::{
    BatchLimits, BatchOutcome, Http, HttpConfigError, Provider, ProviderUrl, Request, Response, Secret,
};
use postrider_transport::testkit::HttpPeer;
use postrider_transport::{Attachment, Email, Failure, Outgoing, Receipt, Transport, Unsupported};

use crate::support::{connect, new_delivery, plain};

/// A provider with another size limit for batches, in octets.
struct LimitedProvider<P>(P, usize);

/// Asserts that two of three mails fit into a batch and the third is sent alone.
pub(crate) async fn assert_size_limit_splits_batch<P: Provider>(provider: P, peer: &HttpPeer) {
    let file = Attachment::new("a.bin", "application/octet-stream", vec![1; 30_000]).expect("an attachment");
    let mails: Vec<_> = (0..3).map(|_| new_delivery(plain().attach(file.clone()))).collect();
    let one = provider.build_request(&mails[0]).expect("a request").body().len();
    let transport: Http<LimitedProvider<P>> = connect(LimitedProvider(provider, 3 * one), peer);
    let results = transport.send_batch(&mails).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let sizes: Vec<_> = peer.seen().iter().map(|seen| (seen.body.len() + one / 2) / one).collect();
    assert_eq!(sizes, [2, 1], "number of mails in each request");
}

impl<P: Provider> Provider for LimitedProvider<P> {
    const NAME: &'static str = P::NAME;

    fn from_url(url: &mut ProviderUrl) -> Result<Self, HttpConfigError> {
        Ok(Self(P::from_url(url)?, 0))
    }

    fn base_url(&self) -> &str {
        self.0.base_url()
    }

    fn authorization(&self) -> (HeaderName, &Secret) {
        self.0.authorization()
    }

    fn check(&self, email: &Email) -> Result<(), Unsupported> {
        self.0.check(email)
    }

    fn build_request(&self, outgoing: &Outgoing<Email>) -> Result<Request, Failure> {
        self.0.build_request(outgoing)
    }

    fn parse_response(&self, outgoing: &Outgoing<Email>, response: &Response) -> Result<Receipt, Failure> {
        self.0.parse_response(outgoing, response)
    }

    fn batch_limits(&self) -> Option<BatchLimits> {
        self.0.batch_limits().map(|limits| BatchLimits::new(limits.messages, self.1))
    }

    fn is_batchable(&self, outgoing: &Outgoing<Email>) -> bool {
        self.0.is_batchable(outgoing)
    }

    fn build_batch_request(&self, batch: &[(&Outgoing<Email>, Request)]) -> Request {
        self.0.build_batch_request(batch)
    }

    fn parse_batch_response(&self, batch: &[&Outgoing<Email>], response: &Response) -> BatchOutcome {
        self.0.parse_batch_response(batch, response)
    }
}

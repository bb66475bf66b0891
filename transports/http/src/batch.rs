//! Groups messages into batches within the provider's limits.

use postrider_transport::{Email, Outgoing, Waiting};

use crate::Provider;
use crate::provider::{BatchLimits, Request};

/// Size that is reserved for what a batch request adds around each message, in octets.
const OVERHEAD: usize = 256;

/// The messages of one request.
pub(crate) struct Batch<'a> {
    /// Position of each message in the slice that `send_batch` was given.
    pub(crate) indexes: Vec<usize>,
    /// Marks the messages as waiting until it is cleared.
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) requests: Vec<(&'a Outgoing<Email>, Request)>,
    /// Upper bound of the size of the request, in octets.
    octets: usize,
    /// Whether other messages may join. If not, the batch holds one message.
    pub(crate) is_batchable: bool,
}

impl<'a> Batch<'a> {
    fn new(index: usize, outgoing: &'a Outgoing<Email>, request: Request, is_batchable: bool) -> Self {
        Self {
            indexes: vec![index],
            waiting: vec![outgoing.waiting()],
            octets: request.body.len() + 2 * OVERHEAD,
            requests: vec![(outgoing, request)],
            is_batchable,
        }
    }

    fn has_room_for(&self, request: &Request, limits: BatchLimits) -> bool {
        let fits = self.octets + request.body.len() + OVERHEAD <= limits.octets;
        self.is_batchable && fits && self.indexes.len() < limits.messages
    }

    fn push(&mut self, index: usize, outgoing: &'a Outgoing<Email>, request: Request) {
        self.octets += request.body.len() + OVERHEAD;
        self.indexes.push(index);
        self.waiting.push(outgoing.waiting());
        self.requests.push((outgoing, request));
    }
}

/// Puts each message into the first batch that has room for it.
pub(crate) fn group_into_batches<'a, P: Provider>(
    provider: &P,
    requests: Vec<(usize, &'a Outgoing<Email>, Request)>,
) -> Vec<Batch<'a>> {
    let limits = provider.batch_limits();
    let mut batches: Vec<Batch<'a>> = Vec::new();
    for (index, outgoing, request) in requests {
        let limits = limits.filter(|_| provider.is_batchable(outgoing));
        let open = limits.and_then(|limits| batches.iter_mut().find(|batch| batch.has_room_for(&request, limits)));
        match open {
            Some(batch) => batch.push(index, outgoing, request),
            None => batches.push(Batch::new(index, outgoing, request, limits.is_some())),
        }
    }
    batches
}

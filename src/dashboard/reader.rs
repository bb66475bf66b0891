//! Reads from the outbox within limits, so that the dashboard cannot take the whole pool of an application.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postrider_transport::{DeliveryId, Encoded};
use tokio::sync::Semaphore;

use crate::store::AdminStore;
use crate::{Delivery, Filter, Outbox, SearchPage, StoreError};

/// How many requests may use the database at once.
const CONCURRENCY: usize = 4;

/// How long a request may take, including the wait for its turn.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// How long *Search older mail* searches.
const SEARCH_FURTHER: Duration = Duration::from_secs(2);

/// Why nothing was read.
#[derive(Debug)]
pub(super) enum ReadError {
    Store(StoreError),
    /// The time limit was reached.
    Slow,
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Reads for the pages.
pub(super) struct Reader<S> {
    outbox: Outbox<S>,
    permits: Arc<Semaphore>,
    /// How long the search for a first page goes on.
    search: Duration,
}

impl<S: Clone> Clone for Reader<S> {
    fn clone(&self) -> Self {
        Self { outbox: self.outbox.clone(), permits: Arc::clone(&self.permits), search: self.search }
    }
}

impl<S: AdminStore> Reader<S> {
    pub(super) fn new(outbox: Outbox<S>, search: Duration) -> Self {
        Self { outbox, permits: Arc::new(Semaphore::new(CONCURRENCY)), search }
    }

    /// Runs calls to the outbox under the limits.
    pub(super) async fn run<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, ReadError> {
        let limited = async {
            // Never an error: the semaphore is not closed.
            let _permit = self.permits.acquire().await;
            call.await
        };
        match tokio::time::timeout(LIMIT, limited).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(ReadError::Slow),
        }
    }

    /// A delivery, and the database's time.
    pub(super) async fn delivery(&self, id: DeliveryId) -> Result<Option<(Delivery, SystemTime)>, ReadError> {
        self.run(async {
            let Some(delivery) = self.outbox.get(id).await? else { return Ok(None) };
            Ok(Some((delivery, self.outbox.store().now().await?)))
        })
        .await
    }

    /// A delivery with its stored message. The message is `None` if it was deleted.
    pub(super) async fn message(&self, id: DeliveryId) -> Result<Option<(Delivery, Option<Encoded>)>, ReadError> {
        self.run(async {
            let Some(delivery) = self.outbox.get(id).await? else { return Ok(None) };
            Ok(Some((delivery, self.outbox.store().message(id).await?)))
        })
        .await
    }

    /// A page of deliveries, how many there are up to the limit of `all`, and the database's time. It counts only if `all` is given, and if
    /// that takes no longer than the search.
    pub(super) async fn list(
        &self,
        page: &Filter,
        all: Option<&Filter>,
    ) -> Result<(SearchPage, Option<u64>, SystemTime), ReadError> {
        self.run(async {
            let time = if page.after.is_none() { self.search } else { SEARCH_FURTHER };
            let found = self.outbox.search(page, time).await?;
            let is_full = found.deliveries.len() >= usize::try_from(page.limit).unwrap_or(usize::MAX);
            let count = match all {
                Some(all) if is_full && self.outbox.store().search_end(all, all.limit).await?.is_none() => {
                    Some(self.outbox.count(all).await?)
                }
                Some(_) if !is_full && found.next.is_none() => u64::try_from(found.deliveries.len()).ok(),
                _ => None,
            };
            Ok((found, count, self.outbox.store().now().await?))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;
    use crate::MemoryStore;

    fn reader() -> Reader<MemoryStore> {
        Reader::new(Outbox::enqueue_only(MemoryStore::new()), Duration::ZERO)
    }

    #[tokio::test(start_paused = true)]
    async fn at_most_four_calls_run_at_once() {
        let reader = reader();
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let call = || async {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        };
        let done = join_all((0..20).map(|_| reader.run(call()))).await;
        assert_eq!(done.iter().filter(|result| result.is_ok()).count(), 20);
        assert_eq!(most.into_inner(), CONCURRENCY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_an_answer_ends_and_gives_its_place_to_another() {
        let reader = reader();
        let hanging = || reader.run(std::future::pending::<Result<(), StoreError>>());
        let done = join_all((0..CONCURRENCY).map(|_| hanging())).await;
        assert!(done.iter().all(|result| matches!(result, Err(ReadError::Slow))));
        assert!(reader.run(async { Ok(()) }).await.is_ok());
    }
}

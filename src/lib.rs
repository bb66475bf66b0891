#![doc = include_str!("lib.md")]

mod admin;
mod clock;
mod decide;
mod delivery;
mod enqueue;
mod observe;
mod outbox;
mod relay;
mod retry;
mod state;
mod store;
#[cfg(feature = "testkit")]
pub mod testkit;

pub use admin::{Changed, Delivery, Filter, Prune, RecipientStatus, RelayStatus, Stats, Summary};
pub use clock::TestClock;
pub use delivery::{Attempt, LastAttempt, Lease, LeaseKey, NewRow, Next, RecipientOutcome, Settled, Settlement, When};
pub use enqueue::{EnqueueError, NewDelivery};
pub use observe::{Event, Observer};
pub use outbox::{Accept, EnqueueOnly, Outbox};
pub use relay::{Pass, Pause, PausedSender, Relay};
pub use retry::RetryPolicy;
pub use state::{Outcome, Priority, RecipientState, State, UnknownWord, WhenInDoubt};
#[cfg(feature = "mysql")]
pub use store::MySqlStore;
#[cfg(feature = "postgres")]
pub use store::PgStore;
#[cfg(feature = "sqlite")]
pub use store::SqliteStore;
pub use store::{
    AdminStore, Claim, ClaimId, MemoryStore, MemoryTransaction, RelayId, RelayReport, Store, StoreError, StoreErrorKind,
};

#[cfg(feature = "testkit")]
#[doc(no_inline)]
pub use postrider_transport::transport_tests;

#[cfg(feature = "rate-limit")]
#[doc(no_inline)]
pub use postrider_transport::RateLimit;
#[doc(no_inline)]
pub use postrider_transport::{
    Address, AddressError, AllFailed, Attachment, Backoff, BoxTransport, Class, Classify, CodecError, DeliveryId,
    Email, EmailBuilder, EmailError, Encoded, Failover, Failure, IntoMailbox, ListUnsubscribe, Mailbox, Message,
    Outgoing, Receipt, Recipient, Redirect, Refusal, RoundRobin, Scope, Tap, TimedOut, Timeout, Transport, Unsupported,
    Waiting, mask_addresses, pattern,
};
#[cfg(feature = "dkim")]
#[doc(no_inline)]
pub use postrider_transport::{Dkim, DkimError};

/// Mail by a provider's HTTP API.
#[cfg(feature = "http")]
pub use postrider_http as http;
/// Mail by Amazon SES.
#[cfg(feature = "ses")]
pub use postrider_ses as ses;
/// Mail over SMTP.
#[cfg(feature = "smtp")]
pub use postrider_smtp as smtp;

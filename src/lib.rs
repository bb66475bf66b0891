#![doc = include_str!("lib.md")]

mod admin;
mod audit;
mod check_as;
mod clock;
#[cfg(feature = "dashboard")]
pub mod dashboard;
mod delivery;
#[cfg(feature = "mailbox")]
mod dev_mailbox;
mod enqueue;
mod filter;
#[cfg(feature = "metrics")]
mod metrics;
mod observe;
mod operator;
mod outbox;
mod pause;
mod prune;
mod relay;
mod retry;
mod state;
pub mod store;
#[cfg(feature = "testkit")]
pub mod testkit;

// To enqueue.
pub use check_as::CheckAsError;
pub use enqueue::{EnqueueError, NewDelivery};
pub use outbox::{AcceptMessages, EnqueueOnly, Outbox};
#[doc(no_inline)]
pub use postrider_transport::{
    Address, Attachment, DeliveryId, Email, EmailError, Mailbox, TraceParent, TraceParentError,
};
pub use state::{Priority, WhenInDoubt};

// To send.
#[cfg(feature = "mailbox")]
pub use dev_mailbox::{DevMailbox, DevMailboxError};
pub use observe::{Event, Observer};
#[doc(no_inline)]
pub use postrider_transport::{Backoff, BoxTransport, Failure, Message, Scope, Transport};
#[cfg(feature = "dkim")]
#[doc(no_inline)]
pub use postrider_transport::{Dkim, DkimError};
pub use relay::{PausedSender, PausedTransport, Relay, RelayHandle, RelayHealth, RelayState, RunSummary};
pub use retry::RetryPolicy;

// To operate.
#[cfg(feature = "metrics")]
pub use crate::metrics::Metrics;
pub use admin::{CountedEvent, Erased, HourlyCount, RelayStatus, SearchPage, Stats, UpdateOutcome};
pub use audit::{Action, AuditEntry, AuditFilter};
pub use delivery::{Attempt, Delivery, DeliverySummary, RecipientStatus};
pub use filter::Filter;
pub use operator::{Change, ChangeStep, Operator};
pub use pause::{Controls, Pause, PauseTarget};
pub use prune::{Prune, PruneStep, PrunedPart};
pub use state::{Outcome, ParseError, RecipientState, State};

// Where deliveries are kept.
#[cfg(feature = "mysql")]
pub use store::MySqlStore;
#[cfg(feature = "postgres")]
pub use store::PgStore;
#[cfg(feature = "sqlite")]
pub use store::SqliteStore;
pub use store::{AdminStore, MemoryStore, Store, StoreError, StoreErrorKind};

/// The crate `postrider-transport`: the parts of a mail, combined transports, and the contract for authors of transports.
#[doc(no_inline)]
pub use postrider_transport as transport;
#[cfg(feature = "testkit")]
#[doc(no_inline)]
pub use postrider_transport::transport_tests;

/// Transports for the HTTP APIs of mail providers.
#[cfg(feature = "http")]
pub use postrider_http as http;
/// The transport for Amazon SES.
#[cfg(feature = "ses")]
pub use postrider_ses as ses;
/// The transport for SMTP.
#[cfg(feature = "smtp")]
pub use postrider_smtp as smtp;

/// Compiles the programs of the README.
#[cfg(all(doctest, feature = "sqlite", feature = "smtp"))]
#[doc = include_str!("../README.md")]
struct Readme;

//! The dashboard: a website for operators, as an [`axum::Router`] that nests under any path of your service.
//!
//! It shows the state of the outbox, finds deliveries, and shows the history and the content of each. Operators resend, cancel and dismiss
//! one delivery or all that a filter finds, pause and resume mail, and read the audit trail. The pages are rendered on the server. They
//! work without JavaScript; with it, they refresh.
//!
//! # Access
//!
//! The dashboard shows whole addresses and the content of mail, so it is closed until you say who may see it. [`Dashboard::access`] takes a
//! function that gets the head of each request and returns an [`Access`]. Let your own login decide:
//!
//! ```
//! use axum::Router;
//! use postrider::dashboard::{Access, Dashboard};
//! use postrider::{MemoryStore, Outbox};
//!
//! /// What your login adds to the extensions of a request.
//! #[derive(Clone)]
//! struct User { name: String, is_operator: bool }
//!
//! # fn service(outbox: Outbox<MemoryStore>) -> Router {
//! let dashboard = Dashboard::new(outbox).access(|request| async move {
//!     match request.extensions.get::<User>() {
//!         Some(user) if user.is_operator => Access::operate().by(&user.name),
//!         Some(user) => Access::read().by(&user.name).without_bodies(),
//!         None => Access::none(),
//!     }
//! });
//! Router::new().nest_service("/admin/mail", dashboard.into_router())
//!     // .layer(your_login)
//! # }
//! ```
//!
//! # Security
//!
//! - Everything that comes from a mail or from a server is escaped by the template engine. The HTML of a mail is shown in a frame without
//!   scripts, forms, an origin of its own and remote content.
//! - A content security policy allows no inline script and no inline style, and nothing from other hosts.
//! - A request that changes something must be a `POST` from a page of the dashboard: [`Dashboard::trusted_origin`] has the rules.
//! - No page is stored by a cache, and no other site can show a page in a frame.
//!
//! # Cost
//!
//! The statistics are read at most once in two seconds, for all viewers together. At most four requests read from the database at once, and
//! each gets ten seconds. A bulk change goes in transactions of 500 deliveries, and a request makes at most four of them.

mod access;
mod action;
mod assets;
mod attachment;
mod audit;
mod bulk;
mod chart;
mod csrf;
mod deliveries;
mod delivery;
mod failures;
mod form;
mod format;
mod frame;
mod guard;
mod links;
mod message;
mod overview;
mod page;
mod pauses;
mod query;
mod reader;
mod snapshot;
mod structure;
mod timeline;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::request::Parts;
use axum::routing::{any, get, post};
use postrider_transport::Message;

pub use access::Access;

use crate::store::AdminStore;
use crate::{EnqueueOnly, Outbox};
use access::Policy;
use reader::Reader;
use snapshot::SnapshotCache;

/// Builds the dashboard of an outbox.
///
/// ```
/// use postrider::dashboard::{Access, Dashboard};
/// use postrider::{MemoryStore, Outbox};
///
/// let outbox: Outbox<MemoryStore> = Outbox::enqueue_only(MemoryStore::new());
/// // On a development machine, where nobody else can connect.
/// let router = Dashboard::new(outbox).access(|_| async { Access::operate() }).into_router();
/// # let service: axum::Router = axum::Router::new().nest_service("/mail", router);
/// ```
#[must_use = "the dashboard does nothing until it is a router"]
pub struct Dashboard<S> {
    outbox: Outbox<S>,
    policy: Option<Policy>,
    trusted_origins: Vec<String>,
    refresh: Duration,
    search: Duration,
}

impl<S: AdminStore> Dashboard<S> {
    /// Creates the dashboard of an outbox. Get the outbox from [`Outbox::handle`] or [`Outbox::enqueue_only`].
    ///
    /// It refuses every request until [`access`](Self::access) is set.
    pub fn new<M: Message>(outbox: Outbox<S, EnqueueOnly<M>>) -> Self {
        let outbox = Outbox::enqueue_only(outbox.store().clone());
        let (refresh, search) = (Duration::from_secs(5), Duration::from_millis(50));
        Self { outbox, policy: None, trusted_origins: Vec::new(), refresh, search }
    }

    /// Sets who may see and do what.
    ///
    /// The function is called once for each request, also for style sheets, with the head of the request: headers, and the extensions that
    /// your layers have added. A layer sees the request before the dashboard does if it is added to a router around it.
    pub fn access<F, A>(mut self, policy: F) -> Self
    where
        F: Fn(Parts) -> A + Send + Sync + 'static,
        A: Future<Output = Access> + Send + 'static,
    {
        self.policy = Some(Policy::new(policy));
        self
    }

    /// Trusts forms that come from this origin, such as `https://ops.example.com`.
    ///
    /// A `POST` is accepted if the browser says that it comes from the same origin. Current browsers say so in the header `Sec-Fetch-Site`
    /// if the page is loaded through HTTPS or from the same machine. Otherwise the header `Origin` must name the host of the request's
    /// `Host` header. Set the origin only if a proxy replaces that header, and the browser does not send `Sec-Fetch-Site`. In addition, each
    /// form has a token that must be equal to a cookie.
    pub fn trusted_origin(mut self, origin: impl Into<String>) -> Self {
        self.trusted_origins.push(origin.into());
        self
    }

    /// Sets how often an open page refreshes, if the browser runs JavaScript. Default: 5 seconds.
    ///
    /// A page does not refresh while its tab is hidden, and a viewer can stop it.
    pub fn refresh_every(mut self, interval: Duration) -> Self {
        self.refresh = interval;
        self
    }

    /// Sets how long the first page of a list is searched for, if its filter has to look at each delivery ([`Filter`](crate::Filter)).
    /// Default: 0.05 s. Then the page says how far the search came, and *Search older mail* goes on for up to two seconds.
    pub fn search_for(mut self, time: Duration) -> Self {
        self.search = time;
        self
    }

    /// Returns the router. Serve it as it is, or nest it under any path, also one with parameters. All its links are relative.
    ///
    /// With [`Router::nest_service`], the path works with and without a slash at its end; with [`Router::nest`], only without.
    pub fn into_router(self) -> Router {
        let reader = Reader::new(self.outbox.clone(), self.search);
        let app = App { snapshot_cache: Arc::new(SnapshotCache::new()), reader, outbox: self.outbox };
        let guard = guard::Guard::new(self.policy, self.trusted_origins, self.refresh);
        Router::new()
            .route("/", get(overview::root))
            .route("/overview", get(overview::show))
            .route("/find", get(deliveries::find))
            .route("/deliveries", get(deliveries::list))
            .route("/deliveries/{delivery_id}", get(delivery::show))
            // Resend, cancel or dismiss.
            .route("/deliveries/{delivery_id}/{act}", get(action::ask).post(action::perform))
            .route("/bulk/{act}", get(bulk::ask).post(bulk::perform))
            .route("/deliveries/{delivery_id}/message", get(message::show))
            .route("/deliveries/{delivery_id}/message.html", get(message::html))
            .route("/deliveries/{delivery_id}/message.eml", get(message::source))
            .route("/deliveries/{delivery_id}/attachments/{attachment}", get(message::attachment))
            .route("/pauses", get(pauses::show))
            .route("/pauses/{action}", post(pauses::perform))
            .route("/audit", get(audit::show))
            .route("/assets/{asset}", get(assets::serve))
            // No fallback: axum refuses to nest a router that has one under a path with parameters.
            .route("/{*other}", any(page::not_found))
            .with_state(app)
            .layer(axum::middleware::from_fn_with_state(Arc::new(guard), guard::guard))
    }
}

impl<S> fmt::Debug for Dashboard<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, trusted_origins, .. } = self;
        let mut debug = f.debug_struct("Dashboard");
        debug.field("access", &policy.is_some()).field("trusted_origins", trusted_origins).finish_non_exhaustive()
    }
}

/// What the handlers share.
struct App<S> {
    outbox: Outbox<S>,
    reader: Reader<S>,
    snapshot_cache: Arc<SnapshotCache>,
}

impl<S: Clone> Clone for App<S> {
    fn clone(&self) -> Self {
        let Self { outbox, reader, snapshot_cache } = self;
        Self { outbox: outbox.clone(), reader: reader.clone(), snapshot_cache: Arc::clone(snapshot_cache) }
    }
}

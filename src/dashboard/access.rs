//! Who may see and do what.

use std::fmt;
use std::sync::Arc;

use axum::http::request::Parts;
use futures_util::future::BoxFuture;

/// What one request may see and do. See [`Dashboard::access`](super::Dashboard::access).
#[derive(Clone, PartialEq, Eq)]
#[must_use = "an access does nothing until the policy returns it"]
pub struct Access {
    level: Level,
    operator: Option<String>,
    bodies: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    None,
    Read,
    Operate,
}

impl Access {
    /// Allows nothing: the request is refused with 403 (Forbidden). To send people to your login page instead, use a layer of your own.
    pub fn none() -> Self {
        Self { level: Level::None, operator: None, bodies: false }
    }

    /// Allows a request to read all pages, and to change nothing.
    pub fn read() -> Self {
        Self { level: Level::Read, operator: None, bodies: true }
    }

    /// Allows a request to read all pages and to change everything that the dashboard can change.
    pub fn operate() -> Self {
        Self { level: Level::Operate, operator: None, bodies: true }
    }

    /// Sets the operator's name. The pages show it, and the audit trail and the log have it with each action. Addresses in it are masked in
    /// the log. Without a name, the audit trail has `unknown`.
    pub fn by(mut self, operator: impl Into<String>) -> Self {
        self.operator = Some(operator.into());
        self
    }

    /// Hides the content of mail: texts, HTML, headers, attachments and the source. Subjects, recipients and replies stay visible.
    pub fn without_bodies(mut self) -> Self {
        self.bodies = false;
        self
    }

    pub(super) fn may_read(&self) -> bool {
        self.level >= Level::Read
    }

    pub(super) fn may_operate(&self) -> bool {
        self.level >= Level::Operate
    }

    pub(super) fn may_see_bodies(&self) -> bool {
        self.may_read() && self.bodies
    }

    pub(super) fn operator(&self) -> Option<&str> {
        self.operator.as_deref()
    }
}

/// The operator's name can be an address, so it is masked.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = self.operator.as_deref().map(postrider_transport::mask_addresses);
        let mut debug = f.debug_struct("Access");
        debug.field("level", &self.level).field("operator", &operator).field("bodies", &self.bodies).finish()
    }
}

type Decide = dyn Fn(Parts) -> BoxFuture<'static, Access> + Send + Sync;

/// The function that decides about each request.
#[derive(Clone)]
pub(super) struct Policy(Arc<Decide>);

impl Policy {
    pub(super) fn new<F, A>(decide: F) -> Self
    where
        F: Fn(Parts) -> A + Send + Sync + 'static,
        A: Future<Output = Access> + Send + 'static,
    {
        Self(Arc::new(move |parts| Box::pin(decide(parts))))
    }

    pub(super) async fn decide(&self, parts: &Parts) -> Access {
        (self.0)(parts.clone()).await
    }
}

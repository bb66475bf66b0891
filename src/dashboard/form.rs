//! The forms that change something. A handler gets one only if the request is not a forgery.

use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequest, Request};

use super::page::{Page, Problem};

/// The largest form in bytes. That of a bulk change has a filter with up to 1,000 characters in each field, escaped twice.
const MAX_FORM: usize = 256 * 1024;

/// The longest note in characters: as many as the audit trail keeps.
pub(super) const MAX_NOTE: usize = crate::store::AuditContext::MAX_TEXT;

/// A form with the token of the cookie. The guard has checked the access and the origin before.
pub(super) struct Form(Bytes);

impl Form {
    /// The value of a field without white space around it. Empty if there is no such field.
    pub(super) fn get(&self, wanted: &str) -> String {
        let pair = form_urlencoded::parse(&self.0).find(|(name, _)| name == wanted);
        pair.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    }

    /// The number in a field. 0 if there is none.
    pub(super) fn number(&self, name: &str) -> u64 {
        self.get(name).parse().unwrap_or(0)
    }
}

impl<S: Sync> FromRequest<S> for Form {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let page = Page::new(&parts);
        let form = to_bytes(body, MAX_FORM).await.map_err(|_| Problem::Bad("The form is too large or incomplete."))?;
        let form = Self(form);
        if page.is_new_token || !page.token.is(&form.get("csrf")) {
            return Err(Problem::WrongToken);
        }
        Ok(form)
    }
}

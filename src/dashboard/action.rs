//! Resend, cancel or dismiss one delivery, after a page that asks for confirmation.

use askama::Template;
use axum::extract::{RawPathParams, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::App;
use super::deliveries::{back_pair, back_query, label};
use super::form::{Form, MAX_NOTE};
use super::page::{self, Page, Problem};
use crate::store::AdminStore;
use crate::{Change, Delivery, RecipientState, UpdateOutcome};

/// How many recipients are listed.
const SHOWN: usize = 50;

#[derive(Template)]
#[template(path = "action.html")]
struct ActionPage<'a> {
    page: &'a Page,
    section: &'static str,
    change: Change,
    /// The text of the button.
    verb: &'static str,
    /// Why the action is not possible, if it is not.
    why_not: &'static str,
    id: String,
    state: &'static str,
    label: &'static str,
    subject: Option<String>,
    is_allowed: bool,
    /// Those who get the mail, if it is resent.
    recipients: Vec<String>,
    more_recipients: usize,
    /// The number of recipients who are skipped, since they have it.
    skipped: usize,
    /// Whether recipients get it who may have it already.
    may_be_second: bool,
    /// What the operator has seen: the form is refused if it has changed.
    seen: String,
    /// Whether the form was refused for that reason.
    has_changed: bool,
    /// The query that leads back to the list, with its question mark. Empty if there is none.
    back_suffix: String,
}

impl<'a> ActionPage<'a> {
    fn new(page: &'a Page, change: Change, delivery: &Delivery, back: Option<&str>) -> Self {
        let has_it = |state| state == RecipientState::Sent;
        // If all have it, a resend goes to all.
        let to_all = delivery.recipients.iter().all(|status| has_it(status.state));
        let wanted = || delivery.recipients.iter().filter(|status| to_all || !has_it(status.state));
        let may_have_it = |state| matches!(state, RecipientState::Sent | RecipientState::InDoubt);
        let last_is_in_doubt = delivery
            .attempts
            .last()
            .is_some_and(|last| matches!(last.outcome, crate::Outcome::InDoubt | crate::Outcome::Lost));
        Self {
            page,
            section: "deliveries",
            change,
            verb: verb(change),
            why_not: match change {
                Change::Resend => "It is not finished, so it will be sent anyway.",
                Change::Cancel => "Only a pending delivery can be cancelled.",
                Change::Dismiss => "Only a delivery that is dead or in doubt can be dismissed.",
            },
            id: delivery.id.to_string(),
            state: delivery.state.as_str(),
            label: label(delivery.state),
            subject: page::subject(delivery),
            is_allowed: change.applies_to(delivery.state),
            recipients: wanted().take(SHOWN).map(|status| status.recipient.as_str().to_owned()).collect(),
            more_recipients: wanted().count().saturating_sub(SHOWN),
            skipped: delivery.recipients.len() - wanted().count(),
            may_be_second: last_is_in_doubt || wanted().any(|status| may_have_it(status.state)),
            seen: seen(delivery),
            has_changed: false,
            back_suffix: back.map(|back| format!("?{}", back_pair(back))).unwrap_or_default(),
        }
    }
}

/// What an action depends on. A delivery that was sent meanwhile would be sent a second time.
fn seen(delivery: &Delivery) -> String {
    format!("{}-{}-{}", delivery.state, delivery.cycle, delivery.attempts.last().map_or(0, |attempt| attempt.number))
}

/// The action that the path names.
pub(super) fn change(params: &RawPathParams) -> Result<Change, Problem> {
    let name = page::param(params, "act");
    Change::ALL.into_iter().find(|change| name == Some(change.action().as_str())).ok_or(Problem::NoPage)
}

/// The text of the button.
pub(super) fn verb(change: Change) -> &'static str {
    match change {
        Change::Resend => "Resend",
        Change::Cancel => "Cancel",
        Change::Dismiss => "Dismiss",
    }
}

pub(super) async fn ask<S: AdminStore>(
    State(app): State<App<S>>,
    page: Page,
    params: RawPathParams,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let change = change(&params)?;
    let (delivery, _) = app.reader.delivery(page::delivery_id(&params)?).await?.ok_or(Problem::NoDelivery)?;
    let back = back_query(query.as_deref());
    Ok(page::render_form(&ActionPage::new(&page, change, &delivery, back.as_deref()), &page))
}

pub(super) async fn perform<S: AdminStore>(
    State(app): State<App<S>>,
    page: Page,
    params: RawPathParams,
    RawQuery(query): RawQuery,
    form: Form,
) -> Result<Response, Problem> {
    let (change, id) = (change(&params)?, page::delivery_id(&params)?);
    let back = back_query(query.as_deref());
    let (delivery, _) = app.reader.delivery(id).await?.ok_or(Problem::NoDelivery)?;
    if seen(&delivery) != form.get("seen") {
        let template = ActionPage { has_changed: true, ..ActionPage::new(&page, change, &delivery, back.as_deref()) };
        let mut response = page::render_form(&template, &page);
        *response.status_mut() = StatusCode::CONFLICT;
        return Ok(response);
    }
    let by = page.operator(&app.outbox, &form.get("note"));
    let operator = page.masked_operator();
    let outcome = app.reader.run(by.change_from(change, delivery.state, id)).await.map_err(|error| {
        tracing::warn!(%id, ?change, ?error, %operator, "an action through the dashboard got no answer");
        Problem::Uncertain
    })?;
    tracing::info!(%id, ?change, ?outcome, %operator, "an operator acted through the dashboard");
    let done = match (outcome, change) {
        (UpdateOutcome::Updated, Change::Resend) => "resent",
        (UpdateOutcome::Updated, Change::Cancel) => "cancelled",
        (UpdateOutcome::Updated, Change::Dismiss) => "dismissed",
        (UpdateOutcome::Unchanged(_), _) => "unchanged",
        (UpdateOutcome::MessageDeleted, _) => "deleted",
        (UpdateOutcome::NotFound, _) => return Err(Problem::NoDelivery),
    };
    let back_suffix = back.map(|back| format!("&{}", back_pair(&back))).unwrap_or_default();
    // From `deliveries/ID/resend` to `deliveries/ID`.
    Ok(page::redirect(&format!("../{id}?done={done}{back_suffix}")))
}

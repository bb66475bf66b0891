//! Resend, cancel or dismiss all deliveries that a filter finds, after a page that asks for confirmation.
//!
//! The work goes in transactions of 500. A request makes a few of them and answers with a form for the rest, so no request runs for long,
//! and the operator sees the progress and can stop. The form holds everything: the filter, the last delivery that was looked at, and the
//! counts.

use std::time::{Duration, SystemTime};

use askama::Template;
use axum::extract::{RawPathParams, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use postrider_transport::DeliveryId;
use tokio::time::Instant;

use super::App;
use super::action::{change, verb};
use super::assets;
use super::deliveries::{cut, label};
use super::form::{Form, MAX_NOTE};
use super::format;
use super::page::{self, Page, Problem};
use super::query::ListQuery;
use super::reader::ReadError;
use crate::store::AdminStore;
use crate::{Change, DeliverySummary, Filter, State as DeliveryState};

/// The confirmation page counts the matching deliveries up to this number.
const COUNT_LIMIT: u32 = 10_000;

/// How long the confirmation page searches for matching deliveries if no index finds them.
const SEARCH: Duration = Duration::from_secs(2);

/// How many of the matching deliveries the confirmation page shows as examples.
const EXAMPLES: u32 = 5;

/// A request starts no further transaction after this time.
const SLICE: Duration = Duration::from_secs(2);

/// A request makes at most this number of transactions of 500 deliveries.
const STEPS: usize = 4;

/// What is done, and to which deliveries.
struct Plan {
    change: Change,
    /// The state that the action applies to.
    state: DeliveryState,
    /// The filter, whose times are fixed.
    query: ListQuery,
}

impl Plan {
    /// Reads a filter. It must name a state that the action applies to.
    fn read(change: Change, query: &str, now: SystemTime) -> Result<Self, Problem> {
        let query = ListQuery::parse(query, now);
        if !query.is_valid() {
            return Err(Problem::Bad("The filter has an error."));
        }
        let state = query.state.filter(|state| change.applies_to(*state)).ok_or(Problem::NoState(change))?;
        Ok(Self { change, state, query })
    }

    /// Fixes what the filter finds. Mail that ends in the state later, or that is enqueued later, is not found, and a time such as `2d` does
    /// not move on.
    fn fix(mut self, now: SystemTime) -> Result<Self, Problem> {
        let filter = &mut self.query.filter;
        let bound = if self.state.is_finished() { &mut filter.finished_before } else { &mut filter.created_before };
        *bound = Some(bound.map_or(now, |given| given.min(now)));
        let times = [
            ("since", filter.created_from),
            ("until", filter.created_before),
            ("finished_since", filter.finished_from),
            ("finished_until", filter.finished_before),
        ];
        for (name, time) in times {
            let field = self.query.fields.iter_mut().find(|field| field.name == name);
            if let (Some(field), Some(time)) = (field, time) {
                field.value = humantime::format_rfc3339_millis(time).to_string();
            }
        }
        // It is read again, so that what is counted is exactly what the form names.
        Self::read(self.change, &self.query.first_page(), now)
    }

    fn filter(&self) -> Filter {
        self.query.filter.clone()
    }

    /// The filter in words.
    fn conditions(&self) -> Vec<(&'static str, String)> {
        let state = ("State", label(self.state).to_owned());
        let set = self.query.fields.iter().filter(|field| !field.value.is_empty());
        [state].into_iter().chain(set.map(|field| (field.label, field.value.clone()))).collect()
    }
}

#[derive(Template)]
#[template(path = "bulk.html")]
struct AskPage<'a> {
    page: &'a Page,
    section: &'static str,
    change: Change,
    verb: &'static str,
    conditions: Vec<(&'static str, String)>,
    /// How many match.
    count: String,
    matching: u64,
    /// Whether the search for those that match stopped at its time limit.
    is_more: bool,
    examples: Vec<Example>,
    may_be_second: bool,
    /// The fixed filter, as the query of a list.
    filter: String,
    /// The query of the list that the operator comes from.
    back: String,
}

/// One of the deliveries that match.
struct Example {
    id: String,
    recipient: Option<String>,
    subject: Option<String>,
    error: Option<String>,
}

impl Example {
    fn new(delivery: DeliverySummary) -> Self {
        Self {
            id: delivery.id.to_string(),
            recipient: delivery.recipient.map(|recipient| cut(recipient.as_str(), 100)),
            subject: delivery.subject.filter(|subject| !subject.trim().is_empty()).map(|subject| cut(&subject, 120)),
            error: delivery.last_error.map(|error| cut(&error, 200)),
        }
    }
}

#[derive(Template)]
#[template(path = "bulk_progress.html")]
struct ProgressPage<'a> {
    page: &'a Page,
    script: String,
    section: &'static str,
    verb: &'static str,
    /// What the changed deliveries are now, such as `pending again`.
    done: &'static str,
    conditions: Vec<(&'static str, String)>,
    filter: String,
    back: String,
    progress: &'a Progress,
    updated: String,
    unchanged: String,
    looked_at: u64,
    /// The number of matching deliveries. `None` if it is unknown, or at least the limit of the count.
    of: Option<String>,
    is_over: bool,
    /// Why the last step failed.
    failure: Option<&'static str>,
}

/// The progress of a bulk change, which the form carries from request to request.
struct Progress {
    note: String,
    after: Option<DeliveryId>,
    updated: u64,
    unchanged: u64,
    /// The number of matching deliveries that the confirmation page counted.
    matching: u64,
}

impl Progress {
    fn read(form: &Form) -> Self {
        Self {
            note: form.get("note").chars().take(MAX_NOTE).collect(),
            after: form.get("after").parse().ok(),
            updated: form.number("updated"),
            unchanged: form.number("unchanged"),
            matching: form.number("matching"),
        }
    }
}

pub(super) async fn ask<S: AdminStore>(
    State(app): State<App<S>>,
    page: Page,
    params: RawPathParams,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = query.unwrap_or_default();
    let change = change(&params)?;
    // An invalid filter is refused before the database is asked.
    Plan::read(change, &query, SystemTime::now())?;
    let now = app.reader.run(app.outbox.store().now()).await?;
    let back = ListQuery::parse(&query, now).first_page();
    let plan = Plan::read(change, &query, now)?.fix(now)?;
    let all = plan.filter().limit(COUNT_LIMIT);
    let read = async {
        // All matches are counted only if an index finds them, or if the search is short.
        if app.outbox.store().search_end(&all, COUNT_LIMIT).await?.is_none() {
            let examples = app.outbox.list(&plan.filter().limit(EXAMPLES)).await?;
            return Ok((examples, app.outbox.count(&all).await?, false));
        }
        let page = app.outbox.search(&all, SEARCH).await?;
        let found = u64::try_from(page.deliveries.len()).unwrap_or(u64::MAX);
        let is_more = page.next.is_some() && found < u64::from(COUNT_LIMIT);
        Ok((page.deliveries.into_iter().take(usize::try_from(EXAMPLES).unwrap_or(0)).collect(), found, is_more))
    };
    let (examples, matching, is_more): (Vec<DeliverySummary>, u64, bool) = app.reader.run(read).await?;
    // After a search that stopped, nobody knows how many match. The form then has the limit, so that the progress page shows no total.
    let (count, matching) = match is_more {
        true => (format!("{} or more", format::count(matching)), u64::from(COUNT_LIMIT)),
        false => (at_most(matching), matching),
    };
    Ok(page::render_form(
        &AskPage {
            page: &page,
            section: "deliveries",
            change,
            verb: verb(change),
            conditions: plan.conditions(),
            count,
            matching,
            is_more,
            examples: examples.into_iter().map(Example::new).collect(),
            may_be_second: change == Change::Resend
                && matches!(plan.state, DeliveryState::Sent | DeliveryState::InDoubt),
            filter: plan.query.first_page(),
            back,
        },
        &page,
    ))
}

pub(super) async fn perform<S: AdminStore>(
    State(app): State<App<S>>,
    page: Page,
    params: RawPathParams,
    form: Form,
) -> Result<Response, Problem> {
    let change = change(&params)?;
    let plan = Plan::read(change, &form.get("filter"), SystemTime::now())?;
    let bound =
        if plan.state.is_finished() { plan.query.filter.finished_before } else { plan.query.filter.created_before };
    if bound.is_none() {
        return Err(Problem::Bad("The form lacks the time at which its filter was fixed."));
    }
    let mut progress = Progress::read(&form);
    let (is_over, failed) = run_steps(&app, &page, &plan, &mut progress).await;
    let failure = failed.as_ref().map(|error| match error {
        ReadError::Slow => "The database did not answer in time. The last step may have been done or not.",
        ReadError::Store(_) => "The database failed. The last step may have been done or not.",
    });
    let mut response = page::render_form(
        &ProgressPage {
            page: &page,
            script: assets::bulk_name(),
            section: "deliveries",
            verb: verb(change),
            done: match change {
                Change::Resend => "pending again",
                Change::Cancel => "cancelled",
                Change::Dismiss => "dismissed",
            },
            conditions: plan.conditions(),
            filter: plan.query.first_page(),
            back: ListQuery::parse(&form.get("back"), SystemTime::now()).first_page(),
            updated: format::count(progress.updated),
            unchanged: format::count(progress.unchanged),
            looked_at: progress.updated.saturating_add(progress.unchanged),
            of: (progress.matching < u64::from(COUNT_LIMIT)).then(|| format::count(progress.matching)),
            progress: &progress,
            is_over,
            failure,
        },
        &page,
    );
    if failure.is_some() {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}

/// Makes the next steps. Returns whether there are no more, and the error that ended them.
///
/// After an error, the same step can be made again: a delivery that was changed is no longer in the state.
async fn run_steps<S: AdminStore>(
    app: &App<S>,
    page: &Page,
    plan: &Plan,
    progress: &mut Progress,
) -> (bool, Option<ReadError>) {
    let by = page.operator(&app.outbox, &progress.note);
    let (change, operator) = (plan.change, page.masked_operator());
    let mut filter = plan.filter().limit(u32::MAX);
    let until = Instant::now() + SLICE;
    let (before, mut is_over, mut failed) = (progress.updated, false, None);
    for _ in 0..STEPS {
        filter.after = progress.after;
        let start = Instant::now();
        match app.reader.run(by.change_step(change, &filter)).await {
            Ok(step) => {
                progress.updated = progress.updated.saturating_add(step.updated);
                progress.unchanged = progress.unchanged.saturating_add(step.unchanged);
                is_over = step.last.is_none();
                progress.after = step.last.or(progress.after);
            }
            Err(error) => {
                tracing::warn!(?change, ?filter, ?error, %operator, "a bulk change through the dashboard was interrupted");
                failed = Some(error);
                break;
            }
        }
        if is_over || Instant::now() >= until {
            break;
        }
        // As in `Operator::change_all`.
        tokio::time::sleep(start.elapsed()).await;
    }
    let changed = progress.updated.saturating_sub(before);
    tracing::info!(?change, ?filter, changed, is_over, %operator, "an operator changed deliveries through the dashboard");
    (is_over, failed)
}

/// Formats a count, with `or more` if it reached the limit.
fn at_most(count: u64) -> String {
    let or_more = if count >= u64::from(COUNT_LIMIT) { " or more" } else { "" };
    format!("{}{or_more}", format::count(count))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const NOW: SystemTime = UNIX_EPOCH;

    fn now() -> SystemTime {
        NOW + Duration::from_millis(2_000_000_000_123)
    }

    fn fixed(change: Change, query: &str) -> String {
        Plan::read(change, query, now())
            .and_then(|plan| plan.fix(now()))
            .map(|plan| plan.query.first_page())
            .ok()
            .unwrap()
    }

    #[test]
    fn the_filter_is_bounded_by_the_time_of_the_confirmation_page() {
        let at = "2033-05-18T03%3A33%3A20.123Z";
        assert_eq!(fixed(Change::Resend, "state=dead"), format!("state=dead&finished_until={at}"));
        assert_eq!(fixed(Change::Cancel, "state=pending"), format!("state=pending&until={at}"));
        // A time that the operator set is kept if it is earlier, and times from now on do not move.
        let kept =
            "state=dead&since=2033-05-16T03%3A33%3A20.123Z&finished_until=2033-05-18T02%3A33%3A20.123Z&order=oldest";
        assert_eq!(fixed(Change::Dismiss, "order=oldest&state=dead&finished_until=1h&since=2d"), kept);
        let later = fixed(Change::Resend, "state=sent&finished_until=2099-01-01");
        assert_eq!(later, format!("state=sent&finished_until={at}"));
        // What is fixed stays as it is.
        assert_eq!(fixed(Change::Dismiss, kept), kept);
        let plan = Plan::read(Change::Resend, &fixed(Change::Resend, "state=dead"), UNIX_EPOCH).ok().unwrap();
        assert_eq!(plan.filter().finished_before, Some(now()));
    }

    #[test]
    fn an_action_needs_a_state_that_it_applies_to() {
        for (change, query) in [
            (Change::Resend, ""),
            (Change::Resend, "to=%40example.com"),
            (Change::Resend, "state=pending"),
            (Change::Resend, "state=leased"),
            (Change::Cancel, "state=dead"),
            (Change::Dismiss, "state=sent"),
        ] {
            assert!(matches!(Plan::read(change, query, now()), Err(Problem::NoState(_))), "{change:?} {query}");
        }
        for bad in ["state=dead&since=x", "state=nonsense"] {
            assert!(matches!(Plan::read(Change::Resend, bad, now()), Err(Problem::Bad(_))), "{bad}");
        }
    }

    #[test]
    fn a_count_at_the_limit_says_or_more() {
        assert_eq!((at_most(9_999).as_str(), at_most(10_000).as_str()), ("9,999", "10,000 or more"));
    }
}

//! What is paused: by operators, and by relays after failures. Operators pause, resume, and ask for a probe.

use std::time::{Duration, SystemTime};

use askama::Template;
use axum::extract::{RawPathParams, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::App;
use super::deliveries::cut;
use super::form::{Form, MAX_NOTE};
use super::format::{self, Moment};
use super::page::{self, Page, Problem};
use super::reader::ReadError;
use crate::store::AdminStore;
use crate::{Filter, PauseTarget, RelayStatus, StoreErrorKind};

/// How many pauses are shown, and how many relays.
const SHOWN: usize = 200;

#[derive(Template)]
#[template(path = "pauses.html")]
struct PausesPage<'a> {
    page: &'a Page,
    section: &'static str,
    now: Moment,
    pauses: Vec<OperatorPause>,
    more_pauses: usize,
    relays: Vec<PausedRelay>,
    more_relays: usize,
    /// The number of relays that reported.
    relay_count: usize,
    probe_requested: Option<Moment>,
    /// The names of transports that sent in the last hours, as suggestions.
    transports: Vec<String>,
    input: Input,
    error: Option<String>,
    notice: Option<&'static str>,
}

/// A pause by an operator.
struct OperatorPause {
    label: &'static str,
    name: String,
    /// The whole target for the form, as a query: a browser changes line ends in a field.
    target: String,
    since: Moment,
    operator: String,
    note: Option<String>,
}

/// A relay whose transport, or a sender's mail, is paused after failures.
struct PausedRelay {
    id: String,
    seen: String,
    /// For how long it has been paused.
    lasted: String,
    reason: String,
}

/// The form for a pause, as it was filled in.
#[derive(Default)]
struct Input {
    kind: String,
    name: String,
    note: String,
}

impl Input {
    fn has_kind(&self, kind: &str) -> bool {
        self.kind == kind
    }

    fn read(query: &str) -> Self {
        let value = |wanted: &str| {
            let pair = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == wanted);
            pair.map(|(_, value)| value.into_owned()).unwrap_or_default()
        };
        Self { kind: value("kind"), name: value("name"), note: String::new() }
    }

    fn query(&self) -> String {
        let mut out = form_urlencoded::Serializer::new(String::new());
        out.append_pair("kind", &self.kind).append_pair("name", &self.name).finish()
    }

    /// What to pause or to resume.
    fn target(&self) -> Result<PauseTarget, &'static str> {
        let target = PauseTarget::from_stored(&self.kind, self.name.clone()).ok_or("Choose what to pause.")?;
        match target {
            PauseTarget::Outbox if !self.name.is_empty() => {
                Err("All mail has no name. Leave the name empty, or choose what it names.")
            }
            PauseTarget::Outbox => Ok(target),
            _ if self.name.is_empty() => Err("Write the name of what to pause."),
            _ => Ok(target),
        }
    }
}

pub(super) async fn show<S: AdminStore>(
    State(app): State<App<S>>,
    page: Page,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = query.unwrap_or_default();
    // A link can fill in what to pause, as from the page of a delivery.
    respond(&app, &page, Input::read(&query), None, notice(&query)).await
}

/// A link to the form for a pause, with this template filled in.
pub(super) fn link_to_template(name: &str) -> String {
    let input = Input { kind: "template".to_owned(), name: name.to_owned(), note: String::new() };
    format!("pauses?{}", input.query())
}

/// The notice after an action. A link can name only these texts.
fn notice(query: &str) -> Option<&'static str> {
    let done = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "done")?.1;
    match done.as_ref() {
        "paused" => Some("It is paused. Every relay obeys within two seconds."),
        "unknown" => Some("It is paused. No recent mail has this name, so check the spelling."),
        "already" => Some("It was paused already. Nothing was changed."),
        "resumed" => Some("It is resumed. Mail of a sender or a template follows within a minute."),
        "gone" => Some("It was not paused. Nothing was changed."),
        "asked" => Some("Relays that are paused after failures probe within two seconds."),
        _ => None,
    }
}

async fn respond<S: AdminStore>(
    app: &App<S>,
    page: &Page,
    input: Input,
    error: Option<String>,
    notice: Option<&'static str>,
) -> Result<Response, Problem> {
    let snapshot = app.snapshot_cache.get(&app.reader, &app.outbox).await?;
    // The pauses are not taken from the snapshot, since an operator looks for what was just changed.
    let read = async { Ok((app.outbox.controls().await?, app.outbox.store().now().await?)) };
    let (controls, now) = app.reader.run(read).await?;
    let paused = || paused_relays(&snapshot.stats.relays);
    let mut transports: Vec<_> = snapshot.hourly.iter().filter_map(|count| count.transport.as_deref()).collect();
    // The name of a combined transport is what a pause needs.
    transports.iter_mut().for_each(|name| *name = name.split(['/', ',']).next().unwrap_or_default());
    transports.sort_unstable();
    transports.dedup();
    let pauses = controls.pauses.iter().take(SHOWN).map(|pause| OperatorPause {
        label: label(&pause.target),
        name: cut(&pause.target.name(), 200),
        target: Input { kind: pause.target.kind().to_owned(), name: pause.target.name(), ..Input::default() }.query(),
        since: Moment::new(pause.since, now),
        operator: cut(&pause.operator, 255),
        note: pause.note.as_deref().map(|note| cut(note, 1_000)),
    });
    let status = if error.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let mut response = page::render_form(
        &PausesPage {
            page,
            section: "pauses",
            now: Moment::new(now, now),
            pauses: pauses.collect(),
            more_pauses: controls.pauses.len().saturating_sub(SHOWN),
            relays: paused().take(SHOWN).collect(),
            more_relays: paused().count().saturating_sub(SHOWN),
            relay_count: snapshot.stats.relays.len(),
            probe_requested: controls.probe_requested_at.map(|time| Moment::new(time, now)),
            transports: transports.into_iter().take(20).map(|name| cut(name, 200)).collect(),
            input,
            error,
            notice,
        },
        page,
    );
    if status != StatusCode::OK {
        *response.status_mut() = status;
    }
    Ok(response)
}

/// The relays that are paused after failures. The reason begins with an operator's pause if there is one as well.
fn paused_relays(relays: &[RelayStatus]) -> impl Iterator<Item = PausedRelay> {
    relays.iter().filter(|relay| relay.is_running()).filter_map(|relay| {
        let (reason, lasted) = (relay.paused.as_deref()?, relay.paused_for?);
        Some(PausedRelay {
            id: relay.id.clone(),
            seen: format::duration(relay.seen_ago),
            lasted: format::duration(lasted),
            reason: cut(reason, 1_000),
        })
    })
}

fn label(target: &PauseTarget) -> &'static str {
    match target {
        PauseTarget::Outbox => "all mail",
        PauseTarget::Transport(_) => "transport",
        PauseTarget::Sender(_) => "sender",
        PauseTarget::Template(_) => "template",
    }
}

/// How far back a transport's name is looked for.
const RECENT: Duration = Duration::from_secs(7 * 24 * 3_600);

/// How long a template is searched for.
const SEARCH: Duration = Duration::from_millis(500);

/// Whether recent mail has this transport or template. A pause of a misspelt name is stored, and stops nothing.
async fn is_known<S: AdminStore>(app: &App<S>, target: &PauseTarget) -> Result<bool, ReadError> {
    match target {
        PauseTarget::Template(name) => {
            let filter = Filter::new().template_id(name.as_str()).newest_first().limit(1);
            let page = app.reader.run(app.outbox.search(&filter, SEARCH)).await?;
            Ok(!page.deliveries.is_empty() || page.next.is_some())
        }
        PauseTarget::Transport(name) => {
            let read = async {
                let since = app.outbox.store().now().await?.checked_sub(RECENT).unwrap_or(SystemTime::UNIX_EPOCH);
                app.outbox.hourly(since).await
            };
            let hourly = app.reader.run(read).await?;
            let mut paths = hourly.iter().filter_map(|count| count.transport.as_deref());
            Ok(paths.any(|path| path.split('/').next() == Some(name)))
        }
        _ => Ok(true),
    }
}

/// Pauses, resumes, or asks for a probe.
pub(super) async fn perform<S: AdminStore>(
    State(app): State<App<S>>,
    page: Page,
    params: RawPathParams,
    form: Form,
) -> Result<Response, Problem> {
    let action = page::param(&params, "action").unwrap_or_default();
    let input = match action {
        "resume" => Input::read(&form.get("target")),
        _ => Input { kind: form.get("kind"), name: form.get("name"), note: form.get("note") },
    };
    let by = page.operator(&app.outbox, &input.note);
    let result = match (action, input.target()) {
        ("probe", _) => app.reader.run(by.probe()).await.map(|()| "asked"),
        ("pause" | "resume", Err(error)) => return respond(&app, &page, input, Some(error.to_owned()), None).await,
        ("pause", Ok(target)) => {
            // If it cannot be found out, there is no warning.
            let is_known = is_known(&app, &target).await.unwrap_or(true);
            let done = if is_known { "paused" } else { "unknown" };
            app.reader.run(by.pause(target)).await.map(|changed| if changed { done } else { "already" })
        }
        ("resume", Ok(target)) => {
            app.reader.run(by.resume(target)).await.map(|changed| if changed { "resumed" } else { "gone" })
        }
        _ => return Err(Problem::NoPage),
    };
    let operator = page.masked_operator();
    match result {
        Ok(done) => {
            tracing::info!(action, done, %operator, "an operator changed the pauses through the dashboard");
            // From `pauses/pause` to `pauses`.
            Ok(page::redirect(&format!("../pauses?done={done}")))
        }
        Err(ReadError::Store(error)) if error.kind() == StoreErrorKind::Rejected => {
            respond(&app, &page, input, Some(error.to_string()), None).await
        }
        Err(error) => {
            tracing::warn!(action, ?error, %operator, "a change of the pauses through the dashboard got no answer");
            Err(Problem::Uncertain)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_that_an_operator_paused_is_not_among_those_that_failed() {
        let relay = |paused: Option<&str>, failing: bool| {
            let mut relay = RelayStatus::new("r".to_owned(), Duration::ZERO, 0, paused.map(str::to_owned));
            relay.paused_for = failing.then_some(Duration::from_secs(90));
            relay
        };
        let relays = [
            relay(Some("outbox: paused by ada: why"), false),
            relay(Some("outbox: paused by ada; smtp: 535 no"), true),
            relay(Some("535 no"), true),
            relay(None, false),
        ];
        let shown: Vec<_> = paused_relays(&relays).map(|relay| (relay.reason, relay.lasted)).collect();
        let lasted = || "1 min 30 s".to_owned();
        assert_eq!(
            shown,
            [("outbox: paused by ada; smtp: 535 no".to_owned(), lasted()), ("535 no".to_owned(), lasted())]
        );
    }

    #[test]
    fn a_target_has_a_kind_and_a_name() {
        let target = |kind: &str, name: &str| {
            Input { kind: kind.to_owned(), name: name.to_owned(), note: String::new() }.target().ok()
        };
        assert_eq!(target("outbox", ""), Some(PauseTarget::Outbox));
        assert_eq!(target("template", "news"), Some(PauseTarget::Template("news".to_owned())));
        for (kind, name) in [("", "news"), ("everything", ""), ("template", ""), ("sender", ""), ("outbox", "news")] {
            assert_eq!(target(kind, name), None, "{kind} {name}");
        }
    }
}

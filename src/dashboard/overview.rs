//! The overview: is something wrong, since when, how much, and what to do.

use std::time::{Duration, SystemTime};

use askama::Template;
use axum::extract::{OriginalUri, State};
use axum::response::Response;

use super::App;
use super::chart::{self, Chart};
use super::deliveries::{cut, label};
use super::format::{self, Moment};
use super::page::{self, Page, Problem};
use super::query;
use super::snapshot::{SAMPLE, Snapshot};
use crate::store::AdminStore;
use crate::{Pause, PauseTarget, State as DeliveryState, Stats};

/// Mail is late when the oldest that is not deferred has waited this long. A relay that works needs seconds.
const LATE: Duration = Duration::from_secs(300);

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage<'a> {
    page: &'a Page,
    section: &'static str,
    verdict: Verdict,
    now: Moment,
    cards: Vec<Card>,
    oldest_waiting: Option<String>,
    /// The pauses by operators, as sentences.
    pauses: Vec<String>,
    chart: Chart,
    relays: Vec<Relay>,
    failures: Vec<Failures>,
    sample: u32,
}

/// One sentence about the state of the outbox.
struct Verdict {
    /// `ok`, `warn` or `bad`.
    level: &'static str,
    title: &'static str,
    text: String,
    /// What to do, if anything.
    advice: &'static str,
}

struct Card {
    state: &'static str,
    label: &'static str,
    count: String,
}

struct Relay {
    id: String,
    host: Option<String>,
    seen: String,
    in_flight: u64,
    is_running: bool,
    paused: Option<String>,
    /// How long the pause has lasted.
    paused_for: Option<String>,
}

struct Failures {
    count: usize,
    given_up: usize,
    example: String,
    /// The list of all of them, or the newest one.
    href: String,
}

pub(super) async fn root(original: OriginalUri) -> Response {
    page::redirect(&page::overview_location(&original))
}

pub(super) async fn show<S: AdminStore>(State(app): State<App<S>>, page: Page) -> Result<Response, Problem> {
    let snapshot = app.snapshot_cache.get(&app.reader, &app.outbox).await?;
    Ok(page::render(&overview(&page, &snapshot)))
}

fn overview<'a>(page: &'a Page, snapshot: &Snapshot) -> OverviewPage<'a> {
    let Snapshot { stats, pauses, now, .. } = snapshot;
    let count_of = |state| match state {
        DeliveryState::Pending => stats.pending,
        DeliveryState::Leased => stats.leased,
        DeliveryState::Sent => stats.sent,
        DeliveryState::Dead => stats.dead,
        DeliveryState::InDoubt => stats.in_doubt,
        DeliveryState::Cancelled => stats.cancelled,
        DeliveryState::Dismissed => stats.dismissed,
    };
    let cards = DeliveryState::ALL.map(|state| Card {
        state: state.as_str(),
        label: label(state),
        count: format::count(count_of(state)),
    });
    let relays = stats.relays.iter().map(|relay| Relay {
        id: relay.id.clone(),
        host: relay.host.as_deref().map(|host| cut(host, 64)),
        seen: format::duration(relay.seen_ago),
        in_flight: relay.in_flight,
        is_running: relay.is_running(),
        paused: relay.paused.as_deref().map(|reason| cut(reason, 1_000)),
        paused_for: relay.paused_for.map(format::duration),
    });
    let failures = snapshot.failures.iter().map(|group| Failures {
        count: group.count,
        given_up: group.given_up,
        example: cut(&group.example, 300),
        href: match &group.common {
            Some(common) => query::link(&[("error", common)]),
            None => format!("deliveries/{}", group.newest),
        },
    });
    OverviewPage {
        page,
        section: "overview",
        verdict: verdict(stats, pauses),
        now: Moment::new(*now, *now),
        cards: cards.into(),
        oldest_waiting: stats.oldest_waiting.map(format::duration),
        pauses: pauses.iter().map(|pause| paused(pause, *now)).collect(),
        chart: chart::draw(&snapshot.hourly, *now),
        relays: relays.collect(),
        failures: failures.collect(),
        sample: SAMPLE,
    }
}

/// A pause by an operator, as a sentence.
fn paused(pause: &Pause, now: SystemTime) -> String {
    let note = pause.note.as_deref().map(|note| format!(": {note}")).unwrap_or_default();
    let ago = format::duration(now.duration_since(pause.since).unwrap_or_default());
    cut(&format!("{} for {ago}, by {}{note}", pause.target, pause.operator), 1_000)
}

fn verdict(stats: &Stats, pauses: &[Pause]) -> Verdict {
    let stops_relays = |pause: &&Pause| matches!(pause.target, PauseTarget::Outbox | PauseTarget::Transport(_));
    let by_operator = pauses.iter().find(stops_relays);
    // A relay that has stopped says nothing of the present.
    let running: Vec<_> = stats.relays.iter().filter(|relay| relay.is_running()).collect();
    let reasons: Vec<_> =
        running.iter().filter_map(|relay| Some((relay.paused.as_deref()?, relay.paused_for))).collect();
    let waiting = format!("{} pending", format::count(stats.pending));
    let oldest = stats.oldest_waiting.map(|age| format!(", the oldest for {}", format::duration(age)));
    let waiting = format!("{waiting}{}.", oldest.unwrap_or_default());
    match reasons.first() {
        _ if running.is_empty() && stats.pending + stats.leased > 0 => Verdict {
            level: "bad",
            title: "No relay is running",
            text: waiting,
            advice: "Start a relay in your service, or run postrider work. No mail is lost.",
        },
        _ if running.is_empty() => {
            Verdict { level: "ok", title: "Nothing waits", text: "No relay is running.".to_owned(), advice: "" }
        }
        _ if let Some(pause) = by_operator => Verdict {
            level: "warn",
            title: "An operator paused the sending",
            text: format!("{}: paused by {}. {waiting}", pause.target, cut(&pause.operator, 255)),
            advice: "It goes on when an operator resumes it: see Pauses. Paused mail stays pending.",
        },
        Some((reason, lasted)) => Verdict {
            level: if reasons.len() == running.len() { "bad" } else { "warn" },
            title: if reasons.len() == running.len() { "Sending is paused" } else { "Some relays are paused" },
            text: format!(
                "{}{}. {waiting}",
                lasted.map(|lasted| format!("For {}: ", format::duration(lasted))).unwrap_or_default(),
                cut(reason, 1_000).trim_end_matches('.')
            ),
            advice: "The next hop refuses or does not answer. The relays probe it, and go on by themselves when it works. \
                     No mail is lost or charged for it.",
        },
        None if stats.oldest_undeferred.is_some_and(|age| age >= LATE) => Verdict {
            level: "warn",
            title: "Mail is late",
            text: waiting,
            advice: "The relays send more slowly than mail comes in, or a sender is paused. See the failures below.",
        },
        None if !pauses.is_empty() && stats.oldest_waiting.is_some() => Verdict {
            level: "warn",
            title: "Mail is being sent, except what an operator paused",
            text: waiting,
            advice: "See the pauses below. Paused mail stays pending.",
        },
        None if stats.leased > 0 || stats.oldest_waiting.is_some() => {
            Verdict { level: "ok", title: "Mail is being sent", text: waiting, advice: "" }
        }
        None if stats.pending > 0 => Verdict {
            level: "ok",
            title: "Nothing is due",
            text: format!("{waiting} Each waits for its time."),
            advice: "",
        },
        None => Verdict { level: "ok", title: "Nothing waits", text: "All mail is finished.".to_owned(), advice: "" },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RelayStatus;

    fn stats(pending: u64, oldest_waiting: Option<u64>, relays: &[Option<&str>]) -> Stats {
        let relay =
            |paused: &Option<&str>| RelayStatus::new("relay".to_owned(), Duration::ZERO, 0, paused.map(str::to_owned));
        let oldest_waiting = oldest_waiting.map(Duration::from_secs);
        let oldest_undeferred = oldest_waiting;
        Stats {
            pending,
            oldest_waiting,
            oldest_undeferred,
            relays: relays.iter().map(relay).collect(),
            ..Stats::default()
        }
    }

    #[test]
    fn the_verdict_names_the_worst_condition() {
        for (stats, level, title) in [
            (stats(0, None, &[]), "ok", "Nothing waits"),
            (stats(3, Some(9), &[]), "bad", "No relay is running"),
            (stats(3, Some(9), &[Some("535 no")]), "bad", "Sending is paused"),
            (stats(3, None, &[Some("535 no"), None]), "warn", "Some relays are paused"),
            (stats(3, Some(300), &[None]), "warn", "Mail is late"),
            (stats(3, Some(299), &[None]), "ok", "Mail is being sent"),
            // The server of its recipient defers the oldest mail.
            (Stats { oldest_undeferred: None, ..stats(3, Some(300), &[None]) }, "ok", "Mail is being sent"),
            (stats(3, None, &[None]), "ok", "Nothing is due"),
            (stats(0, None, &[None]), "ok", "Nothing waits"),
        ] {
            let verdict = verdict(&stats, &[]);
            assert_eq!((verdict.level, verdict.title), (level, title));
        }
    }

    #[test]
    fn a_relay_that_has_stopped_says_nothing_of_the_present() {
        let mut stats = stats(3, Some(9), &[Some("535 no"), None]);
        stats.relays[0].seen_ago = Duration::from_secs(31);
        assert_eq!(verdict(&stats, &[]).title, "Mail is being sent");
        stats.relays[1].seen_ago = Duration::from_secs(31);
        let none = verdict(&stats, &[]);
        assert!(none.title == "No relay is running" && !none.text.contains("535"), "{}", none.text);
    }
}

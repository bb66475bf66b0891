//! The chart of what happened in each hour. It is SVG with attributes alone, since the content security policy refuses inline styles.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::format;
use super::query;
use super::snapshot::HOURS;
use crate::{CountedEvent, HourlyCount};

const HOUR: u64 = 3_600;
/// The height of the largest bar.
const HEIGHT: u64 = 120;
/// The width of an hour.
const SLOT: u64 = 30;

pub(super) struct Chart {
    pub(super) bars: Vec<Bar>,
    /// The largest number of attempts in an hour.
    pub(super) max: String,
    pub(super) is_empty: bool,
}

/// An hour.
pub(super) struct Bar {
    pub(super) x: u64,
    pub(super) sent_y: u64,
    pub(super) sent_height: u64,
    pub(super) failed_y: u64,
    pub(super) failed_height: u64,
    /// `14:00`.
    pub(super) hour: String,
    /// Whether the hour is written below the bar.
    pub(super) has_label: bool,
    pub(super) sent: String,
    pub(super) failed: String,
    pub(super) dead: String,
    /// The list of what ended in this hour.
    pub(super) href: String,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    sent: u64,
    failed: u64,
    dead: u64,
}

/// Draws the last hours up to `now`.
pub(super) fn draw(hourly: &[HourlyCount], now: SystemTime) -> Chart {
    let hour_of = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / HOUR;
    let first = hour_of(now).saturating_sub(HOURS - 1);
    let mut counts = vec![Counts::default(); usize::try_from(HOURS).unwrap_or(0)];
    for HourlyCount { hour, event, count, .. } in hourly {
        let index = hour_of(*hour).checked_sub(first).and_then(|index| usize::try_from(index).ok());
        let Some(counts) = index.and_then(|index| counts.get_mut(index)) else { continue };
        match event {
            CountedEvent::Sent => counts.sent += count,
            CountedEvent::Transient | CountedEvent::Permanent | CountedEvent::InDoubt => counts.failed += count,
            CountedEvent::Dead => counts.dead += count,
            CountedEvent::Held | CountedEvent::Cancelled | CountedEvent::Dismissed => {}
        }
    }
    let max = counts.iter().map(|counts| counts.sent + counts.failed).max().unwrap_or(0);
    // At least 2, so that a single mail can be seen.
    let scale = |count: u64| if count == 0 { 0 } else { (count.saturating_mul(HEIGHT) / max.max(1)).max(2) };
    let bars = (first..).zip(&counts).zip(0..).map(|((hour, counts), index): (_, u64)| {
        let (sent_height, failed_height) = (scale(counts.sent), scale(counts.failed));
        let sent_y = HEIGHT.saturating_sub(sent_height);
        let time = |hour: u64| format_time(UNIX_EPOCH + Duration::from_secs(hour * HOUR));
        Bar {
            x: index * SLOT + 3,
            sent_y,
            sent_height,
            failed_y: sent_y.saturating_sub(failed_height),
            failed_height,
            hour: format!("{:02}:00", hour % 24),
            has_label: (hour % 24).is_multiple_of(3),
            sent: format::count(counts.sent),
            failed: format::count(counts.failed),
            dead: format::count(counts.dead),
            href: query::link(&[("finished_since", &time(hour)), ("finished_until", &time(hour + 1))]),
        }
    });
    Chart {
        bars: bars.collect(),
        max: format::count(max),
        is_empty: counts.iter().all(|c| c.sent + c.failed + c.dead == 0),
    }
}

fn format_time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_in_the_bar_of_its_hour() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000 * HOUR + 1_800);
        let hour = |ago: u64| UNIX_EPOCH + Duration::from_secs((1_000_000 - ago) * HOUR);
        let count = |ago, event, count| HourlyCount::new(hour(ago), event, None, count);
        let chart = draw(
            &[
                count(0, CountedEvent::Sent, 90),
                count(0, CountedEvent::Transient, 20),
                count(0, CountedEvent::Permanent, 10),
                count(23, CountedEvent::Dead, 7),
                // Older than the chart, and ahead of the clock.
                count(24, CountedEvent::Sent, 1_000),
                HourlyCount::new(now + Duration::from_secs(2 * HOUR), CountedEvent::Sent, None, 1_000),
            ],
            now,
        );
        assert_eq!((chart.bars.len(), chart.max.as_str(), chart.is_empty), (24, "120", false));
        let last = &chart.bars[23];
        assert_eq!((last.sent_y, last.sent_height, last.failed_y, last.failed_height), (30, 90, 0, 30));
        assert_eq!((chart.bars[0].dead.as_str(), chart.bars[0].sent_height), ("7", 0));
        assert!(draw(&[], now).is_empty);
    }
}

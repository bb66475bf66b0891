//! How times, durations and numbers are written.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A time in the three forms that the pages use.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    /// By RFC 3339, in UTC: `2030-12-31T18:00:00Z`.
    pub(super) iso: String,
    /// For people, in UTC: `2030-12-31 18:00:00 UTC`.
    pub(super) text: String,
    /// From now: `5 min ago`, `in 2 h`.
    pub(super) relative: String,
}

impl Moment {
    pub(super) fn new(time: SystemTime, now: SystemTime) -> Self {
        // Other programs can store any time. It is shown as the first or last one that can be written.
        const MAX: Duration = Duration::from_secs(253_402_300_799);
        let shown = UNIX_EPOCH + time.duration_since(UNIX_EPOCH).unwrap_or_default().min(MAX);
        let iso = humantime::format_rfc3339_seconds(shown).to_string();
        let text = format!("{} UTC", iso.trim_end_matches('Z').replacen('T', " ", 1));
        let relative = match now.duration_since(time) {
            Ok(age) if age < Duration::from_secs(1) => "now".to_owned(),
            Ok(age) => format!("{} ago", duration(age)),
            Err(ahead) => format!("in {}", duration(ahead.duration())),
        };
        Self { iso, text, relative }
    }
}

/// Writes a duration with its largest unit, or its two largest: `350 ms`, `5 s`, `2 h 5 min`, `3 d 4 h`.
pub(super) fn duration(duration: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let seconds = duration.as_secs();
    if seconds == 0 {
        return format!("{} ms", duration.as_millis());
    }
    let mut left = seconds;
    let mut parts = Vec::new();
    for (length, unit) in UNITS {
        let count = left / length;
        left %= length;
        if count > 0 {
            parts.push(format!("{count} {unit}"));
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 || (seconds < 60 && !parts.is_empty()) {
            break;
        }
    }
    parts.join(" ")
}

/// Writes a number with a comma before each three digits.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Writes a size in bytes: `999 B`, `1.5 kB`, `25 MB`.
pub(super) fn size(bytes: usize) -> String {
    let (mut whole, mut tenths, mut unit) = (bytes, 0, "B");
    for next in ["kB", "MB", "GB"] {
        if whole < 1_000 {
            break;
        }
        (tenths, unit) = (whole % 1_000 / 100, next);
        whole /= 1_000;
    }
    if unit == "B" || whole >= 10 || tenths == 0 {
        format!("{whole} {unit}")
    } else {
        format!("{whole}.{tenths} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_at_most_two_units() {
        for (seconds, text) in [
            (1, "1 s"),
            (59, "59 s"),
            (60, "1 min"),
            (125, "2 min 5 s"),
            (3_600, "1 h"),
            (7_502, "2 h 5 min"),
            (3_601, "1 h"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
        assert_eq!(duration(Duration::from_secs(3 * 86_400 + 4 * 3_600 + 59)), "3 d 4 h");
        assert_eq!(duration(Duration::from_millis(350)), "350 ms");
    }

    #[test]
    fn numbers_and_sizes_are_readable() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (5_000_000, "5,000,000")] {
            assert_eq!(count(number), text);
        }
        for (bytes, text) in [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (25_400_000, "25 MB"), (1_000_000, "1 MB")]
        {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn every_time_can_be_written() {
        const DAY: Duration = Duration::from_secs(86_400);
        let early = Moment::new(UNIX_EPOCH - DAY, UNIX_EPOCH);
        assert_eq!((early.text.as_str(), early.relative.as_str()), ("1970-01-01 00:00:00 UTC", "1 d ago"));
        let late = Moment::new(UNIX_EPOCH + DAY * 365 * 10_000, UNIX_EPOCH);
        assert_eq!(late.iso, "9999-12-31T23:59:59Z");
        assert!(late.relative.starts_with("in "));
        assert_eq!(Moment::new(UNIX_EPOCH, UNIX_EPOCH).relative, "now");
    }
}

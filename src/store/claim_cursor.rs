//! The claim cursor: while there is a backlog, a claim begins where the last one ended.
//!
//! A settled delivery leaves a dead entry at the front of the index by due time. While any transaction is open, the database cannot remove
//! these entries, and without a cursor each claim would read all of them again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// This many full claims in a row mean that there is a backlog.
const BACKLOG_AFTER: u32 = 8;

/// After this time a claim begins at the front again. It then finds late commits, expired leases and released deliveries.
const REWIND_AFTER: Duration = Duration::from_secs(1);

/// For each priority, the position in the index to begin at. `None` is the front.
pub(crate) type ClaimCursor<P> = [Option<P>; 10];

/// The cursor of one store. `P` is a position in the store's index of one priority. It begins with the due time.
#[derive(Debug)]
pub(crate) struct ClaimCursors<P>(Mutex<CursorState<P>>);

/// Where one claim begins.
#[derive(Debug)]
pub(crate) struct ClaimStart<P> {
    pub(crate) cursor: ClaimCursor<P>,
    /// The number of resets before this claim. A claim that began before the last reset must not restore the old cursor.
    resets: u64,
}

#[derive(Debug)]
struct CursorState<P> {
    /// The number of full claims in a row.
    full_claims: u32,
    /// When a claim last began at the front. `None` before the first claim.
    rewound_at: Option<Instant>,
    cursor: ClaimCursor<P>,
    /// How often the cursor was moved to the front.
    resets: u64,
}

impl<P: Copy> CursorState<P> {
    fn reset(&mut self) {
        self.cursor = ClaimCursor::default();
        self.resets += 1;
    }

    fn claim_start(&self) -> ClaimStart<P> {
        ClaimStart { cursor: self.cursor, resets: self.resets }
    }
}

impl<P> Default for ClaimCursors<P> {
    fn default() -> Self {
        Self(Mutex::new(CursorState { full_claims: 0, rewound_at: None, cursor: ClaimCursor::default(), resets: 0 }))
    }
}

impl<P: Ord + Copy> ClaimCursors<P> {
    fn lock(&self) -> MutexGuard<'_, CursorState<P>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns where the next claim begins.
    pub(crate) fn claim_start(&self, now: Instant) -> ClaimStart<P> {
        let state = self.lock();
        let fresh = state.rewound_at.is_some_and(|then| now.saturating_duration_since(then) < REWIND_AFTER);
        if state.full_claims >= BACKLOG_AFTER && fresh {
            return state.claim_start();
        }
        drop(state);
        self.rewind(now)
    }

    /// Moves the cursor to the front, after a claim found nothing behind it.
    pub(crate) fn rewind(&self, now: Instant) -> ClaimStart<P> {
        let mut state = self.lock();
        state.rewound_at = Some(now);
        state.reset();
        state.claim_start()
    }

    /// Moves the cursor behind the rows of a claim. `rows` has the priority and the position of each row.
    pub(crate) fn advance(&self, start: &ClaimStart<P>, full: bool, rows: impl IntoIterator<Item = (i64, P)>) {
        let mut state = self.lock();
        if !full {
            state.full_claims = 0;
            state.reset();
            return;
        }
        state.full_claims = state.full_claims.saturating_add(1);
        if start.resets != state.resets {
            return;
        }
        for (priority, position) in rows {
            let cursor = usize::try_from(priority).ok().and_then(|priority| state.cursor.get_mut(priority));
            if let Some(cursor) = cursor {
                *cursor = (*cursor).max(Some(position));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cursors after enough full claims for a backlog. The last claim reached position 8.
    fn cursors_in_a_backlog(now: Instant) -> ClaimCursors<i64> {
        let cursors = ClaimCursors::default();
        for position in 1..=i64::from(BACKLOG_AFTER) {
            let start = cursors.claim_start(now);
            assert_eq!(start.cursor, ClaimCursor::default());
            cursors.advance(&start, true, [(5, position), (9, 0)]);
        }
        cursors
    }

    #[test]
    fn the_cursor_is_used_in_a_backlog_and_rewound_after_a_second() {
        let now = Instant::now();
        let cursors = cursors_in_a_backlog(now);
        let cursor = cursors.claim_start(now).cursor;
        assert_eq!((cursor[5], cursor[9], cursor[0]), (Some(8), Some(0), None));
        let start = cursors.claim_start(now + REWIND_AFTER);
        assert_eq!(start.cursor, ClaimCursor::default(), "a claim begins at the front after a second");
        cursors.advance(&start, true, [(5, 3)]);
        let start = cursors.claim_start(now + REWIND_AFTER);
        assert_eq!(start.cursor[5], Some(3), "the next claim begins behind the last one");
        cursors.advance(&start, false, [(5, 4)]);
        assert_eq!(
            cursors.claim_start(now + REWIND_AFTER).cursor,
            ClaimCursor::default(),
            "a claim that is not full ends the backlog"
        );
    }

    #[test]
    fn a_claim_from_before_a_reset_does_not_move_the_cursor() {
        let now = Instant::now();
        let cursors = cursors_in_a_backlog(now);
        let old = cursors.claim_start(now);
        let new = cursors.claim_start(now + REWIND_AFTER);
        cursors.advance(&old, true, [(5, 9)]);
        cursors.advance(&new, true, [(5, 1)]);
        assert_eq!(
            cursors.claim_start(now + REWIND_AFTER).cursor[5],
            Some(1),
            "the rows between the two positions must not be skipped"
        );
    }

    #[test]
    fn after_a_rewind_the_cursor_advances_from_the_front() {
        let now = Instant::now();
        let cursors = cursors_in_a_backlog(now);
        assert_eq!(cursors.claim_start(now).cursor[5], Some(8));
        let start = cursors.rewind(now);
        cursors.advance(&start, true, [(5, 2)]);
        assert_eq!(cursors.claim_start(now).cursor[5], Some(2));
    }
}

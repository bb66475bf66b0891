//! The tables as maps. Times are milliseconds since the Unix epoch.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use postrider_transport::{DeliveryId, Encoded, MessageSummary, Recipient, TraceParent};

use crate::admin::{CountedEvent, UpdateOutcome};
use crate::audit::{Action, AuditContext, AuditEntry};
use crate::clock::{from_millis, millis, to_millis};
use crate::delivery::Attempt;
use crate::operator::Change;
use crate::pause::{Controls, Pause, PauseTarget};
use crate::state::{Outcome, Priority, State, WhenInDoubt};
use crate::store::counters::{Counts, HOUR, Hourly};
use crate::store::new_row::stored_subject;
use crate::store::recipients::{ERASED, Erasure, deduplicate, key_contains, outcomes_kept_on_resend, remove_completed};
use crate::store::{
    Claim, ClaimId, LastAttempt, Lease, LeaseKey, NewRow, Next, RecipientOutcome, RelayId, RelayReport, Settled,
    Settlement, StoreError, StoreErrorKind, When,
};

#[derive(Default)]
pub(super) struct Rows {
    pub(super) deliveries: BTreeMap<DeliveryId, Row>,
    /// For each priority, the pending and leased deliveries, ordered by the time at which they can next be claimed.
    queue: [BTreeSet<(i64, DeliveryId)>; 10],
    /// The idempotency keys. A key without an id belongs to an open transaction.
    keys: HashMap<String, Option<DeliveryId>>,
    /// The counts of each hour.
    pub(super) hourly: Hourly,
    /// The keys of deleted deliveries that are still taken, and until when.
    kept_keys: Vec<(i64, String)>,
    /// The last report of each relay, with its time.
    pub(super) relays: HashMap<RelayId, (i64, RelayReport)>,
    /// The leader of each task, and until when.
    pub(super) leaders: HashMap<String, (RelayId, i64)>,
    /// The pauses and the request for a probe that operators have set.
    pub(super) controls: Controls,
    /// The actions of operators, oldest first.
    pub(super) audit: Vec<AuditEntry>,
    /// The deliveries that open transactions have cancelled.
    locked: HashSet<DeliveryId>,
}

pub(super) struct Row {
    /// `None` if it is deleted.
    pub(super) message: Option<Encoded>,
    pub(super) recipients: Vec<Recipient>,
    pub(super) recorded: Vec<RecipientOutcome>,
    pub(super) summary: MessageSummary,
    pub(super) template_id: Option<String>,
    pub(super) key: Option<String>,
    pub(super) priority: Priority,
    pub(super) when_in_doubt: WhenInDoubt,
    pub(super) traceparent: Option<TraceParent>,
    pub(super) created: i64,
    /// The time for the mail's Date: when the delivery was first due.
    pub(super) dated: i64,
    pub(super) due: i64,
    pub(super) expires: Option<i64>,
    pub(super) token: i64,
    /// When the lease began. `None` while no relay holds the delivery.
    pub(super) leased_at: Option<i64>,
    /// The claim that leased it. `None` while no relay holds the delivery.
    leased_by: Option<ClaimId>,
    /// `Pending` while the delivery is in the queue, leased or not.
    pub(super) state: State,
    pub(super) reason: Option<String>,
    pub(super) finished: Option<i64>,
    pub(super) cycle: u32,
    pub(super) cycle_started: i64,
    pub(super) charged_attempts: u32,
    /// The number of attempts over its life.
    pub(super) attempt_count: u32,
    pub(super) attempts: Vec<Attempt>,
}

impl Row {
    pub(super) fn shown_state(&self) -> State {
        if self.state == State::Pending && self.leased_at.is_some() { State::Leased } else { self.state }
    }

    /// Whether the next hop has refused it for now, in this cycle, for a reason of its own.
    pub(super) fn is_deferred(&self) -> bool {
        let refused = |attempt: &Attempt| matches!(attempt.outcome, Outcome::Transient | Outcome::Permanent);
        let deferred = |attempt: &Attempt| attempt.cycle == self.cycle && attempt.charged && refused(attempt);
        self.charged_attempts > 0 && self.attempts.iter().any(deferred)
    }
}

fn resolve(when: When, now: i64) -> i64 {
    match when {
        When::At(time) => to_millis(time),
        When::After(wait) => now.saturating_add(millis(wait)),
    }
}

impl Rows {
    /// Returns the delivery that has the key. `None` means that the key is now reserved: the caller must add a row with it, or release it.
    pub(super) fn reserve_key(&mut self, key: &str) -> Result<Option<DeliveryId>, StoreError> {
        match self.keys.get(key) {
            Some(Some(id)) => Ok(Some(*id)),
            Some(None) => Err(StoreError::new(
                StoreErrorKind::Conflict,
                "the idempotency key is in use by another transaction that is still open",
            )),
            None => {
                self.keys.insert(key.to_owned(), None);
                Ok(None)
            }
        }
    }

    pub(super) fn release_key(&mut self, key: &str) {
        if self.keys.get(key) == Some(&None) {
            self.keys.remove(key);
        }
    }

    pub(super) fn add(&mut self, new: NewRow, now: i64) {
        let due = new.due.map_or(now, |when| resolve(when, now));
        if let Some(key) = &new.key {
            self.keys.insert(key.clone(), Some(new.id));
        }
        self.queue_of(new.priority).insert((due, new.id));
        let mut summary = new.summary;
        summary.subject = stored_subject(&summary);
        let row = Row {
            message: Some(new.message),
            recipients: deduplicate(new.recipients),
            recorded: Vec::new(),
            summary,
            template_id: new.template_id,
            key: new.key,
            priority: new.priority,
            when_in_doubt: new.when_in_doubt,
            traceparent: new.traceparent,
            created: now,
            dated: due.max(now),
            due,
            expires: new.expires.map(|when| resolve(when, now)),
            token: 0,
            leased_at: None,
            leased_by: None,
            state: State::Pending,
            reason: None,
            finished: None,
            cycle: 1,
            cycle_started: due.max(now),
            charged_attempts: 0,
            attempt_count: 0,
            attempts: Vec::new(),
        };
        self.deliveries.insert(new.id, row);
    }

    fn queue_of(&mut self, priority: Priority) -> &mut BTreeSet<(i64, DeliveryId)> {
        &mut self.queue[usize::from(priority.level())]
    }

    pub(super) fn claim(&mut self, claim: Claim, now: i64, due_by: i64) -> Vec<Lease> {
        let due = self.queue.iter().rev().flat_map(|level| level.iter().take_while(|(due, _)| *due <= due_by));
        let due = due.filter(|(_, id)| !self.locked.contains(id));
        let mut bytes = 0_u64;
        let mut taken = Vec::new();
        for (_, id) in due.take(claim.limit) {
            let size = self.deliveries.get(id).map_or(0, |row| row.message.as_ref().map_or(0, Encoded::size));
            bytes = bytes.saturating_add(u64::try_from(size).unwrap_or(u64::MAX));
            if bytes > claim.max_bytes && !taken.is_empty() {
                break;
            }
            taken.push(*id);
        }
        let until = now.saturating_add(millis(claim.lease));
        taken.into_iter().filter_map(|id| self.lease(id, claim.id, now, until)).collect()
    }

    fn lease(&mut self, id: DeliveryId, by: ClaimId, now: i64, until: i64) -> Option<Lease> {
        self.move_in_queue(id, until);
        let row = self.deliveries.get_mut(&id)?;
        let lost = row.leased_at.replace(now);
        row.leased_by = Some(by);
        row.token += 1;
        if let Some(since) = lost {
            row.attempt_count += 1;
            row.charged_attempts += 1;
            row.attempts.push(Attempt::new(
                row.attempt_count,
                row.cycle,
                from_millis(since),
                from_millis(now),
                Outcome::Lost,
            ));
        }
        let key = LeaseKey { id, token: row.token };
        let mut lease = Lease {
            dated_at: from_millis(row.dated),
            template_id: row.template_id.clone(),
            traceparent: row.traceparent,
            attempts: row.attempt_count,
            cycle: row.cycle,
            charged_attempts: row.charged_attempts,
            cycle_started_at: from_millis(row.cycle_started),
            expires_at: row.expires.map(from_millis),
            when_in_doubt: row.when_in_doubt,
            lost: lost.is_some(),
            ..Lease::new(
                key,
                from_millis(now),
                row.message.clone().unwrap_or_else(|| Encoded::new("", "")),
                row.recipients.clone(),
            )
        };
        remove_completed(&mut lease, &row.recorded);
        Some(lease.with_last(row.attempts.last().map(LastAttempt::from)))
    }

    /// Releases the deliveries that these claims leased, and returns their number.
    pub(super) fn release_claims(&mut self, claims: &[ClaimId], now: i64) -> u64 {
        let is_leased_by_them =
            |row: &Row| row.state == State::Pending && row.leased_by.is_some_and(|by| claims.contains(&by));
        let leased = self.deliveries.iter().filter(|(_, row)| is_leased_by_them(row)).map(|(id, _)| *id);
        let leased: Vec<DeliveryId> = leased.collect();
        for id in &leased {
            if let Some(row) = self.deliveries.get_mut(id) {
                (row.leased_at, row.leased_by) = (None, None);
                // Due now, or at the end of the lease if that has passed.
                let due = row.due.min(now);
                self.move_in_queue(*id, due);
            }
        }
        u64::try_from(leased.len()).unwrap_or(u64::MAX)
    }

    fn move_in_queue(&mut self, id: DeliveryId, due: i64) {
        if let Some(row) = self.deliveries.get_mut(&id) {
            let (was, priority) = (std::mem::replace(&mut row.due, due), row.priority);
            self.queue_of(priority).remove(&(was, id));
            self.queue_of(priority).insert((due, id));
        }
    }

    fn remove_from_queue(&mut self, id: DeliveryId) {
        if let Some(row) = self.deliveries.get(&id) {
            let (due, priority) = (row.due, row.priority);
            self.queue_of(priority).remove(&(due, id));
        }
    }

    /// Finds a delivery by the key of its present lease.
    fn find_held(&mut self, key: LeaseKey) -> Option<&mut Row> {
        self.deliveries
            .get_mut(&key.id)
            .filter(|row| row.state == State::Pending && row.leased_at.is_some() && row.token == key.token)
    }

    pub(super) fn settle(&mut self, settlement: &Settlement, now: i64) -> Settled {
        let id = settlement.key.id;
        let Some(row) = self.find_held(settlement.key) else {
            return Settled::LeaseLost;
        };
        let mut counts = Counts::default();
        counts.add(settlement, now);
        (row.leased_at, row.leased_by) = (None, None);
        row.recorded.extend(settlement.recipients.iter().cloned());
        if let Some(attempt) = &settlement.attempt {
            row.attempt_count = attempt.number;
            row.attempts.push(attempt.clone());
        }
        row.charged_attempts = settlement.charged_attempts;
        let (state, reason) = match &settlement.next {
            Next::Pending { after } => {
                let due = now.saturating_add(millis(*after).max(1));
                self.move_in_queue(id, due);
                self.count(counts.hourly);
                return Settled::Applied;
            }
            Next::Sent => (State::Sent, None),
            Next::Dead { reason } => (State::Dead, Some(reason.clone())),
            Next::InDoubt { reason } => (State::InDoubt, Some(reason.clone())),
        };
        let sent_at =
            settlement.attempt.as_ref().filter(|_| state == State::Sent).map(|attempt| to_millis(attempt.finished_at));
        (row.state, row.reason, row.finished) = (state, reason, Some(sent_at.unwrap_or(now)));
        self.remove_from_queue(id);
        self.count(counts.hourly);
        Settled::Applied
    }

    fn count(&mut self, hourly: Hourly) {
        for (event, count) in hourly {
            *self.hourly.entry(event).or_default() += count;
        }
    }

    pub(super) fn renew(&mut self, key: LeaseKey, until: i64) -> Settled {
        if self.find_held(key).is_none() {
            return Settled::LeaseLost;
        }
        self.move_in_queue(key.id, until);
        Settled::Applied
    }

    pub(super) fn first_due(&self) -> Option<i64> {
        self.queue.iter().filter_map(|level| level.first()).map(|(due, _)| *due).min()
    }

    /// The first due time among deliveries without a valid lease.
    pub(super) fn oldest_due(&self, now: i64) -> Option<i64> {
        self.first_due().filter(|due| *due <= now)
    }

    pub(super) fn requeue(&mut self, id: DeliveryId, now: i64) {
        if let Some(row) = self.deliveries.get_mut(&id) {
            row.due = now;
            let priority = row.priority;
            self.queue_of(priority).insert((now, id));
        }
    }

    /// Changes a delivery, unless an open transaction has cancelled it.
    pub(super) fn change(&mut self, change: Change, from: Option<State>, id: DeliveryId, now: i64) -> UpdateOutcome {
        let Some(row) = self.deliveries.get_mut(&id) else { return UpdateOutcome::NotFound };
        let state = if self.locked.contains(&id) { State::Leased } else { row.shown_state() };
        if !change.applies_to(state) || from.is_some_and(|from| from != state) {
            return UpdateOutcome::Unchanged(state);
        }
        let event = match change {
            Change::Resend => {
                if row.message.is_none() {
                    return UpdateOutcome::MessageDeleted;
                }
                row.recorded = outcomes_kept_on_resend(row.state, &row.recipients, &row.recorded);
                (row.state, row.reason, row.finished, row.expires) = (State::Pending, None, None, None);
                (row.cycle, row.cycle_started, row.charged_attempts) = (row.cycle + 1, now, 0);
                self.requeue(id, now);
                None
            }
            Change::Cancel => {
                (row.state, row.finished) = (State::Cancelled, Some(now));
                self.remove_from_queue(id);
                Some(CountedEvent::Cancelled)
            }
            Change::Dismiss => {
                (row.state, row.finished) = (State::Dismissed, Some(now));
                Some(CountedEvent::Dismissed)
            }
        };
        if let Some(event) = event {
            self.count([((now.div_euclid(HOUR) * HOUR, event, None), 1)].into());
        }
        UpdateOutcome::Updated
    }

    /// Makes the first deliveries due now that wait for another attempt, and whose last one was not charged.
    pub(super) fn advance_retries(&mut self, limit: usize, now: i64) {
        let waits = |row: &Row| {
            let is_charged = row.attempts.last().is_some_and(|last| last.charged);
            let is_retry = row.attempt_count > 0 && row.cycle_started <= now && !is_charged;
            row.shown_state() == State::Pending && row.due > now && is_retry
        };
        let mut waiting: Vec<_> =
            self.deliveries.iter().filter(|(_, row)| waits(row)).map(|(id, row)| (row.due, *id)).collect();
        waiting.sort_unstable();
        for (_, id) in waiting.into_iter().take(limit) {
            self.move_in_queue(id, now);
        }
    }

    /// Cancels a pending delivery for an open transaction: until it ends, nobody else changes or claims the delivery.
    pub(super) fn lock_to_cancel(&mut self, id: DeliveryId) -> UpdateOutcome {
        match self.deliveries.get(&id).map(Row::shown_state) {
            None => UpdateOutcome::NotFound,
            Some(State::Pending) if self.locked.insert(id) => UpdateOutcome::Updated,
            Some(State::Pending) => UpdateOutcome::Unchanged(State::Leased),
            Some(state) => UpdateOutcome::Unchanged(state),
        }
    }

    pub(super) fn unlock(&mut self, id: DeliveryId) {
        self.locked.remove(&id);
    }

    /// The delivery with a key. `None` if it is in an open transaction or was deleted.
    pub(super) fn find_key(&self, key: &str) -> Option<DeliveryId> {
        self.keys.get(key).copied().flatten().filter(|id| self.deliveries.contains_key(id))
    }

    pub(super) fn record(&mut self, action: Action, delivery: Option<DeliveryId>, context: &AuditContext, now: i64) {
        let number = self.audit.last().map_or(1, |last| last.number + 1);
        let mut entry = AuditEntry::new(number, from_millis(now), context.operator.clone(), action);
        (entry.delivery, entry.target, entry.note) = (delivery, context.target.clone(), context.note.clone());
        self.audit.push(entry);
    }

    pub(super) fn set_pause(&mut self, target: &PauseTarget, paused: bool, context: &AuditContext, now: i64) -> bool {
        // By kind and name, as the databases compare them.
        let is_same = |pause: &Pause| (pause.target.kind(), pause.target.name()) == (target.kind(), target.name());
        let pauses = &mut self.controls.pauses;
        let was_paused = pauses.iter().any(is_same);
        if was_paused == paused {
            return false;
        }
        if paused {
            let target = PauseTarget::from_stored(target.kind(), target.name()).unwrap_or_else(|| target.clone());
            pauses.push(Pause::new(target, from_millis(now), context.operator.clone(), context.note.clone()));
            pauses.sort_by(|one, other| one.target.cmp(&other.target));
        } else {
            pauses.retain(|pause| !is_same(pause));
        }
        let action = if paused { Action::Pause } else { Action::Resume };
        self.record(action, None, &context.clone().target(&target.to_string()), now);
        true
    }

    /// Deletes a delivery. Its key stays taken for this time after the enqueueing.
    pub(super) fn delete(&mut self, id: DeliveryId, keep_key: Option<i64>) {
        let Some(row) = self.deliveries.remove(&id) else { return };
        if let Some(key) = row.key {
            self.kept_keys.push((keep_key.map_or(i64::MIN, |age| row.created.saturating_add(age)), key));
        }
    }

    /// Removes a recipient from a finished delivery.
    pub(super) fn erase(&mut self, id: DeliveryId, recipient: &Recipient) -> UpdateOutcome {
        let Some(row) = self.deliveries.get_mut(&id) else { return UpdateOutcome::NotFound };
        let erasure = Erasure::new(row.recipients.clone(), recipient);
        let Some(erasure) = erasure.filter(|_| row.state != State::Pending) else {
            return UpdateOutcome::Unchanged(row.shown_state());
        };
        for outcome in &mut row.recorded {
            outcome.reply = None;
            if let Some((_, new)) = erasure.replaced.iter().find(|(old, _)| *old == outcome.recipient) {
                outcome.recipient = new.clone();
            }
        }
        row.recipients = erasure.recipients;
        row.message = None;
        (row.summary.subject, row.traceparent) = (None, None);
        row.reason = row.reason.take().map(|_| ERASED.to_owned());
        for attempt in &mut row.attempts {
            (attempt.reply, attempt.note) = (None, None);
            attempt.error = attempt.error.take().map(|_| ERASED.to_owned());
        }
        if key_contains(row.key.as_deref(), recipient)
            && let Some(key) = row.key.take()
        {
            self.keys.remove(&key);
        }
        UpdateOutcome::Updated
    }

    /// Frees the keys of deleted deliveries that were kept long enough.
    pub(super) fn free_keys(&mut self, now: i64) {
        let keys = &mut self.keys;
        self.kept_keys.retain(|(until, key)| {
            let kept = *until >= now;
            if !kept {
                keys.remove(key);
            }
            kept
        });
    }
}

//! The operator methods of the store in memory.

use std::time::{Duration, SystemTime};

use postrider_transport::{DeliveryId, Encoded, Recipient};

use super::rows::Row;
use super::{MemoryStore, MemoryTransaction};
use crate::admin::{HourlyCount, RelayStatus, Stats, UpdateOutcome};
use crate::audit::{Action, AuditContext, AuditEntry, AuditFilter};
use crate::clock::{from_millis, millis, to_millis};
use crate::delivery::{Delivery, DeliverySummary, RecipientStatus};
use crate::filter::Filter;
use crate::operator::Change;
use crate::pause::PauseTarget;
use crate::prune::{Prune, PruneStep, PrunedPart};
use crate::state::{RecipientState, State};
use crate::store::counters::HOUR;
use crate::store::recipients::{common_state, recipient_statuses};
use crate::store::{AdminStore, PROBE_CANDIDATES, RelayId, StoreError};

fn elapsed(now: i64, then: i64) -> Duration {
    Duration::from_millis(u64::try_from(now.saturating_sub(then)).unwrap_or(0))
}

fn due_at(row: &Row) -> Option<std::time::SystemTime> {
    (row.state == State::Pending).then(|| from_millis(row.due))
}

fn last_error(row: &Row) -> Option<String> {
    row.reason.clone().or_else(|| row.attempts.last().and_then(|attempt| attempt.error.clone()))
}

fn matches_recipient(wanted: &str, recipient: &Recipient) -> bool {
    let (wanted, recipient) = (wanted.to_ascii_lowercase(), recipient.as_str().to_ascii_lowercase());
    if wanted.starts_with('@') { recipient.ends_with(&wanted) } else { recipient == wanted }
}

fn matches(filter: &Filter, id: DeliveryId, row: &Row) -> bool {
    fn is<T: PartialEq>(wanted: Option<&T>, value: Option<&T>) -> bool {
        wanted.is_none() || wanted == value
    }
    let within = |from: Option<SystemTime>, before: Option<SystemTime>, time: Option<i64>| {
        let time = time.map(from_millis);
        from.is_none_or(|from| time.is_some_and(|time| time >= from))
            && before.is_none_or(|before| time.is_some_and(|time| time < before))
    };
    let is_recipient = |wanted: &String| row.recipients.iter().any(|recipient| matches_recipient(wanted, recipient));
    let is_transport = |wanted: &String| {
        let last = row.attempts.last().and_then(|attempt| attempt.transport.as_deref());
        last.and_then(|last| last.strip_prefix(wanted.as_str()))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let subject = row.summary.subject.as_deref().unwrap_or_default();
    filter.state.is_none_or(|state| row.shown_state() == state)
        && filter.recipient.as_ref().is_none_or(is_recipient)
        && filter.subject_prefix.as_ref().is_none_or(|prefix| subject.starts_with(prefix.as_str()))
        && is(filter.template_id.as_ref(), row.template_id.as_ref())
        && filter.tag.as_ref().is_none_or(|tag| row.summary.tags.contains(tag))
        && is(filter.key.as_ref(), row.key.as_ref())
        && filter
            .provider_id
            .as_ref()
            .is_none_or(|id| row.attempts.iter().any(|attempt| attempt.provider_id.as_ref() == Some(id)))
        && filter.transport.as_ref().is_none_or(is_transport)
        && filter.error.as_ref().is_none_or(|part| last_error(row).is_some_and(|error| error.contains(part.as_str())))
        && within(filter.created_from, filter.created_before, Some(row.created))
        && within(filter.finished_from, filter.finished_before, row.finished)
        && in_range(filter, id)
}

fn in_range(filter: &Filter, id: DeliveryId) -> bool {
    filter.after.is_none_or(|after| if filter.newest_first { id < after } else { id > after })
        && filter.through.is_none_or(|through| if filter.newest_first { id >= through } else { id <= through })
}

fn summary(filter: &Filter, id: DeliveryId, row: &Row) -> DeliverySummary {
    let state = row.shown_state();
    let statuses = recipient_statuses(state, row.recipients.clone(), &row.recorded, None);
    let found = |status: &&RecipientStatus| {
        filter.recipient.as_ref().is_some_and(|wanted| matches_recipient(wanted, &status.recipient))
    };
    let shown = statuses.iter().find(found).or(statuses.first());
    let failed = statuses.iter().filter(|status| state == State::Sent && status.state != RecipientState::Sent).count();
    DeliverySummary {
        id,
        state,
        template_id: row.template_id.clone(),
        subject: row.summary.subject.clone(),
        recipient: shown.map(|status| status.recipient.clone()),
        recipient_state: shown.map_or(common_state(state), |status| status.state),
        recipients: u32::try_from(row.recipients.len()).unwrap_or(u32::MAX),
        failed_recipients: u32::try_from(failed).unwrap_or(u32::MAX),
        attempts: u32::try_from(row.attempts.len()).unwrap_or(u32::MAX),
        created_at: from_millis(row.created),
        due_at: due_at(row),
        finished_at: row.finished.map(from_millis),
        last_error: last_error(row),
    }
}

impl AdminStore for MemoryStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn get(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        let rows = self.lock();
        Ok(rows.deliveries.get(&id).map(|row| {
            let reply = row.attempts.last().and_then(|attempt| attempt.reply.as_deref());
            Delivery {
                id,
                state: row.shown_state(),
                subject: row.summary.subject.clone(),
                template_id: row.template_id.clone(),
                tags: row.summary.tags.clone(),
                key: row.key.clone(),
                priority: row.priority,
                when_in_doubt: row.when_in_doubt,
                traceparent: row.traceparent,
                created_at: from_millis(row.created),
                due_at: due_at(row),
                finished_at: row.finished.map(from_millis),
                expires_at: row.expires.filter(|_| row.state == State::Pending).map(from_millis),
                cycle: row.cycle,
                reason: row.reason.clone(),
                recipients: recipient_statuses(row.state, row.recipients.clone(), &row.recorded, reply),
                attempts: row.attempts.clone(),
                malformed: None,
            }
        }))
    }

    async fn message(&self, id: DeliveryId) -> Result<Option<Encoded>, StoreError> {
        Ok(self.lock().deliveries.get(&id).and_then(|row| row.message.clone()))
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<DeliverySummary>, StoreError> {
        let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        let rows = self.lock();
        let found = rows
            .deliveries
            .iter()
            .filter(|(id, row)| matches(filter, **id, row))
            .map(|(id, row)| summary(filter, *id, row));
        Ok(if filter.newest_first { found.rev().take(limit).collect() } else { found.take(limit).collect() })
    }

    async fn search_end(&self, filter: &Filter, rows: u32) -> Result<Option<DeliveryId>, StoreError> {
        let Some(skipped) = rows.checked_sub(1).filter(|_| !filter.is_indexed(true)) else { return Ok(None) };
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        let rows = self.lock();
        let is_read = |row: &Row| match filter.state {
            Some(State::Sent) | None => true,
            Some(State::Pending | State::Leased) => matches!(row.shown_state(), State::Pending | State::Leased),
            Some(state) => row.shown_state() == state,
        };
        let mut ids =
            rows.deliveries.iter().filter(|(id, row)| is_read(row) && in_range(filter, **id)).map(|(id, _)| *id);
        Ok(if filter.newest_first { ids.rev().nth(skipped) } else { ids.nth(skipped) })
    }

    async fn count(&self, filter: &Filter) -> Result<u64, StoreError> {
        let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        let rows = self.lock();
        let count = rows.deliveries.iter().filter(|(id, row)| matches(filter, **id, row)).take(limit).count();
        Ok(u64::try_from(count).unwrap_or(u64::MAX))
    }

    async fn change(
        &self,
        change: Change,
        from: Option<State>,
        ids: &[DeliveryId],
        context: Option<&AuditContext>,
    ) -> Result<Vec<UpdateOutcome>, StoreError> {
        let now = self.clock.now_millis();
        let mut rows = self.lock();
        let outcomes: Vec<_> = ids.iter().map(|id| rows.change(change, from, *id, now)).collect();
        if let Some(context) = context {
            let updated = ids.iter().zip(&outcomes).filter(|(_, outcome)| **outcome == UpdateOutcome::Updated);
            updated.for_each(|(id, _)| rows.record(change.action(), Some(*id), context, now));
        }
        drop(rows);
        if change == Change::Resend && outcomes.contains(&UpdateOutcome::Updated) {
            crate::store::notify(&self.notifier);
        }
        Ok(outcomes)
    }

    async fn cancel_in(&self, tx: &mut MemoryTransaction, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        Ok(tx.cancel(id))
    }

    async fn find_key_in(&self, tx: &mut MemoryTransaction, key: &str) -> Result<Option<DeliveryId>, StoreError> {
        Ok(tx.find_key(key))
    }

    async fn set_pause(&self, target: &PauseTarget, paused: bool, context: &AuditContext) -> Result<bool, StoreError> {
        let now = self.clock.now_millis();
        Ok(self.lock().set_pause(target, paused, context, now))
    }

    async fn request_probe(&self, context: &AuditContext) -> Result<(), StoreError> {
        let now = self.clock.now_millis();
        let mut rows = self.lock();
        let last = rows.controls.probe_requested_at;
        let later = last.map(|last| last + Duration::from_millis(1));
        rows.controls.probe_requested_at = Some(from_millis(now)).max(later);
        rows.advance_retries(usize::try_from(PROBE_CANDIDATES).unwrap_or(usize::MAX), now);
        rows.record(Action::Probe, None, context, now);
        Ok(())
    }

    async fn record(&self, action: Action, context: &AuditContext) -> Result<(), StoreError> {
        let now = self.clock.now_millis();
        self.lock().record(action, None, context, now);
        Ok(())
    }

    async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, StoreError> {
        let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        let rows = self.lock();
        let wanted = rows.audit.iter().rev().filter(|entry| {
            filter.before.is_none_or(|before| entry.number < before)
                && filter.delivery.is_none_or(|id| entry.delivery == Some(id))
                && filter.operator.as_ref().is_none_or(|name| entry.operator == *name)
                && filter.action.is_none_or(|action| entry.action == action)
        });
        Ok(wanted.take(limit).cloned().collect())
    }

    async fn hourly(&self, since: SystemTime) -> Result<Vec<HourlyCount>, StoreError> {
        let from = to_millis(since).div_euclid(HOUR) * HOUR;
        let rows = self.lock();
        let counted = rows.hourly.iter().filter(|((hour, _, _), _)| *hour >= from);
        Ok(counted
            .map(|((hour, event, transport), count)| {
                HourlyCount::new(from_millis(*hour), *event, transport.clone(), u64::try_from(*count).unwrap_or(0))
            })
            .collect())
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let now = self.clock.now_millis();
        let rows = self.lock();
        let mut stats = Stats { oldest_due: rows.oldest_due(now).map(|due| elapsed(now, due)), ..Stats::default() };
        let (mut due, mut scheduled) = (0, 0);
        for row in rows.deliveries.values() {
            *stats.count_mut(row.shown_state()) += 1;
            let waiting =
                (row.state == State::Pending && row.cycle_started <= now).then(|| elapsed(now, row.cycle_started));
            stats.oldest_waiting = stats.oldest_waiting.max(waiting);
            stats.oldest_undeferred = stats.oldest_undeferred.max(waiting.filter(|_| !row.is_deferred()));
            if row.shown_state() == State::Pending {
                due += u64::from(row.due <= now);
                scheduled += u64::from(row.cycle_started > now);
            }
        }
        stats.set_pending_parts(due, scheduled);
        stats.relays = rows
            .relays
            .values()
            .map(|(seen, report)| {
                let in_flight = u64::try_from(report.in_flight).unwrap_or(u64::MAX);
                let (id, seen_ago) = (report.id.to_string(), elapsed(now, *seen));
                let host = report.host.clone();
                let paused_for = report.paused_for.map(|lasted| lasted.saturating_add(seen_ago));
                RelayStatus { host, paused_for, ..RelayStatus::new(id, seen_ago, in_flight, report.paused.clone()) }
            })
            .collect();
        stats.relays.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(stats)
    }

    async fn prune_step(
        &self,
        prune: &Prune,
        _after: Option<DeliveryId>,
        _limit: u32,
    ) -> Result<PruneStep, StoreError> {
        let now = self.clock.now_millis();
        let before = now.saturating_sub(millis(prune.older_than));
        let mut rows = self.lock();
        let is_old =
            |row: &Row| prune.states.contains(&row.state) && row.finished.is_some_and(|finished| finished < before);
        let has_part = |row: &Row| match prune.part {
            PrunedPart::Messages => row.message.is_some(),
            PrunedPart::History => row.attempts.len() > 1,
            PrunedPart::Deliveries => true,
        };
        let found =
            rows.deliveries.iter().filter(|(_, row)| row.state != State::Pending && is_old(row) && has_part(row));
        let found: Vec<DeliveryId> = found.map(|(id, _)| *id).collect();
        for id in &found {
            match (prune.part, rows.deliveries.get_mut(id)) {
                (PrunedPart::Messages, Some(row)) => row.message = None,
                // The last attempt stays, as in the other stores: a resend continues its number.
                (PrunedPart::History, Some(row)) => drop(row.attempts.drain(..row.attempts.len() - 1)),
                _ => rows.delete(*id, prune.keep_keys.map(millis)),
            }
        }
        if prune.part == PrunedPart::Deliveries {
            rows.free_keys(now);
        }
        Ok(PruneStep::new(u64::try_from(found.len()).unwrap_or(u64::MAX), None))
    }

    /// Does nothing: messages share their blobs in memory, and the last one frees them.
    async fn sweep_blobs(&self, _limit: u32) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn erase(&self, id: DeliveryId, recipient: &Recipient) -> Result<UpdateOutcome, StoreError> {
        Ok(self.lock().erase(id, recipient))
    }

    async fn lead(&self, task: &str, relay: RelayId, term: Duration) -> Result<bool, StoreError> {
        let now = self.clock.now_millis();
        let mut rows = self.lock();
        let leader = rows.leaders.entry(task.to_owned()).or_insert((relay, now));
        let leads = leader.0 == relay || leader.1 <= now;
        if leads {
            *leader = (relay, now.saturating_add(millis(term)));
        }
        Ok(leads)
    }
}

//! The operator methods of the store in memory.

use std::time::Duration;

use postrider_transport::{DeliveryId, Encoded};

use super::MemoryStore;
use super::rows::Row;
use crate::admin::{Filter, Prune, RelayStatus, Stats, UpdateOutcome};
use crate::clock::{from_millis, millis};
use crate::delivery::{Delivery, DeliverySummary};
use crate::state::State;
use crate::store::recipients::{outcomes_kept_on_resend, recipient_statuses};
use crate::store::{AdminStore, StoreError};

fn elapsed(now: i64, then: i64) -> Duration {
    Duration::from_millis(u64::try_from(now.saturating_sub(then)).unwrap_or(0))
}

fn due_at(row: &Row) -> Option<std::time::SystemTime> {
    (row.state == State::Pending).then(|| from_millis(row.due))
}

fn summary(id: DeliveryId, row: &Row) -> DeliverySummary {
    DeliverySummary {
        id,
        state: row.shown_state(),
        template_id: row.template_id.clone(),
        attempts: u32::try_from(row.attempts.len()).unwrap_or(u32::MAX),
        created_at: from_millis(row.created),
        due_at: due_at(row),
        last_error: row.reason.clone().or_else(|| row.attempts.last().and_then(|attempt| attempt.error.clone())),
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
                template_id: row.template_id.clone(),
                key: row.key.clone(),
                priority: row.priority,
                when_in_doubt: row.when_in_doubt,
                created_at: from_millis(row.created),
                due_at: due_at(row),
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
        Ok(self.lock().deliveries.get(&id).map(|row| row.message.clone()))
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<DeliverySummary>, StoreError> {
        let matches = |(id, row): &(&DeliveryId, &Row)| {
            filter.state.is_none_or(|state| row.shown_state() == state)
                && filter.template_id.as_ref().is_none_or(|template| row.template_id.as_ref() == Some(template))
                && filter.after.is_none_or(|after| **id > after)
        };
        let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        let rows = self.lock();
        Ok(rows.deliveries.iter().filter(matches).take(limit).map(|(id, row)| summary(*id, row)).collect())
    }

    async fn resend(&self, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        let now = self.clock.now_millis();
        let mut rows = self.lock();
        let Some(row) = rows.deliveries.get_mut(&id) else {
            return Ok(UpdateOutcome::NotFound);
        };
        if row.state == State::Pending {
            return Ok(UpdateOutcome::Unchanged(row.shown_state()));
        }
        row.recorded = outcomes_kept_on_resend(row.state, &row.recipients, &row.recorded);
        row.state = State::Pending;
        row.reason = None;
        row.expires = None;
        row.cycle += 1;
        row.cycle_started = now;
        row.charged_attempts = 0;
        rows.requeue(id, now);
        drop(rows);
        crate::store::notify(&self.notifier);
        Ok(UpdateOutcome::Updated)
    }

    async fn cancel(&self, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        let mut rows = self.lock();
        match rows.deliveries.get(&id).map(Row::shown_state) {
            None => Ok(UpdateOutcome::NotFound),
            Some(State::Pending) => {
                rows.cancel(id);
                Ok(UpdateOutcome::Updated)
            }
            Some(state) => Ok(UpdateOutcome::Unchanged(state)),
        }
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let now = self.clock.now_millis();
        let rows = self.lock();
        let mut stats = Stats { oldest_due: rows.oldest_due(now).map(|due| elapsed(now, due)), ..Stats::default() };
        for row in rows.deliveries.values() {
            *stats.count_mut(row.shown_state()) += 1;
        }
        stats.relays = rows
            .relays
            .values()
            .map(|(seen, report)| {
                let in_flight = u64::try_from(report.in_flight).unwrap_or(u64::MAX);
                RelayStatus::new(report.id.to_string(), elapsed(now, *seen), in_flight, report.paused.clone())
            })
            .collect();
        stats.relays.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(stats)
    }

    async fn prune(&self, prune: &Prune) -> Result<u64, StoreError> {
        let before = self.clock.now_millis().saturating_sub(millis(prune.older_than));
        let mut rows = self.lock();
        let old: Vec<DeliveryId> = rows
            .deliveries
            .iter()
            .filter(|(_, row)| row.state != State::Pending && row.created < before && prune.states.contains(&row.state))
            .filter(|(_, row)| !prune.history_only || row.attempts.len() > 1)
            .map(|(id, _)| *id)
            .collect();
        for id in &old {
            match rows.deliveries.get_mut(id) {
                // The last attempt stays, as in the other stores: a resend continues its number.
                Some(row) if prune.history_only => drop(row.attempts.drain(..row.attempts.len() - 1)),
                _ => rows.delete(*id),
            }
        }
        Ok(u64::try_from(old.len()).unwrap_or(u64::MAX))
    }
}

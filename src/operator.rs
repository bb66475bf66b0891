//! What operators do to deliveries and relays. Each action is recorded with a name.

use std::time::{Duration, Instant};

use postrider_transport::{DeliveryId, Recipient};

use crate::Outbox;
use crate::admin::{Erased, SEARCH_PART, UpdateOutcome, erase, search};
use crate::audit::{Action, AuditContext, AuditEntry, AuditFilter};
use crate::delivery::DeliverySummary;
use crate::filter::Filter;
use crate::pause::{Controls, PauseTarget};
use crate::prune::Prune;
use crate::state::State;
use crate::store::{AdminStore, StoreError, StoreErrorKind};

/// A change of a delivery. The enum is exhaustive, since a store must make each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// Makes a finished delivery pending again, with a fresh budget and no expiry.
    Resend,
    /// Cancels a pending delivery.
    Cancel,
    /// Closes a dead or held delivery without sending it.
    Dismiss,
}

impl Change {
    /// All changes.
    #[cfg(feature = "dashboard")]
    pub(crate) const ALL: [Self; 3] = [Self::Resend, Self::Cancel, Self::Dismiss];

    /// Whether it changes deliveries in this state.
    pub fn applies_to(self, state: State) -> bool {
        match self {
            Self::Resend => state.is_finished(),
            Self::Cancel => state == State::Pending,
            Self::Dismiss => matches!(state, State::Dead | State::InDoubt),
        }
    }

    /// The name of the change in the audit trail.
    pub fn action(self) -> Action {
        match self {
            Self::Resend => Action::Resend,
            Self::Cancel => Action::Cancel,
            Self::Dismiss => Action::Dismiss,
        }
    }
}

/// What one step of a bulk change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ChangeStep {
    /// The number of deliveries that were changed.
    pub updated: u64,
    /// The number of deliveries that were found and could not be changed: their message was deleted, or a relay or another operator was
    /// faster.
    pub unchanged: u64,
    /// The last delivery that was looked at: pass it to [`Filter::after`] for the next step. `None` when there are no more.
    pub last: Option<DeliveryId>,
}

/// Changes the outbox as an operator. The [audit trail](Outbox::audit) records each action with the operator's name.
///
/// ```
/// # async fn demo<S: postrider::AdminStore>(outbox: postrider::Outbox<S>) -> Result<(), postrider::StoreError> {
/// use postrider::{Change, Filter, PauseTarget, State};
///
/// let ada = outbox.operator("ada").note("the provider had blocked our domain");
/// let blocked = Filter::new().state(State::Dead).error("domain blocked");
/// println!("{} mails would be sent again", outbox.count(&blocked.clone().limit(u32::MAX)).await?);
/// let done = ada.change_all(Change::Resend, &blocked).await?;
/// println!("{} mails are sent again", done.updated);
///
/// ada.pause(PauseTarget::Template("newsletter".to_owned())).await?;
/// # Ok(()) }
/// ```
///
/// The methods of [`Outbox`] with the same names record nothing. They are for the application's own use.
#[derive(Debug, Clone)]
#[must_use = "an operator does nothing by itself"]
pub struct Operator<S> {
    store: S,
    context: AuditContext,
}

/// What operators do, and what they did.
impl<S: AdminStore, T> Outbox<S, T> {
    /// Returns the operator with this name, of at most 255 characters. The caller must check who it is.
    pub fn operator(&self, name: impl AsRef<str>) -> Operator<S> {
        Operator { store: self.store().clone(), context: AuditContext::by(name.as_ref()) }
    }

    /// Returns the actions of operators, the newest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, StoreError> {
        self.store().audit(filter).await
    }

    /// Returns what operators have paused, and when they last asked for a probe.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn controls(&self) -> Result<Controls, StoreError> {
        self.store().controls().await
    }

    /// Closes a dead or held delivery without sending it. Its state is then [`Dismissed`](State::Dismissed).
    ///
    /// # Errors
    /// If the database fails.
    ///
    /// # Cancel safety
    /// If the future is dropped, the call may have been carried out or not.
    pub async fn dismiss(&self, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        self.store().dismiss(id).await
    }

    /// Sends a dead, held, sent, cancelled or dismissed delivery again, with a fresh budget and no expiry.
    ///
    /// Recipients who have the mail are skipped. If all have it, it is sent to all again. Attempt numbers continue.
    ///
    /// # Errors
    /// If the database fails.
    ///
    /// # Cancel safety
    /// If the future is dropped, the call may have been carried out or not.
    pub async fn resend(&self, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        self.store().resend(id).await
    }

    /// Cancels a pending delivery. A leased one is not changed, because a relay may be sending it.
    ///
    /// # Errors
    /// If the database fails.
    ///
    /// # Cancel safety
    /// If the future is dropped, the call may have been carried out or not.
    pub async fn cancel(&self, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        self.store().cancel(id).await
    }

    /// Cancels a pending delivery in the caller's transaction: it is cancelled if and only if that transaction commits.
    ///
    /// Until then no relay sends it. If a relay is sending it already, the result is [`UpdateOutcome::Unchanged`] with
    /// [`State::Leased`], and the mail goes out.
    ///
    /// ```no_run
    /// # async fn demo(outbox: postrider::Outbox<postrider::SqliteStore>, order: i64) -> Result<(), Box<dyn std::error::Error>> {
    /// // The order is paid, so drop the reminder.
    /// let mut tx = outbox.store().pool().begin().await?;
    /// sqlx::query("UPDATE orders SET paid = TRUE WHERE id = ?").bind(order).execute(&mut *tx).await?;
    /// let _ = outbox.cancel_key_in(&mut tx, &format!("reminder-{order}")).await?;
    /// tx.commit().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If the database fails. Roll the transaction back.
    ///
    /// # Cancel safety
    /// If the future is dropped, roll the transaction back.
    pub async fn cancel_in(&self, connection: &mut S::Connection, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        self.store().cancel_in(connection, id).await
    }

    /// As [`cancel_in`](Self::cancel_in), for the delivery with this idempotency key. It also finds a delivery that the same transaction
    /// enqueued.
    ///
    /// # Errors
    /// As [`cancel_in`](Self::cancel_in).
    ///
    /// # Cancel safety
    /// If the future is dropped, roll the transaction back.
    pub async fn cancel_key_in(&self, connection: &mut S::Connection, key: &str) -> Result<UpdateOutcome, StoreError> {
        match self.store().find_key_in(connection, key).await? {
            Some(id) => self.store().cancel_in(connection, id).await,
            None => Ok(UpdateOutcome::NotFound),
        }
    }
}

impl<S: AdminStore> Operator<S> {
    /// The number of deliveries in one transaction of a bulk change.
    pub const STEP: u32 = 500;

    /// The number of recipients in one transaction of a bulk change, unless it changes a single delivery. A resend may write a row for each.
    const STEP_RECIPIENTS: u64 = 20_000;

    /// How long one step of a bulk change searches.
    const SEARCH: Duration = Duration::from_secs(1);

    /// Sets why, at most 1,000 characters, for the actions that follow.
    pub fn note(mut self, text: impl AsRef<str>) -> Self {
        self.context = self.context.note(text.as_ref());
        self
    }

    /// Changes one delivery.
    ///
    /// # Errors
    /// If the database fails.
    ///
    /// # Cancel safety
    /// If the future is dropped, the call may have been carried out or not.
    pub async fn change(&self, change: Change, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        let outcomes = self.store.change(change, None, &[id], Some(&self.context)).await?;
        Ok(outcomes.first().copied().unwrap_or(UpdateOutcome::NotFound))
    }

    /// Changes one delivery if it is still in the state that the operator has seen.
    ///
    /// # Errors
    /// If the database fails.
    ///
    /// # Cancel safety
    /// If the future is dropped, the call may have been carried out or not.
    pub async fn change_from(&self, change: Change, seen: State, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        let outcomes = self.store.change(change, Some(seen), &[id], Some(&self.context)).await?;
        Ok(outcomes.first().copied().unwrap_or(UpdateOutcome::NotFound))
    }

    /// Changes all deliveries that a filter finds, in transactions of at most 500 each, and returns what was done. [`Filter::limit`] is
    /// ignored. To preview the change, [list](Outbox::list) and [count](Outbox::count) with the same filter; a count stops at the limit.
    ///
    /// After each transaction it rests for as long as the transaction took, to leave the database to the relays.
    ///
    /// The filter must name a [state](Filter::state) that the change applies to.
    ///
    /// # Errors
    /// If the filter names no state, or one that the change does not apply to: the kind is [`StoreErrorKind::Rejected`], and nothing was
    /// changed. If the database fails: the deliveries of earlier transactions stay changed. To show progress, or to go on after an error,
    /// call [`change_step`](Self::change_step) in a loop.
    ///
    /// # Cancel safety
    /// If the future is dropped, the deliveries of earlier transactions stay changed.
    pub async fn change_all(&self, change: Change, filter: &Filter) -> Result<ChangeStep, StoreError> {
        let mut filter = filter.clone().limit(Self::STEP);
        let mut all = ChangeStep::default();
        loop {
            let start = Instant::now();
            let step = self.change_step(change, &filter).await?;
            all.updated += step.updated;
            all.unchanged += step.unchanged;
            match step.last {
                Some(last) => filter = filter.after(last),
                None => return Ok(all),
            }
            tokio::time::sleep(start.elapsed()).await;
        }
    }

    /// Changes the first deliveries that a filter finds, as many as its [limit](Filter::limit), and at most 500, in one transaction, if
    /// they are still in the filter's state. If they have more than 20,000 recipients, it leaves some of them to the next step. A filter that
    /// finds few among very many is searched for about a second, so a step may change none and still not be the last one.
    ///
    /// # Errors
    /// As [`change_all`](Self::change_all). After an error of the database, call it again with the same filter.
    ///
    /// # Cancel safety
    /// If the future is dropped, the step may have been made or not. Call it again with the same filter.
    pub async fn change_step(&self, change: Change, filter: &Filter) -> Result<ChangeStep, StoreError> {
        let limit = filter.limit.clamp(1, Self::STEP);
        if !filter.state.is_some_and(|state| change.applies_to(state)) {
            let text = format!("a bulk {} needs a filter with a state that it applies to", change.action());
            return Err(StoreError::new(StoreErrorKind::Rejected, text));
        }
        let page = search(&self.store, &filter.clone().limit(limit), Self::SEARCH, SEARCH_PART).await?;
        let mut recipients = 0;
        let fits = |found: &&DeliverySummary| {
            let is_first = recipients == 0;
            recipients += u64::from(found.recipients.max(1));
            is_first || recipients <= Self::STEP_RECIPIENTS
        };
        let ids: Vec<DeliveryId> = page.deliveries.iter().take_while(fits).map(|found| found.id).collect();
        let context = self.context.clone().target(&filter.describe());
        let outcomes = if ids.is_empty() {
            Vec::new()
        } else {
            self.store.change(change, filter.state, &ids, Some(&context)).await?
        };
        let updated = outcomes.iter().filter(|outcome| **outcome == UpdateOutcome::Updated).count();
        let last = if ids.len() < page.deliveries.len() { ids.last().copied() } else { page.next };
        Ok(ChangeStep { updated: updated as u64, unchanged: (outcomes.len() - updated) as u64, last })
    }

    /// Pauses mail. Every relay obeys within two seconds, and finishes what it is sending. Returns `false` if it was paused already.
    ///
    /// A pause is stored even if no mail has this transport, sender or template. Of a sender such as `Shop <shop@example.com>` the address
    /// counts.
    ///
    /// Paused mail stays pending, and no attempt is charged. It still counts as waiting in [`Stats`](crate::Stats), and it still expires:
    /// at its own time, or when it is older than the relay's [`RetryPolicy`](crate::RetryPolicy) allows.
    ///
    /// # Errors
    /// [`Rejected`](StoreErrorKind::Rejected) if the name is empty or has more than 700 characters, or if a sender is neither an address nor
    /// a domain with an `@` before it. Otherwise if the database fails.
    ///
    /// # Cancel safety
    /// If the future is dropped, the call may have been carried out or not.
    pub async fn pause(&self, target: PauseTarget) -> Result<bool, StoreError> {
        let name = target.name();
        let is_valid = target == PauseTarget::Outbox || (!name.is_empty() && !name.contains('\0'));
        if !is_valid || name.chars().count() > PauseTarget::MAX_NAME {
            let text = "the name of what to pause must have 1 to 700 characters";
            return Err(StoreError::new(StoreErrorKind::Rejected, text));
        }
        let Some(target) = target.normalized() else {
            let text = "a sender is an address, or a domain with an at sign before it";
            return Err(StoreError::new(StoreErrorKind::Rejected, text));
        };
        self.store.set_pause(&target, true, &self.context).await
    }

    /// Ends a pause by an operator. Every relay obeys within two seconds. Mail of a sender or a template that relays put off meanwhile
    /// follows within a minute. Returns `false` if it was not paused.
    ///
    /// # Errors
    /// If the database fails.
    ///
    /// # Cancel safety
    /// If the future is dropped, the call may have been carried out or not.
    pub async fn resume(&self, target: PauseTarget) -> Result<bool, StoreError> {
        let target = target.clone().normalized().unwrap_or(target);
        self.store.set_pause(&target, false, &self.context).await
    }

    /// Asks every relay to probe its transport at once if it is paused after failures. It does not end a pause by an operator, and mail of a
    /// sender that the next hop refuses waits for the end of that sender's pause.
    ///
    /// So that there is something to probe with, up to 32 mails become due that wait for another attempt and whose last one was not charged.
    ///
    /// # Errors
    /// If the database fails.
    ///
    /// # Cancel safety
    /// If the future is dropped, the call may have been carried out or not.
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.store.request_probe(&self.context).await
    }

    /// As [`Outbox::erase`], with two records that do not name the address: one before it, and one with the number of deliveries after it.
    ///
    /// # Errors
    /// As [`Outbox::erase`].
    ///
    /// # Cancel safety
    /// As [`Outbox::erase`]. If the future is dropped, the audit trail may have the first record alone.
    pub async fn erase(&self, recipient: &Recipient) -> Result<Erased, StoreError> {
        self.store.record(Action::Erase, &self.context.clone().target("started")).await?;
        let erased = erase(&self.store, recipient).await?;
        let context = self.context.clone().target(&format!("{} deliveries", erased.deliveries));
        self.store.record(Action::Erase, &context).await?;
        Ok(erased)
    }

    /// As [`Outbox::prune`], with two records: one before it, and one with the number of deliveries after it.
    ///
    /// # Errors
    /// As [`Outbox::prune`].
    ///
    /// # Cancel safety
    /// As [`Outbox::prune`]. If the future is dropped, the audit trail may have the first record alone.
    pub async fn prune(&self, prune: &Prune) -> Result<u64, StoreError> {
        self.store.record(Action::Prune, &self.context.clone().target(&format!("started, {prune:?}"))).await?;
        let affected = self.store.prune(prune).await?;
        let context = self.context.clone().target(&format!("{affected} deliveries, {prune:?}"));
        self.store.record(Action::Prune, &context).await?;
        Ok(affected)
    }
}

#[cfg(test)]
mod tests {
    use postrider_transport::Encoded;

    use super::*;
    use crate::MemoryStore;
    use crate::store::{NewRow, Store};

    #[tokio::test]
    async fn a_step_ends_before_it_has_too_many_recipients() {
        let store = MemoryStore::new();
        let row = |recipients: u32| {
            let to = (0..recipients).map(|n| Recipient::new(format!("{n}@example.com"))).collect();
            NewRow::new(DeliveryId::new(), Encoded::new("test/1", "{}"), to)
        };
        let ids = store.insert([9_000, 11_000, 1, 20_001, 1].map(row).into()).await.unwrap();
        let outbox: Outbox<_> = Outbox::enqueue_only(store);
        let (ada, mut filter) = (outbox.operator("ada"), Filter::new().state(State::Pending));
        for (updated, last) in [(2, Some(ids[1])), (1, Some(ids[2])), (1, Some(ids[3])), (1, None)] {
            let step = ada.change_step(Change::Cancel, &filter).await.unwrap();
            assert_eq!(step, ChangeStep { updated, unchanged: 0, last });
            filter.after = step.last;
        }
        let all = ada.change_all(Change::Resend, &Filter::new().state(State::Cancelled)).await.unwrap();
        assert_eq!((all.updated, all.unchanged), (5, 0));
    }
}

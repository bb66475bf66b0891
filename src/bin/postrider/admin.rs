//! The commands `resend` and `cancel`.

use postrider::{AdminStore, DeliveryId, UpdateOutcome};

use crate::error::CliError;
use crate::output::Output;

pub(crate) async fn resend<S: AdminStore>(ids: &[DeliveryId], store: &S, out: &mut Output) -> Result<(), CliError> {
    let mut report = Report { updated: "pending again", unchanged_count: 0 };
    for id in ids {
        let outcome = store.resend(*id).await?;
        report.print(*id, outcome, out)?;
    }
    report.finish(ids.len(), out)
}

pub(crate) async fn cancel<S: AdminStore>(ids: &[DeliveryId], store: &S, out: &mut Output) -> Result<(), CliError> {
    let mut report = Report { updated: "cancelled", unchanged_count: 0 };
    for id in ids {
        let outcome = store.cancel(*id).await?;
        report.print(*id, outcome, out)?;
    }
    report.finish(ids.len(), out)
}

struct Report {
    /// The word to print for an updated delivery.
    updated: &'static str,
    /// The deliveries that were not updated.
    unchanged_count: usize,
}

impl Report {
    fn print(&mut self, id: DeliveryId, outcome: UpdateOutcome, out: &mut Output) -> Result<(), CliError> {
        self.unchanged_count += usize::from(outcome != UpdateOutcome::Updated);
        match outcome {
            UpdateOutcome::Updated => out.line(format_args!("{id} {}", self.updated)),
            UpdateOutcome::Unchanged(state) => out.line(format_args!("{id} unchanged: {state}")),
            UpdateOutcome::MessageDeleted => out.line(format_args!("{id} unchanged: its message is deleted")),
            UpdateOutcome::NotFound => out.line(format_args!("{id} not found")),
        }
    }

    fn finish(&self, total: usize, out: &mut Output) -> Result<(), CliError> {
        out.flush()?;
        match self.unchanged_count {
            0 => Ok(()),
            count => Err(CliError::runtime(format!("{count} of {total} deliveries not found or unchanged"))),
        }
    }
}

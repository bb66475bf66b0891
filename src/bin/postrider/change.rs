//! Resending and cancelling.

use postrider::{AdminStore, DeliveryId, UpdateOutcome};

use crate::fail::Fail;
use crate::output::Out;

pub(crate) async fn resend<S: AdminStore>(ids: &[DeliveryId], store: &S, out: &mut Out) -> Result<(), Fail> {
    let mut tally = Tally { word: "pending again", left: 0 };
    for id in ids {
        let changed = store.resend(*id).await?;
        tally.tell(*id, changed, out)?;
    }
    tally.end(ids.len(), out)
}

pub(crate) async fn cancel<S: AdminStore>(ids: &[DeliveryId], store: &S, out: &mut Out) -> Result<(), Fail> {
    let mut tally = Tally { word: "cancelled", left: 0 };
    for id in ids {
        let changed = store.cancel(*id).await?;
        tally.tell(*id, changed, out)?;
    }
    tally.end(ids.len(), out)
}

struct Tally {
    word: &'static str,
    left: usize,
}

impl Tally {
    fn tell(&mut self, id: DeliveryId, changed: UpdateOutcome, out: &mut Out) -> Result<(), Fail> {
        self.left += usize::from(changed != UpdateOutcome::Updated);
        match changed {
            UpdateOutcome::Updated => out.line(format_args!("{id} {}", self.word)),
            UpdateOutcome::Unchanged(state) => out.line(format_args!("{id} left as it was: {state}")),
            UpdateOutcome::NotFound => out.line(format_args!("{id} not found")),
        }
    }

    fn end(&self, of: usize, out: &mut Out) -> Result<(), Fail> {
        out.finish()?;
        match self.left {
            0 => Ok(()),
            left => Err(Fail::runtime(format!("{left} of {of} not found or left as they were"))),
        }
    }
}

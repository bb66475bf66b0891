//! The commands `prune` and `erase`.

use postrider::transport::Recipient;
use postrider::{AdminStore, Prune, PrunedPart, State};

use crate::admin::operator;
use crate::args::{ByArgs, KeepArgs, PruneArgs};
use crate::error::CliError;
use crate::output::Output;

pub(crate) async fn prune<S: AdminStore>(args: &PruneArgs, store: &S, out: &mut Output) -> Result<(), CliError> {
    let (prune, what) = match args.part {
        PrunedPart::Messages => (Prune::messages(args.older_than), "the messages of "),
        PrunedPart::History => (Prune::history(args.older_than), "the history of "),
        PrunedPart::Deliveries => (Prune::deliveries(args.older_than), ""),
    };
    let mut prune = args.states.iter().fold(prune, |prune, state| prune.state(*state));
    prune.keep_keys = args.keep_keys;
    let pruned = operator(&args.by, store).prune(&prune).await?;
    out.line(format_args!("deleted {what}{}", deliveries(pruned)))
}

fn deliveries(count: u64) -> String {
    if count == 1 { "1 delivery".to_owned() } else { format!("{count} deliveries") }
}

pub(crate) async fn erase<S: AdminStore>(
    recipient: &Recipient,
    by: &ByArgs,
    store: &S,
    out: &mut Output,
) -> Result<(), CliError> {
    let erased = operator(by, store).erase(recipient).await?;
    out.line(format_args!("erased from {}", deliveries(erased.deliveries)))?;
    out.flush()?;
    match erased.unfinished {
        0 => Ok(()),
        count => Err(CliError::runtime(format!(
            "not finished, and left as they are: {}; cancel them, or erase again when they are finished",
            deliveries(count)
        ))),
    }
}

/// What a relay deletes while it works. Dead and held deliveries stay until somebody has looked at them.
pub(crate) fn retention(keep: &KeepArgs) -> Vec<Prune> {
    let deletions = [
        keep.keep_messages.map(Prune::messages),
        keep.keep_history.map(Prune::history),
        keep.keep_deliveries.map(Prune::deliveries),
    ];
    let over = |mut prune: Prune| {
        prune.keep_keys = keep.keep_keys;
        prune.state(State::Sent).state(State::Cancelled)
    };
    deletions.into_iter().flatten().map(over).collect()
}

//! Relays of two releases over one database while the newer one upgrades it. Invariants 2, 3, 4, 7.
//!
//! The older release is the tool that `POSTRIDER_OLD_TOOL` names (`scripts/upgrade` builds it), or else the same release.

use std::path::PathBuf;

use crate::Run;
use crate::database::Database;
use crate::harness::Harness;
use crate::kill::kill;
use crate::tool::Running;

/// Relays of each release.
const RELAYS: usize = 2;

pub(crate) fn test(run: &Run, database: Database) {
    let rounds = run.count(2, 20);
    let old = std::env::var_os("POSTRIDER_OLD_TOOL").map(PathBuf::from);
    run.print(format_args!("the older release: {}", if old.is_some() { "another tool" } else { "the same" }));
    let mut random = run.random();
    let new = database.tool.binary().to_owned();
    let old = old.unwrap_or_else(|| new.clone());
    let mut harness = Harness::slow(Database::of_release(database.kind, Some(&old)));

    let mut old_relays: Vec<_> = (0..RELAYS).map(|_| harness.relay("2s")).collect();
    harness.wait_amid_work(&mut random);
    harness.database.tool.use_binary(&new);
    let upgrades: Vec<_> = (0..2).map(|_| harness.database.tool.start(&["migrate"])).collect();
    for upgrade in upgrades.into_iter().map(Running::wait) {
        assert_eq!(upgrade.code, 0, "{}", upgrade.stderr);
    }
    let mut new_relays: Vec<_> = (0..RELAYS).map(|_| harness.relay("2s")).collect();
    let mut killed = 0;
    for round in 0..rounds {
        // Each release enqueues what the other may send, and takes over what the other left.
        let (relays, other) = if round % 2 == 0 { (&mut old_relays, &old) } else { (&mut new_relays, &new) };
        harness.database.tool.use_binary(other);
        harness.enqueue(50);
        harness.wait_amid_work(&mut random);
        killed += harness.database.held().len();
        kill(relays.remove(0));
        relays.push(harness.relay("2s"));
    }
    harness.database.tool.use_binary(&new);
    old_relays.extend(new_relays);
    harness.finish(old_relays);

    let report = harness.report();
    run.print(&report);
    assert_eq!(report.missing, 0, "mail is lost");
    assert!(
        report.duplicates <= report.lost.len() && report.lost.len() <= killed,
        "more mails arrived twice than were in flight"
    );
}

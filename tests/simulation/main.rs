//! Relays in small worlds that are drawn from a seed, on paused time: a next hop with outages, quotas, refused senders and poison mails,
//! which says the truth about them or does not; a store that fails, is late, or does what it was given up for; relays that are stopped,
//! killed and started. An oracle that knows the truth then looks at what became of each mail (`oracle.rs` lists its questions).
//!
//! `cargo test --features testkit --test simulation` runs 1,000 seeds. `POSTRIDER_SEED=7` replays one and tells its story,
//! `POSTRIDER_SOAK=20000` runs so many.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a replay tells its story")]

mod bounds;
mod cases;
mod dice;
mod fleet;
mod letter;
mod next_hop;
mod oracle;
mod plan;
mod store;

use std::sync::atomic::{AtomicU64, Ordering};

use fleet::run;
use plan::Plan;

const SEEDS: u64 = 1_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// The mails of a world that did not fare as the oracle says, in words.
fn faults_of(seed: u64, tell: bool) -> Vec<String> {
    let plan = Plan::draw(seed);
    if tell {
        println!("{plan:#?}");
    }
    let ended = run(plan);
    if tell {
        ended.story().iter().for_each(|line| println!("{line}"));
    }
    oracle::judge(&ended)
}

#[test]
fn no_mail_suffers_for_a_condition_that_is_not_its_own() {
    if let Some(seed) = number("POSTRIDER_SEED") {
        let faults = faults_of(seed, true);
        assert!(faults.is_empty(), "seed {seed}:\n{}", faults.join("\n"));
        return;
    }
    let seeds = number("POSTRIDER_SOAK").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let work = || {
        let drawn = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::SeqCst)).filter(|seed| *seed < seeds));
        drawn.map(|seed| (seed, faults_of(seed, false))).filter(|(_, faults)| !faults.is_empty()).collect::<Vec<_>>()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut bad: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    bad.sort_unstable();
    let told = bad.iter().take(20).map(|(seed, faults)| format!("POSTRIDER_SEED={seed}: {}", faults.join("\n    ")));
    let told: Vec<_> = told.collect();
    assert!(bad.is_empty(), "{} of {seeds} worlds went wrong; to replay one:\n{}", bad.len(), told.join("\n"));
}

#[test]
fn a_seed_replays_itself() {
    for seed in 0..20 {
        let (first, second) = (run(Plan::draw(seed)).story(), run(Plan::draw(seed)).story());
        let differs = first.iter().zip(&second).position(|(one, other)| one != other);
        assert_eq!(
            (differs, first.len()),
            (None, second.len()),
            "seed {seed}: {:?}",
            differs.map(|line| (&first[line], &second[line]))
        );
    }
}

//! Simulation: relays in small worlds that are drawn from a seed, on paused time.
//!
//! The next hop has outages, quotas, refused senders and poison mails, and its replies name their cause rightly or wrongly. The store fails,
//! is slow, or executes dropped calls. Relays are stopped, killed and started. An oracle that knows the true conditions checks
//! each mail at the end (`oracle.rs` lists the checks).
//!
//! `cargo test --test simulation` runs 200 seeds, and `scripts/test` 1,000: `POSTRIDER_WORLDS` is their number. `POSTRIDER_SEED=7` replays
//! one seed and prints its log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a replay prints its log")]

mod bounds;
mod cases;
mod faulty_store;
mod fleet;
mod message;
mod next_hop;
mod oracle;
mod plan;
mod random;

use std::sync::atomic::{AtomicU64, Ordering};

use fleet::run;
use plan::Plan;

/// The number of worlds unless `POSTRIDER_WORLDS` sets it.
const WORLDS: u64 = 200;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// Runs a world, and returns what the oracle finds wrong. Prints the plan and the log if `print` is set.
fn run_seed(seed: u64, print: bool) -> Vec<String> {
    let plan = Plan::draw(seed);
    if print {
        println!("{plan:#?}");
    }
    let ended = run(plan);
    if print {
        ended.log().iter().for_each(|line| println!("{line}"));
    }
    oracle::judge(&ended)
}

/// Invariants 2, 3, 4, 5.
#[test]
fn drawn_worlds_pass_every_check_of_the_oracle() {
    if let Some(seed) = number("POSTRIDER_SEED") {
        let violations = run_seed(seed, true);
        assert!(violations.is_empty(), "seed {seed}:\n{}", violations.join("\n"));
        return;
    }
    let seeds = number("POSTRIDER_WORLDS").unwrap_or(WORLDS);
    let next = AtomicU64::new(0);
    let work = || {
        let drawn = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::SeqCst)).filter(|seed| *seed < seeds));
        drawn
            .map(|seed| (seed, run_seed(seed, false)))
            .filter(|(_, violations)| !violations.is_empty())
            .collect::<Vec<_>>()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut bad: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    bad.sort_unstable();
    let replays =
        bad.iter().take(20).map(|(seed, violations)| format!("POSTRIDER_SEED={seed}: {}", violations.join("\n    ")));
    let replays: Vec<_> = replays.collect();
    assert!(bad.is_empty(), "{} of {seeds} worlds failed; to replay one:\n{}", bad.len(), replays.join("\n"));
}

#[test]
fn a_seed_replays_the_same_world() {
    for seed in 0..20 {
        let (first, second) = (run(Plan::draw(seed)).log(), run(Plan::draw(seed)).log());
        let differs = first.iter().zip(&second).position(|(one, other)| one != other);
        assert_eq!(
            (differs, first.len()),
            (None, second.len()),
            "seed {seed}: {:?}",
            differs.map(|line| (&first[line], &second[line]))
        );
    }
}

//! What the integration tests share.
//!
//! Layout: a suite is one file, `tests/NAME.rs`, or a directory with a root, `tests/NAME/main.rs`, and modules. A root that needs this
//! directory declares `mod support;`, in a directory with `#[path = "../support/mod.rs"]`.
//!
//! Behaviours of every database are written once, in `tests/databases`, over [`database::Database`], and run on each server.
//! `tests/sqlite.rs`, `tests/postgres` and `tests/mysql` hold what only that database has.
//!
//! A test that tries to break an invariant of `DESIGN.md` names it at the end of its doc comment: `Invariant 3.`

#![allow(dead_code, unused_imports, unused_macros, reason = "each suite uses a part")]

#[cfg(all(feature = "testkit", any(feature = "sqlite", feature = "postgres", feature = "mysql")))]
pub(crate) mod database;
pub(crate) mod fixture;
pub(crate) mod wait;

/// Generates tests for a database: one `#[tokio::test]` for each function, which takes the database. The bracket holds the attributes that
/// each test gets. After `multi_thread`, the tests run on two threads.
///
/// A function that no list names is dead code, and so a warning.
macro_rules! tests_for {
    (@module $runtime:tt $attributes:tt $database:expr; $module:ident $($test:ident)*) => {
        $($crate::support::tests_for! { @test $runtime $attributes $database; $module $test })*
    };
    (@test [$($runtime:tt)*] [$(#[$attribute:meta])*] $database:expr; $module:ident $test:ident) => {
        #[$($runtime)*]
        $(#[$attribute])*
        async fn $test() {
            crate::$module::$test($database).await;
        }
    };
    (multi_thread $attributes:tt $database:expr; $($module:ident { $($test:ident)* })*) => {
        $($crate::support::tests_for! {
            @module [tokio::test(flavor = "multi_thread", worker_threads = 2)] $attributes $database; $module $($test)*
        })*
    };
    ($attributes:tt $database:expr; $($module:ident { $($test:ident)* })*) => {
        $($crate::support::tests_for! { @module [tokio::test] $attributes $database; $module $($test)* })*
    };
}
pub(crate) use tests_for;

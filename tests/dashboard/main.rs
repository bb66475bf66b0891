//! The dashboard, through its router and in Chromium.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod access;
mod actions;
mod browser;
mod bulk;
mod canary;
mod fixture;
mod headers;
mod hostile;
mod lists;
mod messages;
mod nesting;
mod operators;
mod overview;
mod sample_outbox;
mod site;

/// Runs each test on a store in memory and on SQLite.
macro_rules! on_each_store {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test(crate::site::Site::new()).await;
                }
            )*
        }

        mod sqlite {
            $(
                #[tokio::test]
                async fn $test() {
                    let directory = tempfile::tempdir().unwrap();
                    super::$test(crate::site::in_sqlite(directory.path()).await).await;
                }
            )*
        }
    };
}
use on_each_store;

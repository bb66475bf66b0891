//! A connection of the pool for one call.

use sqlx::MySql;

pub(super) type Session = crate::store::session::Session<MySql>;

//! Reads rows into types, and binds types to statements.

use std::time::SystemTime;

use postrider_transport::DeliveryId;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgConnection, PgHasArrayType, PgRow, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Row, Type};
use uuid::Uuid;

use super::sql::Sql;
use crate::clock::{from_micros, to_micros};
use crate::store::row::read_outcome;
use crate::store::{RecipientOutcome, StoreError};

pub(super) fn read_id(row: &PgRow, column: &str) -> Result<DeliveryId, StoreError> {
    Ok(row.try_get::<Uuid, _>(column)?.into())
}

/// Reads the recorded outcomes of the recipients of several deliveries.
pub(super) async fn read_outcomes(
    connection: &mut PgConnection,
    sql: &Sql,
    ids: &[Uuid],
) -> Result<Vec<(Uuid, RecipientOutcome)>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sql.query(&sql.recorded).bind(ids).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get("delivery_id")?, read_outcome(row)?))).collect()
}

/// A time as `timestamptz` in the server's binary form, which the server does not convert.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Moment(pub(in crate::store) SystemTime);

/// The server's epoch, 2000-01-01, in microseconds since the Unix epoch.
const EPOCH: i64 = 946_684_800_000_000;

impl Type<Postgres> for Moment {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1184))
    }
}

impl PgHasArrayType for Moment {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1185))
    }
}

impl Encode<'_, Postgres> for Moment {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode(to_micros(self.0).saturating_sub(EPOCH), buffer)
    }
}

impl<'r> Decode<'r, Postgres> for Moment {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        match value.format() {
            PgValueFormat::Binary => {
                let micros = <i64 as Decode<Postgres>>::decode(value)?;
                Ok(Self(from_micros(micros.saturating_add(EPOCH))))
            }
            PgValueFormat::Text => Err("the time is in text format".into()),
        }
    }
}

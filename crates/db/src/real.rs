//! Numbers with a fraction that may be absent.

use sqlx::Any;
use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;

/// A column of `DOUBLE PRECISION` that may be NULL, for `bind`.
///
/// sqlx 0.9 tells PostgreSQL that an absent `f64` is a float of four bytes (and that an absent
/// `f32` is one of eight: `AnyArguments::convert_into` has the two the wrong way round). The
/// connection keeps that statement, and refuses the next `f64` that is there. Every nullable
/// float goes through this type; a test of both databases shows when it is not needed any more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Real(pub Option<f64>);

impl sqlx::Type<Any> for Real {
    fn type_info() -> <Any as sqlx::Database>::TypeInfo {
        <f64 as sqlx::Type<Any>>::type_info()
    }
}

impl Encode<'_, Any> for Real {
    fn encode_by_ref(
        &self,
        buffer: &mut <Any as sqlx::Database>::ArgumentBuffer,
    ) -> Result<IsNull, BoxDynError> {
        match self.0 {
            Some(value) => Encode::<Any>::encode_by_ref(&value, buffer),
            None => Encode::<Any>::encode_by_ref(&Option::<f32>::None, buffer),
        }
    }
}

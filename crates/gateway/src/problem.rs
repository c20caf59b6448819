//! What is wrong with a document, and where.

use serde::Serialize;

/// Something wrong with a document that a person wrote, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DocumentProblem {
    /// A JSON Pointer into the document (`/steps/0/prompt`); empty for the whole.
    pub path: String,
    /// What is wrong, in words for that person.
    pub message: String,
}

impl DocumentProblem {
    /// A problem at this place.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }
}

impl std::fmt::Display for DocumentProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

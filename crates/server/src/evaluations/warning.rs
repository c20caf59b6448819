//! What to know before believing a result: of an evaluation, and of an improvement.
//!
//! Pinned with what it is about, and said in English to programs and in the reader's
//! language on pages. A text of a server from before warnings were values stays as it is.

use serde::{Deserialize, Serialize};

use crate::ui::PageContext;

/// Something that makes a result less believable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Warning {
    /// A judge is of the family that it judges, and its document allows it.
    SameFamily {
        /// The judging model.
        judge: String,
        /// The candidate's name.
        candidate: String,
        /// Its model.
        model: String,
    },
    /// An evaluator needs data that this server does not have.
    NoData {
        /// The evaluator's name.
        evaluator: String,
        /// What is missing.
        data: String,
    },
    /// Improvements before were judged on the same examples.
    HeldOutBefore {
        /// How many.
        times: i64,
    },
    /// Examples that are held out are nearly the same as ones that a search sees.
    Leak {
        /// How many of those that are held out.
        leaking: usize,
        /// How many are held out.
        held_out: usize,
        /// The first pairs of examples.
        examples: String,
    },
    /// A sentence that is not known as a value.
    #[serde(untagged)]
    Text(String),
}

impl Warning {
    /// The sentence of the API.
    pub fn english(&self) -> String {
        match self {
            Self::SameFamily {
                judge,
                candidate,
                model,
            } => format!(
                "the judge {judge} and the candidate {candidate:?} ({model}) are of one family, and judges prefer their own"
            ),
            Self::NoData { evaluator, data } => format!(
                "the evaluator {evaluator:?} needs data that is not installed and will score nothing; on the \
                 server, run: meguri data pull {data}"
            ),
            Self::HeldOutBefore { times } => format!(
                "{times} improvements before were judged on the same examples that are held out here; \
                 each of them tells a little about these, and the number means less every time"
            ),
            Self::Leak {
                leaking,
                held_out,
                examples,
            } => format!(
                "{leaking} of {held_out} examples that are held out are nearly the same as ones that the search sees \
                 ({examples}); the final number may be too good"
            ),
            Self::Text(text) => text.clone(),
        }
    }

    /// The sentence of a page.
    fn words(&self, page: &PageContext) -> String {
        match self {
            Self::SameFamily {
                judge,
                candidate,
                model,
            } => {
                let arguments = [
                    ("judge", judge.as_str()),
                    ("candidate", candidate),
                    ("model", model),
                ];
                page.t_with("evaluations-warn-family", &arguments)
            }
            Self::NoData { evaluator, data } => {
                let arguments = [("evaluator", evaluator.as_str()), ("data", data)];
                page.t_with("evaluations-warn-data", &arguments)
            }
            Self::HeldOutBefore { times } => {
                page.t_with("improve-warn-again", &[("n", &times.to_string())])
            }
            Self::Leak {
                leaking,
                held_out,
                examples,
            } => {
                let arguments = [
                    ("n", leaking.to_string()),
                    ("of", held_out.to_string()),
                    ("examples", examples.clone()),
                ];
                let arguments = arguments
                    .each_ref()
                    .map(|(name, text)| (*name, text.as_str()));
                page.t_with("improve-warn-leak", &arguments)
            }
            Self::Text(text) => text.clone(),
        }
    }

    /// All of them, for programs.
    pub(crate) fn all_english(warnings: &[Self]) -> Vec<String> {
        warnings.iter().map(Self::english).collect()
    }

    /// All of them, for readers.
    pub(crate) fn all_words(page: &PageContext, warnings: &[Self]) -> Vec<String> {
        warnings.iter().map(|warning| warning.words(page)).collect()
    }
}

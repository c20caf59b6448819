//! What is worth finding in a text: personal data, keys and secrets, refusals, links, canaries,
//! languages, shapes. One file per family; the tables at the end of this one are the lists that
//! policies name detectors from.
//!
//! A detector is data for the engine: patterns that say where a candidate may stand, and a
//! function that decides. Patterns are generous and the function is strict, because the pattern
//! costs time at every character and the function only at a candidate. The surprising thing: the
//! engine hands over the *longest* candidate from a position, and the function may take less of
//! it ([`Candidate::part`]). So "call 03-1234-5678 2 times" needs no pattern that knows where a
//! number ends.

#[cfg(test)]
pub(crate) mod check;
#[cfg(test)]
mod measure;
mod text;
mod toxicity;

mod birth;
mod email;
mod en_address;
mod ids;
mod injection;
mod jp_address;
pub mod language;
pub mod links;
mod money;
mod names_en;
mod names_ja;
mod network;
mod phone;
mod refusal;
mod secrets;

use text::Tail;

/// Which way of reading the text a detector's patterns are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum View {
    /// The text as it is, case included.
    Raw,
    /// NFKC, lower case, hidden characters removed, look-alikes folded.
    Plain,
    /// NFKC, hidden characters removed, digits of any script and kanji numerals as ASCII digits.
    Digits,
}

/// One thing to look for.
#[derive(Debug)]
pub struct Detector {
    /// Stable: stands in policies and findings.
    pub name: &'static str,
    /// Stands in placeholders, as in `<EMAIL_1>`.
    pub label: &'static str,
    /// What the patterns are matched on.
    pub view: View,
    /// Regular expressions without look-around. A match that would be longer than `max_chars`
    /// is cut there.
    pub patterns: &'static [&'static str],
    /// No candidate is longer, in characters of the view.
    pub max_chars: usize,
    /// Whether a candidate can only start where the character before is no letter and no digit
    /// (of ASCII). Saves trying every suffix of a long word.
    pub at_word: bool,
    /// Decides on a candidate.
    pub validate: fn(&Candidate<'_>) -> Option<Verdict>,
}

/// A place where a detector's pattern matched, in characters of its view.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The longest match from its start.
    pub text: &'a str,
    /// Up to [`BEFORE_CHARS`] characters before it.
    pub before: &'a str,
    /// The character after it; none at the end of the text or when the candidate was cut.
    pub after: Option<char>,
}

/// How many characters before a candidate its function sees.
pub const BEFORE_CHARS: usize = 64;

/// A candidate that is one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// How sure, 0 to 1.
    pub score: f32,
    /// How many bytes of the candidate's text belong to it, from its start.
    pub len: usize,
}

impl<'a> Candidate<'a> {
    /// All of the candidate.
    fn whole(&self, score: f32) -> Option<Verdict> {
        self.part(self.text.len(), score)
    }

    /// The first `len` bytes of it.
    fn part(&self, len: usize, score: f32) -> Option<Verdict> {
        Some(Verdict { score, len })
    }

    /// What follows the first `len` bytes: the rest of the candidate, or what is after it.
    fn next(&self, len: usize) -> Option<char> {
        self.text[len..].chars().next().or(self.after)
    }

    /// The character before.
    fn previous(&self) -> Option<char> {
        self.before.chars().next_back()
    }

    /// The end of what stands before, for questions about labels.
    fn tail(&self) -> Tail<'a> {
        Tail::of(self.before)
    }
}

/// Personal data: the kinds that a `pii` check can name.
pub static PII: &[&Detector] = &[
    &email::EMAIL,
    &phone::PHONE,
    &money::CREDIT_CARD,
    &money::IBAN,
    &network::IP_ADDRESS,
    &ids::US_SSN,
    &ids::JP_MY_NUMBER,
    &ids::JP_CORPORATE_NUMBER,
    &ids::JP_INVOICE_NUMBER,
    &ids::JP_DRIVER_LICENCE,
    &ids::JP_PASSPORT,
    &ids::JP_RESIDENCE_CARD,
    &jp_address::JP_POSTAL_CODE,
    &jp_address::JP_ADDRESS,
    &en_address::POSTAL_CODE,
    &en_address::STREET_ADDRESS,
    &money::JP_BANK_ACCOUNT,
    &names_ja::JP_PERSON_NAME,
    &names_en::PERSON_NAME,
    &birth::DATE_OF_BIRTH,
];

/// Keys and secrets: the kinds that a `secrets` check can name.
pub static SECRETS: &[&Detector] = &[
    &secrets::OPENAI,
    &secrets::ANTHROPIC,
    &secrets::GITHUB,
    &secrets::GITLAB,
    &secrets::AWS,
    &secrets::SLACK,
    &secrets::GOOGLE,
    &secrets::STRIPE,
    &secrets::HUGGING_FACE,
    &secrets::MEGURI,
    &secrets::OTHER_ISSUERS,
    &secrets::JWT,
    &secrets::PRIVATE_KEY,
    &secrets::URL_PASSWORD,
    &secrets::PASSWORD,
];
/// Phrases of prompt injection, the rules tier of an `injection` check.
pub static INJECTION: &[&Detector] = &[
    &injection::OVERRIDE,
    &injection::REVEAL,
    &injection::ROLE,
    &injection::COVERT,
];
/// Insults and threats, the rules tier of a `toxicity` check.
pub static TOXICITY: &[&Detector] = &[&toxicity::THREAT, &toxicity::INSULT];
/// Phrases of refusal.
pub static REFUSAL: &[&Detector] = &[&refusal::REFUSAL];
/// Links and images: every one is a candidate, the rule's list of hosts decides.
pub static LINKS: &[&Detector] = &[&links::LINK];

/// A detector by its name.
pub fn by_name(name: &str) -> Option<&'static Detector> {
    let lists = [PII, SECRETS, INJECTION, TOXICITY, REFUSAL, LINKS];
    let mut all = lists.into_iter().flatten().copied();
    all.find(|detector| detector.name == name)
}

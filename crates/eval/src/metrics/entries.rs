//! The list of metrics: what each is called, what it reads, what its numbers mean and which
//! parameters it takes. Forms, documentation and the check for unknown parameters read this list.

/// What a metric looks at beside the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Only the answer.
    Output,
    /// The expected answer, or several that are as good.
    Expected,
    /// Retrieved ids in their order, and relevant ids.
    Retrieval,
}

/// What kind of value a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ParameterKind {
    /// True or false.
    Flag,
    /// A number within bounds.
    Number {
        /// Smallest.
        low: f64,
        /// Largest.
        high: f64,
    },
    /// A whole number within bounds.
    Count {
        /// Smallest.
        low: u64,
        /// Largest.
        high: u64,
    },
    /// Text.
    Text,
    /// A list of texts.
    Texts,
    /// One of these; the first is the default.
    Choice(&'static [&'static str]),
    /// A JSON Schema.
    Schema,
}

/// One parameter of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameter {
    /// Its name in the definition.
    pub name: &'static str,
    /// What it takes.
    pub kind: ParameterKind,
    /// What it does.
    pub about: &'static str,
}

/// One metric of the list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    /// Its id; `compat:` promises another program's very number.
    pub id: &'static str,
    /// What it measures.
    pub about: &'static str,
    /// What it looks at beside the answer.
    pub needs: Needs,
    /// Smallest value; −∞ is written as none.
    pub low: f64,
    /// Largest value; infinite where there is no bound.
    pub high: f64,
    /// Whether a larger value is better; none where neither is.
    pub higher_is_better: Option<bool>,
    /// Whether the value of many rows is more than the mean of theirs.
    pub corpus: bool,
    /// What can be set.
    pub parameters: &'static [Parameter],
}

use ParameterKind::{Choice, Count, Flag, Number, Schema, Text, Texts};

const fn parameter(name: &'static str, kind: ParameterKind, about: &'static str) -> Parameter {
    Parameter { name, kind, about }
}

const IGNORE_CASE: Parameter = parameter("ignore_case", Flag, "upper and lower case are the same");
const NFKC: Parameter = parameter("nfkc", Flag, "full and half width are the same (NFKC)");
const COLLAPSE: Parameter = parameter(
    "collapse_whitespace",
    Flag,
    "white space at the ends and its amount inside do not count",
);
const K: Parameter = parameter(
    "k",
    Count {
        low: 1,
        high: 1_000_000,
    },
    "only the first k that were retrieved; all without it",
);
const LABELS: Parameter = parameter(
    "labels",
    Texts,
    "the fixed list; an answer that is not on it becomes __invalid__",
);
const FIND: Parameter = parameter(
    "find",
    Choice(&["whole", "inside"]),
    "the answer is the label, or has exactly one label of the list inside",
);
const AVERAGE: Parameter = parameter(
    "average",
    Choice(&["macro", "micro", "weighted", "binary"]),
    "how the values of the classes become one",
);
const POSITIVE: Parameter = parameter("positive", Text, "the class of the average binary");
const ZERO: Parameter = parameter(
    "zero_division",
    Choice(&["0", "1", "nan"]),
    "what stands where something is divided by zero; nan leaves the class out",
);
const ANSWERS: Parameter = parameter(
    "answers",
    Choice(&["strict", "answered"]),
    "an invalid answer is wrong, or does not count",
);
const LOWERCASE: Parameter = parameter("lowercase", Flag, "lower case before counting");
const SMOOTH: Parameter = parameter(
    "smooth",
    Choice(&["exp", "floor", "add-k", "none"]),
    "what to do when an order has no match",
);
const SMOOTH_VALUE: Parameter = parameter(
    "smooth_value",
    Number {
        low: 0.0,
        high: 100.0,
    },
    "for floor (0.1 without it) and add-k (1)",
);
const EFFECTIVE: Parameter = parameter(
    "effective_order",
    Flag,
    "over all rows: only orders that the answers are long enough for. A single row always",
);
const VARIANT: Parameter = parameter(
    "variant",
    Choice(&["1", "2", "3", "4", "L", "Lsum"]),
    "n-grams, longest common subsequence, or that line by line",
);
const PRF: Parameter = parameter(
    "value",
    Choice(&["f", "precision", "recall"]),
    "which of the three is the score; the others are in the detail",
);
const MEASURE: Parameter = parameter(
    "measure",
    Choice(&[
        "normalised_similarity",
        "normalised_distance",
        "distance",
        "similarity",
    ]),
    "how the difference is expressed",
);

const fn entry(id: &'static str, about: &'static str, needs: Needs) -> Entry {
    Entry {
        id,
        about,
        needs,
        low: 0.0,
        high: 1.0,
        higher_is_better: Some(true),
        corpus: false,
        parameters: &[],
    }
}

/// Every metric.
pub static METRICS: &[Entry] = &[
    Entry {
        parameters: &[IGNORE_CASE, NFKC, COLLAPSE],
        ..entry(
            "exact-match",
            "1 when the answer is an expected one",
            Needs::Expected,
        )
    },
    Entry {
        parameters: &[
            parameter(
                "texts",
                Texts,
                "what to look for; the expected answers without it",
            ),
            parameter(
                "mode",
                Choice(&["any", "all", "none"]),
                "how many must be there",
            ),
            IGNORE_CASE,
            NFKC,
            COLLAPSE,
        ],
        ..entry(
            "contains",
            "1 when the answer has the texts inside",
            Needs::Output,
        )
    },
    Entry {
        parameters: &[
            parameter("pattern", Text, "the regular expression"),
            parameter(
                "find",
                Choice(&["anywhere", "whole"]),
                "where it must match",
            ),
            IGNORE_CASE,
        ],
        ..entry(
            "regex",
            "1 when a regular expression matches the answer",
            Needs::Output,
        )
    },
    Entry {
        parameters: &[parameter(
            "fenced",
            Flag,
            "one Markdown code block around it is taken off",
        )],
        ..entry("json-valid", "1 when the answer is JSON", Needs::Output)
    },
    Entry {
        parameters: &[
            parameter("schema", Schema, "the JSON Schema, without references"),
            parameter(
                "fenced",
                Flag,
                "one Markdown code block around it is taken off",
            ),
        ],
        ..entry(
            "json-schema",
            "1 when the answer is JSON that a schema accepts",
            Needs::Output,
        )
    },
    Entry {
        parameters: &[parameter(
            "fenced",
            Flag,
            "one Markdown code block around it is taken off",
        )],
        ..entry(
            "json-equal",
            "1 when the answer is the expected JSON value",
            Needs::Expected,
        )
    },
    Entry {
        parameters: &[
            parameter(
                "absolute",
                Number {
                    low: 0.0,
                    high: 1e300,
                },
                "how far off is near enough",
            ),
            parameter(
                "relative",
                Number {
                    low: 0.0,
                    high: 1e6,
                },
                "the same, times the expected",
            ),
            parameter(
                "which",
                Choice(&["last", "first", "whole"]),
                "which number of the answer",
            ),
        ],
        ..entry(
            "numeric",
            "1 when the number in the answer is near the expected",
            Needs::Expected,
        )
    },
    Entry {
        high: f64::INFINITY,
        higher_is_better: None,
        parameters: &[MEASURE, IGNORE_CASE, NFKC, COLLAPSE],
        ..entry(
            "compat:levenshtein",
            "insertions, deletions and replacements",
            Needs::Expected,
        )
    },
    Entry {
        high: f64::INFINITY,
        higher_is_better: None,
        parameters: &[MEASURE, IGNORE_CASE, NFKC, COLLAPSE],
        ..entry("compat:indel", "insertions and deletions", Needs::Expected)
    },
    Entry {
        high: 100.0,
        corpus: true,
        parameters: &[
            parameter(
                "tokeniser",
                Choice(&["13a", "intl", "char", "zh", "ja-mecab", "none"]),
                "how texts become words",
            ),
            LOWERCASE,
            SMOOTH,
            SMOOTH_VALUE,
            EFFECTIVE,
            parameter(
                "max_order",
                Count { low: 1, high: 4 },
                "orders of n-grams, 4 without it",
            ),
        ],
        ..entry("compat:bleu", "BLEU as sacreBLEU 2.6.0", Needs::Expected)
    },
    Entry {
        high: 100.0,
        corpus: true,
        parameters: &[
            parameter(
                "tokeniser",
                Choice(&["unicode-word"]),
                "how texts become words",
            ),
            LOWERCASE,
            SMOOTH,
            SMOOTH_VALUE,
            EFFECTIVE,
            parameter(
                "max_order",
                Count { low: 1, high: 4 },
                "orders of n-grams, 4 without it",
            ),
        ],
        ..entry(
            "bleu",
            "BLEU over tokens that sacreBLEU does not have",
            Needs::Expected,
        )
    },
    Entry {
        high: 100.0,
        corpus: true,
        parameters: &[
            parameter(
                "char_order",
                Count { low: 1, high: 6 },
                "orders of characters, 6 without it",
            ),
            parameter("word_order", Count { low: 0, high: 4 }, "2 makes it chrF++"),
            parameter(
                "beta",
                Count { low: 1, high: 100 },
                "weight of recall, 2 without it",
            ),
            LOWERCASE,
            parameter("whitespace", Flag, "white space counts"),
            parameter("eps_smoothing", Flag, "as chrF++.py, NLTK and Moses smooth"),
        ],
        ..entry(
            "compat:chrf",
            "chrF and chrF++ as sacreBLEU 2.6.0",
            Needs::Expected,
        )
    },
    Entry {
        parameters: &[
            VARIANT,
            parameter("stem", Flag, "NLTK's Porter stemmer"),
            PRF,
        ],
        ..entry(
            "compat:rouge",
            "ROUGE as rouge-score 0.1.2: Latin letters and digits only",
            Needs::Expected,
        )
    },
    Entry {
        parameters: &[
            VARIANT,
            parameter(
                "tokeniser",
                Choice(&["unicode-word", "ja-mecab", "char"]),
                "how texts become words",
            ),
            PRF,
        ],
        ..entry("rouge", "ROUGE for every script", Needs::Expected)
    },
    Entry {
        corpus: true,
        parameters: &[LABELS, FIND, IGNORE_CASE, ANSWERS],
        ..entry("compat:accuracy", "share of right labels", Needs::Expected)
    },
    Entry {
        corpus: true,
        parameters: &[LABELS, FIND, IGNORE_CASE, ANSWERS, AVERAGE, POSITIVE, ZERO],
        ..entry(
            "compat:precision",
            "share of given labels that are right",
            Needs::Expected,
        )
    },
    Entry {
        corpus: true,
        parameters: &[LABELS, FIND, IGNORE_CASE, ANSWERS, AVERAGE, POSITIVE, ZERO],
        ..entry(
            "compat:recall",
            "share of expected labels that were found",
            Needs::Expected,
        )
    },
    Entry {
        corpus: true,
        parameters: &[
            LABELS,
            FIND,
            IGNORE_CASE,
            ANSWERS,
            AVERAGE,
            POSITIVE,
            ZERO,
            parameter(
                "beta",
                Number {
                    low: 0.001,
                    high: 1000.0,
                },
                "weight of recall, 1 without it",
            ),
        ],
        ..entry(
            "compat:f",
            "weighted harmonic mean of precision and recall",
            Needs::Expected,
        )
    },
    Entry {
        parameters: &[K],
        ..entry(
            "hit-rate",
            "1 when anything relevant is there",
            Needs::Retrieval,
        )
    },
    Entry {
        parameters: &[K],
        ..entry("mrr", "1 ÷ place of the first relevant", Needs::Retrieval)
    },
    Entry {
        parameters: &[K],
        ..entry(
            "ndcg",
            "gain by place over the best possible",
            Needs::Retrieval,
        )
    },
    Entry {
        parameters: &[K],
        ..entry(
            "precision-at-k",
            "share of the retrieved that is relevant",
            Needs::Retrieval,
        )
    },
    Entry {
        parameters: &[K],
        ..entry(
            "recall-at-k",
            "share of the relevant that is retrieved",
            Needs::Retrieval,
        )
    },
    Entry {
        parameters: &[K],
        ..entry(
            "context-precision",
            "mean precision at the relevant places",
            Needs::Retrieval,
        )
    },
    Entry {
        parameters: &[K],
        ..entry(
            "context-recall-similar",
            "share of the relevant texts that a retrieved text is like",
            Needs::Retrieval,
        )
    },
    Entry {
        low: -1.0,
        higher_is_better: None,
        parameters: &[parameter(
            "value",
            Choice(&["compound", "positive", "neutral", "negative"]),
            "which of the four is the score",
        )],
        ..entry(
            "compat:vader",
            "sentiment of English as vaderSentiment 3.3.2",
            Needs::Output,
        )
    },
    Entry {
        low: -1.0,
        higher_is_better: None,
        ..entry(
            "sentiment",
            "balance of a small lexicon, English and Japanese",
            Needs::Output,
        )
    },
    Entry {
        higher_is_better: None,
        ..entry(
            "refusal",
            "1 when the answer begins with a refusal, English and Japanese",
            Needs::Output,
        )
    },
    Entry {
        higher_is_better: Some(false),
        ..entry(
            "toxicity",
            "weight of the worst insult or threat of a small list, English and Japanese",
            Needs::Output,
        )
    },
    Entry {
        high: f64::INFINITY,
        higher_is_better: None,
        parameters: &[parameter(
            "unit",
            Choice(&[
                "characters",
                "graphemes",
                "words",
                "sentences",
                "lines",
                "bytes",
            ]),
            "what is counted",
        )],
        ..entry("length", "how long the answer is", Needs::Output)
    },
    Entry {
        parameters: &[parameter(
            "code",
            Text,
            "ISO 639-1, such as ja; the expected answer's without it",
        )],
        ..entry(
            "language",
            "1 when the answer is in the language",
            Needs::Output,
        )
    },
];

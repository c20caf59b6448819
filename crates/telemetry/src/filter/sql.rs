//! A filter as a SQL condition over the `spans` table, values bound.
//!
//! Every leaf is 0 or 1, never NULL, so that `NOT` means the same as in
//! memory. Plain comparisons use `IS`, which an index can serve. Metadata, tags
//! and scores go through functions that `reader.rs` registers on its
//! connections and that call the code of `matches.rs`.

use rusqlite::types::Value;

use super::{Expr, Field, FieldType, Literal, Op};

pub(crate) use super::matches::holds_text;

/// SQL text under construction with its bound values.
#[derive(Debug, Default)]
pub(crate) struct Sql {
    pub(crate) text: String,
    pub(crate) values: Vec<Value>,
    /// Whether every span shows the scores of its whole trace, or none does; by itself
    /// roots do and other spans show their own.
    pub(crate) scores_of_trace: Option<bool>,
}

impl Sql {
    pub(crate) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    pub(crate) fn bind(&mut self, value: impl Into<Value>) {
        self.text.push('?');
        self.values.push(value.into());
    }

    fn bind_literal(&mut self, literal: &Literal) {
        match literal {
            Literal::Text(text) => self.bind(text.clone()),
            Literal::Number(number) => self.bind(*number),
            Literal::Bool(flag) => self.bind(i64::from(*flag)),
        }
    }

    /// Appends the condition.
    pub(crate) fn condition(&mut self, expr: &Expr) {
        match expr {
            Expr::And(parts) => self.joined(parts, " AND "),
            Expr::Or(parts) => self.joined(parts, " OR "),
            Expr::Not(inner) => {
                self.push("NOT (");
                self.condition(inner);
                self.push(")");
            }
            Expr::Exists(field) => {
                self.push("(");
                self.field(field, Want::Shown);
                self.push(" IS NOT NULL)");
            }
            Expr::In(field, literals) => {
                self.push("(");
                for (index, literal) in literals.iter().enumerate() {
                    self.push(if index == 0 { "" } else { " OR " });
                    self.compare(field, Op::Equal, literal);
                }
                self.push(")");
            }
            Expr::Compare(field, op, literal) => self.compare(field, *op, literal),
        }
    }

    fn joined(&mut self, parts: &[Expr], word: &str) {
        self.push("(");
        for (index, part) in parts.iter().enumerate() {
            self.push(if index == 0 { "" } else { word });
            self.condition(part);
        }
        self.push(")");
    }

    fn compare(&mut self, field: &Field, op: Op, literal: &Literal) {
        let want = Want::of(literal);
        match (field, op, literal) {
            // The two lookups that must not scan: a partial index wants to hear NOT NULL, ids are stored as bytes.
            (Field::Session, Op::Equal, Literal::Text(text)) => {
                self.push("(session_id IS NOT NULL AND session_id = ");
                self.bind(text.clone());
                return self.push(")");
            }
            (Field::Trace, Op::Equal, Literal::Text(text)) => {
                if let Ok(trace) = text.parse::<base::TraceId>() {
                    self.push("(trace = ");
                    self.bind(trace.0.to_vec());
                    return self.push(")");
                }
            }
            _ => {}
        }
        match op {
            Op::Equal | Op::NotEqual => {
                self.push("(");
                self.field(field, want);
                self.push(if op == Op::Equal { " IS " } else { " IS NOT " });
                self.bind_literal(literal);
                self.push(")");
            }
            Op::Contains | Op::StartsWith => {
                self.push(if op == Op::Contains {
                    "text_contains("
                } else {
                    "text_starts("
                });
                self.field(field, want);
                self.push(", ");
                self.bind_literal(literal);
                self.push(")");
            }
            Op::Less | Op::AtMost | Op::Greater | Op::AtLeast => {
                self.push("coalesce(");
                self.field(field, want);
                self.push(" ");
                self.push(op.as_str());
                self.push(" ");
                self.bind_literal(literal);
                self.push(", 0)");
            }
        }
    }

    /// Appends an expression for the field's value in the wanted type; NULL
    /// when it is missing or of another type.
    pub(crate) fn field(&mut self, field: &Field, want: Want) {
        let any = |name: &str| {
            format!(
                "{}_{name}(",
                match field {
                    Field::Score(_) => "score",
                    _ => "meta",
                }
            )
        };
        match field {
            Field::Tag(name) => {
                self.push("tag_of(tags, ");
                self.bind(name.clone());
                self.push(")");
            }
            Field::Metadata(path) => {
                self.push(&any(want.word()));
                self.push("metadata, ");
                self.bind(path.clone());
                self.push(")");
            }
            Field::Score(name) => {
                self.push(&any(want.word()));
                self.bind(name.clone());
                self.push(match self.scores_of_trace {
                    Some(true) => ", trace, span, 1)",
                    Some(false) => ", trace, span, 0)",
                    None => ", trace, span, parent IS NULL)",
                });
            }
            plain => self.push(column(plain)),
        }
    }
}

/// The type in which a value is wanted; matters for fields that hold any type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    Text,
    Number,
    Bool,
    Shown,
}

impl Want {
    fn of(literal: &Literal) -> Self {
        match literal {
            Literal::Text(_) => Self::Text,
            Literal::Number(_) => Self::Number,
            Literal::Bool(_) => Self::Bool,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Number => "number",
            Self::Bool => "bool",
            Self::Shown => "shown",
        }
    }
}

/// Whether a measure can be computed over the field.
pub(crate) fn is_numeric(field: &Field) -> bool {
    matches!(field.field_type(), FieldType::Number | FieldType::Any)
}

/// A text among a span's attributes; anything but text counts as missing.
macro_rules! attribute {
    ($path:literal) => {
        concat!(
            "CASE json_type(attrs, '",
            $path,
            "') WHEN 'text' THEN json_extract(attrs, '",
            $path,
            "') END"
        )
    };
}

fn column(field: &Field) -> &'static str {
    match field {
        Field::Name => "nullif(name, '')",
        Field::Kind => "kind",
        Field::Status => "status",
        Field::Environment => "nullif(environment, '')",
        Field::Provider => "provider",
        Field::Model => "request_model",
        Field::ResponseModel => "response_model",
        Field::Prompt => "prompt_name",
        Field::PromptVersion => "prompt_version",
        Field::Session => "session_id",
        Field::SessionStep => "session_step",
        Field::User => "user_ref",
        Field::Key => "key_id",
        Field::Trace => "lower(hex(trace))",
        Field::Span => "lower(hex(span))",
        Field::ErrorType => "error_type",
        Field::Error => "error_message",
        Field::FinishReason => "json_extract(finish_reasons, '$[0]')",
        Field::Release => "release_digest",
        // No columns: segments written before there were apps and experiments stay readable as they are.
        Field::App => attribute!("$.app.name"),
        Field::Experiment => attribute!("$.experiment.name"),
        Field::Arm => attribute!("$.experiment.arm"),
        Field::Streamed => "streamed",
        Field::LatencyMs => "((end_us - start_us) / 1000.0)",
        Field::TtftMs => "(ttft_us / 1000.0)",
        Field::CostUsd => "(cost_nanousd / 1000000000.0)",
        Field::InputTokens => "tokens_in",
        Field::OutputTokens => "tokens_out",
        Field::TotalTokens => "(tokens_in + tokens_out)",
        Field::CacheReadTokens => "tokens_cache_read",
        Field::CacheWriteTokens => "tokens_cache_write",
        Field::ReasoningTokens => "tokens_reasoning",
        Field::Tag(_) | Field::Metadata(_) | Field::Score(_) => "NULL",
    }
}

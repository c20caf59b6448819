//! Tokens to a typed tree, by recursive descent: `or` binds weakest, then
//! `and`, then `not`. Every fault is located and, where there is a likely
//! meaning, says what to write instead.

use super::fields::nearest;
use super::lexer::{Located, Token, tokens};
use super::{Expr, Field, FieldType, FilterError, Literal, Op};
use crate::span::{Kind, Status};

/// Bounds that keep a hostile filter from using up the stack or SQLite's expression depth.
const MAX_BYTES: usize = 16 * 1024;
const MAX_DEPTH: usize = 50;
const MAX_CONDITIONS: usize = 500;

pub(super) fn parse(text: &str) -> Result<Option<Expr>, FilterError> {
    if text.len() > MAX_BYTES {
        let message = format!("the filter is longer than {MAX_BYTES} bytes");
        return Err(FilterError::new("", 0..0, message, None));
    }
    let mut parser = Parser {
        text,
        tokens: tokens(text)?,
        next: 0,
        depth: 0,
        conditions: 0,
    };
    if parser.peek().token == Token::End {
        return Ok(None);
    }
    let expr = parser.any_of()?;
    let rest = parser.peek().clone();
    match rest.token {
        Token::End => Ok(Some(expr)),
        Token::Sign(")") => Err(parser.fault(&rest, "this parenthesis was never opened", None)),
        Token::Word(ref word) if word == "in" || word == "contains" => Err(parser.fault(
            &rest,
            "a condition has one comparison only",
            Some("put \"and\" before the next one".into()),
        )),
        _ => Err(parser.fault(
            &rest,
            "two conditions need \"and\" or \"or\" between them",
            Some("write \"and\" here".into()),
        )),
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Located>,
    next: usize,
    depth: usize,
    conditions: usize,
}

impl Parser<'_> {
    fn peek(&self) -> &Located {
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn bump(&mut self) -> Located {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn fault(&self, at: &Located, message: &str, hint: Option<String>) -> FilterError {
        FilterError::new(self.text, at.at.clone(), message.to_owned(), hint)
    }

    fn eat_word(&mut self, keyword: &str) -> bool {
        let found =
            matches!(&self.peek().token, Token::Word(word) if word.eq_ignore_ascii_case(keyword));
        self.next += usize::from(found);
        found
    }

    fn eat_sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek().token, Token::Sign(found) if found == sign);
        self.next += usize::from(found);
        found
    }

    fn any_of(&mut self) -> Result<Expr, FilterError> {
        let mut parts = vec![self.all_of()?];
        while self.eat_word("or") {
            parts.push(self.all_of()?);
        }
        Ok(join(parts, Expr::Or, |part| match part {
            Expr::Or(inner) => Ok(inner),
            other => Err(other),
        }))
    }

    fn all_of(&mut self) -> Result<Expr, FilterError> {
        let mut parts = vec![self.negation()?];
        while self.eat_word("and") {
            parts.push(self.negation()?);
        }
        Ok(join(parts, Expr::And, |part| match part {
            Expr::And(inner) => Ok(inner),
            other => Err(other),
        }))
    }

    fn negation(&mut self) -> Result<Expr, FilterError> {
        let at = self.peek().clone();
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.fault(&at, "the conditions are nested too deeply", None));
        }
        let expr = if self.eat_word("not") {
            Expr::Not(Box::new(self.negation()?))
        } else if self.eat_sign("(") {
            let inner = self.any_of()?;
            if !self.eat_sign(")") {
                let here = self.peek().clone();
                return Err(self.fault(
                    &here,
                    "a closing parenthesis is missing",
                    Some("write ) here".into()),
                ));
            }
            inner
        } else {
            self.condition()?
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn condition(&mut self) -> Result<Expr, FilterError> {
        self.conditions += 1;
        if self.conditions > MAX_CONDITIONS {
            let at = self.peek().clone();
            return Err(self.fault(&at, "the filter has too many conditions", None));
        }
        let field = self.field()?;
        if self.eat_word("exists") {
            return Ok(Expr::Exists(field));
        }
        let negated = self.eat_word("not");
        if self.eat_word("in") {
            let list = Expr::In(field.clone(), self.list(&field)?);
            return Ok(if negated {
                Expr::Not(Box::new(list))
            } else {
                list
            });
        }
        let op = self.operator(&field)?;
        let value = self.bump();
        let literal = self.literal(&field, &value)?;
        if matches!(op, Op::Less | Op::AtMost | Op::Greater | Op::AtLeast)
            && !matches!(literal, Literal::Number(_))
        {
            return Err(self.fault(
                &value,
                "only numbers have an order",
                Some("use = or != for texts".into()),
            ));
        }
        if matches!(op, Op::Contains | Op::StartsWith) && !matches!(literal, Literal::Text(_)) {
            return Err(self.fault(
                &value,
                "this comparison needs a text",
                Some("put the value in quotes".into()),
            ));
        }
        Ok(Expr::Compare(field, op, literal))
    }

    fn field(&mut self) -> Result<Field, FilterError> {
        let at = self.bump();
        let name = match &at.token {
            Token::Word(word)
                if matches!(
                    word.as_str(),
                    "and" | "or" | "in" | "contains" | "starts_with" | "exists"
                ) =>
            {
                return Err(self.fault(
                    &at,
                    &format!("a condition is missing before {word:?}"),
                    None,
                ));
            }
            Token::Word(name) | Token::QuotedName(name) => name,
            Token::End => {
                return Err(self.fault(
                    &at,
                    "a condition is missing",
                    Some("for example: status = \"error\"".into()),
                ));
            }
            Token::Text(_) => {
                let hint =
                    "a condition begins with a field; free text goes into the search box".into();
                return Err(self.fault(
                    &at,
                    "a field name is missing before this text",
                    Some(hint),
                ));
            }
            Token::Sign(_) => return Err(self.fault(&at, "a field name is missing here", None)),
        };
        Field::from_raw(name).map_err(|unknown| {
            let hint = unknown
                .suggestion
                .map(|near| format!("did you mean {near}?"));
            self.fault(&at, &format!("there is no field {:?}", unknown.name), hint)
        })
    }

    fn operator(&mut self, field: &Field) -> Result<Op, FilterError> {
        let at = self.bump();
        let op = match &at.token {
            Token::Sign("=") => Op::Equal,
            Token::Sign("!=") => Op::NotEqual,
            Token::Sign("<") => Op::Less,
            Token::Sign("<=") => Op::AtMost,
            Token::Sign(">") => Op::Greater,
            Token::Sign(">=") => Op::AtLeast,
            Token::Word(word) if word.eq_ignore_ascii_case("contains") => Op::Contains,
            Token::Word(word) if word.eq_ignore_ascii_case("starts_with") => Op::StartsWith,
            _ => {
                let hint = format!("write one of {} after {field}", operators_of(field));
                return Err(self.fault(&at, "a comparison is missing", Some(hint)));
            }
        };
        if takes(field.field_type(), op) {
            return Ok(op);
        }
        let message = format!("{field} cannot be compared by {}", op.as_str());
        Err(self.fault(&at, &message, Some(format!("use {}", operators_of(field)))))
    }

    fn list(&mut self, field: &Field) -> Result<Vec<Literal>, FilterError> {
        if !self.eat_sign("(") {
            let at = self.peek().clone();
            return Err(self.fault(
                &at,
                "a list is missing",
                Some("for example: in (\"a\", \"b\")".into()),
            ));
        }
        let mut values = Vec::new();
        loop {
            let value = self.bump();
            values.push(self.literal(field, &value)?);
            if self.eat_sign(")") {
                return Ok(values);
            }
            if !self.eat_sign(",") {
                let at = self.peek().clone();
                return Err(self.fault(&at, "a comma or a closing parenthesis is missing", None));
            }
        }
    }

    fn literal(&self, field: &Field, at: &Located) -> Result<Literal, FilterError> {
        let (text, quoted) = match &at.token {
            Token::Text(text) => (text.as_str(), true),
            Token::Word(word) => (word.as_str(), false),
            Token::End => return Err(self.fault(at, "a value is missing at the end", None)),
            _ => return Err(self.fault(at, "a value is missing here", None)),
        };
        let number = if quoted { None } else { number(text) };
        let flag = if quoted {
            None
        } else {
            text.parse::<bool>().ok()
        };
        match field.field_type() {
            FieldType::Text => Ok(Literal::Text(text.to_owned())),
            FieldType::Word => self.word(field, text, at),
            FieldType::Number => number.map(Literal::Number).ok_or_else(|| {
                let hint = quoted.then(|| "write the number without quotes".to_owned());
                self.fault(at, &format!("{field} needs a number"), hint)
            }),
            FieldType::Bool => flag
                .map(Literal::Bool)
                .ok_or_else(|| self.fault(at, &format!("{field} needs true or false"), None)),
            FieldType::Any => Ok(match (number, flag) {
                (Some(number), _) => Literal::Number(number),
                (None, Some(flag)) => Literal::Bool(flag),
                (None, None) => Literal::Text(text.to_owned()),
            }),
        }
    }

    fn word(&self, field: &Field, text: &str, at: &Located) -> Result<Literal, FilterError> {
        let known: Vec<&str> = match field {
            Field::Kind => Kind::ALL.iter().map(|kind| kind.as_str()).collect(),
            _ => Status::ALL.iter().map(|status| status.as_str()).collect(),
        };
        if known.contains(&text) {
            return Ok(Literal::Text(text.to_owned()));
        }
        let near = nearest(text, &known)
            .map(|near| format!("did you mean \"{near}\"? known: {}", known.join(", ")));
        Err(self.fault(at, &format!("{field} is never {text:?}"), near))
    }
}

fn join(
    parts: Vec<Expr>,
    make: fn(Vec<Expr>) -> Expr,
    same: fn(Expr) -> Result<Vec<Expr>, Expr>,
) -> Expr {
    let mut flat = Vec::with_capacity(parts.len());
    for part in parts {
        match same(part) {
            Ok(inner) => flat.extend(inner),
            Err(other) => flat.push(other),
        }
    }
    if flat.len() == 1 {
        flat.remove(0)
    } else {
        make(flat)
    }
}

fn number(text: &str) -> Option<f64> {
    // `f64::from_str` also takes "inf" and "nan", which are words here.
    let numeric = text
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'e' | b'E'));
    let digit = text.bytes().any(|b| b.is_ascii_digit()) && !text.starts_with(['e', 'E']);
    text.parse()
        .ok()
        .filter(|number: &f64| numeric && digit && number.is_finite())
}

fn takes(kind: FieldType, op: Op) -> bool {
    match op {
        Op::Equal | Op::NotEqual => true,
        Op::Less | Op::AtMost | Op::Greater | Op::AtLeast => {
            matches!(kind, FieldType::Number | FieldType::Any)
        }
        Op::Contains | Op::StartsWith => matches!(kind, FieldType::Text | FieldType::Any),
    }
}

fn operators_of(field: &Field) -> &'static str {
    match field.field_type() {
        FieldType::Text => "=, !=, in, contains, starts_with, exists",
        FieldType::Word => "=, !=, in, exists",
        FieldType::Number => "=, !=, <, <=, >, >=, in, exists",
        FieldType::Bool => "=, !=, exists",
        FieldType::Any => "=, !=, <, <=, >, >=, in, contains, starts_with, exists",
    }
}

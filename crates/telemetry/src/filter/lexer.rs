//! Text to tokens. Owns quoting and everything that lets people write a filter
//! with a Japanese keyboard: full-width letters, signs, spaces and quotes mean
//! what their narrow forms mean. Inside quotes every character stays as it is.

use std::ops::Range;

use super::FilterError;

/// A token's kind and content.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// Name, keyword or unquoted value, made narrow.
    Word(String),
    /// A field name whose last part was quoted: `tag."my team"`.
    QuotedName(String),
    /// A quoted text.
    Text(String),
    /// `( ) , = != < <= > >=`
    Sign(&'static str),
    /// After the last one.
    End,
}

/// A token and where it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Located {
    pub(super) token: Token,
    pub(super) at: Range<usize>,
}

/// Characters that names and unquoted values may have.
pub(super) fn is_bare(c: char) -> bool {
    c.is_alphanumeric()
        || matches!(c, '_' | '-' | '.' | '/' | ':' | '@' | 'ー')
        // Full-width forms would come back narrow, so they need quotes to round-trip.
        && !matches!(c, '\u{ff01}'..='\u{ff5e}')
}

fn narrow(c: char) -> char {
    match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        '\u{3000}' | '\u{a0}' => ' ',
        '、' => ',',
        other => other,
    }
}

fn closing_quote(c: char) -> Option<char> {
    match c {
        '"' => Some('"'),
        '\'' => Some('\''),
        '\u{ff02}' => Some('\u{ff02}'),
        '“' | '”' => Some('”'),
        '‘' | '’' => Some('’'),
        '「' => Some('」'),
        '『' => Some('』'),
        _ => None,
    }
}

/// A text as a filter writes it.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if base::text::is_deceptive(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The text between quotes, when `text` is exactly one quoted text.
pub(super) fn unquote(text: &str) -> Option<String> {
    let tokens = tokens(text).ok()?;
    match tokens.as_slice() {
        [
            Located {
                token: Token::Text(inner),
                ..
            },
            _end,
        ] => Some(inner.clone()),
        _ => None,
    }
}

/// Splits a filter into tokens; the last one is [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Located>, FilterError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        let next = lexer.next()?;
        let end = next.token == Token::End;
        tokens.push(next);
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn next(&mut self) -> Result<Located, FilterError> {
        while self.peek().is_some_and(|c| narrow(c).is_whitespace()) {
            self.bump();
        }
        let start = self.at;
        let Some(c) = self.peek() else {
            return Ok(Located {
                token: Token::End,
                at: start..start,
            });
        };
        let token = if closing_quote(c).is_some() {
            Token::Text(self.quoted()?)
        } else if is_bare(narrow(c)) {
            self.word()?
        } else {
            self.sign()?
        };
        Ok(Located {
            token,
            at: start..self.at,
        })
    }

    fn word(&mut self) -> Result<Token, FilterError> {
        let mut word = String::new();
        while let Some(c) = self.peek().map(narrow).filter(|c| is_bare(*c)) {
            word.push(c);
            self.bump();
        }
        if word.ends_with('.') && self.peek().is_some_and(|c| closing_quote(c).is_some()) {
            word.push_str(&self.quoted()?);
            return Ok(Token::QuotedName(word));
        }
        Ok(Token::Word(word))
    }

    fn quoted(&mut self) -> Result<String, FilterError> {
        let start = self.at;
        let close = self.bump().and_then(closing_quote).unwrap_or('"');
        let mut out = String::new();
        loop {
            match self.bump() {
                None => {
                    let hint = format!("close it with {close}");
                    return Err(FilterError::new(
                        self.text,
                        start..self.text.len(),
                        "this text has no end".to_owned(),
                        Some(hint),
                    ));
                }
                Some(c) if c == close => return Ok(out),
                Some('\\') => out.push(self.escape()?),
                Some(c) => out.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, FilterError> {
        let start = self.at - 1;
        match self.bump() {
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('u') => self.code_point(start),
            Some(c) if !c.is_alphanumeric() => Ok(c),
            _ => Err(self.bad_escape(start)),
        }
    }

    fn code_point(&mut self, start: usize) -> Result<char, FilterError> {
        let rest = &self.text[self.at..];
        let found = rest
            .strip_prefix('{')
            .and_then(|rest| rest.split_once('}'))
            .and_then(|(hex, _)| {
                let c = char::from_u32(u32::from_str_radix(hex, 16).ok()?)?;
                Some((c, hex.len() + 2))
            });
        let Some((c, length)) = found else {
            return Err(self.bad_escape(start));
        };
        self.at += length;
        Ok(c)
    }

    fn bad_escape(&self, start: usize) -> FilterError {
        let hint = "use \\\\ for a backslash, \\\" for a quote, \\n, \\t or \\u{3042}".to_owned();
        FilterError::new(
            self.text,
            start..self.at,
            "this escape is not known".to_owned(),
            Some(hint),
        )
    }

    fn sign(&mut self) -> Result<Token, FilterError> {
        let start = self.at;
        let first = self.bump().map(narrow).unwrap_or(' ');
        let second = self.peek().map(narrow);
        let (sign, long) = match (first, second) {
            ('=', Some('=')) => ("=", true),
            ('!', Some('=')) | ('<', Some('>')) => ("!=", true),
            ('<', Some('=')) => ("<=", true),
            ('>', Some('=')) => (">=", true),
            ('=', _) => ("=", false),
            ('<', _) => ("<", false),
            ('>', _) => (">", false),
            ('≠', _) => ("!=", false),
            ('≤' | '≦', _) => ("<=", false),
            ('≥' | '≧', _) => (">=", false),
            ('(', _) => ("(", false),
            (')', _) => (")", false),
            (',', _) => (",", false),
            _ => {
                let hint = match first {
                    '&' => Some("write \"and\"".to_owned()),
                    '|' => Some("write \"or\"".to_owned()),
                    '!' => Some("write \"not\"".to_owned()),
                    '~' | '*' | '%' => Some("for a part of a text write \"contains\"".to_owned()),
                    _ => None,
                };
                let message = format!(
                    "{:?} has no meaning here",
                    self.text[start..self.at].chars().next().unwrap_or(' ')
                );
                return Err(FilterError::new(self.text, start..self.at, message, hint));
            }
        };
        if long {
            self.bump();
        }
        Ok(Token::Sign(sign))
    }
}

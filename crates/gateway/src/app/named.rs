//! The language of apps' expressions, for documents that are no apps: it looks at
//! values that the caller names, with the same limits.

use std::collections::HashMap;

use serde_json::Value;

use super::expr::{Expression, Scope, with_room};

/// An expression over values with names, read once and run any number of times.
#[derive(Debug)]
pub struct NamedExpression(Expression);

impl NamedExpression {
    /// Reads an expression that may look at these names.
    ///
    /// # Errors
    /// What is wrong with it, and where in the text.
    pub fn parse(text: &str, names: &[&str]) -> Result<Self, String> {
        with_room(|| {
            let expression = Expression::parse(text)?;
            expression.allow_only(names)?;
            Ok(Self(expression))
        })?
    }

    /// Runs it on these values.
    ///
    /// # Errors
    /// What went wrong, for the person who wrote it.
    pub fn run(&self, named: &[(&str, &Value)]) -> Result<Value, String> {
        self.0.run(&Scope {
            inputs: &Value::Null,
            steps: &HashMap::new(),
            item: None,
            named,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_have_the_names_that_they_are_given() {
        let example = json!({"input": {"question": "why"}, "tags": ["a", "b"]});
        let named = [("example", &example)];
        let run = |text: &str| NamedExpression::parse(text, &["example"])?.run(&named);
        assert_eq!(run("example.input.question + '?'"), Ok(json!("why?")));
        assert_eq!(run("example.tags.map(t, t + t)"), Ok(json!(["aa", "bb"])));
        let problem = NamedExpression::parse("inputs.question", &["example"]);
        assert!(problem.is_err_and(|text| text.contains("\"inputs\"")));
        assert!(run("example.missing").is_err());
    }
}

//! Expressions: CEL over JSON, with every kind of work counted.
//!
//! The `cel` crate reads the language; running it happens here, because its
//! interpreter has no limit on work or memory and an app's expressions meet
//! whatever a caller or a model wrote. Each visited node, each loop turn and each
//! 64 bytes that are looked at or made cost one unit of a fixed budget, so that
//! an expression can be wrong but never slow.
//!
//! Three things differ from CEL where JSON asks for it: whole numbers and
//! fractions mix in arithmetic, `string(x)` of a list or map is its JSON, and
//! there are neither bytes, timestamps nor regular expressions.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators};
use cel::common::ast::{IdedExpr, SourceInfo};
use cel::parser::Parser;
use serde_json::{Map, Number, Value};

/// The longest expression, in bytes.
const LONGEST: usize = 2_000;
/// Brackets inside brackets.
const DEEPEST_BRACKETS: usize = 16;
/// Nodes above a node.
const DEEPEST: usize = 128;
/// Operators that stand in each other's way: `1 + 2 + 3` is read as `(1 + 2) + 3`.
const MOST_OPERATORS: usize = 100;
/// Units of work that one evaluation may cost.
const BUDGET: u64 = 200_000;
/// Bytes looked at or made for one unit.
const BYTES_A_UNIT: usize = 64;

/// An expression that was read once and can be run any number of times.
#[derive(Debug)]
pub(crate) struct Expression {
    root: IdedExpr,
    source: SourceInfo,
}

/// Results of steps by id.
pub(crate) type Steps = HashMap<String, Arc<Value>>;

/// What an expression may look at.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    /// The app's inputs.
    pub inputs: &'a Value,
    /// The result of a step.
    pub steps: &'a Steps,
    /// The item of a `for_each`, and its place.
    pub item: Option<(&'a Value, usize)>,
    /// What else has a name; nothing in an app.
    pub named: &'a [(&'a str, &'a Value)],
}

/// What an expression mentions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mentions {
    /// Ids of steps.
    pub steps: BTreeSet<String>,
    /// Names of inputs.
    pub inputs: BTreeSet<String>,
    /// Whether it uses `item` or `index`.
    pub item: bool,
}

/// A problem with a place: a line and a column, both from 1.
type Located = (String, Option<(usize, usize)>);

/// Runs this on a thread with a large stack: the crate's parser recurses so much
/// that a worker's stack is not enough for every expression that is allowed, and
/// it must not take the process with it when it panics.
///
/// # Errors
/// It panicked, or there was no thread to be had.
pub(crate) fn with_room<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    const STACK: usize = 32 << 20;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("expressions".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, work)
            .map_err(|error| format!("the expressions could not be read: {error}"))?;
        thread
            .join()
            .map_err(|_| "an expression cannot be read: it breaks the parser".to_owned())
    })
}

impl Expression {
    /// Reads an expression. To be called in [`with_room`].
    ///
    /// # Errors
    /// What is wrong and where in it: syntax, an unknown function, too long.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!(
                "the expression has {} bytes; at most {LONGEST} are allowed",
                text.len()
            ));
        }
        if text.trim().is_empty() {
            return Err("the expression is empty".to_owned());
        }
        check_nesting(text)?;
        let parsed = Parser::new()
            .max_recursion_depth(DEEPEST_BRACKETS as u16 * 2)
            .parse_with_source_info(text);
        let (root, source) = parsed.map_err(|errors| syntax_problem(&errors))?;
        let expression = Self { root, source };
        expression.check(&expression.root, 0)?;
        Ok(expression)
    }

    fn check(&self, node: &IdedExpr, depth: usize) -> Result<(), String> {
        if depth > DEEPEST {
            return Err("the expression is nested too deep".to_owned());
        }
        let fail = |what: String| Err(self.located(&what, node.id));
        match &node.expr {
            Expr::Call(call) => {
                let operator = call.target.is_none() && is_operator(&call.func_name);
                if !operator && !FUNCTIONS.contains(&call.func_name.as_str()) {
                    let near = crate::nearest(&call.func_name, FUNCTIONS.iter().copied());
                    let hint = near.map_or_else(
                        || format!("known are {}", FUNCTIONS.join(", ")),
                        |near| format!("did you mean {near:?}?"),
                    );
                    return fail(format!("there is no function {:?}; {hint}", call.func_name));
                }
            }
            Expr::Struct(_) => return fail("messages cannot be made here".to_owned()),
            Expr::Literal(LiteralValue::Bytes(_)) => {
                return fail("there are no bytes here; write a text".to_owned());
            }
            Expr::Unspecified => return fail("the expression is not complete".to_owned()),
            _ => {}
        }
        children(&node.expr).try_for_each(|child| self.check(child, depth + 1))
    }

    /// What the expression looks at.
    ///
    /// # Errors
    /// A name that means nothing, and where.
    pub(crate) fn mentions(&self) -> Result<Mentions, String> {
        let mut mentions = Mentions::default();
        self.mention(&self.root, &mut Vec::new(), &mut mentions)?;
        Ok(mentions)
    }

    fn mention<'a>(
        &'a self,
        node: &'a IdedExpr,
        local: &mut Vec<&'a str>,
        mentions: &mut Mentions,
    ) -> Result<(), String> {
        if let Some((root, name)) = member_of_root(&node.expr)
            && !local.contains(&root)
            && (root == "steps" || root == "inputs")
        {
            let set = if root == "steps" {
                &mut mentions.steps
            } else {
                &mut mentions.inputs
            };
            set.insert(name.to_owned());
            return Ok(());
        }
        match &node.expr {
            Expr::Ident(name) if local.contains(&name.as_str()) => Ok(()),
            Expr::Ident(name) => match name.as_str() {
                "item" | "index" => {
                    mentions.item = true;
                    Ok(())
                }
                "inputs" => Ok(()),
                "steps" => {
                    let what = "\"steps\" needs a step's id: steps.ID.text";
                    Err(self.located(what, node.id))
                }
                other => {
                    let what = format!(
                        "the name {other:?} is not known; there are inputs.NAME, steps.ID.text, \
                         steps.ID.json, and item and index in a chain with for_each"
                    );
                    Err(self.located(&what, node.id))
                }
            },
            Expr::Comprehension(fold) => {
                self.mention(&fold.iter_range, local, mentions)?;
                self.mention(&fold.accu_init, local, mentions)?;
                let before = local.len();
                local.push(&fold.iter_var);
                local.extend(fold.iter_var2.as_deref());
                local.push(&fold.accu_var);
                for part in [&fold.loop_cond, &fold.loop_step, &fold.result] {
                    self.mention(part, local, mentions)?;
                }
                local.truncate(before);
                Ok(())
            }
            other => children(other).try_for_each(|child| self.mention(child, local, mentions)),
        }
    }

    /// Refuses names other than these.
    ///
    /// # Errors
    /// A name that means nothing, and where.
    pub(crate) fn allow_only(&self, names: &[&str]) -> Result<(), String> {
        self.allow(&self.root, names, &mut Vec::new())
    }

    fn allow<'a>(
        &'a self,
        node: &'a IdedExpr,
        names: &[&str],
        local: &mut Vec<&'a str>,
    ) -> Result<(), String> {
        match &node.expr {
            Expr::Ident(name) if local.contains(&name.as_str()) => Ok(()),
            Expr::Ident(name) if names.contains(&name.as_str()) => Ok(()),
            Expr::Ident(name) => {
                let what = format!(
                    "the name {name:?} is not known; there is {}",
                    names.join(", ")
                );
                Err(self.located(&what, node.id))
            }
            Expr::Comprehension(fold) => {
                self.allow(&fold.iter_range, names, local)?;
                self.allow(&fold.accu_init, names, local)?;
                let before = local.len();
                local.push(&fold.iter_var);
                local.extend(fold.iter_var2.as_deref());
                local.push(&fold.accu_var);
                for part in [&fold.loop_cond, &fold.loop_step, &fold.result] {
                    self.allow(part, names, local)?;
                }
                local.truncate(before);
                Ok(())
            }
            other => children(other).try_for_each(|child| self.allow(child, names, local)),
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// What went wrong, for the person who wrote it.
    pub(crate) fn run(&self, scope: &Scope<'_>) -> Result<Value, String> {
        let mut run = Run {
            scope,
            left: BUDGET,
            local: Vec::new(),
        };
        let value = run.eval(&self.root);
        value.map(Cow::into_owned).map_err(|problem| match problem {
            Problem::Spent => "the expression does too much work".to_owned(),
            Problem::At(what, id) => self.located(&what, id),
        })
    }

    fn located(&self, what: &str, id: u64) -> String {
        let place = self.source.offset_for(id);
        let place = place.and_then(|(start, _)| position(&self.source.source, start));
        words((what.to_owned(), place))
    }
}

fn words((what, place): Located) -> String {
    match place {
        Some((1, column)) => format!("{what} (at column {column})"),
        Some((line, column)) => format!("{what} (at line {line}, column {column})"),
        None => what,
    }
}

/// Line and column of a place that is counted in characters.
fn position(text: &str, start: u32) -> Option<(usize, usize)> {
    let before: String = text.chars().take(usize::try_from(start).ok()?).collect();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next()?.chars().count() + 1;
    Some((line, column))
}

fn syntax_problem(errors: &cel::ParseErrors) -> String {
    let Some(first) = errors.errors.first() else {
        return "the expression cannot be read".to_owned();
    };
    let line = usize::try_from(first.pos.0).unwrap_or(0);
    let column = usize::try_from(first.pos.1).unwrap_or(0);
    let what = first.msg.strip_prefix("Syntax error: ");
    let what = base::text::cut_bytes(what.unwrap_or(&first.msg), 200);
    let place = (line > 0).then_some((line, column + 1));
    words((format!("the expression cannot be read: {what}"), place))
}

/// The crate's parser recurses once for each bracket that is open and for each
/// operator before it on the same level, so these are counted before it starts.
fn check_nesting(text: &str) -> Result<(), String> {
    let deep = || Err("the expression is nested too deep".to_owned());
    let (mut quote, mut escaped) = (None, false);
    // Operators so far, by open bracket; a comma begins anew.
    let mut levels = vec![0_usize];
    let mut sum = 0;
    for (at, c) in text.char_indices() {
        let operator = match (quote, c) {
            _ if escaped => {
                escaped = false;
                false
            }
            (Some(_), '\\') => {
                escaped = true;
                false
            }
            (Some(open), _) => {
                quote = quote.filter(|_| c != open);
                false
            }
            (None, '"' | '\'') => {
                quote = Some(c);
                false
            }
            (None, '(' | '[' | '{') => {
                levels.push(0);
                true
            }
            (None, ')' | ']' | '}' | ',') => {
                if let Some(level) = levels.last_mut() {
                    sum -= std::mem::take(level);
                }
                if c != ',' && levels.len() > 1 {
                    levels.pop();
                }
                // `a[0][0]`: the closed one is part of what follows it.
                c != ','
            }
            (None, 'i') => text[at..].starts_with("in"),
            (None, _) => "+-*/%<>=&|?:!.".contains(c),
        };
        if operator {
            sum += 1;
            if let Some(level) = levels.last_mut() {
                *level += 1;
            }
        }
        if levels.len() > DEEPEST_BRACKETS || sum > MOST_OPERATORS {
            return deep();
        }
    }
    Ok(())
}

fn children(expr: &Expr) -> impl Iterator<Item = &IdedExpr> {
    let mut found: Vec<&IdedExpr> = Vec::new();
    match expr {
        Expr::Call(call) => {
            found.extend(call.target.as_deref());
            found.extend(&call.args);
        }
        Expr::Comprehension(fold) => found.extend([
            &fold.iter_range,
            &fold.accu_init,
            &fold.loop_cond,
            &fold.loop_step,
            &fold.result,
        ]),
        Expr::List(list) => found.extend(&list.elements),
        Expr::Map(map) => {
            for entry in &map.entries {
                match &entry.expr {
                    EntryExpr::MapEntry(entry) => found.extend([&entry.key, &entry.value]),
                    EntryExpr::StructField(field) => found.push(&field.value),
                }
            }
        }
        Expr::Select(select) => found.push(&select.operand),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => {}
    }
    found.into_iter()
}

/// `steps.ID`, `steps["ID"]`: the root's name and the member's.
fn member_of_root(expr: &Expr) -> Option<(&str, &str)> {
    match expr {
        Expr::Select(select) => match &select.operand.expr {
            Expr::Ident(root) => Some((root, &select.field)),
            _ => None,
        },
        Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
            [
                IdedExpr {
                    expr: Expr::Ident(root),
                    ..
                },
                IdedExpr {
                    expr: Expr::Literal(LiteralValue::String(name)),
                    ..
                },
            ] => Some((root, name.inner())),
            _ => None,
        },
        _ => None,
    }
}

const FUNCTIONS: [&str; 17] = [
    "size",
    "string",
    "int",
    "double",
    "bool",
    "contains",
    "startsWith",
    "endsWith",
    "lowerAscii",
    "upperAscii",
    "trim",
    "replace",
    "split",
    "join",
    "substring",
    "fromJson",
    "toJson",
];

fn is_operator(name: &str) -> bool {
    matches!(
        name,
        operators::CONDITIONAL
            | operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::SUBSTRACT
            | operators::ADD
            | operators::MULTIPLY
            | operators::DIVIDE
            | operators::MODULO
            | operators::EQUALS
            | operators::NOT_EQUALS
            | operators::GREATER_EQUALS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::LESS
            | operators::NEGATE
            | operators::INDEX
            | operators::NOT_STRICTLY_FALSE
            | operators::IN
    )
}

enum Problem {
    /// The budget is used up; nothing may catch this one.
    Spent,
    At(String, u64),
}

type Answer<'a> = Result<Cow<'a, Value>, Problem>;

struct Run<'a> {
    scope: &'a Scope<'a>,
    left: u64,
    local: Vec<(&'a str, Cow<'a, Value>)>,
}

impl<'a> Run<'a> {
    fn spend(&mut self, units: usize) -> Result<(), Problem> {
        let units = u64::try_from(units).unwrap_or(u64::MAX);
        self.left = self.left.checked_sub(units).ok_or(Problem::Spent)?;
        Ok(())
    }

    /// Pays for looking at, or making, this many bytes.
    fn spend_bytes(&mut self, bytes: usize) -> Result<(), Problem> {
        self.spend(bytes / BYTES_A_UNIT)
    }

    /// Pays for a copy of a value.
    fn spend_value(&mut self, value: &Value) -> Result<(), Problem> {
        match value {
            Value::String(text) => self.spend_bytes(text.len()),
            Value::Array(items) => {
                self.spend(items.len())?;
                items.iter().try_for_each(|item| self.spend_value(item))
            }
            Value::Object(map) => {
                self.spend(map.len())?;
                map.iter().try_for_each(|(key, value)| {
                    self.spend_bytes(key.len())?;
                    self.spend_value(value)
                })
            }
            _ => Ok(()),
        }
    }

    fn eval(&mut self, node: &'a IdedExpr) -> Answer<'a> {
        self.spend(1)?;
        let at = |what: String| Problem::At(what, node.id);
        match &node.expr {
            Expr::Literal(literal) => literal_value(literal).map(Cow::Owned).map_err(at),
            Expr::Ident(name) => self.variable(name).map_err(|problem| match problem {
                Problem::At(what, _) => at(what),
                spent => spent,
            }),
            Expr::Select(select) => {
                let found = match self.step_of(node)? {
                    Some(step) => Some(Cow::Borrowed(step)),
                    None => {
                        let operand = self.eval(&select.operand)?;
                        match (&*operand, select.test) {
                            (Value::Object(_), _) | (_, true) => {}
                            (other, false) => {
                                return Err(at(format!(
                                    "{} has no field {:?}",
                                    kind(other),
                                    select.field
                                )));
                            }
                        }
                        self.member(operand, &select.field)?
                    }
                };
                if select.test {
                    return Ok(owned(found.is_some()));
                }
                found.ok_or_else(|| at(format!("there is no field {:?}", select.field)))
            }
            Expr::List(list) => {
                let mut items = Vec::new();
                for element in &list.elements {
                    items.push(self.owned(element)?);
                }
                Ok(Cow::Owned(Value::Array(items)))
            }
            Expr::Map(entries) => {
                let mut map = Map::new();
                for entry in &entries.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        let key = match self.owned(&entry.key)? {
                            Value::String(key) => key,
                            other => {
                                return Err(Problem::At(
                                    format!("a key must be a text, not {}", kind(&other)),
                                    entry.key.id,
                                ));
                            }
                        };
                        let value = self.owned(&entry.value)?;
                        map.insert(key, value);
                    }
                }
                Ok(Cow::Owned(Value::Object(map)))
            }
            Expr::Comprehension(fold) => self.fold(fold),
            Expr::Call(call) => self.call(node, call),
            Expr::Struct(_) | Expr::Unspecified => Err(at("this cannot be evaluated".to_owned())),
        }
    }

    /// A value of its own, paid for.
    fn owned(&mut self, node: &'a IdedExpr) -> Result<Value, Problem> {
        match self.eval(node)? {
            Cow::Owned(value) => Ok(value),
            Cow::Borrowed(value) => {
                self.spend_value(value)?;
                Ok(value.clone())
            }
        }
    }

    fn variable(&mut self, name: &str) -> Answer<'a> {
        let local = self.local.iter().rev().find(|(local, _)| *local == name);
        if let Some((_, value)) = local {
            return match value {
                Cow::Borrowed(value) => Ok(Cow::Borrowed(value)),
                Cow::Owned(value) => {
                    let value = value.clone();
                    self.spend_value(&value)?;
                    Ok(Cow::Owned(value))
                }
            };
        }
        match (name, self.scope.item) {
            ("inputs", _) => Ok(Cow::Borrowed(self.scope.inputs)),
            ("item", Some((item, _))) => Ok(Cow::Borrowed(item)),
            ("index", Some((_, index))) => Ok(Cow::Owned(index.into())),
            _ => {
                let named = self.scope.named.iter().find(|(known, _)| *known == name);
                let none = || Problem::At(format!("there is no {name:?} here"), 0);
                named
                    .map(|(_, value)| Cow::Borrowed(*value))
                    .ok_or_else(none)
            }
        }
    }

    /// The result of a step, when the node is `steps.ID`.
    fn step_of(&self, node: &'a IdedExpr) -> Result<Option<&'a Value>, Problem> {
        match member_of_root(&node.expr) {
            Some(("steps", id)) if !self.local.iter().any(|(name, _)| *name == "steps") => {
                let step = self.scope.steps.get(id).map(AsRef::as_ref);
                let none = || Problem::At(format!("the step {id:?} has no result"), node.id);
                step.map(Some).ok_or_else(none)
            }
            _ => Ok(None),
        }
    }

    fn member(
        &mut self,
        of: Cow<'a, Value>,
        name: &str,
    ) -> Result<Option<Cow<'a, Value>>, Problem> {
        Ok(match of {
            Cow::Borrowed(value) => value.get(name).map(Cow::Borrowed),
            Cow::Owned(Value::Object(mut map)) => map.swap_remove(name).map(Cow::Owned),
            Cow::Owned(_) => None,
        })
    }

    fn truth(&mut self, node: &'a IdedExpr) -> Result<bool, Problem> {
        let value = self.eval(node)?;
        value.as_bool().ok_or_else(|| {
            Problem::At(
                format!("this must be true or false, not {}", kind(&value)),
                node.id,
            )
        })
    }

    /// `all`, `exists`, `exists_one`, `map` and `filter`, as the parser spells them out.
    fn fold(&mut self, fold: &'a ComprehensionExpr) -> Answer<'a> {
        let range = self.eval(&fold.iter_range)?;
        let items: Vec<Cow<'a, Value>> = match range {
            Cow::Borrowed(Value::Array(items)) => items.iter().map(Cow::Borrowed).collect(),
            Cow::Owned(Value::Array(items)) => items.into_iter().map(Cow::Owned).collect(),
            Cow::Borrowed(Value::Object(map)) => keys(map.keys()),
            Cow::Owned(Value::Object(map)) => keys(map.keys()),
            other => {
                return Err(Problem::At(
                    format!("this must be a list, not {}", kind(&other)),
                    fold.iter_range.id,
                ));
            }
        };
        self.spend(items.len())?;
        let mut result = self.eval(&fold.accu_init)?;
        let before = self.local.len();
        for item in items {
            self.local.push((&fold.accu_var, result));
            self.local.push((&fold.iter_var, item));
            let next = self.turn(fold);
            self.local.truncate(before + 1);
            let accumulated = self.local.pop().map(|(_, value)| value);
            match next? {
                Turn::Value(value) => result = value,
                Turn::Push(value) => {
                    result = pushed(accumulated, value);
                }
                Turn::Keep => result = accumulated.unwrap_or(Cow::Owned(Value::Null)),
                Turn::Stop => {
                    result = accumulated.unwrap_or(Cow::Owned(Value::Null));
                    break;
                }
            }
        }
        self.local.push((&fold.accu_var, result));
        let answer = self.eval(&fold.result);
        self.local.truncate(before);
        answer
    }

    fn turn(&mut self, fold: &'a ComprehensionExpr) -> Result<Turn<'a>, Problem> {
        if !self.truth(&fold.loop_cond)? {
            return Ok(Turn::Stop);
        }
        self.step(&fold.loop_step, &fold.accu_var)
    }

    /// One step of a loop. Adding to the list that is being made must not copy
    /// it each time, so that shape is recognised.
    fn step(&mut self, node: &'a IdedExpr, accumulator: &str) -> Result<Turn<'a>, Problem> {
        if let Expr::Call(call) = &node.expr {
            match (call.func_name.as_str(), call.args.as_slice()) {
                (operators::ADD, [left, right]) if is_name(left, accumulator) => {
                    if let Expr::List(list) = &right.expr
                        && let [element] = list.elements.as_slice()
                    {
                        return Ok(Turn::Push(self.owned(element)?));
                    }
                }
                (operators::CONDITIONAL, [condition, then, other])
                    if is_name(other, accumulator) =>
                {
                    return if self.truth(condition)? {
                        self.step(then, accumulator)
                    } else {
                        Ok(Turn::Keep)
                    };
                }
                _ => {}
            }
        }
        self.eval(node).map(Turn::Value)
    }

    fn call(&mut self, node: &'a IdedExpr, call: &'a CallExpr) -> Answer<'a> {
        let at = |what: String| Problem::At(what, node.id);
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::CONDITIONAL, [condition, then, other]) => {
                if self.truth(condition)? {
                    self.eval(then)
                } else {
                    self.eval(other)
                }
            }
            (operators::LOGICAL_AND, [left, right]) => self.logical(left, right, false),
            (operators::LOGICAL_OR, [left, right]) => self.logical(left, right, true),
            (operators::LOGICAL_NOT, [inner]) => Ok(owned(!self.truth(inner)?)),
            (operators::NOT_STRICTLY_FALSE, [inner]) => match self.eval(inner) {
                Err(Problem::Spent) => Err(Problem::Spent),
                Err(Problem::At(..)) => Ok(owned(true)),
                Ok(value) => Ok(owned(*value != Value::Bool(false))),
            },
            (operators::INDEX, [of, index]) => {
                if let Some(step) = self.step_of(node)? {
                    return Ok(Cow::Borrowed(step));
                }
                let of = self.eval(of)?;
                let index = self.eval(index)?;
                self.index(of, &index)?
                    .map_err(|what| Problem::At(what, node.id))
            }
            (name, args) if call.target.is_none() && is_operator(name) => {
                let mut values = Vec::with_capacity(args.len());
                for arg in args {
                    values.push(self.eval(arg)?);
                }
                match values.as_slice() {
                    [one] => negate(one).map(Cow::Owned).map_err(at),
                    [left, right] => self.binary(name, left, right, node.id),
                    _ => Err(at("an operator has one or two operands".to_owned())),
                }
            }
            (name, args) => {
                let mut values = Vec::with_capacity(args.len() + 1);
                for arg in call.target.as_deref().into_iter().chain(args) {
                    let value = self.eval(arg)?;
                    self.spend_value(&value)?;
                    values.push(value);
                }
                self.function(name, &values, node.id)
            }
        }
    }

    /// `&&` and `||`: an error on one side does not matter when the other decides.
    fn logical(&mut self, left: &'a IdedExpr, right: &'a IdedExpr, decides: bool) -> Answer<'a> {
        let first = self.truth(left);
        match first {
            Err(Problem::Spent) => return Err(Problem::Spent),
            Ok(value) if value == decides => return Ok(owned(decides)),
            _ => {}
        }
        let second = self.truth(right)?;
        if second == decides {
            return Ok(owned(decides));
        }
        first.map(|_| owned(!decides))
    }

    fn index(
        &mut self,
        of: Cow<'a, Value>,
        index: &Value,
    ) -> Result<Result<Cow<'a, Value>, String>, Problem> {
        let place = match (&*of, index) {
            (Value::Object(_), Value::String(name)) => {
                let found = self.member(of, name)?;
                return Ok(found.ok_or_else(|| format!("there is no field {name:?}")));
            }
            (Value::Array(items), Value::Number(at)) => {
                let at_index = at.as_u64().and_then(|at| usize::try_from(at).ok());
                match at_index.filter(|at| *at < items.len()) {
                    Some(at) => at,
                    None => {
                        return Ok(Err(format!(
                            "there is no place {at} in a list of {}",
                            items.len()
                        )));
                    }
                }
            }
            (of, index) => {
                return Ok(Err(format!("{} has no {}", kind(of), kind(index))));
            }
        };
        Ok(match of {
            Cow::Borrowed(value) => value.get(place).map(Cow::Borrowed),
            Cow::Owned(Value::Array(mut items)) => Some(Cow::Owned(items.swap_remove(place))),
            Cow::Owned(_) => None,
        }
        .ok_or_else(|| "there is no such place".to_owned()))
    }

    fn binary(&mut self, name: &str, left: &Value, right: &Value, id: u64) -> Answer<'a> {
        let wrong = || {
            Problem::At(
                format!("{} and {} do not go together here", kind(left), kind(right)),
                id,
            )
        };
        let value = match name {
            operators::EQUALS | operators::NOT_EQUALS => {
                self.spend_value(left)?;
                (equal(left, right) == (name == operators::EQUALS)).into()
            }
            operators::IN => {
                self.spend_value(right)?;
                match (left, right) {
                    (_, Value::Array(items)) => items.iter().any(|item| equal(item, left)).into(),
                    (Value::String(key), Value::Object(map)) => map.contains_key(key).into(),
                    _ => return Err(wrong()),
                }
            }
            operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS => {
                self.spend_value(left)?;
                let order = compare(left, right).ok_or_else(wrong)?;
                let holds = match name {
                    operators::LESS => order.is_lt(),
                    operators::LESS_EQUALS => order.is_le(),
                    operators::GREATER => order.is_gt(),
                    _ => order.is_ge(),
                };
                holds.into()
            }
            operators::ADD => match (left, right) {
                (Value::String(left), Value::String(right)) => {
                    self.spend_bytes(left.len() + right.len())?;
                    format!("{left}{right}").into()
                }
                (Value::Array(first), Value::Array(second)) => {
                    self.spend_value(left)?;
                    self.spend_value(right)?;
                    first.iter().chain(second).cloned().collect()
                }
                _ => arithmetic(name, left, right).map_err(|what| Problem::At(what, id))?,
            },
            _ => arithmetic(name, left, right).map_err(|what| Problem::At(what, id))?,
        };
        Ok(Cow::Owned(value))
    }

    fn function(&mut self, name: &str, values: &[Cow<'a, Value>], id: u64) -> Answer<'a> {
        let values: Vec<&Value> = values.iter().map(AsRef::as_ref).collect();
        // What is made can be larger than what it is made of in one case only.
        if let ("replace", [Value::String(text), Value::String(from), Value::String(to)]) =
            (name, values.as_slice())
        {
            let count = text.matches(from.as_str()).count();
            self.spend_bytes(count.saturating_mul(to.len()))?;
        }
        if let ("join", [Value::Array(items), Value::String(separator)]) = (name, values.as_slice())
        {
            self.spend_bytes(items.len().saturating_mul(separator.len()))?;
        }
        if let ("split", [Value::String(text), ..]) = (name, values.as_slice()) {
            self.spend(text.len() / 8)?;
        }
        let value = function(name, &values).map_err(|what| Problem::At(what, id))?;
        Ok(Cow::Owned(value))
    }
}

enum Turn<'a> {
    Value(Cow<'a, Value>),
    Push(Value),
    Keep,
    Stop,
}

fn is_name(node: &IdedExpr, name: &str) -> bool {
    matches!(&node.expr, Expr::Ident(ident) if ident == name)
}

fn pushed<'a>(list: Option<Cow<'a, Value>>, value: Value) -> Cow<'a, Value> {
    match list.map(Cow::into_owned) {
        Some(Value::Array(mut items)) => {
            items.push(value);
            Cow::Owned(Value::Array(items))
        }
        _ => Cow::Owned(Value::Array(vec![value])),
    }
}

fn keys<'a, 'b>(keys: impl Iterator<Item = &'b String>) -> Vec<Cow<'a, Value>> {
    keys.map(|key| Cow::Owned(key.clone().into())).collect()
}

fn owned<'a>(value: bool) -> Cow<'a, Value> {
    Cow::Owned(Value::Bool(value))
}

/// The word for a value's kind.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

fn literal_value(literal: &LiteralValue) -> Result<Value, String> {
    Ok(match literal {
        LiteralValue::Boolean(value) => (*value.inner()).into(),
        LiteralValue::Int(value) => (*value.inner()).into(),
        LiteralValue::UInt(value) => (*value.inner()).into(),
        LiteralValue::Double(value) => (*value.inner()).into(),
        LiteralValue::String(value) => value.inner().into(),
        LiteralValue::Null => Value::Null,
        LiteralValue::Bytes(_) => return Err("there are no bytes here".to_owned()),
    })
}

fn number(value: f64) -> Result<Value, String> {
    Number::from_f64(value)
        .map(Value::Number)
        .ok_or_else(|| "the result is not a number".to_owned())
}

fn negate(value: &Value) -> Result<Value, String> {
    if let Some(whole) = value.as_i64() {
        let negated = whole.checked_neg();
        return negated
            .map(Value::from)
            .ok_or_else(|| "the result is too large".to_owned());
    }
    match value.as_f64() {
        Some(fraction) => number(-fraction),
        None => Err(format!("{} has no negative", kind(value))),
    }
}

fn arithmetic(name: &str, left: &Value, right: &Value) -> Result<Value, String> {
    let large = || "the result is too large".to_owned();
    if let (Some(a), Some(b)) = (left.as_i64(), right.as_i64()) {
        if b == 0 && matches!(name, operators::DIVIDE | operators::MODULO) {
            return Err("division by zero".to_owned());
        }
        let whole = match name {
            operators::ADD => a.checked_add(b),
            operators::SUBSTRACT => a.checked_sub(b),
            operators::MULTIPLY => a.checked_mul(b),
            operators::DIVIDE => a.checked_div(b),
            _ => a.checked_rem(b),
        };
        return whole.map(Value::from).ok_or_else(large);
    }
    match (left.as_f64(), right.as_f64()) {
        (Some(a), Some(b)) => number(match name {
            operators::ADD => a + b,
            operators::SUBSTRACT => a - b,
            operators::MULTIPLY => a * b,
            operators::DIVIDE => a / b,
            _ => a % b,
        }),
        _ => Err(format!(
            "{} and {} do not go together here",
            kind(left),
            kind(right)
        )),
    }
}

/// Numbers are equal by value: 1 is 1.0.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(_), Value::Number(_)) => {
            compare(left, right) == Some(std::cmp::Ordering::Equal)
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        _ => left == right,
    }
}

fn compare(left: &Value, right: &Value) -> Option<std::cmp::Ordering> {
    match (left, right) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        },
        _ => None,
    }
}

fn function(name: &str, values: &[&Value]) -> Result<Value, String> {
    let wrong = || {
        let kinds: Vec<&str> = values.iter().map(|value| kind(value)).collect();
        format!("{name} cannot be called with {}", kinds.join(", "))
    };
    Ok(match (name, values) {
        ("size", [Value::String(text)]) => text.chars().count().into(),
        ("size", [Value::Array(items)]) => items.len().into(),
        ("size", [Value::Object(map)]) => map.len().into(),
        ("string", [value]) => as_text(value).into(),
        ("toJson", [value]) => value.to_string().into(),
        ("fromJson", [Value::String(text)]) => {
            serde_json::from_str(text).map_err(|error| format!("the text is not JSON: {error}"))?
        }
        ("int", [Value::String(text)]) => text
            .trim()
            .parse::<i64>()
            .map_err(|_| "the text is not a whole number".to_owned())?
            .into(),
        ("int", [Value::Number(of)]) => whole(of).ok_or_else(wrong)?.into(),
        ("int", [Value::Bool(value)]) => i64::from(*value).into(),
        ("double", [Value::String(text)]) => number(
            text.trim()
                .parse::<f64>()
                .map_err(|_| "the text is not a number".to_owned())?,
        )?,
        ("double", [Value::Number(of)]) => number(of.as_f64().ok_or_else(wrong)?)?,
        ("bool", [Value::Bool(value)]) => (*value).into(),
        ("bool", [Value::String(text)]) => match text.as_str() {
            "true" => true.into(),
            "false" => false.into(),
            _ => return Err("the text is neither true nor false".to_owned()),
        },
        ("contains", [Value::String(text), Value::String(part)]) => {
            text.contains(part.as_str()).into()
        }
        ("startsWith", [Value::String(text), Value::String(part)]) => {
            text.starts_with(part.as_str()).into()
        }
        ("endsWith", [Value::String(text), Value::String(part)]) => {
            text.ends_with(part.as_str()).into()
        }
        ("lowerAscii", [Value::String(text)]) => text.to_ascii_lowercase().into(),
        ("upperAscii", [Value::String(text)]) => text.to_ascii_uppercase().into(),
        ("trim", [Value::String(text)]) => text.trim().into(),
        ("replace", [Value::String(text), Value::String(from), Value::String(to)]) => {
            text.replace(from.as_str(), to).into()
        }
        ("split", [Value::String(text), Value::String(by)]) => {
            text.split(by.as_str()).map(Value::from).collect()
        }
        ("join", [Value::Array(items)]) => joined(items, ""),
        ("join", [Value::Array(items), Value::String(separator)]) => joined(items, separator),
        ("substring", [Value::String(text), Value::Number(from)]) => {
            substring(text, from, None).ok_or_else(wrong)?.into()
        }
        ("substring", [Value::String(text), Value::Number(from), Value::Number(to)]) => {
            substring(text, from, Some(to)).ok_or_else(wrong)?.into()
        }
        _ => return Err(wrong()),
    })
}

/// A text as it is, everything else as JSON.
pub(crate) fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn joined(items: &[Value], separator: &str) -> Value {
    let texts: Vec<String> = items.iter().map(as_text).collect();
    texts.join(separator).into()
}

fn whole(of: &Number) -> Option<i64> {
    of.as_i64().or_else(|| {
        let fraction = of.as_f64()?.trunc();
        // Beyond this a double does not hold every whole number.
        const SAFE: f64 = 9_007_199_254_740_992.0;
        #[expect(clippy::cast_possible_truncation, reason = "checked just now")]
        (fraction.abs() <= SAFE).then_some(fraction as i64)
    })
}

fn substring(text: &str, from: &Number, to: Option<&Number>) -> Option<String> {
    let count = text.chars().count();
    let place = |at: &Number| usize::try_from(at.as_u64()?).ok().filter(|at| *at <= count);
    let from = place(from)?;
    let to = match to {
        Some(to) => place(to)?,
        None => count,
    };
    let length = to.checked_sub(from)?;
    Some(text.chars().skip(from).take(length).collect())
}

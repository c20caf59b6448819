//! From a policy to what a stream runs, one plan per point; everything that is wrong with the
//! policy is said here, with its place.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fold::Kind;
use super::layer::Scans;
use super::pattern;
use super::scan::{PatternTest, Scanner, Taker, Target, Test, Words};
use super::schema::Schema;
use super::sentences::Lengths;
use super::{Compiled, Problem, Resources, Scorer};
use crate::decide::Subject;
use crate::detectors::{self, Detector, View};
use crate::policy::{Action, Check, Fold, OnFailure, Point, Policy, Rule, Source, Tier, WordList};

const MOST_RULES: usize = 200;
const MOST_WORDS: usize = 100_000;
const MOST_WORD_CHARS: usize = 128;
/// Shorter words are too often another word's ROT13.
const LEAST_ROT13_CHARS: usize = 6;
const EMBEDDING_DEADLINE_MS: u32 = 200;
const JUDGE_DEADLINE_MS: u32 = 10_000;

/// What the engine needs of a rule at run time.
#[derive(Debug)]
pub(super) struct RuleFacts {
    pub(super) name: String,
    pub(super) label: String,
    pub(super) action: Action,
    pub(super) shadow: bool,
    pub(super) on_failure: OnFailure,
    pub(super) deadline_ms: Option<u32>,
    /// Whether text waits for this rule's windows.
    pub(super) holds: bool,
}

impl RuleFacts {
    fn new(rule: &Rule) -> Self {
        let acts = !rule.shadow && rule.action != Action::Flag {};
        RuleFacts {
            name: rule.name.clone(),
            label: label_of(&rule.name),
            action: rule.action.clone(),
            shadow: rule.shadow,
            on_failure: rule.on_failure,
            deadline_ms: rule.deadline_ms,
            holds: acts && rule.hold,
        }
    }

    pub(super) fn deadline_ms(&self, tier: Tier) -> u32 {
        let usual = match tier {
            Tier::Judge => JUDGE_DEADLINE_MS,
            _ => EMBEDDING_DEADLINE_MS,
        };
        self.deadline_ms.unwrap_or(usual)
    }
}

/// What stands in a placeholder for a rule's finds: its name as an identifier.
fn label_of(name: &str) -> String {
    let upper = name.chars().flat_map(char::to_uppercase);
    let label: String = upper
        .map(|c| if c.is_alphanumeric() { c } else { '_' })
        .take(40)
        .collect();
    if label.is_empty() {
        "TEXT".to_owned()
    } else {
        label
    }
}

/// What runs at one point.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) scans: Scans,
    pub(super) windows: Vec<(Lengths, Vec<WindowRule>)>,
    /// Rules with a number: characters allowed, characters in a loop, characters in common.
    pub(super) sizes: Vec<(usize, u64)>,
    pub(super) loops: Vec<(usize, u32)>,
    pub(super) leaks: Vec<(usize, u32)>,
    pub(super) canaries: Vec<usize>,
    pub(super) empties: Vec<usize>,
    pub(super) json: Vec<JsonRule>,
    /// Rules whose word list cannot be had, with its name.
    pub(super) lost: Vec<(usize, String)>,
    /// Nothing leaves before the end.
    pub(super) holds_all: bool,
    /// Another answer may be asked for.
    pub(super) rewrites: bool,
    /// Sentences are held to what the model was shown.
    pub(super) holds_to_evidence: bool,
}

/// A check of passages.
#[derive(Debug)]
pub(super) struct WindowRule {
    pub(super) rule: usize,
    pub(super) check: &'static str,
    pub(super) threshold: Option<f32>,
    pub(super) local: Vec<Local>,
    pub(super) asks: Vec<(Tier, Subject)>,
    /// Whose texts the passage is held to; others are judged by themselves.
    pub(super) held_to: Option<Vec<Source>>,
}

/// What looks at a passage in place.
#[derive(Debug)]
pub(super) enum Local {
    Scorer(Scorer),
    /// Orders to a machine, where text is data.
    Addressed,
    Gibberish,
    Languages(Vec<String>),
}

#[derive(Debug)]
pub(super) struct JsonRule {
    pub(super) rule: usize,
    pub(super) schema: Option<Schema>,
    pub(super) repair: bool,
}

/// Checks a policy and plans every point that it looks at.
pub(super) fn compile(policy: &Policy, resources: &Resources) -> Result<Compiled, Vec<Problem>> {
    let mut problems = Vec::new();
    if policy.rules.len() > MOST_RULES {
        let message = format!(
            "has {} rules, at most {MOST_RULES} are allowed",
            policy.rules.len()
        );
        return Err(vec![Problem::new("rules", message)]);
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        let mut check = Checking {
            path: format!("rules[{index}]"),
            resources,
            problems: &mut problems,
        };
        check.rule(rule);
        let twin = policy.rules[..index]
            .iter()
            .any(|other| other.name == rule.name);
        if twin {
            check.say(
                "name",
                format!("`{}` is another rule's name, too", rule.name),
            );
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut plans: Vec<(Vec<usize>, Arc<Plan>)> = Vec::new();
    let mut points = BTreeMap::new();
    for point in POINTS {
        let looks = policy.rules.iter().enumerate();
        let looks = looks.filter(|(_, rule)| rule.at.contains(&point));
        let rules: Vec<usize> = looks.map(|(index, _)| index).collect();
        if rules.is_empty() {
            continue;
        }
        let known = plans.iter().find(|(of, _)| *of == rules);
        let plan = match known {
            Some((_, plan)) => plan.clone(),
            None => Arc::new(plan(policy, &rules, resources).map_err(|problem| vec![problem])?),
        };
        plans.push((rules, plan.clone()));
        points.insert(point, plan);
    }
    Ok(Compiled {
        rules: policy.rules.iter().map(RuleFacts::new).collect(),
        points,
    })
}

const POINTS: [Point; 5] = [
    Point::Input,
    Point::Output,
    Point::Retrieved,
    Point::ToolArguments,
    Point::ToolResult,
];

struct Checking<'a> {
    path: String,
    resources: &'a Resources,
    problems: &'a mut Vec<Problem>,
}

impl Checking<'_> {
    fn say(&mut self, field: &str, message: impl Into<String>) {
        self.problems
            .push(Problem::new(&format!("{}.{field}", self.path), message));
    }

    fn unless(&mut self, holds: bool, field: &str, message: impl Into<String>) {
        if !holds {
            self.say(field, message);
        }
    }

    fn rule(&mut self, rule: &Rule) {
        self.unless(!rule.name.trim().is_empty(), "name", "is empty");
        self.unless(
            !rule.at.is_empty(),
            "at",
            "names no point: the rule would never look",
        );
        if let Some(ms) = rule.deadline_ms {
            self.unless(
                (1..=600_000).contains(&ms),
                "deadline_ms",
                "must be 1 to 600000",
            );
        }
        self.check(&rule.check);
        self.action(rule);
    }

    fn action(&mut self, rule: &Rule) {
        let edits = matches!(rule.action, Action::Redact { .. } | Action::Replace { .. });
        let rewrites = matches!(rule.action, Action::Rewrite { .. });
        if rewrites && rule.at.iter().any(|point| *point != Point::Output) {
            self.say(
                "action",
                "`rewrite` asks a model to answer again: it is for `output` only",
            );
        }
        if !rule.hold && (edits || rewrites) {
            self.say(
                "hold",
                "`false` lets text go before it is judged: only `block` and `flag` can",
            );
        }
        let whole = match &rule.check {
            Check::Size { .. } => Some("size"),
            Check::Repetition { .. } => Some("repetition"),
            Check::Empty {} if !matches!(rule.action, Action::Replace { .. }) => Some("empty"),
            Check::Json { .. } if !matches!(rule.action, Action::Replace { .. }) => Some("json"),
            _ => None,
        };
        if let (Some(check), true) = (whole, edits) {
            let message = format!("`{check}` finds no passage that could be edited");
            self.say("action", message);
        }
    }

    fn check(&mut self, check: &Check) {
        match check {
            Check::Pii { kinds } => self.kinds(kinds, detectors::PII),
            Check::Secrets { kinds } => self.kinds(kinds, detectors::SECRETS),
            Check::Words { list, .. } => self.words(list),
            Check::Pattern { pattern, fold } => self.pattern(pattern, *fold),
            Check::Injection {
                threshold,
                tiers,
                classifier,
            } => self.classifier(
                classifier.as_deref().unwrap_or("injection"),
                *threshold,
                tiers,
            ),
            Check::Toxicity {
                threshold,
                tiers,
                classifier,
            } => self.classifier(
                classifier.as_deref().unwrap_or("toxicity"),
                *threshold,
                tiers,
            ),
            Check::Topics {
                allow,
                deny,
                threshold,
            } => {
                self.threshold(*threshold);
                let some = !allow.is_empty() || !deny.is_empty();
                self.unless(some, "check", "needs examples in `allow` or `deny`");
                self.unless(
                    allow.len() + deny.len() <= 500,
                    "check",
                    "has over 500 examples",
                );
            }
            Check::Languages { allow } => {
                self.unless(!allow.is_empty(), "check.allow", "names no language");
                for code in allow {
                    let known = super::languages::is_known(code);
                    self.unless(
                        known,
                        "check.allow",
                        format!("`{code}` is not a known language"),
                    );
                }
            }
            Check::PromptLeak { min_chars } => {
                let fits = (12..=2_000).contains(min_chars);
                self.unless(fits, "check.min_chars", "must be 12 to 2000");
            }
            Check::Json { schema, .. } => {
                if let Some(Err(error)) = schema.as_ref().map(Schema::new) {
                    self.say(&format!("check.schema{}", error.path), error.message);
                }
            }
            Check::Size { max_chars } => {
                self.unless(*max_chars > 0, "check.max_chars", "must be at least 1");
            }
            Check::Repetition { min_chars } => {
                let fits = (20..=20_000).contains(min_chars);
                self.unless(fits, "check.min_chars", "must be 20 to 20000");
            }
            Check::Gibberish { threshold } | Check::Grounded { threshold, .. } => {
                self.threshold(*threshold);
            }
            Check::Judge {
                rubric,
                threshold,
                every_chars,
                ..
            } => {
                self.threshold(*threshold);
                self.unless(!rubric.trim().is_empty(), "check.rubric", "is empty");
                let fits = (200..=20_000).contains(every_chars);
                self.unless(fits, "check.every_chars", "must be 200 to 20000");
            }
            Check::Links { allow } => {
                for host in allow {
                    let plain = !host.is_empty() && !host.contains(['/', ' ', ':']);
                    self.unless(plain, "check.allow", format!("`{host}` is not a host"));
                }
            }
            Check::Canary {} | Check::Refusal {} | Check::Empty {} => {}
        }
    }

    fn threshold(&mut self, threshold: Option<f32>) {
        let fits = threshold.is_none_or(|value| (0.0..=1.0).contains(&value));
        self.unless(fits, "check.threshold", "must be 0 to 1");
    }

    fn kinds(&mut self, kinds: &[String], table: &[&Detector]) {
        for (at, kind) in kinds.iter().enumerate() {
            if table.iter().all(|detector| detector.name != kind) {
                let known: Vec<&str> = table.iter().map(|detector| detector.name).collect();
                let message = format!("`{kind}` is not known; there are {}", known.join(", "));
                self.say(&format!("check.kinds[{at}]"), message);
            }
        }
    }

    fn words(&mut self, list: &WordList) {
        let words = match list {
            WordList::Inline(words) => words,
            WordList::Named(name) => match self.resources.lists.get(name) {
                Some(list) => &list.words,
                None if self.resources.lost.contains(name) => return,
                None => return self.say("check.list", format!("there is no list `{name}`")),
            },
        };
        let any = words.iter().any(|word| !word.trim().is_empty());
        self.unless(any, "check.list", "has no word");
        let few = words.len() <= MOST_WORDS;
        self.unless(few, "check.list", format!("has over {MOST_WORDS} words"));
        if let Some(at) = words
            .iter()
            .position(|word| word.chars().count() > MOST_WORD_CHARS)
        {
            let message = format!("is longer than {MOST_WORD_CHARS} characters");
            self.say(&format!("check.list[{at}]"), message);
        }
    }

    fn pattern(&mut self, text: &str, fold: Fold) {
        let parsed = pattern::parse(text, fold != Fold::Exact);
        if let Err(message) = parsed.and_then(|parsed| pattern::check_size(&parsed.hir)) {
            self.say("check.pattern", message);
        }
    }

    fn classifier(&mut self, name: &str, threshold: Option<f32>, tiers: &[Tier]) {
        self.threshold(threshold);
        let linear = tiers.is_empty() || tiers.contains(&Tier::Linear);
        if linear && !self.resources.scorers.contains_key(name) {
            let message = format!("there is no linear classifier `{name}`");
            self.say("check.tiers", message);
        }
    }
}

/// Collects targets per folding; one target serves all rules that ask for the same.
#[derive(Default)]
struct Targets {
    of: BTreeMap<Kind, Vec<Target>>,
}

impl Targets {
    fn add_detector(&mut self, kind: Kind, detector: &'static Detector, taker: Taker) {
        let targets = self.of.entry(kind).or_default();
        let same = |target: &&mut Target| matches!(&target.test, Test::Detector(known) if std::ptr::eq(*known, detector));
        match targets.iter_mut().find(same) {
            Some(target) => target.takers.push(taker),
            None => targets.push(Target {
                detector: detector.name.to_owned(),
                label: detector.label.to_owned(),
                reason: format!("looks like {}", detector.name.replace('_', " ")),
                test: Test::Detector(detector),
                takers: vec![taker],
            }),
        }
    }

    fn add(&mut self, kind: Kind, rule: usize, facts: &RuleFacts, check: &str, test: Test) {
        self.of.entry(kind).or_default().push(Target {
            detector: check.to_owned(),
            label: facts.label.clone(),
            reason: match test {
                Test::Words(_) => "is a word of the list".to_owned(),
                _ => "matches the pattern".to_owned(),
            },
            test,
            takers: vec![Taker { rule, hosts: None }],
        });
    }

    fn into_scans(self, needs_plain: bool) -> Result<Scans, Problem> {
        let mut scans = Scans::default();
        for (kind, targets) in self.of {
            let rules: Vec<usize> = targets.iter().map(|target| target.takers[0].rule).collect();
            let scanner = Scanner::new(kind, targets).map_err(|(target, message)| {
                Problem::new(&format!("rules[{}].check", rules[target]), message)
            })?;
            scans.folds.push((kind, vec![Arc::new(scanner)]));
        }
        if needs_plain && scans.folds.iter().all(|(kind, _)| *kind != Kind::Plain) {
            scans.folds.push((Kind::Plain, Vec::new()));
        }
        Ok(scans)
    }
}

fn plan(policy: &Policy, rules: &[usize], resources: &Resources) -> Result<Plan, Problem> {
    let mut plan = Plan::default();
    let mut targets = Targets::default();
    for &index in rules {
        let rule = &policy.rules[index];
        add_rule(&mut plan, &mut targets, index, rule, resources);
        let rewrites = matches!(rule.action, Action::Rewrite { .. }) && !rule.shadow;
        plan.holds_all |= rewrites;
        plan.rewrites |= rewrites;
    }
    let needs_plain = !plan.leaks.is_empty() || !plan.canaries.is_empty();
    plan.scans = targets.into_scans(needs_plain)?;
    Ok(plan)
}

fn add_rule(
    plan: &mut Plan,
    targets: &mut Targets,
    index: usize,
    rule: &Rule,
    resources: &Resources,
) {
    let facts = RuleFacts::new(rule);
    let rule_at = &rule.at;
    match &rule.check {
        Check::Pii { kinds } => add_table(targets, detectors::PII, kinds, index),
        Check::Secrets { kinds } => add_table(targets, detectors::SECRETS, kinds, index),
        Check::Refusal {} => add_table(targets, detectors::REFUSAL, &[], index),
        Check::Links { allow } => {
            for detector in detectors::LINKS {
                let taker = Taker {
                    rule: index,
                    hosts: Some(allow.clone()),
                };
                targets.add_detector(kind_of(detector.view), detector, taker);
            }
        }
        Check::Words { list, fold, inside } => {
            let (words, fold) = match list {
                WordList::Inline(words) => (words.clone(), *fold),
                WordList::Named(name) => match resources.lists.get(name) {
                    Some(list) => (list.words.clone(), list.fold.unwrap_or(*fold)),
                    None => return plan.lost.push((index, name.clone())),
                },
            };
            add_words(targets, index, &facts, words, fold, *inside);
        }
        Check::Pattern { pattern, fold } => add_pattern(targets, index, &facts, pattern, *fold),
        Check::Injection {
            threshold,
            tiers,
            classifier,
        } => {
            let rule = Classifier {
                name: "injection",
                scorer: classifier.as_deref().unwrap_or("injection"),
                subject: Subject::Injection,
                table: detectors::INJECTION,
                threshold: *threshold,
            };
            rule.add(plan, targets, index, tiers, resources);
            add_addressed(plan, index, rule_at, tiers);
        }
        Check::Toxicity {
            threshold,
            tiers,
            classifier,
        } => {
            let rule = Classifier {
                name: "toxicity",
                scorer: classifier.as_deref().unwrap_or("toxicity"),
                subject: Subject::Toxicity,
                table: detectors::TOXICITY,
                threshold: *threshold,
            };
            rule.add(plan, targets, index, tiers, resources);
        }
        Check::Canary {} => plan.canaries.push(index),
        Check::PromptLeak { min_chars } => plan.leaks.push((index, *min_chars)),
        Check::Empty {} => plan.empties.push(index),
        Check::Size { max_chars } => plan.sizes.push((index, *max_chars)),
        Check::Repetition { min_chars } => plan.loops.push((index, *min_chars)),
        Check::Json { schema, repair } => {
            plan.json.push(JsonRule {
                rule: index,
                schema: schema.as_ref().and_then(|schema| Schema::new(schema).ok()),
                repair: *repair,
            });
            plan.holds_all |= *repair && !rule.shadow || facts.holds;
        }
        _ => add_window(plan, index, &rule.check),
    }
}

/// Retrieved passages and results of tools are nobody's orders.
fn add_addressed(plan: &mut Plan, rule: usize, at: &[Point], tiers: &[Tier]) {
    let is_data = at.iter().any(|point| point.is_data());
    if is_data && (tiers.is_empty() || tiers.contains(&Tier::Rules)) {
        let rule = WindowRule {
            rule,
            check: "injection",
            threshold: None,
            local: vec![Local::Addressed],
            asks: Vec::new(),
            held_to: None,
        };
        push_window(plan, Lengths::SENTENCES, rule);
    }
}

fn kind_of(view: View) -> Kind {
    match view {
        View::Raw => Kind::Raw,
        View::Plain => Kind::Plain,
        View::Digits => Kind::Digits,
    }
}

fn add_table(targets: &mut Targets, table: &[&'static Detector], kinds: &[String], rule: usize) {
    for detector in table {
        if kinds.is_empty() || kinds.iter().any(|kind| kind == detector.name) {
            let taker = Taker { rule, hosts: None };
            targets.add_detector(kind_of(detector.view), detector, taker);
        }
    }
}

fn fold_kind(fold: Fold) -> Kind {
    match fold {
        Fold::Exact => Kind::Raw,
        Fold::Plain => Kind::Plain,
        Fold::Loose => Kind::Leet,
    }
}

fn add_words(
    targets: &mut Targets,
    rule: usize,
    facts: &RuleFacts,
    words: Vec<String>,
    fold: Fold,
    inside: bool,
) {
    let test = |min_chars: usize, words: Vec<String>| {
        Test::Words(Words {
            words,
            inside,
            min_chars,
        })
    };
    if fold != Fold::Exact {
        let long = test(LEAST_ROT13_CHARS, words.clone());
        targets.add(Kind::Rot13, rule, facts, "words", long);
    }
    targets.add(fold_kind(fold), rule, facts, "words", test(1, words));
}

fn add_pattern(targets: &mut Targets, rule: usize, facts: &RuleFacts, text: &str, fold: Fold) {
    let ignore_case = fold != Fold::Exact;
    let Ok(parsed) = pattern::parse(text, ignore_case) else {
        return;
    };
    let test = PatternTest {
        pattern: text.to_owned(),
        ignore_case,
        edge_before: parsed.edge_before,
        edge_after: parsed.edge_after,
        max_chars: pattern::MOST_BYTES,
    };
    targets.add(fold_kind(fold), rule, facts, "pattern", Test::Pattern(test));
}

struct Classifier<'a> {
    name: &'static str,
    /// Which linear classifier, among the resources.
    scorer: &'a str,
    subject: Subject,
    table: &'static [&'static Detector],
    threshold: Option<f32>,
}

impl Classifier<'_> {
    fn add(
        self,
        plan: &mut Plan,
        targets: &mut Targets,
        index: usize,
        tiers: &[Tier],
        resources: &Resources,
    ) {
        let usual = [Tier::Rules, Tier::Linear];
        let tiers = if tiers.is_empty() { &usual[..] } else { tiers };
        if tiers.contains(&Tier::Rules) {
            for detector in self.table {
                let kind = kind_of(detector.view);
                let kinds = if kind == Kind::Plain {
                    &[Kind::Plain, Kind::Leet, Kind::Rot13][..]
                } else {
                    &[kind][..]
                };
                for kind in kinds {
                    let taker = Taker {
                        rule: index,
                        hosts: None,
                    };
                    targets.add_detector(*kind, detector, taker);
                }
            }
        }
        let scorer = resources.scorers.get(self.scorer);
        let local = scorer.filter(|_| tiers.contains(&Tier::Linear));
        let asks = [Tier::Embedding, Tier::Judge].into_iter();
        let asks = asks.filter(|tier| tiers.contains(tier));
        let rule = WindowRule {
            rule: index,
            check: self.name,
            threshold: self.threshold,
            local: local.cloned().map(Local::Scorer).into_iter().collect(),
            asks: asks.map(|tier| (tier, self.subject.clone())).collect(),
            held_to: None,
        };
        if !rule.local.is_empty() || !rule.asks.is_empty() {
            push_window(plan, Lengths::SENTENCES, rule);
        }
    }
}

fn add_window(plan: &mut Plan, index: usize, check: &Check) {
    let mut rule = WindowRule {
        rule: index,
        check: "",
        threshold: None,
        local: Vec::new(),
        asks: Vec::new(),
        held_to: None,
    };
    let mut lengths = Lengths::SENTENCES;
    match check {
        Check::Topics {
            allow,
            deny,
            threshold,
        } => {
            rule.check = "topics";
            rule.threshold = *threshold;
            let subject = Subject::Topics {
                allow: allow.clone(),
                deny: deny.clone(),
            };
            rule.asks.push((Tier::Embedding, subject));
        }
        Check::Grounded {
            sources,
            model,
            threshold,
        } => {
            rule.check = "grounded";
            rule.threshold = *threshold;
            lengths = Lengths::CLAIMS;
            rule.held_to = Some(match &sources[..] {
                [] => vec![Source::Retrieved, Source::ToolResult],
                some => some.to_vec(),
            });
            plan.holds_to_evidence = true;
            let model = model.clone();
            rule.asks.push((Tier::Judge, Subject::Grounded { model }));
        }
        Check::Judge {
            rubric,
            model,
            threshold,
            every_chars,
        } => {
            rule.check = "judge";
            rule.threshold = *threshold;
            lengths = Lengths::judged(*every_chars);
            let subject = Subject::Judge {
                rubric: rubric.clone(),
                model: model.clone(),
            };
            rule.asks.push((Tier::Judge, subject));
        }
        Check::Gibberish { threshold } => {
            rule.check = "gibberish";
            rule.threshold = *threshold;
            lengths = Lengths::PARAGRAPHS;
            rule.local.push(Local::Gibberish);
        }
        Check::Languages { allow } => {
            rule.check = "languages";
            lengths = Lengths::PARAGRAPHS;
            rule.local.push(Local::Languages(allow.clone()));
        }
        _ => return,
    }
    push_window(plan, lengths, rule);
}

fn push_window(plan: &mut Plan, lengths: Lengths, rule: WindowRule) {
    match plan.windows.iter_mut().find(|(known, _)| *known == lengths) {
        Some((_, rules)) => rules.push(rule),
        None => plan.windows.push((lengths, vec![rule])),
    }
}

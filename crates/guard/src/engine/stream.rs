//! One text on its way through a policy.
//!
//! Everything that is found is put in order, by where it begins, and dealt with when nothing can
//! be found before it any more. That order, and the text, are all that decides: edits, the end of
//! the text and what leaves follow from them, however the text was cut.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::arguments::Arguments;
use super::claims::claims_something;
use super::evidence::Passage;
use super::fold::Kind;
use super::layer::{Hit, Layer, Scans};
use super::leak::Leak;
use super::loops::Loops;
use super::plan::{Local, Plan, RuleFacts, WindowRule};
use super::scan::{Scanner, Taker, Target, Test, Words};
use super::sentences::{Cutter, Window};
use super::{Compiled, Context, addressed, gibberish, languages, repair};
use crate::decide::{
    Answer, Ended, Finding, Grounds, Outcome, Question, QuestionId, Reading, Step, Subject,
};
use crate::detectors::links;
use crate::policy::{Action, OnFailure, Point, Source, Tier};

/// Text is taken in slices of this much, so that a prompt of megabytes needs no more memory.
const SLICE_BYTES: usize = 16 << 10;
/// How many passages a rule may have a model asked about, per text.
const MOST_QUESTIONS: usize = 512;
/// How many different values a text's placeholders are numbered for.
const MOST_NUMBERED: usize = 10_000;
/// A JSON answer that is longer is not checked, which counts as a failure of the check.
const MOST_JSON_BYTES: usize = 4 << 20;
/// From which score on, where neither rule nor classifier says.
const USUAL_THRESHOLD: f32 = 0.5;

/// A text that comes in parts: see [`Step`].
#[derive(Debug)]
pub struct Stream {
    compiled: Arc<Compiled>,
    plan: Arc<Plan>,
    scans: Scans,
    point: Point,
    context: Context,
    /// The original from `original_off` on.
    original: String,
    original_off: usize,
    arguments: Option<Arguments>,
    top: Layer,
    counts: Counts,
    cutters: Vec<Cutter>,
    leaks: Vec<(usize, Leak)>,
    items: BTreeMap<Order, Item>,
    /// Where the last find of a rule's detector ended: the same thing, read in another way, is
    /// said once.
    said: HashMap<(usize, String), usize>,
    /// The original up to here has left, or was edited away.
    out: usize,
    /// What would have left, if the policy holds all.
    held: String,
    numbers: HashMap<(String, String), usize>,
    numbered: HashMap<String, usize>,
    questions: BTreeMap<QuestionId, Open>,
    asked: HashMap<usize, usize>,
    /// Rules that have said that there is no evidence.
    without_evidence: Vec<usize>,
    next_question: u64,
    finished: bool,
    /// Where the text was ended: where what ended it begins.
    ended_at: Option<usize>,
    done: bool,
    step: Step,
}

/// What counts characters of the top layer.
struct Counts {
    /// Everything before is counted.
    at: usize,
    chars: u64,
    something: bool,
    loops: Option<Loops>,
    /// Rules that have said that the text goes in circles, until it no longer does.
    circling: Vec<usize>,
    /// What of the folded text the leak checks have read.
    leak_at: usize,
}

impl std::fmt::Debug for Counts {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Counts")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

/// The order in which finds are dealt with: where they count, the longer first, then the rule's
/// place; the rest only makes the order one.
type Order = (usize, Reverse<usize>, usize, Tier, String, Reading, usize);

#[derive(Debug)]
struct Item {
    finding: Finding,
    /// A find of a scanner, which several readings can make.
    scanned: bool,
    /// The tier could not answer, and the rule is open.
    failed_open: bool,
    /// The rule could not look at all, and is closed: there is no passage that could be edited.
    failed_closed: bool,
}

#[derive(Debug)]
struct Open {
    question: Question,
    check: &'static str,
    threshold: f32,
    /// Tiers that are asked if this one finds nothing.
    then: Vec<(Tier, Subject)>,
}

/// A passage that could not be looked at.
struct Failed {
    rule: usize,
    check: &'static str,
    tier: Tier,
    start: usize,
    end: usize,
}

impl Failed {
    fn of(open: &Open) -> Self {
        Self {
            rule: open.question.rule,
            check: open.check,
            tier: open.question.tier,
            start: open.question.start,
            end: open.question.end,
        }
    }
}

/// A find before it is put in order.
struct Find<'a> {
    rule: usize,
    detector: &'a str,
    tier: Tier,
    start: usize,
    end: usize,
    score: f32,
    reason: String,
    grounds: Option<Grounds>,
}

/// A passage that a model is asked about.
#[derive(Clone)]
struct Asked {
    /// With what stands before it.
    text: String,
    /// Where in `text` it begins.
    at: usize,
    /// In the original.
    start: usize,
    end: usize,
    evidence: Vec<Passage>,
}

impl Asked {
    fn of(question: &Question) -> Self {
        Self {
            text: question.text.clone(),
            at: question.at,
            start: question.start,
            end: question.end,
            evidence: question.evidence.clone(),
        }
    }
}

impl Stream {
    pub(super) fn new(compiled: Arc<Compiled>, point: Point, context: Context) -> Self {
        let plan = compiled.points.get(&point).cloned().unwrap_or_default();
        let mut scans = Scans {
            folds: plan.scans.folds.clone(),
        };
        add_canaries(&mut scans, &plan, &compiled.rules, &context.canaries);
        let mapped = point == Point::ToolArguments;
        let cutters = plan.windows.iter();
        let system = context.system.clone();
        let leaks = system.into_iter().flat_map(|index| {
            let rules = plan.leaks.iter();
            rules.map(move |(rule, least)| (*rule, Leak::new(index.clone(), *least as usize)))
        });
        Stream {
            top: Layer::top(&scans, mapped),
            arguments: mapped.then(Arguments::default),
            cutters: cutters.map(|(lengths, _)| Cutter::new(*lengths)).collect(),
            leaks: leaks.collect(),
            counts: Counts {
                at: 0,
                chars: 0,
                something: false,
                loops: (!plan.loops.is_empty()).then(Loops::new),
                circling: Vec::new(),
                leak_at: 0,
            },
            compiled,
            plan,
            scans,
            point,
            context,
            original: String::new(),
            original_off: 0,
            items: BTreeMap::new(),
            said: HashMap::new(),
            out: 0,
            held: String::new(),
            numbers: HashMap::new(),
            numbered: HashMap::new(),
            questions: BTreeMap::new(),
            asked: HashMap::new(),
            without_evidence: Vec::new(),
            next_question: 0,
            finished: false,
            ended_at: None,
            done: false,
            step: Step::default(),
        }
    }

    /// The next part. Nothing is done once the text has ended or was finished.
    pub fn push(&mut self, text: &str) -> Step {
        if !text.is_empty() && self.original_end() == 0 {
            self.say_what_is_lost();
        }
        let mut rest = text;
        while !rest.is_empty() && !self.finished && self.ended_at.is_none() {
            let mut len = rest.len().min(SLICE_BYTES);
            while !rest.is_char_boundary(len) {
                len -= 1;
            }
            let (slice, after) = rest.split_at(len);
            rest = after;
            self.original.push_str(slice);
            self.read(slice, false);
        }
        self.take_step()
    }

    /// There is no more.
    pub fn finish(&mut self) -> Step {
        if !self.finished && self.ended_at.is_none() {
            self.finished = true;
            self.read("", true);
        }
        self.take_step()
    }

    /// What a model tier said. An answer to a question that is not open is not heard.
    pub fn answer(&mut self, question: QuestionId, answer: Answer) -> Step {
        if let Some(open) = self.questions.remove(&question) {
            self.hear(open, answer);
            self.deal();
        }
        self.take_step()
    }

    /// The questions that are still open, oldest first.
    pub fn open_questions(&self) -> impl Iterator<Item = &Question> {
        self.questions.values().map(|open| &open.question)
    }

    fn take_step(&mut self) -> Step {
        let waits = self.questions.values().any(|open| open.question.holds);
        if self.finished && self.ended_at.is_none() && !waits && !self.done {
            self.close();
        }
        self.done |= self.ended_at.is_some();
        self.step.done = self.done;
        std::mem::take(&mut self.step)
    }

    fn read(&mut self, slice: &str, finished: bool) {
        match &mut self.arguments {
            Some(arguments) => arguments.push(slice, finished, &mut self.top),
            None => self.top.push_same(slice, 0),
        }
        let mut hits = Vec::new();
        self.top.advance(&self.scans, finished, &mut hits);
        for hit in hits {
            self.take_hit(&hit);
        }
        self.read_leaks(finished);
        self.read_characters(finished);
        self.deal();
        self.forget();
    }

    fn take_hit(&mut self, hit: &Hit) {
        let target = &hit.scanner.targets[hit.target];
        for taker in &target.takers {
            if taker
                .hosts
                .as_ref()
                .is_some_and(|hosts| is_listed(&hit.text, hosts))
            {
                continue;
            }
            let rule = &self.compiled.rules[taker.rule];
            let finding = Finding {
                rule: taker.rule,
                rule_name: rule.name.clone(),
                detector: target.detector.clone(),
                label: target.label.clone(),
                tier: Tier::Rules,
                start: hit.start,
                end: hit.end,
                score: hit.score,
                view: hit.reading,
                reason: target.reason.clone(),
                grounds: None,
                outcome: Outcome::Flagged,
            };
            let item = Item {
                finding,
                scanned: true,
                failed_open: false,
                failed_closed: false,
            };
            put(&mut self.items, hit.start, item);
        }
    }

    /// Puts a find in order: it counts where `key` says.
    fn put_find(&mut self, key: usize, find: Find<'_>, failed_open: bool) {
        let rule = &self.compiled.rules[find.rule];
        let finding = Finding {
            rule: find.rule,
            rule_name: rule.name.clone(),
            detector: find.detector.to_owned(),
            label: rule.label.clone(),
            tier: find.tier,
            start: find.start,
            end: find.end,
            score: find.score,
            view: Reading::Raw,
            reason: find.reason,
            grounds: find.grounds,
            outcome: Outcome::Flagged,
        };
        let item = Item {
            finding,
            scanned: false,
            failed_open,
            failed_closed: false,
        };
        put(&mut self.items, key, item);
    }

    /// Rules that cannot look say so where the text begins.
    fn say_what_is_lost(&mut self) {
        let compiled = self.compiled.clone();
        for (rule, name) in &self.plan.clone().lost {
            let facts = &compiled.rules[*rule];
            let closed = facts.on_failure == OnFailure::Closed;
            let finding = Finding {
                rule: *rule,
                rule_name: facts.name.clone(),
                detector: "words".to_owned(),
                label: facts.label.clone(),
                tier: Tier::Rules,
                start: 0,
                end: 0,
                score: 0.0,
                view: Reading::Raw,
                reason: failure(&format!("the list `{name}` is missing"), closed),
                grounds: None,
                outcome: Outcome::Flagged,
            };
            let item = Item {
                finding,
                scanned: false,
                failed_open: !closed,
                failed_closed: closed,
            };
            put(&mut self.items, 0, item);
        }
    }

    fn read_leaks(&mut self, finished: bool) {
        if self.leaks.is_empty() {
            return;
        }
        let folds = self.top.folds.iter();
        let Some(fold) = folds
            .map(|fold| &fold.folded)
            .find(|f| f.kind == Kind::Plain)
        else {
            return;
        };
        let mut found = Vec::new();
        let mut at = self.counts.leak_at;
        for c in fold.text[at - fold.off..].chars() {
            let next = at + c.len_utf8();
            let start = self.top.start_of(fold.spans.start_of(at));
            let end = self.top.end_of(fold.spans.end_of(next));
            for (rule, leak) in &mut self.leaks {
                found.extend(leak.step(c, start, end).map(|passage| (*rule, passage)));
            }
            at = next;
        }
        self.counts.leak_at = at;
        if finished {
            for (rule, leak) in &mut self.leaks {
                found.extend(leak.end().map(|passage| (*rule, passage)));
            }
        }
        for (rule, (start, end, letters)) in found {
            let find = Find {
                rule,
                detector: "prompt_leak",
                tier: Tier::Rules,
                start,
                end,
                score: 1.0,
                reason: format!("{letters} letters in a row stand in the system prompt"),
                grounds: None,
            };
            self.put_find(start, find, false);
        }
    }

    /// Everything that goes by characters: sizes, circles, passages.
    fn read_characters(&mut self, finished: bool) {
        let plan = self.plan.clone();
        let counts = !plan.sizes.is_empty() || !plan.loops.is_empty() || !plan.empties.is_empty();
        if !counts && self.cutters.is_empty() {
            self.counts.at = self.top.cut;
            return;
        }
        let from = self.counts.at;
        let fresh = self.top.text[from - self.top.off..self.top.cut - self.top.off].to_owned();
        for (offset, c) in fresh.char_indices() {
            let at = from + offset;
            if counts {
                self.count(&plan, at, c);
            }
            for index in 0..self.cutters.len() {
                if let Some(window) = self.cutters[index].step(at, c) {
                    self.judge_window(&plan.windows[index].1, window);
                }
            }
        }
        self.counts.at = self.top.cut;
        if finished {
            for index in 0..self.cutters.len() {
                if let Some(window) = self.cutters[index].end(self.top.cut) {
                    self.judge_window(&plan.windows[index].1, window);
                }
            }
            self.count_end(&plan);
        }
    }

    fn count(&mut self, plan: &Plan, at: usize, c: char) {
        self.counts.chars += 1;
        self.counts.something |= !c.is_whitespace();
        for (rule, most) in &plan.sizes {
            if self.counts.chars == most + 1 {
                let reason = format!("has over {most} characters");
                self.put_here(*rule, "size", at, c, reason);
            }
        }
        let Some(loops) = &mut self.counts.loops else {
            return;
        };
        match loops.step(c) {
            None => self.counts.circling.clear(),
            Some((run, period)) => {
                for (rule, least) in &plan.loops {
                    if run >= *least as usize && !self.counts.circling.contains(rule) {
                        self.counts.circling.push(*rule);
                        let reason = format!("repeats a passage of {period} characters");
                        self.put_here(*rule, "repetition", at, c, reason);
                    }
                }
            }
        }
    }

    /// A find at one character: what was before has perhaps left.
    fn put_here(&mut self, rule: usize, check: &str, at: usize, c: char, reason: String) {
        let start = self.top.start_of(at);
        let find = Find {
            rule,
            detector: check,
            tier: Tier::Rules,
            start,
            end: self.top.end_of(at + c.len_utf8()),
            score: 1.0,
            reason,
            grounds: None,
        };
        self.put_find(start, find, false);
    }

    fn count_end(&mut self, plan: &Plan) {
        if self.counts.something {
            return;
        }
        let end = self.original_end();
        for rule in &plan.empties {
            let find = Find {
                rule: *rule,
                detector: "empty",
                tier: Tier::Rules,
                start: end,
                end,
                score: 1.0,
                reason: "says nothing".to_owned(),
                grounds: None,
            };
            self.put_find(end, find, false);
        }
    }

    fn judge_window(&mut self, rules: &[WindowRule], window: Window) {
        let off = self.top.off;
        let text = self.top.text[window.from - off..window.end - off].to_owned();
        let start = self.top.start_of(window.start);
        let end = self.top.end_of(window.end);
        for rule in rules {
            let facts = &self.compiled.rules[rule.rule];
            let holds = facts.holds;
            let point = self.point;
            let found = rule
                .local
                .iter()
                .find_map(|local| look(local, point, rule, &text));
            if let Some((detector, tier, score, reason)) = found {
                let find = Find {
                    rule: rule.rule,
                    detector: &detector,
                    tier,
                    start,
                    end,
                    score,
                    reason,
                    grounds: None,
                };
                self.put_find(if holds { start } else { end }, find, false);
            } else if !rule.asks.is_empty() {
                let asked = Asked {
                    text: text.clone(),
                    at: window.start - window.from,
                    start,
                    end,
                    evidence: Vec::new(),
                };
                match &rule.held_to {
                    Some(sources) => self.hold_to_evidence(rule, sources, asked),
                    None => self.ask(rule.rule, rule.check, rule.threshold, &rule.asks, asked),
                }
            }
        }
    }

    /// Asks whether what the model was shown bears a sentence out, if it claims anything.
    fn hold_to_evidence(&mut self, rule: &WindowRule, sources: &[Source], mut asked: Asked) {
        let (before, sentence) = asked.text.split_at(asked.at);
        if self.context.is_aside || !claims_something(sentence) {
            return;
        }
        let evidence = self.context.evidence.as_ref();
        let passages = evidence.map(|all| all.passages_for(sources, before, sentence));
        asked.evidence = passages.unwrap_or_default();
        if asked.evidence.is_empty() {
            self.has_no_evidence(rule, sources, &asked);
        } else {
            self.ask(rule.rule, rule.check, rule.threshold, &rule.asks, asked);
        }
    }

    /// There is nothing to hold a sentence to: said of each where the rule then acts, else once.
    fn has_no_evidence(&mut self, rule: &WindowRule, sources: &[Source], asked: &Asked) {
        let closed = self.compiled.rules[rule.rule].on_failure == OnFailure::Closed;
        if !closed && self.without_evidence.contains(&rule.rule) {
            return;
        }
        self.without_evidence.push(rule.rule);
        let failed = Failed {
            rule: rule.rule,
            check: rule.check,
            tier: Tier::Judge,
            start: asked.start,
            end: asked.end,
        };
        self.fail(&failed, &no_evidence_of(sources));
    }

    /// Asks the first of some tiers; the others wait for its answer.
    fn ask(
        &mut self,
        rule: usize,
        check: &'static str,
        threshold: Option<f32>,
        asks: &[(Tier, Subject)],
        passage: Asked,
    ) {
        let Some(((tier, subject), then)) = asks.split_first() else {
            return;
        };
        let facts = &self.compiled.rules[rule];
        let question = Question {
            id: QuestionId(self.next_question),
            rule,
            rule_name: facts.name.clone(),
            tier: *tier,
            point: self.point,
            subject: subject.clone(),
            text: passage.text,
            at: passage.at,
            evidence: passage.evidence,
            start: passage.start,
            end: passage.end,
            deadline_ms: facts.deadline_ms(*tier),
            holds: facts.holds,
        };
        self.next_question += 1;
        let asked = self.asked.entry(rule).or_default();
        *asked += 1;
        let open = Open {
            question: question.clone(),
            check,
            threshold: threshold.unwrap_or(USUAL_THRESHOLD),
            then: then.to_vec(),
        };
        if *asked > MOST_QUESTIONS {
            let why = format!("over {MOST_QUESTIONS} passages of one text");
            self.fail(&Failed::of(&open), &why);
            return;
        }
        self.questions.insert(question.id, open);
        self.step.ask.push(question);
    }

    fn hear(&mut self, open: Open, answer: Answer) {
        let question = &open.question;
        let past = self.ended_at.is_some_and(|ended| question.end > ended);
        if past {
            return;
        }
        let (score, grounds) = match read(&open, answer) {
            Ok(read) => read,
            Err(why) => return self.fail(&Failed::of(&open), &why),
        };
        if score >= open.threshold {
            let key = if question.holds {
                question.start
            } else {
                question.end
            };
            let counts = format!("scores {score:.2}, from {:.2} on it counts", open.threshold);
            let is_cut = self.context.evidence.as_ref().is_some_and(|it| it.is_cut());
            let find = Find {
                rule: question.rule,
                detector: open.check,
                tier: question.tier,
                start: question.start,
                end: question.end,
                score,
                reason: match &grounds {
                    Some(grounds) => format!("{}; {counts}", grounds.in_words(is_cut)),
                    None => counts,
                },
                grounds,
            };
            self.put_find(key, find, false);
        } else if self.ended_at.is_none() {
            let threshold = Some(open.threshold);
            let passage = Asked::of(question);
            self.ask(question.rule, open.check, threshold, &open.then, passage);
        }
    }

    /// A tier could not answer: the rule says what holds.
    fn fail(&mut self, failed: &Failed, why: &str) {
        let facts = &self.compiled.rules[failed.rule];
        let closed = facts.on_failure == OnFailure::Closed;
        let key = if facts.holds && closed {
            failed.start
        } else {
            failed.end
        };
        let find = Find {
            rule: failed.rule,
            detector: failed.check,
            tier: failed.tier,
            start: failed.start,
            end: failed.end,
            score: 0.0,
            reason: failure(why, closed),
            grounds: None,
        };
        self.put_find(key, find, !closed);
    }

    /// Everything before this byte of the original is known.
    fn settled(&self) -> usize {
        let open = match (&self.arguments, self.finished) {
            (_, true) => usize::MAX,
            (Some(arguments), false) => arguments.settled(),
            (None, false) => self.original_end(),
        };
        let mut settled = self.top.settled(open);
        for (index, cutter) in self.cutters.iter().enumerate() {
            let rules = &self.plan.windows[index].1;
            let holds = rules
                .iter()
                .any(|rule| self.compiled.rules[rule.rule].holds);
            if holds && !self.finished && cutter.start() < self.top.end() {
                settled = settled.min(self.top.start_of(cutter.start()));
            }
        }
        let leaks = self.leaks.iter().filter(|_| !self.finished);
        let open = leaks.filter_map(|(_, leak)| leak.settled());
        settled.min(open.min().unwrap_or(usize::MAX))
    }

    /// Deals with what is settled, in order.
    fn deal(&mut self) {
        let mut settled = self.settled();
        let holding = self.questions.values().filter(|open| open.question.holds);
        if let Some(start) = holding.map(|open| open.question.start).min() {
            settled = settled.min(start);
        }
        while let Some(first) = self.items.first_entry() {
            if self.ended_at.is_some() || settled != usize::MAX && first.key().0 >= settled {
                break;
            }
            let item = first.remove();
            self.deal_with(item);
        }
        match self.ended_at {
            None => self.release_to(settled.min(self.original_end())),
            // What was found after the end is not known on every cut.
            Some(ended) => {
                self.items
                    .retain(|order, item| !item.scanned && order.0 <= ended);
                for (_, item) in std::mem::take(&mut self.items) {
                    self.note_after_end(item);
                }
            }
        }
    }

    /// An answer that came after the end, on text before it.
    fn note_after_end(&mut self, item: Item) {
        let facts = &self.compiled.rules[item.finding.rule];
        let outcome = match (item.failed_open, facts.shadow) {
            (true, _) => Outcome::FailedOpen,
            (_, true) => Outcome::Shadow,
            _ => Outcome::Flagged,
        };
        self.say(item.finding, outcome);
    }

    fn deal_with(&mut self, item: Item) {
        let finding = item.finding;
        if item.scanned {
            let said = self
                .said
                .entry((finding.rule, finding.detector.clone()))
                .or_default();
            if finding.end <= *said {
                return;
            }
            *said = finding.end;
        }
        let compiled = self.compiled.clone();
        let facts = &compiled.rules[finding.rule];
        match &facts.action {
            _ if item.failed_open => self.say(finding, Outcome::FailedOpen),
            _ if facts.shadow => self.say(finding, Outcome::Shadow),
            Action::Flag {} => self.say(finding, Outcome::Flagged),
            Action::Block {} => self.end(finding, None, Outcome::Blocked),
            Action::Redact { .. } | Action::Replace { .. } if item.failed_closed => {
                self.end(finding, None, Outcome::Blocked);
            }
            Action::Rewrite { instruction } => {
                let instruction = instruction.clone().unwrap_or_else(|| {
                    format!("Answer again without what the rule `{}` finds.", facts.name)
                });
                self.end(finding, Some(instruction), Outcome::Rewrite);
            }
            Action::Redact { reversible } => self.redact(finding, *reversible),
            Action::Replace { with } => self.edit(finding, with, Outcome::Replaced),
        }
    }

    fn say(&mut self, finding: Finding, outcome: Outcome) {
        self.step.findings.push(Finding { outcome, ..finding });
    }

    /// The text ends before a finding.
    fn end(&mut self, finding: Finding, rewrite: Option<String>, outcome: Outcome) {
        self.release_to(finding.start);
        // Passages up to here are known however the text was cut. What is about all of the text
        // comes last, after every passage.
        self.ended_at = Some(if self.done { self.out } else { finding.start });
        if rewrite.is_none() {
            self.step.release.push_str(&self.held);
        }
        self.held.clear();
        self.step.ended = Some(Ended {
            rule: finding.rule,
            rule_name: finding.rule_name.clone(),
            rewrite,
            reason: finding.reason.clone(),
        });
        self.say(finding, outcome);
    }

    fn redact(&mut self, mut finding: Finding, reversible: bool) {
        let value = self
            .slice(finding.start.max(self.out), finding.end)
            .to_owned();
        let vault = self.context.pseudonyms.as_ref().filter(|_| reversible);
        let placeholder = match vault {
            None => self.number(&finding.label, value),
            Some(pseudonyms) => match pseudonyms(&finding.label, &value) {
                Some(placeholder) => placeholder,
                None => {
                    let facts = &self.compiled.rules[finding.rule];
                    let closed = facts.on_failure == OnFailure::Closed;
                    finding.reason += "; the vault is full";
                    if closed {
                        return self.end(finding, None, Outcome::Blocked);
                    }
                    format!("<{}>", finding.label)
                }
            },
        };
        self.edit(finding, &placeholder, Outcome::Redacted);
    }

    fn number(&mut self, label: &str, value: String) -> String {
        let key = (label.to_owned(), value);
        if let Some(number) = self.numbers.get(&key) {
            return format!("<{label}_{number}>");
        }
        if self.numbers.len() >= MOST_NUMBERED {
            return format!("<{label}>");
        }
        let number = self.numbered.entry(label.to_owned()).or_default();
        *number += 1;
        self.numbers.insert(key, *number);
        format!("<{label}_{number}>")
    }

    /// Puts a text in a finding's place, or in what an edit before it left of that.
    fn edit(&mut self, finding: Finding, with: &str, outcome: Outcome) {
        if finding.end <= self.out && finding.end > finding.start {
            self.say(finding, Outcome::Covered);
            return;
        }
        self.release_to(finding.start);
        let start = finding.start.max(self.out);
        let text = match &self.arguments {
            None => with.to_owned(),
            Some(arguments) => arguments.edit(self.slice(start, finding.end), start, with),
        };
        self.give(&text);
        self.out = finding.end;
        self.say(finding, outcome);
    }

    fn release_to(&mut self, to: usize) {
        if to > self.out {
            let text = self.slice(self.out, to).to_owned();
            self.give(&text);
            self.out = to;
        }
    }

    fn give(&mut self, text: &str) {
        if self.plan.holds_all {
            self.held.push_str(text);
        } else {
            if !self.plan.json.is_empty() && self.held.len() <= MOST_JSON_BYTES {
                self.held.push_str(text);
            }
            self.step.release.push_str(text);
        }
    }

    /// The end of a text that was not ended: what is about all of it.
    fn close(&mut self) {
        self.done = true;
        let plan = self.plan.clone();
        let mut text = std::mem::take(&mut self.held);
        for rule in &plan.json {
            let outcome = repair::check(&text, rule.schema.as_ref(), MOST_JSON_BYTES);
            let (reason, mended) = match outcome {
                Ok(()) => continue,
                Err(reason) if rule.repair && plan.holds_all => {
                    let mended = repair::repair(&text);
                    let good = |mended: &String| {
                        repair::check(mended, rule.schema.as_ref(), MOST_JSON_BYTES).is_ok()
                    };
                    (reason, mended.filter(good))
                }
                Err(reason) => (reason, None),
            };
            if !self.close_json(rule.rule, reason, mended, &mut text) {
                return;
            }
        }
        if plan.holds_all {
            self.step.release.push_str(&text);
        }
    }

    /// What becomes of a text that is not the JSON it should be; whether it goes on.
    fn close_json(
        &mut self,
        rule: usize,
        reason: String,
        mended: Option<String>,
        text: &mut String,
    ) -> bool {
        let compiled = self.compiled.clone();
        let facts = &compiled.rules[rule];
        let finding = Finding {
            rule,
            rule_name: facts.name.clone(),
            detector: "json".to_owned(),
            label: facts.label.clone(),
            tier: Tier::Rules,
            start: 0,
            end: self.original_end(),
            score: 1.0,
            view: Reading::Raw,
            reason,
            grounds: None,
            outcome: Outcome::Flagged,
        };
        match (&facts.action, mended) {
            _ if facts.shadow => self.say(finding, Outcome::Shadow),
            (_, Some(mended)) => {
                *text = mended;
                self.say(finding, Outcome::Repaired);
            }
            (Action::Block {}, None) => {
                self.end(finding, None, Outcome::Blocked);
                return false;
            }
            (Action::Rewrite { instruction }, None) => {
                let usual = format!("Answer again as valid JSON: {}.", finding.reason);
                let instruction = instruction.clone().unwrap_or(usual);
                self.end(finding, Some(instruction), Outcome::Rewrite);
                return false;
            }
            (Action::Replace { with }, None) => {
                text.clone_from(with);
                self.say(finding, Outcome::Replaced);
            }
            (Action::Flag {} | Action::Redact { .. }, None) => self.say(finding, Outcome::Flagged),
        }
        true
    }

    fn original_end(&self) -> usize {
        self.original_off + self.original.len()
    }

    fn slice(&self, start: usize, end: usize) -> &str {
        self.original
            .get(start - self.original_off..end - self.original_off)
            .unwrap_or_default()
    }

    fn forget(&mut self) {
        let needs = self.cutters.iter().map(Cutter::needs).min();
        self.top
            .forget(needs.unwrap_or(usize::MAX).min(self.counts.at));
        if self.out > self.original_off + super::SLACK_BYTES {
            self.original.drain(..self.out - self.original_off);
            self.original_off = self.out;
            if let Some(arguments) = &mut self.arguments {
                arguments.forget(self.out);
            }
        }
    }
}

fn put(items: &mut BTreeMap<Order, Item>, key: usize, item: Item) {
    let found = &item.finding;
    let order = (
        key,
        Reverse(found.end),
        found.rule,
        found.tier,
        found.detector.clone(),
        found.view,
        found.start,
    );
    items.insert(order, item);
}

/// The score that an answer comes to, and how the passage stands to the evidence.
fn read(open: &Open, answer: Answer) -> Result<(f32, Option<Grounds>), String> {
    match answer {
        Answer::Failed(why) => Err(why),
        Answer::Score(score) if !score.is_finite() => Err("the score is no number".to_owned()),
        Answer::Score(score) => Ok((score, None)),
        Answer::Held(held) if !held.sure.is_finite() => Err("the score is no number".to_owned()),
        Answer::Held(held) => Ok((held.score(), Some(held.grounds(&open.question.evidence)?))),
    }
}

fn no_evidence_of(sources: &[Source]) -> String {
    let names = sources.iter().map(|source| match source {
        Source::Retrieved => "retrieved text",
        Source::ToolResult => "results of tools",
        Source::Input => "what the user wrote",
        Source::Instructions => "instructions",
    });
    let names: Vec<&str> = names.collect();
    format!("there is nothing to hold it to: no {}", names.join(", no "))
}

fn failure(why: &str, closed: bool) -> String {
    if closed {
        format!("could not be checked ({why}), and the rule fails closed")
    } else {
        format!("could not be checked ({why})")
    }
}

fn is_listed(link: &str, hosts: &[String]) -> bool {
    links::host(link).is_none_or(|host| links::is_allowed(&host, hosts))
}

/// What looks in place: who found, how sure, why.
fn look(
    local: &Local,
    point: Point,
    rule: &WindowRule,
    text: &str,
) -> Option<(String, Tier, f32, String)> {
    match local {
        Local::Addressed => {
            let score = if point.is_data() {
                addressed::score(text)
            } else {
                0.0
            };
            let reason = "gives orders to a machine, in text that is data".to_owned();
            let found = score >= USUAL_THRESHOLD;
            found.then(|| ("addressed".to_owned(), Tier::Rules, score, reason))
        }
        Local::Scorer(scorer) => {
            let score = (scorer.score)(text);
            let threshold = rule.threshold.unwrap_or(scorer.threshold);
            let reason = format!("scores {score:.2}, from {threshold:.2} on it counts");
            (score >= threshold).then(|| (scorer.name.clone(), Tier::Linear, score, reason))
        }
        Local::Gibberish => {
            let score = gibberish::score(text);
            let threshold = rule.threshold.unwrap_or(USUAL_THRESHOLD);
            let reason = "is no language".to_owned();
            (score >= threshold).then(|| ("gibberish".to_owned(), Tier::Rules, score, reason))
        }
        Local::Languages(allow) => {
            let (score, language) = languages::outside(text, allow)?;
            let reason = format!("is in `{language}`");
            Some(("languages".to_owned(), Tier::Rules, score, reason))
        }
    }
}

/// Marks differ per call, so they are scanned for beside the policy's own targets.
fn add_canaries(scans: &mut Scans, plan: &Plan, rules: &[RuleFacts], canaries: &[String]) {
    let takers = plan.canaries.iter();
    let takers: Vec<Taker> = takers.map(|&rule| Taker { rule, hosts: None }).collect();
    let Some(first) = takers.first().filter(|_| !canaries.is_empty()) else {
        return;
    };
    let target = Target {
        detector: "canary".to_owned(),
        label: rules[first.rule].label.clone(),
        reason: "is a mark that was hidden in the prompt".to_owned(),
        test: Test::Words(Words {
            words: canaries.to_vec(),
            inside: true,
            min_chars: 1,
        }),
        takers,
    };
    if let Ok(scanner) = Scanner::new(Kind::Plain, vec![target])
        && let Some((_, scanners)) = scans.folds.iter_mut().find(|(k, _)| *k == Kind::Plain)
    {
        scanners.push(Arc::new(scanner));
    }
}

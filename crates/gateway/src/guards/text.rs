//! One text that is there as a whole, through every policy.
//!
//! The text of one policy is what the next one reads, in the order of their names. Each is a
//! stream of one push, which is what the engine promises to be the same as any other cut; a long
//! text is cut, so that other calls get their turn on the thread meanwhile.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use guard::Step;
use tokio::time::Instant;

use super::ask::Asking;
use super::{Place, Refusal, Watch};

/// How much is read before others get their turn: some milliseconds with every rule.
const AT_ONCE_BYTES: usize = 16 << 10;

/// What became of a text.
pub(super) struct Scanned {
    pub text: String,
    pub ended: Option<Refusal>,
    /// What a model is to be told when the text is to be made again.
    pub rewrite: Option<String>,
}

impl Watch {
    /// Runs one text through every policy that looks at its point.
    pub(super) async fn scan(&mut self, place: Place<'_>, text: &str) -> Scanned {
        let mut text = text.to_owned();
        let (mut ended, mut rewrite) = (None, None);
        for at in 0..self.noted.len() {
            let rules = &self.noted[at].rules;
            if !rules.looks_at(place.point) || self.has_passed(at, place.point, &text) {
                continue;
            }
            let stream = rules.stream(place.point, self.context_of(place.is_aside()));
            // What one policy lets through before it ends a text still passes the others.
            let one = self.scan_by(at, place, &text, stream).await;
            text = one.text;
            if ended.is_none() {
                (ended, rewrite) = (one.ended, one.rewrite);
            }
        }
        if ended.is_none() {
            self.let_pass(place.point, &text);
        }
        Scanned {
            text,
            ended,
            rewrite,
        }
    }

    async fn scan_by(
        &mut self,
        at: usize,
        place: Place<'_>,
        text: &str,
        mut stream: guard::Stream,
    ) -> Scanned {
        let mut released = String::new();
        let mut asked: FuturesUnordered<Asking> = FuturesUnordered::new();
        let mut steps = Vec::new();
        let mut rest = text;
        loop {
            let since = Instant::now();
            let (piece, behind) = rest.split_at(rest.floor_char_boundary(AT_ONCE_BYTES));
            steps.push(stream.push(piece));
            rest = behind;
            let is_over = steps.last().is_some_and(|step| step.ended.is_some());
            if !is_over && rest.is_empty() {
                steps.push(stream.finish());
            }
            self.took(at, since);
            if is_over || rest.is_empty() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let mut ended = None;
        let mut done = false;
        loop {
            for step in steps.drain(..) {
                let Step {
                    release,
                    findings,
                    ended: over,
                    ask,
                    done: is_done,
                } = step;
                released.push_str(&release);
                self.note(at, place, &findings);
                for question in ask {
                    asked.push(self.host.ask(question));
                }
                ended = ended.or(over);
                done |= is_done;
            }
            if ended.is_some() {
                break;
            }
            let Some((question, answer)) = asked.next().await else {
                break;
            };
            let since = Instant::now();
            steps.push(stream.answer(question, answer));
            self.took(at, since);
        }
        debug_assert!(done || ended.is_some(), "every question was answered");
        let rewrite = ended.as_ref().and_then(|ended| ended.rewrite.clone());
        let ended = ended.and_then(|ended| self.ended(at, &ended));
        Scanned {
            text: released,
            ended,
            rewrite,
        }
    }
}

//! A text and all the ways of reading it: foldings, each scanned, and decoders, each with a layer
//! of its own below. The original is the top layer; a run of base64 makes a layer below it, and a
//! run of base64 in that one more. There it ends ([`MOST_DEPTH`]): what is decoded is never
//! longer than what it was decoded from, so the whole costs a fixed multiple of the text.

use std::sync::Arc;

use super::cluster::{self, Cut};
use super::decode::Decoder;
use super::fold::{Folded, Kind};
use super::scan::{Found, Scanner, State};
use super::spans::Spans;
use crate::decide::Reading;

/// How often a text is decoded at most.
const MOST_DEPTH: usize = 2;

/// What is scanned for, per folding.
#[derive(Debug, Default)]
pub(super) struct Scans {
    pub(super) folds: Vec<(Kind, Vec<Arc<Scanner>>)>,
}

/// A find in bytes of the original.
#[derive(Debug)]
pub(super) struct Hit {
    pub(super) scanner: Arc<Scanner>,
    pub(super) target: usize,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) score: f32,
    pub(super) reading: Reading,
    /// The found text as it was read: for tests of a taker.
    pub(super) text: String,
}

#[derive(Debug)]
pub(super) struct Layer {
    pub(super) text: String,
    /// Where `text` begins, in absolute positions of this layer.
    pub(super) off: usize,
    /// Where positions of this layer come from; none for the original itself.
    map: Option<Spans>,
    /// Everything before is cut into clusters and folded.
    pub(super) cut: usize,
    pub(super) folds: Vec<Fold>,
    decoders: Vec<Decoder>,
    reading: Option<Reading>,
}

#[derive(Debug)]
pub(super) struct Fold {
    pub(super) folded: Folded,
    scans: Vec<(Arc<Scanner>, State)>,
}

impl Layer {
    /// The top layer. With `mapped`, its positions are not the original's.
    pub(super) fn top(scans: &Scans, mapped: bool) -> Self {
        Layer::new(scans, mapped, None, 0)
    }

    pub(super) fn below(scans: &Scans, reading: Reading, depth: usize) -> Self {
        Layer::new(scans, true, Some(reading), depth)
    }

    fn new(scans: &Scans, mapped: bool, reading: Option<Reading>, depth: usize) -> Self {
        let folds = scans.folds.iter();
        let folds = folds.filter(|(kind, _)| depth == 0 || *kind != Kind::Rot13);
        let folds = folds.map(|(kind, scanners)| Fold {
            folded: Folded::new(*kind),
            scans: scanners
                .iter()
                .map(|scanner| (scanner.clone(), State::default()))
                .collect(),
        });
        let decodes = depth < MOST_DEPTH && scans.folds.iter().any(|(_, s)| !s.is_empty());
        Layer {
            text: String::new(),
            off: 0,
            map: mapped.then(Spans::default),
            cut: 0,
            folds: folds.collect(),
            decoders: if decodes {
                Decoder::all(depth + 1)
            } else {
                Vec::new()
            },
            reading,
        }
    }

    pub(super) fn end(&self) -> usize {
        self.off + self.text.len()
    }

    /// Text that stands for itself; `from` counts only if the layer is mapped.
    pub(super) fn push_same(&mut self, text: &str, from: usize) {
        self.text.push_str(text);
        if let Some(map) = &mut self.map {
            map.carry(text.len(), from);
        }
    }

    /// A character that stands for some bytes of the original.
    pub(super) fn push_char(&mut self, c: char, from: usize, source_len: usize) {
        self.text.push(c);
        if let Some(map) = &mut self.map {
            map.replace(c.len_utf8(), from, source_len);
        }
    }

    /// The original's byte for a position.
    pub(super) fn start_of(&self, at: usize) -> usize {
        self.map.as_ref().map_or(at, |map| map.start_of(at))
    }

    /// The original's end for text that ends before a position.
    pub(super) fn end_of(&self, end: usize) -> usize {
        self.map.as_ref().map_or(end, |map| map.end_of(end))
    }

    /// Reads what is new in every way; `finished` when this layer's text has ended.
    pub(super) fn advance(&mut self, scans: &Scans, finished: bool, out: &mut Vec<Hit>) {
        self.fold(finished);
        let (map, reading) = (&self.map, self.reading);
        for fold in &mut self.folds {
            let folded = &fold.folded;
            for (scanner, state) in &mut fold.scans {
                let mut emit = |found: Found| {
                    let start = folded.spans.start_of(found.start);
                    let end = folded.spans.end_of(found.end);
                    let text = &folded.text[found.start - folded.off..found.end - folded.off];
                    out.push(Hit {
                        scanner: scanner.clone(),
                        target: found.target,
                        start: map.as_ref().map_or(start, |map| map.start_of(start)),
                        end: map.as_ref().map_or(end, |map| map.end_of(end)),
                        score: found.score,
                        reading: reading.unwrap_or(folded.kind.reading()),
                        text: text.to_owned(),
                    });
                };
                scanner.run(folded, state, finished, &mut emit);
            }
        }
        let mut decoders = std::mem::take(&mut self.decoders);
        for decoder in &mut decoders {
            decoder.advance(self, scans, finished, out);
        }
        self.decoders = decoders;
    }

    fn fold(&mut self, finished: bool) {
        while self.cut < self.end() {
            let rest = &self.text[self.cut - self.off..];
            let Some(cut) = cluster::next(rest, finished) else {
                return;
            };
            for fold in &mut self.folds {
                match cut {
                    Cut::Single(len) => fold.folded.push_singles(&rest[..len], self.cut),
                    Cut::Cluster(len) => fold.folded.push_cluster(&rest[..len], self.cut),
                }
            }
            self.cut += match cut {
                Cut::Single(len) | Cut::Cluster(len) => len,
            };
        }
    }

    /// Every find that begins before this byte of the original is known. `open` is what holds
    /// when nothing of this layer is waiting.
    pub(super) fn settled(&self, open: usize) -> usize {
        let mut settled = open;
        if self.cut < self.end() {
            settled = settled.min(self.start_of(self.cut));
        }
        for fold in &self.folds {
            for (_, state) in &fold.scans {
                if state.at < fold.folded.end() {
                    let at = fold.folded.spans.start_of(state.at);
                    settled = settled.min(self.start_of(at));
                }
            }
        }
        for decoder in &self.decoders {
            settled = settled.min(decoder.settled(self, open));
        }
        settled
    }

    /// Forgets text that nothing needs any more; `keep` is somebody else's need.
    pub(super) fn forget(&mut self, keep: usize) {
        for fold in &mut self.folds {
            let need = fold.scans.iter().map(|(_, state)| state.at).min();
            let need = need.unwrap_or(usize::MAX).min(fold.folded.end());
            fold.folded.forget(need);
        }
        let decoders = self.decoders.iter().map(Decoder::needs).min();
        let folds = self
            .folds
            .iter()
            .filter(|fold| !fold.folded.text.is_empty());
        let folds = folds.map(|fold| fold.folded.spans.start_of(fold.folded.off));
        let need = keep
            .min(self.cut)
            .min(decoders.unwrap_or(usize::MAX))
            .min(folds.min().unwrap_or(usize::MAX));
        if need > self.off + super::SLACK_BYTES {
            let mut cut = need - self.off;
            while !self.text.is_char_boundary(cut) {
                cut -= 1;
            }
            self.text.drain(..cut);
            self.off += cut;
            if let Some(map) = &mut self.map {
                map.forget(self.off);
            }
        }
    }

    /// Begins again: another run.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.off = 0;
        self.cut = 0;
        if let Some(map) = &mut self.map {
            map.clear();
        }
        for fold in &mut self.folds {
            fold.folded.clear();
            for (_, state) in &mut fold.scans {
                state.clear();
            }
        }
        for decoder in &mut self.decoders {
            decoder.clear();
        }
    }
}

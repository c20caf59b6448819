//! Which bytes of a source text each byte of a derived text came from.
//!
//! Derived text only grows at its end and is forgotten from its start; positions are absolute and
//! never move. Most text is carried over byte by byte, so a map is a short list of pieces.

/// A stretch of derived text that came from one place.
#[derive(Clone, Copy, Debug)]
struct Piece {
    at: usize,
    from: usize,
    /// None: byte by byte. Otherwise all of it stands for so many bytes of the source.
    whole: Option<usize>,
}

/// The map of one derived text.
#[derive(Clone, Debug, Default)]
pub(super) struct Spans {
    pieces: Vec<Piece>,
    end: usize,
}

impl Spans {
    /// `len` bytes were carried over unchanged in length from `from`; each character stands for
    /// itself.
    #[inline]
    pub(super) fn carry(&mut self, len: usize, from: usize) {
        let joins = self
            .pieces
            .last()
            .is_some_and(|last| last.whole.is_none() && last.from + (self.end - last.at) == from);
        if !joins {
            self.pieces.push(Piece {
                at: self.end,
                from,
                whole: None,
            });
        }
        self.end += len;
    }

    /// `len` bytes together stand for `source_len` bytes from `from`.
    #[inline]
    pub(super) fn replace(&mut self, len: usize, from: usize, source_len: usize) {
        if len > 0 {
            self.pieces.push(Piece {
                at: self.end,
                from,
                whole: Some(source_len),
            });
            self.end += len;
        }
    }

    /// The source's first byte for what stands at a derived position.
    pub(super) fn start_of(&self, at: usize) -> usize {
        match self.piece(at) {
            Some(piece) if piece.whole.is_none() => piece.from + (at - piece.at),
            Some(piece) => piece.from,
            None => at,
        }
    }

    /// The source's end for derived text that ends before `end`.
    pub(super) fn end_of(&self, end: usize) -> usize {
        match self.piece(end.saturating_sub(1)) {
            Some(Piece {
                from,
                whole: Some(len),
                ..
            }) => from + len,
            Some(piece) => piece.from + (end - piece.at),
            None => end,
        }
    }

    fn piece(&self, at: usize) -> Option<Piece> {
        let next = self.pieces.partition_point(|piece| piece.at <= at);
        Some(self.pieces[next.checked_sub(1)?])
    }

    /// Forgets what stands before a derived position.
    pub(super) fn forget(&mut self, before: usize) {
        let next = self.pieces.partition_point(|piece| piece.at <= before);
        self.pieces.drain(..next.saturating_sub(1));
    }

    /// Begins again with nothing.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.end = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_lead_back() {
        let mut spans = Spans::default();
        spans.carry(3, 0);
        spans.carry(2, 3);
        spans.replace(1, 5, 3);
        spans.carry(4, 8);
        assert_eq!((spans.start_of(4), spans.end_of(5)), (4, 5));
        assert_eq!((spans.start_of(5), spans.end_of(6)), (5, 8));
        assert_eq!((spans.start_of(7), spans.end_of(10)), (9, 12));
        spans.forget(6);
        assert_eq!((spans.start_of(7), spans.end_of(10)), (9, 12));
    }
}

//! Sizes beyond which a field is cut, and bounds of a query. A cut is never
//! silent: the span lists it in `truncated`, and a cut body says so itself.

/// Bytes of a short text (name, model, session, tag value …).
pub const TEXT_BYTES: usize = 1024;
/// Bytes of a long text (error message, comment).
pub const LONG_TEXT_BYTES: usize = 16 * 1024;
/// Bytes of one JSON column (metadata, parameters, attributes).
pub const JSON_BYTES: usize = 64 * 1024;
/// Tags of one span.
pub const TAGS: usize = 64;
/// Bytes of one message body.
pub const BODY_BYTES: usize = 4 * 1024 * 1024;
/// Bodies of one span (input, output and tools each).
pub const BODIES: usize = 10_000;
/// Bytes of text per span that full-text search sees: outputs first, then the
/// new input messages. What is beyond is stored, but not found by words.
pub const INDEXED_BYTES: usize = 64 * 1024;
/// User-perceived characters of a preview.
pub const PREVIEW_GRAPHEMES: usize = 200;
/// Rows of a list page.
pub const PAGE_ROWS: usize = 1000;
/// Spans of one trace that a reader gets.
pub const TRACE_SPANS: usize = 50_000;
/// Groups of one aggregate.
pub const GROUPS: usize = 50_000;

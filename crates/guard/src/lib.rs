//! Guardrails: what a policy says, what its checks find in a text, and what becomes of the
//! text. Pure functions of the text: no IO, no async, no clock. What only a model can tell is
//! asked for as data, and the caller brings the answer.

pub mod detectors;

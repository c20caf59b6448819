//! The product: one folder per feature, and the binary meguri.

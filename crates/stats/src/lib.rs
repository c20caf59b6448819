//! Statistics for deciding between versions: sequential tests that may be looked
//! at any time, intervals, sample sizes, bandits. Pure functions over numbers; no
//! IO, no clock, and randomness only as an argument.

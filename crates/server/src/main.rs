//! The binary `meguri`: everything is in the library, so that tests link it once.

use std::process::ExitCode;

// Peers gained about a tenth of their CPU by leaving the system allocator; our own gain is not
// measured yet. Measured is what the feature `no_thp` does: with transparent huge pages an idle
// server took 46 MiB instead of 26.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    server::cli::main()
}

//! The binary `meguri`: everything is in the library, so that tests link it once.

use std::process::ExitCode;

// The system allocator was among the largest costs of a small request; see docs/benchmarks.md.
// Without transparent huge pages (feature `no_thp`), which tripled the memory of an idle server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    server::cli::main()
}

//! The `tidegate` program: its command line is `tidegate::cli`.

use std::process::ExitCode;

/// Half of glibc's instructions for what a request allocates (`benches/README.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tidegate::cli::main()
}

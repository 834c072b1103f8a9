//! The `tidegate` program: its command line is `tidegate::cli`.

use std::process::ExitCode;

/// To allocate and to free costs half as many instructions as with glibc's (callgrind), and what connections at rest give up
/// goes back to the system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tidegate::cli::main()
}

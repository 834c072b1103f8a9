//! The `tidegate` program: its command line is `tidegate::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate::cli::main()
}

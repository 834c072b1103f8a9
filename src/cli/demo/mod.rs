use super::{Trouble, args::DemoArgs};
use std::process::ExitCode;
pub(super) fn demo(_args: &DemoArgs) -> Result<ExitCode, Trouble> {
    Ok(ExitCode::SUCCESS)
}

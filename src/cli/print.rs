//! Where commands write. A reader that has gone away (`| head`) is no trouble: it has seen what it wanted.

use std::{
    fmt,
    io::{self, ErrorKind, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use super::Trouble;
use crate::base::duration::Took;

/// Writes a command's result to standard output. Styles stay if colours are wanted there.
pub(super) fn print(text: &str) -> Result<ExitCode, Trouble> {
    print_with(|out| out.write_all(text.as_bytes()).map(|()| ExitCode::SUCCESS)).map(Option::unwrap_or_default)
}

/// The same for a result that is written in parts. `None`: nobody reads.
pub(super) fn print_with<T>(write: impl FnOnce(&mut dyn Write) -> io::Result<T>) -> Result<Option<T>, Trouble> {
    let mut out = anstream::stdout().lock();
    match write(&mut out).and_then(|value| out.flush().map(|()| value)) {
        Ok(value) => Ok(Some(value)),
        Err(why) if why.kind() == ErrorKind::BrokenPipe => Ok(None),
        Err(why) => Err(Trouble(format!("cannot write to standard output: {why}"))),
    }
}

/// Says something beside the result, on standard error.
pub(super) fn eprint(text: fmt::Arguments<'_>) {
    // There is no better place to complain about standard error.
    let _ = anstream::stderr().lock().write_fmt(text);
}

/// Writes a command's result to a file.
pub(super) fn write_file(path: &Path, text: &str) -> Result<ExitCode, Trouble> {
    match std::fs::write(path, text) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(why) => Err(Trouble(format!("cannot write {}: {}", path.display(), reason(&why)))),
    }
}

/// Rows as lines, each column as wide as its widest cell.
pub(super) fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    for row in rows {
        let cells = widths.iter().zip(row).map(|(width, cell)| format!("{cell:<width$}  "));
        out.push_str(cells.collect::<String>().trim_end());
        out.push('\n');
    }
    out
}

/// How long something takes, of so many seconds.
pub(super) fn took(seconds: f64) -> Took {
    Took(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// How long health checks take at worst, in seconds.
pub(super) fn detection(out: f64, back: f64) -> String {
    let (out, back) = (took(out), took(back));
    format!("a dead backend is out after {out} at most, one that is well again back after {back}")
}

/// What the system says, in words.
pub(super) fn reason(why: &io::Error) -> String {
    match why.kind() {
        ErrorKind::NotFound => "no such file".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        ErrorKind::IsADirectory => "it is a directory".to_owned(),
        ErrorKind::AddrInUse => "it is in use".to_owned(),
        _ => why.to_string(),
    }
}

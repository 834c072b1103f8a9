use std::{fs::File, fs::OpenOptions, io, os::unix::fs::OpenOptionsExt as _, path::Path};

/// Opens a file for reading, if it is one. Never waits: a pipe that nobody writes would hold up whoever opens it, a device
/// may have no end.
///
/// # Errors
/// What the system says, or `InvalidInput` for what is not a regular file (`IsADirectory` for a folder).
pub fn open_regular(path: &Path) -> io::Result<File> {
    let file = without_waiting(OpenOptions::new().read(true)).open(path)?;
    let kind = file.metadata()?.file_type();
    match () {
        () if kind.is_file() => Ok(file),
        () if kind.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        () => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// Makes opening a pipe without the other end fail at once instead of waiting for it. Regular files know no such wait.
pub fn without_waiting(options: &mut OpenOptions) -> &mut OpenOptions {
    options.custom_flags(i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_files_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "text").unwrap();
        assert!(open_regular(&path).is_ok());
        assert_eq!(open_regular(folder.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(open_regular(Path::new("/dev/zero")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        assert_eq!(open_regular(&pipe).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(without_waiting(OpenOptions::new().append(true)).open(&pipe).is_err());
    }
}

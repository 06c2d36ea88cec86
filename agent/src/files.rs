//! Reading and writing the few files on which everything rests: keys, certificates, trust roots.
//!
//! A secret is read only from a regular file of this user that nobody else may open, never through
//! a symbolic link; it is written so that a crash leaves the old file or the new one.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

/// No key, certificate or bundle comes near this many bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened, read or written.
    #[error("cannot {verb} `{}`", .path.display())]
    Io {
        /// What was tried: `read`, `write`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It could be read, but must not be trusted.
    #[error("refusing `{}`: {rule}", .path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// The rule that it breaks.
        rule: &'static str,
    },
}

impl FileError {
    /// Whether the file is not there at all.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::Refused { .. } => false,
        }
    }
}

/// Reads a secret.
pub fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read(path, 0o077, "a secret must not be open to group or others (chmod 600)")
}

/// Reads a file that is no secret, but that nobody else may write to.
pub fn read_trusted(path: &Path) -> Result<Vec<u8>, FileError> {
    let rule = "it must not be writable by group or others (chmod go-w)";
    read(path, 0o022, rule).map(|mut content| std::mem::take(&mut *content))
}

/// Reads a trusted file of text.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    let rule = "it must be UTF-8 text";
    String::from_utf8(read_trusted(path)?).map_err(|_| refused(path, rule))
}

/// Writes a secret that only this user may read, in place of any older one.
pub fn write_secret(path: &Path, content: &[u8]) -> Result<(), FileError> {
    write(path, content, Mode::RUSR | Mode::WUSR)
}

/// Writes a file that others may read, in place of any older one.
pub fn write_public(path: &Path, content: &[u8]) -> Result<(), FileError> {
    write(path, content, Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH)
}

/// Makes a directory that only this user may enter, and those above it that are missing.
pub fn private_dir(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(io_error("write", path))
}

/// Makes a directory as [`private_dir`] does, or makes sure of the one that is there: that it is no
/// link, and that nobody but this user may enter it.
pub fn own_dir(path: &Path) -> Result<(), FileError> {
    private_dir(path)?;
    // With a slash at the end, the system would look behind a link.
    let path: PathBuf = path.components().collect();
    let meta = std::fs::symlink_metadata(&path).map_err(io_error("read", &path))?;
    let owner = rustix::process::geteuid().as_raw();
    match () {
        () if meta.is_symlink() => Err(refused(&path, "it must not be a symbolic link")),
        () if meta.uid() != owner => {
            Err(refused(&path, "it must belong to the user who runs this"))
        }
        () if meta.mode() & 0o077 != 0 => {
            Err(refused(&path, "it must not be open to group or others (chmod 700)"))
        }
        () => Ok(()),
    }
}

fn read(path: &Path, forbidden: u32, rule: &'static str) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let failed = || io_error("read", path);
    // NONBLOCK, so that a pipe in the place of the file cannot hold us up.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(rustix::io::Errno::LOOP) => {
            return Err(refused(path, "it must not be a symbolic link"));
        }
        opened => opened.map_err(|error| failed()(error.into()))?,
    };
    let file = File::from(opened);
    let meta = file.metadata().map_err(failed())?;
    let owner = rustix::process::geteuid().as_raw();
    match () {
        () if !meta.is_file() => return Err(refused(path, "it must be a regular file")),
        () if meta.mode() & forbidden != 0 => return Err(refused(path, rule)),
        () if meta.uid() != owner && meta.uid() != 0 => {
            return Err(refused(path, "it must belong to the user who runs this, or to root"));
        }
        () if meta.len() > MAX_BYTES => return Err(refused(path, "it is too large")),
        () => {}
    }
    let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0)));
    file.take(MAX_BYTES).read_to_end(&mut content).map_err(failed())?;
    Ok(content)
}

fn write(path: &Path, content: &[u8], mode: Mode) -> Result<(), FileError> {
    let failed = || io_error("write", path);
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A name of its own for each attempt: the number of a process comes again after a crash, in a
    // container always, and threads share it.
    let mut chance = [0; 8];
    let drawn = getrandom::fill(&mut chance);
    drawn.map_err(|_| failed()(io::Error::other("the system gives no random numbers")))?;
    let mut aside = path.file_name().unwrap_or_default().to_owned();
    aside.push(format!(".{}.new", hex::encode(chance)));
    let aside = dir.join(aside);
    let written = (|| {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mut file = File::from(rustix::fs::open(&aside, flags | OFlags::CLOEXEC, mode)?);
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&aside, path)?;
        File::open(dir)?.sync_all()
    })();
    if written.is_err() {
        // The failure is told anyway.
        let _removed = std::fs::remove_file(&aside);
    }
    written.map_err(failed())
}

fn io_error(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError::Io { verb, path: path.to_owned(), source }
}

fn refused(path: &Path, rule: &'static str) -> FileError {
    FileError::Refused { path: path.to_owned(), rule }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn chmod(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a41_secrets_that_others_could_read_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        write_secret(&path, b"secret").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(&**read_secret(&path).unwrap(), b"secret");
        for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666] {
            chmod(&path, mode);
            assert!(matches!(read_secret(&path), Err(FileError::Refused { .. })), "{mode:o}");
        }
        chmod(&path, 0o400);
        assert!(read_secret(&path).is_ok());
    }

    #[test]
    fn a41_symbolic_links_directories_and_pipes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        write_secret(&real, b"secret").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        for path in [&link, dir.path()] {
            assert!(matches!(read_secret(path), Err(FileError::Refused { .. })), "{path:?}");
            assert!(matches!(read_trusted(path), Err(FileError::Refused { .. })), "{path:?}");
        }
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg("-m600").arg(&pipe).status();
        assert!(made.unwrap().success());
        assert!(matches!(read_secret(&pipe), Err(FileError::Refused { .. })));
    }

    #[test]
    fn trusted_files_may_be_read_but_not_written_by_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle.pem");
        write_public(&path, b"roots").unwrap();
        chmod(&path, 0o644);
        assert_eq!(read_trusted(&path).unwrap(), b"roots");
        for mode in [0o664, 0o646, 0o666] {
            chmod(&path, mode);
            assert!(matches!(read_trusted(&path), Err(FileError::Refused { .. })), "{mode:o}");
        }
    }

    #[test]
    fn neither_a_crash_nor_another_thread_is_in_the_way_of_writing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let left = dir.path().join(format!("key.pem.{}.new", std::process::id()));
        std::fs::write(&left, b"half").unwrap();
        let (target, contents) = (&path, [[1_u8; 4096], [2; 4096], [3; 4096], [4; 4096]]);
        std::thread::scope(|scope| {
            for content in &contents {
                scope.spawn(move || {
                    (0..20).for_each(|_| write_secret(target, content).unwrap());
                });
            }
        });
        let written = read_secret(&path).unwrap();
        assert!(contents.iter().any(|content| content[..] == written[..]), "a mixture");
        std::fs::remove_file(left).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left over");
    }

    #[test]
    fn writing_replaces_a_link_and_not_what_it_points_to() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        std::fs::write(&real, b"old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write_secret(&link, b"new").unwrap();
        assert_eq!(std::fs::read(&real).unwrap(), b"old");
        assert_eq!(&**read_secret(&link).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left over");
    }
}

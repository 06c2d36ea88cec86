//! The embedded store: SQLite in one file.

use std::path::Path;

use super::JournalError;

/// A store in one SQLite file.
pub struct Sqlite {}

impl Sqlite {
    /// Makes the file, which must not exist, readable by its owner alone.
    pub fn create(_path: &Path) -> Result<Self, JournalError> {
        Err(JournalError::Unavailable("not written yet".into()))
    }

    /// Opens the file, which must exist and be readable by its owner alone.
    pub fn open(_path: &Path) -> Result<Self, JournalError> {
        Err(JournalError::Unavailable("not written yet".into()))
    }
}

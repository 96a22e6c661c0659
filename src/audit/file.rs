//! Lines in a file that is set aside when it is full.
//!
//! A line counts as written when it is on the disk. After any failure nothing is taken for written:
//! the file is cut back to what is known to be there, opened again and read, and goes on with a
//! line that says so. The same happens when there is another file at the path than before.
//!
//! While the file is open, this process alone writes to it and knows what is in it. Whatever else
//! is found there was put there by somebody: nothing is added behind it. Only when a process
//! begins, and after a write of its own that failed, can there be the beginning of a line without
//! the rest; it is sealed by the line that follows, and the log of the process says so.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufReader, Seek as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{
    aside::{self, Aside},
    content::Content,
    line::{Head, Key, Torn},
    sink::Batch,
    verify::Walk,
};

/// How often a file is opened that another process sets aside meanwhile.
const OPENINGS_MAX: u32 = 10;

/// A log in a file.
pub(super) struct LogFile {
    path: PathBuf,
    max_size: u64,
    aside: Aside,
    key: Key,
    open: Option<OpenFile>,
    /// The last line that is on the disk; `None` before anything was opened.
    head: Option<Head>,
    /// Whether a write failed since the file was opened last, so that some of it may be there.
    has_failed: bool,
    is_stuck: bool,
}

struct OpenFile {
    file: File,
    id: (u64, u64),
    /// How many bytes are on the disk.
    len: u64,
    /// When something was last changed about it, by this process.
    changed_at: (i64, i64),
    first_seq: u64,
}

impl LogFile {
    pub(super) fn new(path: PathBuf, (max_size, keep): (u64, usize), key: Key) -> Self {
        Self {
            aside: Aside::new(path.clone(), keep),
            path,
            max_size,
            key,
            open: None,
            head: None,
            has_failed: false,
            is_stuck: false,
        }
    }

    /// Opens the file if it is not open, or is not the one at the path any more.
    pub(super) fn make_ready(&mut self) -> io::Result<()> {
        let mut reason = if self.head.is_some() {
            "recovery"
        } else {
            "start"
        };
        if let Some(open) = &self.open {
            let is_same = fs::metadata(&self.path)
                .is_ok_and(|found| id(&found) == open.id && found.len() == open.len);
            if is_same && changed_at(&open.file.metadata()?) == open.changed_at {
                return Ok(());
            }
            if is_same && self.is_unchanged()? {
                return Ok(());
            }
            reason = "replaced";
            self.open = None;
        }
        self.open_with(reason)
    }

    /// Whether the open file holds what was written, though somebody touched it.
    fn is_unchanged(&mut self) -> io::Result<bool> {
        let Some(open) = &mut self.open else {
            return Ok(false);
        };
        // Whatever happens from here on is seen the next time.
        let changed_at = changed_at(&open.file.metadata()?);
        open.file.rewind()?;
        let mut walk = Walk::new(&self.key, None);
        walk.read(BufReader::new(&open.file))?;
        let is_unchanged = walk.wrong().is_none() && walk.head == self.head;
        if is_unchanged {
            open.changed_at = changed_at;
        }
        Ok(is_unchanged)
    }

    /// Lets go of the file.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// Adds lines, and sets the file aside if it is full.
    pub(super) fn add(&mut self, contents: &[Content]) -> io::Result<()> {
        self.make_ready()?;
        let batch = Batch::new(&self.key, self.head.unwrap_or(Head::NONE), contents)?;
        self.write(&batch)?;
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.len >= self.max_size)
        {
            self.set_aside();
        }
        Ok(())
    }

    fn write(&mut self, batch: &Batch) -> io::Result<()> {
        let Some(open) = &mut self.open else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let written = open
            .file
            .write_all(&batch.bytes)
            .and_then(|()| open.file.sync_data());
        match written {
            Ok(()) => {
                open.len += batch.bytes.len() as u64;
                self.head = Some(batch.head());
                let metadata = open.file.metadata()?;
                open.changed_at = changed_at(&metadata);
                if metadata.len() == open.len {
                    return Ok(());
                }
                let error = format!("{}: somebody else wrote to it", self.path.display());
                self.open = None;
                Err(io::Error::other(error))
            }
            Err(error) => {
                // Nobody was told that this is written, and what of it is on the disk is not known.
                // If it cannot be cut off, the next opening finds out what is there.
                let _cut = open.file.set_len(open.len);
                self.open = None;
                self.has_failed = true;
                Err(error)
            }
        }
    }

    fn open_with(&mut self, reason: &str) -> io::Result<()> {
        let file = self.open_for_itself()?;
        let found = self.look_into(&file)?;
        let before = found.head;
        let first_seq = found.first_seq.unwrap_or(before.seq + 1);
        let why = (reason, found.first_seq.is_none());
        let mut opening = Batch::opening(&self.key, before, why, found.torn.clone())?;
        if found.torn.is_some() || found.lacks_end {
            opening.bytes.insert(0, b'\n');
        }
        let metadata = file.metadata()?;
        self.open = Some(OpenFile {
            id: id(&metadata),
            // What is there already may not be on the disk yet; it will be with the line that
            // follows it.
            len: metadata.len(),
            changed_at: changed_at(&metadata),
            file,
            first_seq,
        });
        self.head = Some(before);
        self.write(&opening)?;
        self.has_failed = false;
        if let Some(Torn { bytes, sha256 }) = found.torn {
            tracing::warn!(
                file = %self.path.display(),
                after = before.seq,
                bytes,
                sha256,
                "the audit file ended in the middle of a line; what stood there was sealed"
            );
        }
        Ok(())
    }

    /// Opens the file at the path, which is made if it is not there, and keeps other processes from
    /// writing to it.
    fn open_for_itself(&self) -> io::Result<File> {
        for _ in 0..OPENINGS_MAX {
            let mut options = OpenOptions::new();
            options.read(true).append(true).mode(0o600);
            let file = match options.open(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let file = options.create_new(true).open(&self.path)?;
                    aside::sync_folder(&self.path)?;
                    file
                }
                opened => opened?,
            };
            if claim(&file, &self.path)? {
                return Ok(file);
            }
        }
        Err(io::Error::other("other processes go on replacing it"))
    }

    /// What is in the file at the path, and what its next line follows.
    fn look_into(&self, file: &File) -> io::Result<Found> {
        let mut walk = Walk::new(&self.key, None);
        walk.read(BufReader::new(file))?;
        let may_be_torn = self.head.is_none() || self.has_failed;
        let torn = match walk.rest() {
            None if may_be_torn || !walk.lacks_end => None,
            Some(rest) if may_be_torn && rest.is_unfinished_line() => Some(rest.torn()),
            _ => {
                let line = walk.wrong().map_or(0, |(line, _)| line);
                return Err(altered(&self.path, line));
            }
        };
        let head = match (walk.head, self.head) {
            (None, Some(known)) => known,
            (None, None) => self.aside.head(&self.key)?,
            (Some(found), None) => found,
            (Some(found), Some(known)) if found == known || found.seq > known.seq => found,
            (Some(_), Some(_)) => {
                return Err(io::Error::other(
                    "its last lines are missing, or it is another file: move it away",
                ));
            }
        };
        Ok(Found {
            head,
            first_seq: walk.first_seq,
            lacks_end: walk.lacks_end,
            torn,
        })
    }

    /// Gives the file another name and begins a fresh one. If that fails, the file goes on as it
    /// is.
    fn set_aside(&mut self) {
        let Some(open) = &self.open else { return };
        let aside = self.aside.name(open.first_seq);
        let done = match fs::symlink_metadata(&aside) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::rename(&self.path, &aside).and_then(|()| aside::sync_folder(&self.path))
            }
            Err(error) => Err(error),
        };
        let file = aside.display();
        if let Err(error) = done {
            if !self.is_stuck {
                tracing::error!(%file, %error, "the audit file is full and cannot be set aside; it grows on");
            }
            self.is_stuck = true;
            return;
        }
        self.is_stuck = false;
        tracing::info!(%file, "the audit file was full and was set aside");
        self.open = None;
        if let Err(error) = self.open_with("rotation") {
            tracing::error!(%error, "no fresh audit file can be begun; trying again");
        }
        let Some(open) = &self.open else { return };
        if let Err(error) = self.aside.remove_oldest(&self.key, open.first_seq) {
            tracing::error!(%error, "audit files that are to be kept no longer cannot be removed");
        }
    }
}

/// Locks a file. `false` if it is not the one at the path: whoever wrote to it may have set it
/// aside before it was locked.
fn claim(file: &File, path: &Path) -> io::Result<bool> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(io::Error::other("another process writes to it"));
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    match fs::metadata(path) {
        Ok(found) => Ok(id(&found) == id(&metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// What a file held when it was opened.
struct Found {
    head: Head,
    /// The number of its first line; `None` if it has none.
    first_seq: Option<u64>,
    /// Whether the newline is missing behind its last line.
    lacks_end: bool,
    torn: Option<Torn>,
}

pub(super) fn altered(path: &Path, line: u64) -> io::Error {
    io::Error::other(format!(
        "{}, line {line}: not what was written with this key. Nothing is added to it: verify it, and move the files away",
        path.display()
    ))
}

fn id(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Whatever is done to a file moves this on, and nobody can set it back.
fn changed_at(metadata: &fs::Metadata) -> (i64, i64) {
    (metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_set_aside_before_it_was_locked_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let file = File::create(&path).unwrap();
        assert!(claim(&file, &path).unwrap());
        let second = File::open(&path).unwrap();
        assert!(claim(&second, &path).is_err(), "another one has it");
        drop(file);
        fs::rename(&path, folder.path().join("audit.log.1")).unwrap();
        let third = second.try_clone().unwrap();
        assert!(!claim(&second, &path).unwrap(), "nothing is there");
        File::create(&path).unwrap();
        assert!(!claim(&third, &path).unwrap(), "there is another file");
    }
}

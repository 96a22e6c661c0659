//! Lines in a file that is set aside when it is full.
//!
//! A line counts as written when it is on the disk. After any failure nothing is taken for written: the file is cut back to what
//! is known to be there, opened again and read, and goes on with a line that says so. The same happens when the file at the
//! path is another one than before, or has another length.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufReader, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{
    content::Content,
    line::{Head, Key, Torn},
    sink::Batch,
    verify::Walk,
};

/// Digits of the number of the first line in the name of a file that was set aside, so that names sort as lines do.
const NAME_DIGITS: usize = 16;

/// A log in a file.
pub(super) struct LogFile {
    path: PathBuf,
    max_size: u64,
    keep: usize,
    key: Key,
    open: Option<OpenFile>,
    /// The last line that is on the disk; `None` before anything was opened.
    head: Option<Head>,
    is_stuck: bool,
}

struct OpenFile {
    file: File,
    id: (u64, u64),
    /// How many bytes are on the disk.
    len: u64,
    first_seq: u64,
}

impl LogFile {
    pub(super) fn new(path: PathBuf, (max_size, keep): (u64, usize), key: Key) -> Self {
        Self {
            path,
            max_size,
            keep,
            key,
            open: None,
            head: None,
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
            if is_same {
                return Ok(());
            }
            reason = "replaced";
            self.open = None;
        }
        self.open_with(reason)
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
                Ok(())
            }
            Err(error) => {
                // Nobody was told that this is written, and what of it is on the disk is not known. If it cannot be
                // cut off, the next opening finds out what is there.
                let _cut = open.file.set_len(open.len);
                self.open = None;
                Err(error)
            }
        }
    }

    fn open_with(&mut self, reason: &str) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).mode(0o600);
        let file = match options.open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = options.create_new(true).open(&self.path)?;
                sync_folder(&self.path)?;
                file
            }
            opened => opened?,
        };
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
        let found = self.look_into(&file)?;
        let before = found.head;
        let first_seq = found.first_seq.unwrap_or(before.seq + 1);
        let why = (reason, found.first_seq.is_none());
        let mut opening = Batch::opening(&self.key, before, why, found.torn.clone())?;
        if found.torn.is_some() {
            opening.bytes.insert(0, b'\n');
        }
        self.open = Some(OpenFile {
            id: id(&metadata),
            // What is there already may not be on the disk yet; it will be with the line that follows it.
            len: file.metadata()?.len(),
            file,
            first_seq,
        });
        self.head = Some(before);
        self.write(&opening)
    }

    /// What is in the file at the path, and what its next line follows.
    fn look_into(&self, file: &File) -> io::Result<Found> {
        let mut walk = Walk::new(&self.key, None);
        walk.read(BufReader::new(file))?;
        let torn = match walk.rest() {
            None => None,
            Some(rest) if !rest.has_lines => Some(rest.torn(true)),
            Some(_) => {
                let line = walk.wrong().map_or(0, |(line, _)| line);
                return Err(altered(&self.path, line));
            }
        };
        let head = match (walk.head, self.head) {
            (None, Some(known)) => known,
            (None, None) => self.last_set_aside()?,
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
            torn,
        })
    }

    /// The last line of the file that was set aside last.
    fn last_set_aside(&self) -> io::Result<Head> {
        let Some(newest) = self.aside()?.pop() else {
            return Ok(Head::NONE);
        };
        let mut walk = Walk::new(&self.key, None);
        walk.read(BufReader::new(File::open(&newest)?))?;
        match (walk.wrong(), walk.head) {
            (None, Some(head)) => Ok(head),
            (wrong, _) => Err(altered(&newest, wrong.map_or(1, |(line, _)| line))),
        }
    }

    /// Gives the file another name and begins a fresh one. If that fails, the file goes on as it is.
    fn set_aside(&mut self) {
        let Some(open) = &self.open else { return };
        let aside = self.aside_name(open.first_seq);
        let done = match fs::symlink_metadata(&aside) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::rename(&self.path, &aside).and_then(|()| sync_folder(&self.path))
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
        if let Err(error) = self.remove_oldest() {
            tracing::error!(%error, "audit files that are to be kept no longer cannot be removed");
        }
    }

    fn remove_oldest(&self) -> io::Result<()> {
        let mut aside = self.aside()?;
        if self.keep == 0 {
            return Ok(());
        }
        let keep_from = aside.len().saturating_sub(self.keep);
        for file in aside.drain(..keep_from) {
            fs::remove_file(&file)?;
            tracing::warn!(file = %file.display(), "removed the oldest audit file: audit.keep_files are kept");
        }
        Ok(())
    }

    fn aside_name(&self, first_seq: u64) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{first_seq:0NAME_DIGITS$}"));
        name.into()
    }

    /// The files that were set aside, oldest first.
    fn aside(&self) -> io::Result<Vec<PathBuf>> {
        let own = self.path.file_name().unwrap_or_default();
        let is_one = |path: &PathBuf| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            path.file_stem() == Some(own)
                && extension.is_some_and(|digits| {
                    digits.len() >= NAME_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit())
                })
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(folder(&self.path))? {
            let path = entry?.path();
            if is_one(&path) {
                found.push(path);
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// What a file held when it was opened.
struct Found {
    head: Head,
    /// The number of its first line; `None` if it has none.
    first_seq: Option<u64>,
    torn: Option<Torn>,
}

fn altered(path: &Path, line: u64) -> io::Error {
    io::Error::other(format!(
        "{}, line {line}: not what was written with this key. Nothing is added to it: verify it, and move the files away",
        path.display()
    ))
}

fn id(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Makes a fresh or another name survive a crash.
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

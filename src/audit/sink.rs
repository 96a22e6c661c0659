//! Where lines go, and the chain that they form there.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::AsFd as _,
    path::PathBuf,
};

use sha2::{Digest as _, Sha256};

use super::{
    content::Content,
    file::LogFile,
    line::{self, Head, Key, Opened, Torn},
};
use crate::domain::clock::{Clock as _, SystemClock};

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The standard output stream.
    Stdout,
    /// A file, and those that it was before.
    File {
        /// The file.
        path: PathBuf,
        /// A file of so many bytes is set aside.
        max_size: u64,
        /// How many files that were set aside are kept; 0 for all.
        keep: usize,
    },
}

/// A place to which lines are added.
pub(super) enum Sink {
    Stdout(Stream),
    File(LogFile),
}

impl Sink {
    pub(super) fn new(target: &Target, key: Key) -> Self {
        match target {
            Target::Stdout => Self::Stdout(Stream::new(key)),
            Target::File {
                path,
                max_size,
                keep,
            } => Self::File(LogFile::new(path.clone(), (*max_size, *keep), key)),
        }
    }

    /// Makes sure that lines can be added, as far as that can be told without adding one.
    pub(super) fn make_ready(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(stream) => stream.make_ready(),
            Self::File(file) => file.make_ready(),
        }
    }

    /// Lets go of the place, so that another process can have it.
    pub(super) fn close(&mut self) {
        match self {
            Self::Stdout(_) => {}
            Self::File(file) => file.close(),
        }
    }

    /// Adds lines. After `Ok` they survive a crash of the machine, as far as the place can promise
    /// that.
    pub(super) fn add(&mut self, contents: &[Content]) -> io::Result<()> {
        match self {
            Self::Stdout(stream) => stream.add(contents),
            Self::File(file) => file.add(contents),
        }
    }
}

/// Lines that follow each other.
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// Where each line ends, and what the head is then.
    ends: Vec<(usize, Head)>,
    before: Head,
}

impl Batch {
    pub(super) fn new(key: &Key, before: Head, contents: &[Content]) -> io::Result<Self> {
        let time = SystemClock.now().to_string();
        let mut batch = Self {
            bytes: Vec::new(),
            ends: Vec::with_capacity(contents.len()),
            before,
        };
        for content in contents {
            let name = (time.clone(), content.kind());
            let (line, head) = line::seal(key, batch.head(), name, content)?;
            batch.bytes.extend_from_slice(&line);
            batch.ends.push((batch.bytes.len(), head));
        }
        Ok(batch)
    }

    /// The line that opens a file or goes on in it.
    pub(super) fn opening(
        key: &Key,
        before: Head,
        (reason, new_file): (&str, bool),
        torn: Option<Torn>,
    ) -> io::Result<Self> {
        let opened = Opened {
            reason: reason.to_owned(),
            previous: hex::encode(before.seal),
            new_file,
            torn,
        };
        Self::new(key, before, &[Content::Opened(opened)])
    }

    pub(super) fn head(&self) -> Head {
        self.ends.last().map_or(self.before, |(_, head)| *head)
    }
}

/// The standard output stream. Every run of the program has a chain of its own there.
pub(super) struct Stream {
    key: Key,
    file: Option<File>,
    head: Head,
    /// What stands behind the last whole line: what was written of further ones before writing
    /// failed, each time.
    torn: Option<Piece>,
}

#[derive(Default)]
struct Piece {
    bytes: u64,
    digest: Sha256,
}

impl Piece {
    fn torn(&self) -> Torn {
        Torn {
            bytes: self.bytes,
            sha256: hex::encode(self.digest.clone().finalize()),
        }
    }
}

impl Stream {
    fn new(key: Key) -> Self {
        Self {
            key,
            file: None,
            head: Head::NONE,
            torn: None,
        }
    }

    fn make_ready(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            // Not through the buffer of the program, so that a failure is seen.
            let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
            self.file = Some(file);
            let opening = self.opening()?;
            self.write(&opening)?;
        }
        Ok(())
    }

    /// The line to begin or to go on with, behind what is torn.
    fn opening(&self) -> io::Result<Batch> {
        let is_new = self.head == Head::NONE;
        let why = (if is_new { "start" } else { "recovery" }, is_new);
        let torn = self.torn.as_ref().map(Piece::torn);
        let is_behind_piece = torn.is_some();
        let mut opening = Batch::opening(&self.key, self.head, why, torn)?;
        if is_behind_piece {
            opening.bytes.insert(0, b'\n');
            opening.ends[0].0 += 1;
        }
        Ok(opening)
    }

    fn add(&mut self, contents: &[Content]) -> io::Result<()> {
        self.make_ready()?;
        let batch = Batch::new(&self.key, self.head, contents)?;
        self.write(&batch)
    }

    fn write(&mut self, batch: &Batch) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let mut written = 0;
        while written < batch.bytes.len() {
            match file.write(&batch.bytes[written..]) {
                Ok(0) => return self.broken(batch, written, io::ErrorKind::WriteZero.into()),
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.broken(batch, written, error),
            }
        }
        self.accepted(batch);
        Ok(())
    }

    /// Goes on from the last line of what was written, which seals what was torn before.
    fn accepted(&mut self, batch: &Batch) {
        self.head = batch.head();
        self.torn = None;
    }

    /// Goes on from the last line that is whole.
    fn broken(&mut self, batch: &Batch, written: usize, error: io::Error) -> io::Result<()> {
        let whole = batch.ends.iter().rev().find(|(end, _)| *end <= written);
        let begin = whole.map_or(0, |(end, _)| *end);
        self.head = whole.map_or(self.head, |(_, head)| *head);
        let rest = &batch.bytes[begin..written];
        if whole.is_some() {
            self.torn = None;
        }
        if !rest.is_empty() {
            // A further failure leaves a further piece behind the one that is there.
            let torn = self.torn.get_or_insert_default();
            torn.bytes += rest.len() as u64;
            torn.digest.update(rest);
        }
        self.file = None;
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _};

    use super::{Stream, line::Key};
    use crate::{audit::verify, domain::secret::Secret};

    #[test]
    fn all_pieces_that_failures_one_after_the_other_leave_are_sealed() {
        let key = || Key::new(&Secret::new("k".repeat(32))).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stream");
        let mut file = File::create(&path).unwrap();
        let mut stream = Stream::new(key());
        let mut write = |stream: &mut Stream, written: Option<usize>| {
            let batch = stream.opening().unwrap();
            let written = written.unwrap_or(batch.bytes.len());
            file.write_all(&batch.bytes[..written]).unwrap();
            if written < batch.bytes.len() {
                let error = std::io::ErrorKind::StorageFull.into();
                stream.broken(&batch, written, error).unwrap_err();
            } else {
                stream.accepted(&batch);
            }
        };
        for failures in [&[][..], &[10], &[10, 7], &[20, 1, 0, 30], &[0]] {
            for written in failures {
                write(&mut stream, Some(*written));
            }
            write(&mut stream, None);
            verify(&key(), std::slice::from_ref(&path)).unwrap();
        }
    }
}

//! Finds the first line of a log that is not what the holder of the key wrote.

use std::{
    fmt,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::line::{Head, Key, Sealed, Torn};

/// The longest line that is read as one, in bytes: no line of a log is as long.
pub(super) const LINE_MAX: u64 = 64 << 10;

/// What some files hold: whole, genuine and in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How many lines there are.
    pub lines: u64,
    /// The last line that is not in these files.
    pub before: Head,
    /// The last line.
    pub head: Head,
    /// What stands between lines, was there when the gateway opened the file, and was sealed as an
    /// unfinished line.
    pub sealed: Vec<Stretch>,
}

/// Bytes that are no line, as the line behind them names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The file.
    pub file: PathBuf,
    /// The number of the line in the file at which it begins, from 1 on.
    pub line: u64,
    /// The number in the log of the last line before.
    pub after: u64,
    /// How many bytes it has.
    pub bytes: u64,
    /// The SHA-256 of these bytes, in hexadecimal digits.
    pub sha256: String,
}

/// The first place that is not as it was written. The name of the file is shown quoted and escaped,
/// in one line whatever is in it.
#[derive(Debug, thiserror::Error)]
#[error("{file:?}, line {line}: {what}")]
pub struct Tampered {
    /// The file.
    pub file: PathBuf,
    /// The number of the line in the file, from 1 on.
    pub line: u64,
    /// What is wrong.
    pub what: Wrong,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It has not the form of a line, and is not what a crash left behind either.
    Form,
    /// It does not follow.
    Order {
        /// The number that would follow.
        due: u64,
        /// The number that it has.
        found: u64,
    },
    /// Its seal is wrong.
    Seal,
    /// It does not begin a file and stands at the beginning of one, or the other way round.
    Beginning,
    /// There is no line at all.
    Empty,
}

impl fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => formatter.write_str(
                "this is not a line of an audit log: it was changed, inserted or cut, or a crash left it behind and the \
                 gateway has not been started since",
            ),
            Self::Order { due, found } if found > due => write!(
                formatter,
                "number {found} where {due} is due: lines, or a whole file, were removed before it, or it was changed"
            ),
            Self::Order { due, found } => write!(
                formatter,
                "number {found} where {due} is due: it was inserted, moved or changed, or the files are not in their order"
            ),
            Self::Seal => formatter.write_str(
                "its HMAC is wrong: it was changed or inserted, what is before it was, or the key is another",
            ),
            Self::Beginning => formatter.write_str(
                "a file does not begin here: lines were removed before it, or files were joined",
            ),
            Self::Empty => formatter.write_str("there are no lines in the file"),
        }
    }
}

/// Why files could not be verified. Names of files are shown quoted and escaped.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// They are not as they were written.
    #[error(transparent)]
    Tampered(#[from] Tampered),
    /// One of them cannot be read.
    #[error("{0:?} cannot be read")]
    Unreadable(PathBuf, #[source] io::Error),
}

/// Verifies files of one log, which must be in their order. What is missing at the end cannot be
/// seen: compare the head.
pub fn verify(key: &Key, files: &[PathBuf]) -> Result<Verified, VerifyError> {
    let mut walk = Walk::new(key, None);
    let mut sealed = Vec::new();
    for path in files {
        let unreadable = |error| VerifyError::Unreadable(path.clone(), error);
        let file = open(path).map_err(unreadable)?;
        walk.begin_file();
        walk.read(BufReader::new(file)).map_err(unreadable)?;
        sealed.extend(walk.sealed.drain(..).map(|(line, after, torn)| Stretch {
            file: path.clone(),
            line,
            after,
            bytes: torn.bytes,
            sha256: torn.sha256,
        }));
        let wrong = match walk.wrong() {
            None if walk.lines_in_file == 0 => Some((1, Wrong::Empty)),
            wrong => wrong,
        };
        if let Some((line, what)) = wrong {
            return Err(tampered(path, line, what).into());
        }
    }
    Ok(Verified {
        lines: walk.lines,
        before: walk.before.unwrap_or(Head::NONE),
        head: walk.head.unwrap_or(Head::NONE),
        sealed,
    })
}

/// Opens a regular file, perhaps by a link: to open a pipe can take for ever, and so can reading a
/// device.
fn open(path: &Path) -> io::Result<File> {
    if fs::metadata(path)?.is_file() {
        File::open(path)
    } else {
        Err(io::Error::other("it is not a regular file"))
    }
}

fn tampered(path: &Path, line: u64, what: Wrong) -> Tampered {
    Tampered {
        file: path.to_owned(),
        line,
        what,
    }
}

/// Goes through lines, one after the other.
pub(super) struct Walk<'a> {
    key: &'a Key,
    before: Option<Head>,
    pub(super) head: Option<Head>,
    lines: u64,
    /// Genuine lines in the present file.
    lines_in_file: u64,
    /// Lines of any kind in the present file.
    at: u64,
    rest: Option<Rest>,
    /// Whether the last line of the present file is genuine but for the newline at its end.
    pub(super) lacks_end: bool,
    /// What a later line has sealed: the line in the file, the number of the line before, and what
    /// it is.
    sealed: Vec<(u64, u64, Torn)>,
    /// The number of the first line of the present file.
    pub(super) first_seq: Option<u64>,
}

/// What follows the last genuine line and is none.
pub(super) struct Rest {
    line: u64,
    what: Wrong,
    digest: Sha256,
    bytes: u64,
    /// The newline at its end is not counted until something follows that belongs to it.
    ends_line: bool,
    pieces: u64,
}

impl Rest {
    fn add(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// How a line that seals it names it.
    pub(super) fn torn(&self) -> Torn {
        Torn {
            bytes: self.bytes,
            sha256: hex::encode(self.digest.clone().finalize()),
        }
    }

    /// Whether this can be a line that was not finished: one piece, without an end, shorter than
    /// the longest line.
    ///
    /// Lines are added at the end, many with one write. A process that is killed, a full disk, and
    /// a loss of power on a file system that makes a file longer only once the bytes are there
    /// (ext4 with ordered data, XFS, btrfs) leave the beginning of such a write: whole lines, then
    /// at most one piece of a line without its end. Whatever else stands behind the last genuine
    /// line was put there by somebody, or by a disk that lost what it had taken: that is for a
    /// person to judge.
    pub(super) fn is_unfinished_line(&self) -> bool {
        self.pieces == 1 && !self.ends_line && self.bytes < LINE_MAX
    }
}

impl<'a> Walk<'a> {
    /// Begins behind `head`; `None`: wherever the first file begins.
    pub(super) fn new(key: &'a Key, head: Option<Head>) -> Self {
        Self {
            key,
            before: head,
            head,
            lines: 0,
            lines_in_file: 0,
            at: 0,
            rest: None,
            lacks_end: false,
            sealed: Vec::new(),
            first_seq: None,
        }
    }

    pub(super) fn begin_file(&mut self) {
        self.lines_in_file = 0;
        self.at = 0;
        self.lacks_end = false;
        self.first_seq = None;
    }

    /// Reads a file to its end, or as far as is needed to know that it is wrong for good.
    pub(super) fn read(&mut self, mut file: impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = file.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(());
            }
            self.at += 1;
            let is_whole = line.pop_if(|byte| *byte == b'\n').is_some();
            self.take(&line, is_whole);
        }
    }

    fn take(&mut self, line: &[u8], is_whole: bool) {
        let sealed = Sealed::read(line);
        let wrong = match &sealed {
            None => Wrong::Form,
            Some(sealed) => match self.check(sealed) {
                Ok(before) => {
                    self.accept(sealed, before);
                    self.lacks_end = !is_whole;
                    return;
                }
                Err(wrong) => wrong,
            },
        };
        let at = self.at;
        let rest = self.rest.get_or_insert_with(|| Rest {
            line: at,
            what: wrong,
            digest: Sha256::new(),
            bytes: 0,
            ends_line: false,
            pieces: 0,
        });
        if rest.ends_line {
            rest.add(b"\n");
        }
        rest.add(line);
        rest.ends_line = is_whole;
        rest.pieces += 1;
    }

    /// Whether a line is genuine at this place; then what it follows.
    fn check(&self, line: &Sealed<'_>) -> Result<Head, Wrong> {
        let is_first = self.lines_in_file == 0;
        let opened = line.opened.as_ref();
        let before = match self.head {
            Some(head) => head,
            // Only a line that opens says what it follows.
            None => line.claimed_before().ok_or(Wrong::Beginning)?,
        };
        if before.seq.checked_add(1) != Some(line.seq) {
            return Err(Wrong::Order {
                due: before.seq.saturating_add(1),
                found: line.seq,
            });
        }
        if !line.follows(self.key, before) {
            return Err(Wrong::Seal);
        }
        if opened.is_some_and(|opened| opened.new_file) != is_first {
            return Err(Wrong::Beginning);
        }
        let torn = opened.and_then(|opened| opened.torn.as_ref());
        match (&self.rest, torn) {
            (None, None) => Ok(before),
            (Some(rest), Some(torn)) if rest.torn() == *torn => Ok(before),
            (Some(rest), _) => Err(rest.what),
            (None, Some(_)) => Err(Wrong::Seal),
        }
    }

    fn accept(&mut self, line: &Sealed<'_>, before: Head) {
        if self.lines == 0 {
            self.before = Some(before);
        }
        self.head = Some(line.head());
        self.lines += 1;
        self.lines_in_file += 1;
        self.first_seq.get_or_insert(line.seq);
        if let Some(rest) = self.rest.take() {
            self.sealed.push((rest.line, before.seq, rest.torn()));
        }
    }

    /// The first line that is wrong, and how, if no later line has explained it.
    pub(super) fn wrong(&self) -> Option<(u64, Wrong)> {
        let rest = self.rest.as_ref().map(|rest| (rest.line, rest.what));
        rest.or_else(|| self.lacks_end.then_some((self.at, Wrong::Form)))
    }

    pub(super) fn rest(&self) -> Option<&Rest> {
        self.rest.as_ref()
    }
}

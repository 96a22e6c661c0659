//! Finds the first line of a log that is not what the holder of the key wrote.

use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::line::{Head, Key, Sealed, Torn, hex};

/// The longest line that is read as one: no line of a log is as long.
const LINE_MAX: u64 = 64 << 10;

/// What some files hold: whole, genuine and in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How many lines there are.
    pub lines: u64,
    /// The last line that is not in these files.
    pub before: Head,
    /// The last line.
    pub head: Head,
}

/// The first place that is not as it was written.
#[derive(Debug, thiserror::Error)]
#[error("{}, line {line}: {what}", .file.display())]
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

/// Why files could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// They are not as they were written.
    #[error(transparent)]
    Tampered(#[from] Tampered),
    /// One of them cannot be read.
    #[error("{} cannot be read", .0.display())]
    Unreadable(PathBuf, #[source] io::Error),
}

/// Verifies files of one log, which must be in their order. What is missing at the end cannot be seen: compare the head.
pub fn verify(key: &Key, files: &[PathBuf]) -> Result<Verified, VerifyError> {
    let mut walk = Walk::new(key, None);
    for path in files {
        let unreadable = |error| VerifyError::Unreadable(path.clone(), error);
        let file = File::open(path).map_err(unreadable)?;
        walk.begin_file();
        walk.read(BufReader::new(file)).map_err(unreadable)?;
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
    })
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
    /// How many bytes of the present file are genuine.
    pub(super) genuine_bytes: u64,
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
    /// Whether something in it has the form of a line: no crash leaves that behind an unfinished line.
    pub(super) has_lines: bool,
}

impl Rest {
    fn add(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// How a line that seals it names it. `with_end`: whether the newline at its end belongs to it.
    pub(super) fn torn(&self, with_end: bool) -> Torn {
        let mut digest = self.digest.clone();
        let mut bytes = self.bytes;
        if with_end && self.ends_line {
            digest.update(b"\n");
            bytes += 1;
        }
        Torn {
            bytes,
            sha256: hex(&digest.finalize()),
        }
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
            genuine_bytes: 0,
            first_seq: None,
        }
    }

    pub(super) fn begin_file(&mut self) {
        self.lines_in_file = 0;
        self.at = 0;
        self.genuine_bytes = 0;
        self.first_seq = None;
    }

    /// Reads a file to its end, or as far as is needed to know that it is wrong for good.
    pub(super) fn read(&mut self, mut file: impl BufRead) -> io::Result<()> {
        let mut position = 0;
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = file.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(());
            }
            position += read as u64;
            self.at += 1;
            let is_whole = line.pop_if(|byte| *byte == b'\n').is_some();
            self.take(&line, is_whole, position);
        }
    }

    fn take(&mut self, line: &[u8], is_whole: bool, position: u64) {
        let sealed = Sealed::read(line).filter(|_| is_whole);
        let wrong = match &sealed {
            None => Wrong::Form,
            Some(sealed) => match self.check(sealed) {
                Ok(before) => {
                    self.accept(sealed, before, position);
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
            has_lines: false,
        });
        if rest.ends_line {
            rest.add(b"\n");
        }
        rest.add(line);
        rest.ends_line = is_whole;
        rest.has_lines |= sealed.is_some();
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
            (Some(rest), Some(torn)) if rest.torn(false) == *torn => Ok(before),
            (Some(rest), _) => Err(rest.what),
            (None, Some(_)) => Err(Wrong::Seal),
        }
    }

    fn accept(&mut self, line: &Sealed<'_>, before: Head, position: u64) {
        if self.lines == 0 {
            self.before = Some(before);
        }
        self.head = Some(line.head());
        self.lines += 1;
        self.lines_in_file += 1;
        self.first_seq.get_or_insert(line.seq);
        self.genuine_bytes = position;
        self.rest = None;
    }

    /// The first line that is wrong, and how, if no later line has explained it.
    pub(super) fn wrong(&self) -> Option<(u64, Wrong)> {
        self.rest.as_ref().map(|rest| (rest.line, rest.what))
    }

    pub(super) fn rest(&self) -> Option<&Rest> {
        self.rest.as_ref()
    }
}

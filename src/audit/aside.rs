//! Files that were set aside when they were full.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
};

use super::{
    file::altered,
    line::{Head, Key},
    verify::{LINE_MAX, Walk},
};

/// Digits of the number of the first line in the name of a file that was set aside, so that names
/// sort as lines do.
const NAME_DIGITS: usize = 16;

/// The files that a log was before.
pub(super) struct Aside {
    /// The file that is written to.
    path: PathBuf,
    /// How many are kept; 0 for all.
    keep: usize,
}

impl Aside {
    pub(super) fn new(path: PathBuf, keep: usize) -> Self {
        Self { path, keep }
    }

    /// The name of the file that begins with the line of this number.
    pub(super) fn name(&self, first_seq: u64) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{first_seq:0NAME_DIGITS$}"));
        name.into()
    }

    /// The last line of the file that was set aside last.
    pub(super) fn head(&self, key: &Key) -> io::Result<Head> {
        let Some((_, newest)) = self.files()?.pop() else {
            return Ok(Head::NONE);
        };
        let mut walk = Walk::new(key, None);
        walk.read(BufReader::new(open(&newest)?))?;
        match (walk.wrong(), walk.head) {
            (None, Some(head)) => Ok(head),
            (wrong, _) => Err(altered(&newest, wrong.map_or(1, |(line, _)| line))),
        }
    }

    /// Removes the oldest files, if there are more than are kept.
    ///
    /// A file counts only if it begins with the genuine line that its name says and was set aside
    /// before the present file, which begins with the line `present`: whoever can make files in the
    /// folder, but has not the key, cannot have it remove one too many. What does not count stays.
    pub(super) fn remove_oldest(&self, key: &Key, present: u64) -> io::Result<()> {
        if self.keep == 0 {
            return Ok(());
        }
        let mut genuine = self.files()?;
        genuine.retain(|(number, file)| {
            *number < present
                && *file == self.name(*number)
                && first_seq(file, key).is_ok_and(|first| first == Some(*number))
        });
        let too_many = genuine.len().saturating_sub(self.keep);
        for (_, file) in genuine.drain(..too_many) {
            fs::remove_file(&file)?;
            tracing::warn!(file = %file.display(), "removed the oldest audit file: audit.keep_files are kept");
        }
        Ok(())
    }

    /// The files whose names are those of files that were set aside, and the numbers in these, in
    /// their order.
    fn files(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let own = self.path.file_name().unwrap_or_default();
        let number = |path: &Path| -> Option<u64> {
            let digits = path.extension()?.to_str()?;
            let is_one = path.file_stem() == Some(own)
                && digits.len() >= NAME_DIGITS
                && digits.bytes().all(|byte| byte.is_ascii_digit());
            // A number that is too great for a line is that of no file, and stands last.
            is_one.then(|| digits.parse().unwrap_or(u64::MAX))
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(folder(&self.path))? {
            let path = entry?.path();
            found.extend(number(&path).map(|number| (number, path)));
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// The number of the first line, if that is genuine.
fn first_seq(file: &Path, key: &Key) -> io::Result<Option<u64>> {
    let mut line = Vec::new();
    BufReader::new(open(file)?.take(LINE_MAX)).read_until(b'\n', &mut line)?;
    let mut walk = Walk::new(key, None);
    walk.read(line.as_slice())?;
    Ok(walk.first_seq)
}

/// Opens a regular file: to open a pipe can take for ever.
fn open(path: &Path) -> io::Result<File> {
    if fs::symlink_metadata(path)?.is_file() {
        File::open(path)
    } else {
        Err(io::Error::other("it is not a regular file"))
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Makes a fresh or another name survive a crash.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

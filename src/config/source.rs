//! Where the configuration comes from: one file, and the environment over it, merged into one tree.

use std::{collections::HashMap, fs::File, io, io::Read as _, path::Path};

use config::{ConfigError, Environment, FileFormat, ValueKind};

use super::{
    fault::{Faults, Origin},
    reader::Section,
};

const PREFIX: &str = "MIGRATION_GATEWAY";
const SEPARATOR: &str = "__";
/// No configuration written by hand comes near this; a device file or a log given by mistake does.
const LARGEST_FILE: u64 = 1024 * 1024;

/// Variables of the environment that belong to the configuration. `None` stands for a value that is
/// not text.
pub(super) type Variables = HashMap<String, Option<String>>;

/// The variables of this process that begin with the prefix.
pub(super) fn environment() -> Variables {
    let prefix = format!("{PREFIX}{SEPARATOR}");
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok())))
        .filter(|(name, _)| name.starts_with(&prefix))
        .collect()
}

/// The variable that sets a key.
pub(super) fn variable(key: &str) -> String {
    let key = key.replace('.', SEPARATOR).to_uppercase();
    format!("{PREFIX}{SEPARATOR}{key}")
}

/// The tree of both sources, or `None` after recording why there is none.
pub(super) fn read(path: &Path, variables: Variables, faults: &mut Faults) -> Option<Section> {
    let text = match read_file(path) {
        Ok(text) => text,
        Err(error) => {
            faults.push("", Origin::File, format!("cannot be read: {error}"));
            return None;
        }
    };
    let environment = Environment::with_prefix(PREFIX)
        .prefix_separator(SEPARATOR)
        .separator(SEPARATOR)
        // Parsing would change secrets and names that look like numbers; the reader of each key
        // parses what it needs.
        .try_parsing(false)
        .source(Some(texts(variables, faults)));
    let merged = config::Config::builder()
        .add_source(config::File::from_str(&text, FileFormat::Toml))
        .add_source(environment)
        .build();
    let root = merged.and_then(|tree| tree.cache.into_table());
    match root {
        Ok(table) => Some(Section::root(table)),
        Err(error) => {
            faults.push("", Origin::File, syntax_message(&error));
            None
        }
    }
}

/// The text of the file, of at most 1 MiB.
pub(super) fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(LARGEST_FILE + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

/// The variables whose values are text; the others become faults.
fn texts(variables: Variables, faults: &mut Faults) -> HashMap<String, String> {
    let mut texts = HashMap::new();
    for (name, value) in variables {
        if let Some(value) = value {
            texts.insert(name, value);
        } else {
            let key = name[PREFIX.len() + SEPARATOR.len()..].to_lowercase();
            let key = key.replace(SEPARATOR, ".");
            faults.push(key, Origin::Environment, "is not valid UTF-8");
        }
    }
    texts
}

/// What these names are set to; a sentence without its subject if that is not possible.
pub(super) fn texts_of<const N: usize>(
    text: &str,
    names: [&str; N],
) -> Result<[Option<String>; N], String> {
    let source = config::File::from_str(text, FileFormat::Toml);
    let read = config::Config::builder().add_source(source).build();
    let mut table = read
        .and_then(|tree| tree.cache.into_table())
        .map_err(|error| syntax_message(&error))?;
    let mut found = [const { None }; N];
    for (name, found) in names.iter().zip(&mut found) {
        let Some(value) = table.remove(*name) else {
            continue;
        };
        let ValueKind::String(value) = value.kind else {
            return Err(format!("has a {name} that is not text"));
        };
        *found = Some(value);
    }
    match table.keys().next() {
        Some(_) => Err(format!("has a key that is none of {}", names.join(", "))),
        None => Ok(found),
    }
}

/// Where the syntax is broken. The parser's own message quotes the line, which may hold a secret,
/// so that only its first line is looked at, and of that only the two numbers are used.
fn syntax_message(error: &ConfigError) -> String {
    let position = if let ConfigError::FileParse { cause, .. } = error {
        position(&cause.to_string())
    } else {
        None
    };
    match position {
        Some((line, column)) => {
            format!("is not valid TOML: look at line {line}, column {column}")
        }
        None => "is not valid TOML".to_owned(),
    }
}

fn position(message: &str) -> Option<(u64, u64)> {
    let rest = message
        .lines()
        .next()?
        .strip_prefix("TOML parse error at line ")?;
    let (line, column) = rest.split_once(", column ")?;
    Some((line.parse().ok()?, column.parse().ok()?))
}

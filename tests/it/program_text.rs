//! Files of the program as text, without comments, literals and tests.

use std::{collections::BTreeSet, fs, path::Path};

/// One file of the program.
pub(crate) struct SourceFile {
    /// The path below `src`, with slashes.
    pub(crate) path: String,
    /// The text without the tests at its foot.
    pub(crate) code: String,
    /// The tokens of `code`: names, and every other sign by itself.
    tokens: Vec<String>,
}

/// All files below a folder, those with nothing but tests left out.
pub(crate) fn read(root: &Path) -> Vec<SourceFile> {
    let is_test = |part: &str| part == "tests" || part.ends_with("tests.rs");
    texts(root)
        .into_iter()
        .filter(|(path, _)| !path.split('/').any(is_test))
        .map(|(path, text)| SourceFile::new(path, &text))
        .collect()
}

/// The path below a folder, with slashes, and the text of each Rust file.
pub(crate) fn texts(root: &Path) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("the entry can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).expect("the path is below the root");
                let name = name.to_str().expect("the path is text").replace('\\', "/");
                let text = fs::read_to_string(&path).expect("the file can be read");
                texts.push((name, text));
            }
        }
    }
    texts
}

impl SourceFile {
    pub(crate) fn new(path: String, text: &str) -> Self {
        let code = text
            .find("#[cfg(test)]\nmod tests {")
            .map_or(text, |tests| &text[..tests])
            .to_owned();
        let tokens = tokens(&code);
        Self { path, code, tokens }
    }

    /// The module of the floors that this file belongs to; `None` for the roots of the two crates.
    pub(crate) fn module(&self) -> Option<&str> {
        let first = self.path.split('/').next().unwrap_or_default();
        let name = first.trim_end_matches(".rs");
        (name != "lib" && name != "main").then_some(name)
    }

    pub(crate) fn folder(&self) -> String {
        let parent = Path::new(&self.path).parent();
        parent.map_or(String::new(), |parent| parent.display().to_string())
    }

    /// The modules at the root that this file names.
    pub(crate) fn used_modules(&self) -> BTreeSet<String> {
        let mut used = BTreeSet::new();
        for at in 0..self.tokens.len() {
            let after = if self.is_at(at, "crate") || self.is_at(at, "migration_gateway") {
                self.after_separator(at + 1)
            } else {
                self.beyond_the_root(at)
            };
            if let Some(after) = after {
                self.collect(after, &mut used);
            }
        }
        used
    }

    /// Whether a name of a crate, or a longer one that begins with it and an underscore, is in the
    /// text.
    pub(crate) fn names_crate(&self, name: &str) -> bool {
        let longer = format!("{name}_");
        self.tokens
            .iter()
            .any(|token| token == name || token.starts_with(&longer))
    }

    fn is_at(&self, at: usize, token: &str) -> bool {
        self.tokens.get(at).is_some_and(|found| found == token)
    }

    /// The place behind `::`.
    fn after_separator(&self, at: usize) -> Option<usize> {
        (self.is_at(at, ":") && self.is_at(at + 1, ":")).then_some(at + 2)
    }

    /// The place behind a chain of `super::` that ends at the root of the crate.
    fn beyond_the_root(&self, start: usize) -> Option<usize> {
        let mut depth = self.path.split('/').count() - usize::from(self.path.ends_with("/mod.rs"));
        let mut at = start;
        while depth > 0 && self.is_at(at, "super") {
            at = self.after_separator(at + 1)?;
            depth -= 1;
        }
        (depth == 0 && at > start).then_some(at)
    }

    /// The first name of a path, or the first name of each path of a group.
    fn collect(&self, at: usize, used: &mut BTreeSet<String>) {
        if !self.is_at(at, "{") {
            used.extend(self.tokens.get(at).cloned());
            return;
        }
        let mut depth = 0;
        for at in at..self.tokens.len() {
            match self.tokens[at].as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return;
            }
            let begins = self.is_at(at, "{") || self.is_at(at, ",");
            if depth == 1 && begins && !self.is_at(at + 1, "}") {
                used.extend(self.tokens.get(at + 1).cloned());
            }
        }
    }
}

/// Splits code into names and single signs, leaving comments and texts out.
fn tokens(code: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            raw.find("\"#").map_or(rest.len(), |end| end + 5)
        } else if first == '"' {
            text_length(rest)
        } else if rest.starts_with("'\"'") {
            3
        } else if first.is_alphanumeric() || first == '_' {
            let in_name = |c: char| c.is_alphanumeric() || c == '_';
            let length = rest.find(|c| !in_name(c)).unwrap_or(rest.len());
            tokens.push(rest[..length].to_owned());
            length
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

/// The length of a text with its quotes, which begins with one.
fn text_length(code: &str) -> usize {
    let mut escaped = false;
    for (at, sign) in code.char_indices().skip(1) {
        match sign {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::SourceFile;

    fn used(path: &str, text: &str) -> Vec<String> {
        let file = SourceFile::new(path.to_owned(), text);
        file.used_modules().into_iter().collect()
    }

    #[test]
    fn modules_are_found_in_paths_groups_and_code() {
        let text = "use crate::{\n    api::{self, tasks},\n    store,\n};\nfn f() { crate::config::load(); }";
        assert_eq!(used("domain/task.rs", text), ["api", "config", "store"]);
    }

    #[test]
    fn the_way_up_to_the_root_is_found() {
        assert_eq!(used("store/mod.rs", "use super::api;"), ["api"]);
        assert_eq!(
            used("store/rows.rs", "use super::super::{api, domain};"),
            ["api", "domain"]
        );
        assert_eq!(used("config.rs", "use super::api;"), ["api"]);
        assert!(used("store/rows.rs", "use super::sql;").is_empty());
        assert!(used("api/tasks/list.rs", "use super::super::problem;").is_empty());
    }

    #[test]
    fn comments_texts_and_tests_do_not_count() {
        let text = "//! [`crate::api`]\nconst A: &str = \"crate::api \\\" crate::store\";\n\
                    const B: &str = r#\"crate::api\"#;\n\
                    #[cfg(test)]\nmod tests {\n    use crate::sandbox;\n}\n";
        assert!(used("domain/task.rs", text).is_empty());
    }

    #[test]
    fn a_crate_is_found_with_those_that_extend_its_name() {
        let file = SourceFile::new("a.rs".to_owned(), "use utoipa_swagger_ui::Config;");
        assert!(file.names_crate("utoipa"));
        let file = SourceFile::new("a.rs".to_owned(), "use tracing_actix_web::TracingLogger;");
        assert!(!file.names_crate("actix_web"));
    }
}

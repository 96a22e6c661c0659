//! The floors of the house: which module may use which, which crates are named where, how large
//! files may be.
//!
//! The program is read as text. That is enough, because modules are named as `crate::…` throughout;
//! a way round it through `super` up to the root is refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use crate::program_text::{self, SourceFile};

/// Every module, and those that it may use besides itself. An entry may list only entries above it,
/// so that a circle cannot be written down.
const FLOORS: [(&str, &[&str]); 16] = [
    // The ground.
    ("domain", &[]),
    ("transport", &["domain"]),
    // First floor: strangers to each other.
    ("upstream", &["domain", "transport"]),
    ("store", &["domain"]),
    ("operations", &["domain"]),
    ("identity", &["domain", "transport"]),
    ("audit", &["domain"]),
    // Second floor.
    ("listener", &["domain", "identity"]),
    ("api", &["domain", "operations", "identity", "listener"]),
    // Beside the house: another reading of what `upstream` knows, and somebody at the door.
    ("sandbox", &["domain"]),
    ("client", &["domain"]),
    // The roof.
    ("telemetry", &[]),
    (
        "config",
        &[
            "domain",
            "transport",
            "upstream",
            "store",
            "operations",
            "identity",
            "listener",
            "audit",
            "api",
            "telemetry",
        ],
    ),
    ("reload", &["identity", "config"]),
    (
        "app",
        &[
            "domain",
            "transport",
            "upstream",
            "store",
            "operations",
            "identity",
            "listener",
            "audit",
            "api",
            "sandbox",
            "telemetry",
            "config",
            "reload",
        ],
    ),
    (
        "commands",
        &[
            "domain",
            "audit",
            "listener",
            "sandbox",
            "client",
            "telemetry",
            "config",
            "app",
        ],
    ),
];

/// Crates that only some modules may name. A name covers the crates that begin with it, such as
/// `utoipa_swagger_ui`.
const CRATES: [(&str, &[&str]); 9] = [
    ("actix_http", &["app"]),
    ("awc", &["transport"]),
    ("jsonwebtoken", &["identity"]),
    ("sqlx", &["store"]),
    ("actix_web", &["api", "app", "sandbox"]),
    ("utoipa", &["api", "app", "sandbox"]),
    ("x509_parser", &["listener"]),
    // The gateway itself blocks nowhere and draws nothing.
    ("ureq", &["client"]),
    ("indicatif", &["commands"]),
];

const LONGEST_FILE: usize = 400;
const FULLEST_FOLDER: usize = 12;
/// As wide as rustfmt makes the code, which leaves comments as they are.
const WIDEST_COMMENT: usize = 100;

fn sources() -> Vec<SourceFile> {
    let files = program_text::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(files.len() > 20, "only {} files were found", files.len());
    files
}

#[test]
fn the_table_of_floors_has_no_circle() {
    let mut above = BTreeSet::new();
    for (module, uses) in FLOORS {
        for used in uses {
            assert!(
                above.contains(used),
                "{module} lists {used}, which is not above it"
            );
        }
        assert!(above.insert(module), "{module} is listed twice");
    }
}

#[test]
fn every_module_uses_only_what_its_floor_allows() {
    for file in sources() {
        let Some(module) = file.module() else {
            continue;
        };
        let (_, allowed) = FLOORS
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("{module} has no floor in the table"));
        for used in file.used_modules() {
            assert!(
                used == module || allowed.contains(&used.as_str()),
                "{} uses {used}, which {module} may not",
                file.path
            );
        }
    }
}

#[test]
fn a_crate_is_named_only_where_it_belongs() {
    for file in sources() {
        for (name, modules) in CRATES {
            let at_home = file
                .module()
                .is_some_and(|module| modules.contains(&module));
            assert!(
                at_home || !file.names_crate(name),
                "{} names {name}",
                file.path
            );
        }
    }
}

#[test]
fn no_comment_is_wider_than_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["src", "tests", "benches"] {
        for (path, text) in program_text::texts(&root.join(folder)) {
            for (line, number) in text.lines().zip(1..) {
                let is_comment = line.trim_start().starts_with("//");
                assert!(
                    !is_comment || line.chars().count() <= WIDEST_COMMENT,
                    "{path}:{number} is wider"
                );
            }
        }
    }
}

#[test]
fn no_file_is_too_long_and_no_folder_too_full() {
    let files = sources();
    let mut folders = BTreeMap::new();
    for file in &files {
        let lines = file.code.lines().count();
        assert!(
            lines <= LONGEST_FILE,
            "{} has {lines} lines without its tests",
            file.path
        );
        *folders.entry(file.folder()).or_insert(0) += 1;
    }
    for (folder, count) in folders {
        assert!(count <= FULLEST_FOLDER, "{folder} has {count} files");
    }
}

//! Walks the tree. What is taken out of a section is known; what is left in the end is not, and
//! becomes a fault.

use std::collections::BTreeMap;

use config::{Map, Value, ValueKind};

use super::fault::{Faults, Origin};

/// One table of the tree, consumed key by key.
#[derive(Debug)]
pub(super) struct Section {
    /// The full name of the table; empty for the root.
    key: String,
    origin: Origin,
    entries: BTreeMap<String, Value>,
}

/// One value of the tree and its full name.
#[derive(Debug)]
pub(super) struct Entry {
    key: String,
    value: Value,
}

impl Section {
    pub(super) fn root(table: Map<String, Value>) -> Self {
        Self {
            key: String::new(),
            origin: Origin::File,
            entries: table.into_iter().collect(),
        }
    }

    /// The full name of a key of this section.
    pub(super) fn name(&self, key: &str) -> String {
        let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let key = if !key.is_empty() && key.bytes().all(bare) {
            key.to_owned()
        } else {
            format!("{key:?}")
        };
        if self.key.is_empty() {
            key
        } else {
            format!("{}.{key}", self.key)
        }
    }

    /// The full name of the section.
    pub(super) fn full_name(&self) -> &str {
        &self.key
    }

    /// Records a fault of the section itself.
    pub(super) fn fault(&self, faults: &mut Faults, message: &str) {
        faults.push(&self.key, self.origin, message);
    }

    /// Takes a value out.
    pub(super) fn take(&mut self, key: &str) -> Option<Entry> {
        let value = self.entries.remove(key)?;
        Some(Entry {
            key: self.name(key),
            value,
        })
    }

    /// Takes everything out, in the order of the keys.
    pub(super) fn take_all(mut self) -> Vec<(String, Entry)> {
        let keys: Vec<String> = self.entries.keys().cloned().collect();
        keys.into_iter()
            .filter_map(|key| {
                let entry = self.take(&key)?;
                Some((key, entry))
            })
            .collect()
    }

    /// The keys of a table of this section, which stays where it is.
    pub(super) fn keys_of(&self, table: &str) -> Vec<&str> {
        match self.entries.get(table).map(|value| &value.kind) {
            Some(ValueKind::Table(table)) => table.keys().map(String::as_str).collect(),
            Some(_) | None => Vec::new(),
        }
    }

    /// Whether there is a value of this name.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Whether there is a table of this name.
    pub(super) fn has_table(&self, key: &str) -> bool {
        let value = self.entries.get(key);
        value.is_some_and(|value| matches!(value.kind, ValueKind::Table(_)))
    }

    /// Takes a table out; one that is missing is empty.
    pub(super) fn section(&mut self, key: &str, faults: &mut Faults) -> Self {
        self.take(key)
            .and_then(|entry| entry.into_section(faults))
            .unwrap_or_else(|| Self {
                key: self.name(key),
                origin: Origin::File,
                entries: BTreeMap::new(),
            })
    }

    /// A value that may be missing.
    pub(super) fn optional<T>(
        &mut self,
        key: &str,
        faults: &mut Faults,
        read: impl FnOnce(&Entry) -> Result<T, String>,
    ) -> Option<T> {
        let entry = self.take(key)?;
        let value = read(&entry);
        faults.keep(&entry, value)
    }

    /// A value that must be there. `None` only after a fault was recorded.
    pub(super) fn required<T>(
        &mut self,
        key: &str,
        faults: &mut Faults,
        read: impl FnOnce(&Entry) -> Result<T, String>,
    ) -> Option<T> {
        let entry = self.required_entry(key, faults)?;
        let value = read(&entry);
        faults.keep(&entry, value)
    }

    /// Takes a value out that must be there, of whatever form.
    pub(super) fn required_entry(&mut self, key: &str, faults: &mut Faults) -> Option<Entry> {
        let entry = self.take(key);
        if entry.is_none() {
            faults.push(self.name(key), Origin::File, "is required");
        }
        entry
    }

    /// Reports whatever was not taken out.
    pub(super) fn finish(self, faults: &mut Faults) {
        for (_, entry) in self.take_all() {
            entry.report_unknown(faults);
        }
    }
}

impl Entry {
    /// The full name of the value's key.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Where the value came from; a table comes from the environment if all that is in it does.
    pub(super) fn origin(&self) -> Origin {
        if holds(&self.value, Origin::Environment) && !holds(&self.value, Origin::File) {
            Origin::Environment
        } else {
            Origin::File
        }
    }

    pub(super) fn is_table(&self) -> bool {
        matches!(self.value.kind, ValueKind::Table(_))
    }

    /// A text.
    pub(super) fn text(&self) -> Option<&str> {
        text_of(&self.value)
    }

    /// A text of the environment, which knows nothing else: there, numbers and lists are written as
    /// texts.
    fn variable(&self) -> Option<&str> {
        self.text().filter(|_| self.origin() == Origin::Environment)
    }

    /// A whole number that is not negative.
    pub(super) fn number(&self) -> Option<u64> {
        if let Some(text) = self.variable() {
            return text.parse().ok();
        }
        if let ValueKind::I64(number) = self.value.kind {
            return u64::try_from(number).ok();
        }
        None
    }

    /// A list of texts. In the environment it is one text with commas.
    pub(super) fn list(&self) -> Option<Vec<&str>> {
        if let Some(text) = self.variable() {
            let parts = text.split(',').map(str::trim);
            return Some(if text.trim().is_empty() {
                Vec::new()
            } else {
                parts.collect()
            });
        }
        if let ValueKind::Array(values) = &self.value.kind {
            return values.iter().map(text_of).collect();
        }
        None
    }

    /// The tables of a list of tables, or `None` after recording that it is none.
    pub(super) fn into_sections(self, faults: &mut Faults) -> Option<Vec<Section>> {
        let origin = self.origin();
        let ValueKind::Array(values) = self.value.kind else {
            faults.push(self.key, origin, "must be a list of tables");
            return None;
        };
        let entries = values.into_iter().enumerate().map(|(index, value)| Self {
            key: format!("{}[{index}]", self.key),
            value,
        });
        entries.map(|entry| entry.into_section(faults)).collect()
    }

    /// The table, or `None` after recording that it is none.
    pub(super) fn into_section(self, faults: &mut Faults) -> Option<Section> {
        let origin = self.origin();
        if let ValueKind::Table(table) = self.value.kind {
            return Some(Section {
                key: self.key,
                origin,
                entries: table.into_iter().collect(),
            });
        }
        faults.push(self.key, origin, "must be a table");
        None
    }

    /// Reports a key that nobody reads: what the environment sets inside it by the names of the
    /// variables, else the key.
    fn report_unknown(self, faults: &mut Faults) {
        if self.is_table() && holds(&self.value, Origin::Environment) {
            if let Some(section) = self.into_section(faults) {
                section.finish(faults);
            }
        } else {
            faults.add(&self, "is not a known key");
        }
    }
}

/// Whether a value of this origin is somewhere in the tree. The file is read as text, which has no
/// address, so that only what the environment set has one.
fn holds(value: &Value, origin: Origin) -> bool {
    if let ValueKind::Table(table) = &value.kind {
        return table.values().any(|value| holds(value, origin));
    }
    value.origin().is_some() == (origin == Origin::Environment)
}

fn text_of(value: &Value) -> Option<&str> {
    if let ValueKind::String(text) = &value.kind {
        return Some(text);
    }
    None
}

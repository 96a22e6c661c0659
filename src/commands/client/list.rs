//! Lists, read to their end.

use migration_gateway::client::encoded;
use serde_json::Value;

use super::{Session, text};
use crate::commands::{Failure, print};

/// The most pages of a list: more than any gateway has.
const PAGES_MAX: usize = 10_000;

/// What a list is of.
pub(super) struct Entries {
    /// The path of the list without its slash, and the member of a page that holds entries.
    pub(super) member: &'static str,
    /// What stands over the table.
    pub(super) columns: &'static [&'static str],
    /// What stands in it of an entry.
    pub(super) row: fn(&Value) -> Vec<String>,
}

/// Prints every entry: a table for people, else the documents as they come.
pub(super) fn show(
    session: &Session,
    entries: &Entries,
    filters: &[(&'static str, Option<&str>)],
) -> Result<(), Failure> {
    let listed = pages(session, entries.member, filters)?;
    if session.json {
        return Ok(());
    }
    let head = entries.columns.iter().map(ToString::to_string).collect();
    let rows = listed.iter().map(entries.row);
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    print(&text::table(&rows))
}

/// A path with those of the values that are there as its query.
pub(super) fn address<'a>(
    path: &str,
    query: impl IntoIterator<Item = (&'static str, Option<&'a str>)>,
) -> String {
    let given = query.into_iter().filter_map(|(name, value)| {
        let value = encoded(value?);
        Some(format!("{name}={value}"))
    });
    let query = given.collect::<Vec<_>>().join("&");
    if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    }
}

/// Reads a list, page by page: documents are printed as they come, and kept only if they are not.
fn pages(
    session: &Session,
    member: &str,
    filters: &[(&'static str, Option<&str>)],
) -> Result<Vec<Value>, Failure> {
    let path = format!("/{member}");
    let (mut entries, mut token) = (Vec::new(), None::<String>);
    for _ in 0..PAGES_MAX {
        let page = [("page_size", Some("200")), ("page_token", token.as_deref())];
        let target = address(&path, filters.iter().copied().chain(page));
        let page = session.client.get(&target);
        let mut page = page.map_err(|error| session.failure(error))?;
        for entry in listed(&mut page, member).ok_or_else(|| no_list(session, member))? {
            if session.json {
                print(&entry.to_string())?;
            } else {
                entries.push(entry);
            }
        }
        token = page["next_page_token"].as_str().map(str::to_owned);
        if token.is_none() {
            return Ok(entries);
        }
    }
    Err(no_list(session, member))
}

/// The entries of a page; `None` if it is none.
fn listed(page: &mut Value, member: &str) -> Option<Vec<Value>> {
    let token = page.get("next_page_token")?;
    let is_token = token.is_null() || token.is_string();
    let Value::Array(entries) = page.get_mut(member)?.take() else {
        return None;
    };
    let has_id = |entry: &Value| !text::of(entry, "id").is_empty();
    (is_token && entries.iter().all(has_id)).then_some(entries)
}

fn no_list(session: &Session, member: &str) -> Failure {
    let why = format!("its answer is no list of {member}");
    session.failure(session.client.foreign(&why))
}

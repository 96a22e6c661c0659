//! The header `Prefer` (RFC 7240), as far as it is about waiting.

use std::time::Duration;

use super::guard::Head;

/// How long a request is willing to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum Preference {
    /// Nothing was said: the default.
    Default(Duration),
    /// So long: whole seconds, already cut to what is allowed, since the answer says how many they
    /// were.
    Wait(Duration),
    /// Not at all.
    RespondAsync,
}

impl Preference {
    /// Reads the header. Preferences about other things are ignored, as the RFC wants it. With
    /// `respond-async` beside `wait`, the wait says how long the answer may take before it is
    /// asynchronous.
    pub(in crate::api) fn read(head: &mut Head<'_>) -> Self {
        let settings = &head.known.state.settings;
        let default = Self::Default(settings.default_wait);
        let lines = head.request.headers().get_all("prefer");
        // Quoted texts may hold any octets (RFC 9110, section 5.6.4), which are part of no
        // preference that is known.
        let mut lines = lines.map(|line| String::from_utf8_lossy(line.as_bytes()));
        let read = lines.try_fold(default, |so_far, line| {
            so_far.after(&line, settings.max_wait)
        });
        read.unwrap_or_else(|| {
            let detail = "Prefer must be wait= and a whole number of seconds, or respond-async.";
            head.query.header_fault("Prefer", detail);
            default
        })
    }

    /// What is preferred after one more line of the header. `None` if the line is not well formed.
    fn after(mut self, line: &str, max_wait: Duration) -> Option<Self> {
        for (name, value) in preferences(line)? {
            match (name.as_str(), value.as_str(), self) {
                // The first of several is the one that counts (RFC 7240, section 2).
                ("wait", _, Self::Wait(_)) | ("respond-async", "", Self::Wait(_)) => {}
                ("wait", value, _) => {
                    let longest = max_wait.as_secs();
                    self = Self::Wait(Duration::from_secs(seconds(value)?.min(longest)));
                }
                ("respond-async", "", _) => self = Self::RespondAsync,
                _ => {}
            }
        }
        Some(self)
    }

    /// How long to wait.
    pub(in crate::api) fn wait(self) -> Duration {
        match self {
            Self::Default(wait) | Self::Wait(wait) => wait,
            Self::RespondAsync => Duration::ZERO,
        }
    }

    /// The value of `Preference-Applied`, if something was preferred.
    pub(in crate::api) fn applied(self) -> Option<String> {
        match self {
            Self::Default(_) => None,
            Self::Wait(wait) => Some(format!("wait={}", wait.as_secs())),
            Self::RespondAsync => Some("respond-async".to_owned()),
        }
    }
}

/// The preferences of one line of the header with their values, names in lower case and parameters
/// left out; a value that is empty or not there is the same (RFC 7240, section 2). `None` if the
/// line is not well formed.
fn preferences(line: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut rest = skip_space(line);
    while !rest.is_empty() {
        // Elements of a list may be empty (RFC 9110, section 5.6.1).
        if !rest.starts_with(',') {
            let (preference, mut after) = pair(rest)?;
            found.push(preference);
            while let Some(parameter) = after.strip_prefix(';') {
                after = skip_space(parameter);
                if !after.is_empty() && !after.starts_with([';', ',']) {
                    after = pair(after)?.1;
                }
            }
            rest = after;
        }
        match rest.strip_prefix(',') {
            Some(next) => rest = skip_space(next),
            None if rest.is_empty() => {}
            None => return None,
        }
    }
    Some(found)
}

/// A name, its value if there is one, and what comes after both and the space behind them.
fn pair(text: &str) -> Option<((String, String), &str)> {
    let (name, rest) = token(text);
    if name.is_empty() {
        return None;
    }
    let rest = skip_space(rest);
    let (value, rest) = match rest.strip_prefix('=') {
        Some(value) => word(skip_space(value))?,
        None => (String::new(), rest),
    };
    Some(((name.to_ascii_lowercase(), value), skip_space(rest)))
}

/// A token or a quoted string (RFC 9110, section 5.6), which may be empty.
fn word(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (token, rest) = token(text);
        return Some((token.to_owned(), rest));
    };
    let (mut value, mut characters) = (String::new(), quoted.chars());
    loop {
        match characters.next()? {
            '"' => return Some((value, characters.as_str())),
            '\\' => value.push(characters.next()?),
            character => value.push(character),
        }
    }
}

fn token(text: &str) -> (&str, &str) {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    text.split_at(end)
}

fn skip_space(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

/// A number of seconds. One that no machine can hold is no fault: it is cut to the longest wait
/// like any other.
fn seconds(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Preference, preferences};

    fn read(line: &str) -> Option<Vec<(String, String)>> {
        preferences(line)
    }

    #[test]
    fn preferences_are_read_as_the_rfc_writes_them() {
        let rows: [(&str, &[(&str, &str)]); 14] = [
            ("", &[]),
            (" , ,, ", &[]),
            ("respond-async", &[("respond-async", "")]),
            (r#"respond-async="""#, &[("respond-async", "")]),
            ("respond-async=", &[("respond-async", "")]),
            ("WAIT = 5", &[("wait", "5")]),
            (r#"wait="5""#, &[("wait", "5")]),
            (r#"wait="\5""#, &[("wait", "5")]),
            (
                "respond-async, wait=5",
                &[("respond-async", ""), ("wait", "5")],
            ),
            (",,wait=1 ,\tx", &[("wait", "1"), ("x", "")]),
            ("wait=1;x=y, z", &[("wait", "1"), ("z", "")]),
            (r#"wait=1 ; x="a,b;c" ;; y ;"#, &[("wait", "1")]),
            (
                r#"foo="a, wait=zz", wait=1"#,
                &[("foo", "a, wait=zz"), ("wait", "1")],
            ),
            (
                r#"foo="a\",respond-async,b""#,
                &[("foo", "a\",respond-async,b")],
            ),
        ];
        for (line, expected) in rows {
            let expected: Vec<(String, String)> = expected
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            assert_eq!(read(line), Some(expected), "{line}");
        }
    }

    #[test]
    fn a_wait_is_as_long_as_the_answer_says_whatever_the_longest_is() {
        for (longest, told) in [(999, "wait=0"), (1500, "wait=1"), (2000, "wait=2")] {
            let longest = Duration::from_millis(longest);
            let default = Preference::Default(longest);
            let preference = default.after("wait=9", longest).unwrap();
            assert_eq!(preference.applied().as_deref(), Some(told));
            let waited = format!("wait={}", preference.wait().as_secs_f64());
            assert_eq!(waited, told);
        }
    }

    #[test]
    fn what_is_not_well_formed_is_not_guessed_at() {
        for line in [
            "wait 5",
            r#"wait="5"#,
            r#"wait="5"x"#,
            r#"wait="5\"#,
            "=5",
            "wait=5 6",
            "wait=1;=2",
            "a b",
            "(x)",
            "wait==1",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }
}

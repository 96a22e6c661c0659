//! Server-sent events as a caller reads them (HTML Living Standard, section 9.2).

use std::{
    io::{self, BufRead, BufReader, Read as _},
    time::Instant,
};

use serde_json::Value;
use ureq::{Body, BodyReader};

/// The longest line, and the most data of one event, in bytes. The document of an operation has
/// some 40 KiB at most.
const SIZE_MAX: usize = 4 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// What is sent to go on after it.
    pub id: Option<String>,
    /// Its name.
    pub name: String,
    /// Its data.
    pub data: Value,
}

/// A stream of events. It ends when the gateway ends it, and with an error when it breaks off.
pub struct Events<R = BufReader<BodyReader<'static>>> {
    reader: R,
    heard: Option<Instant>,
}

impl Events {
    pub(super) fn read(body: Body) -> Self {
        Self::of(BufReader::new(body.into_reader()))
    }
}

impl<R: BufRead> Events<R> {
    fn of(reader: R) -> Self {
        Self {
            reader,
            heard: None,
        }
    }

    /// When an event or a comment last came: whoever sends neither tells nothing, even if there are
    /// answers.
    pub fn heard(&self) -> Option<Instant> {
        self.heard
    }

    /// A line without its end; `None` at the end of the stream.
    fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        let read = (&mut self.reader)
            .take(SIZE_MAX as u64)
            .read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(None);
        }
        if line.pop() != Some(b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        let line = String::from_utf8(line);
        Ok(Some(line.map_err(|_| io::ErrorKind::InvalidData)?))
    }

    fn event(&mut self) -> io::Result<Option<Event>> {
        let (mut event, mut data) = (Event::default(), String::new());
        // What has no empty line behind it when the stream ends is no event.
        while let Some(line) = self.line()? {
            if line.starts_with(':') {
                self.heard = Some(Instant::now());
            }
            if line.is_empty() {
                if data.is_empty() {
                    // Its id counts all the same.
                    event.name.clear();
                    continue;
                }
                event.data = serde_json::from_str(&data)?;
                self.heard = Some(Instant::now());
                return Ok(Some(event));
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => event.id = Some(value.to_owned()),
                "event" => value.clone_into(&mut event.name),
                "data" if data.len() + value.len() > SIZE_MAX => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                "data" => {
                    if !data.is_empty() {
                        data.push('\n');
                    }
                    data.push_str(value);
                }
                // A comment, how long to wait, and what is unknown.
                _ => {}
            }
        }
        Ok(None)
    }
}

impl<R: BufRead> Iterator for Events<R> {
    type Item = io::Result<Event>;

    fn next(&mut self) -> Option<io::Result<Event>> {
        self.event().transpose()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Vec<io::Result<Event>> {
        let mut events = Vec::new();
        for event in Events::of(text.as_bytes()) {
            let is_error = event.is_err();
            events.push(event);
            if is_error {
                break;
            }
        }
        events
    }

    #[test]
    fn events_are_what_has_data_and_an_empty_line_behind_it() {
        let text = "retry: 2000\n\n: beat\n\nid: 1\nevent: task\ndata: {\"a\":\ndata:1}\r\n\r\nevent: end\ndata: 2";
        let events: Vec<_> = read(text).into_iter().map(Result::ok).collect();
        let event = Event {
            id: Some("1".to_owned()),
            name: "task".to_owned(),
            data: json!({"a": 1}),
        };
        assert_eq!(events, [Some(event), None], "the last one is cut");
    }

    #[test]
    fn lines_of_data_are_joined_and_an_id_without_data_counts() {
        let text = "id: 7\nevent: x\n\ndata: 1\ndata: 2\n\n";
        assert!(read(text)[0].is_err(), "two lines are no one number");
        let events: Vec<_> = read("id: 7\nevent: x\n\ndata: 1\n\n")
            .into_iter()
            .map(Result::ok)
            .collect();
        let event = Event {
            id: Some("7".to_owned()),
            name: String::new(),
            data: json!(1),
        };
        assert_eq!(events, [Some(event)]);
    }

    #[test]
    fn events_and_comments_are_heard_and_nothing_else_is() {
        for (text, is_heard) in [
            ("retry: 2000\n\nid: 1\n\n", false),
            ("retry: 2000\n\n: \n\n", true),
            ("data: 1\n\n", true),
        ] {
            let mut events = Events::of(text.as_bytes());
            while events.next().is_some() {}
            assert_eq!(events.heard().is_some(), is_heard, "{text}");
        }
    }

    #[test]
    fn what_is_no_json_or_never_ends_is_an_error() {
        assert!(read("data: {\n\n").pop().unwrap().is_err());
        let endless = format!("data: {}", "1".repeat(5 << 20));
        assert!(read(&endless).pop().unwrap().is_err());
        let line = format!("data: {}\n", "1".repeat(1 << 20));
        assert!(
            read(&format!("{}\n", line.repeat(5)))
                .pop()
                .unwrap()
                .is_err()
        );
    }
}

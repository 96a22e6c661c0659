//! Whatever a value holds, a line is one line, and says what was to be said.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::audit::{
    content::Content,
    line::{Head, Sealed, seal},
};

/// What ends lines, strings and quotations somewhere, or is an order to a terminal.
const NASTY: &str = "[\"\\\\\n\r\0\t\u{b}\u{c}\u{1b}\u{7f}\u{85}\u{9b}\u{a0}\u{200e}\u{2028}\u{2029}\u{202e}\u{feff}\u{fffd}{}:,a-c]{0,80}";

proptest! {
    #[test]
    fn a_line_is_one_line_of_visible_ascii_and_says_what_it_was_given(
        rule in prop_oneof![any::<String>(), NASTY],
        request_id in prop_oneof![any::<String>(), NASTY],
    ) {
        let mut decided = decided(&rule);
        decided.attempt.request_id.clone_from(&request_id);
        let content = Content::from(Entry::Decided(decided));
        let name = ("2026-01-01T00:00:00Z".to_owned(), "decision");
        let (line, head) = seal(&key("k"), Head::NONE, name, &content).unwrap();
        let (end, body) = line.split_last().unwrap();
        prop_assert_eq!(*end, b'\n');
        prop_assert!(body.iter().all(|byte| (b' '..=b'~').contains(byte)));
        let sealed = Sealed::read(body).unwrap();
        prop_assert!(sealed.follows(&key("k"), Head::NONE) && sealed.head() == head);
        let read: Value = serde_json::from_slice(body).unwrap();
        prop_assert_eq!(read.as_object().unwrap().len(), 16);
        for (member, value) in [("rule", &rule), ("request_id", &request_id)] {
            let kept: String = value.chars().take(512).collect();
            let said = read[member].as_str().unwrap();
            prop_assert!(said == kept || said == kept + "...");
        }
    }
}

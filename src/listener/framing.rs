//! Where requests begin and end in the bytes of a connection.
//!
//! The framework reads ahead: with the next request already read it answers as if to that one, so
//! that an answer to `GET` loses its body if a `HEAD` follows it closely. It is therefore given no
//! byte of a request before the one in front is answered. What the heads say is left to the
//! framework, which tells what follows each.

use super::chunks::Chunks;

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// So many bytes, or none.
    Known(u64),
    /// Chunks.
    Chunked,
    /// Nobody knows: no other request is expected.
    Unknown,
}

/// The largest head of a request, the empty lines before it and behind it included. The longest
/// token has half of that.
pub(super) const HEAD_MAX: usize = 16 << 10;

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Framing {
    part: Part,
    has_fragment: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum Part {
    /// The next byte is the first of a head.
    #[default]
    Between,
    Head(Head),
    /// A head is complete, and nobody has said yet what follows it.
    Complete,
    /// A head has as many bytes as it may have, and is not complete.
    TooLarge,
    Body(Body),
}

#[derive(Clone, Copy, Debug, Default)]
struct Head {
    length: usize,
    /// Whether there was a line before this one. Empty lines before the first do not count.
    has_line: bool,
    /// Whether there is something on this line, but its end.
    has_text: bool,
    /// Whether a blank was on the first line, behind which the target is.
    has_blank: bool,
}

#[derive(Clone, Copy, Debug)]
enum Body {
    Bytes(u64),
    Chunks(Chunks),
    /// It breaks a rule, so that nothing after it means anything.
    Broken,
    Endless,
}

impl Framing {
    /// How many of these bytes belong to the request that is being read. The others are to be kept
    /// until it was answered.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() && !self.is_full() {
            taken += self.advance(&bytes[taken..]);
        }
        taken
    }

    /// Whether nothing more belongs to the request that is being read, as far as is known.
    pub(super) fn is_full(&self) -> bool {
        matches!(
            self.part,
            Part::Complete | Part::TooLarge | Part::Body(Body::Bytes(0) | Body::Broken)
        )
    }

    /// Whether a head is larger than any may be. It stays so.
    pub(super) fn is_too_large(&self) -> bool {
        matches!(self.part, Part::TooLarge)
    }

    /// Whether a body broke a rule of chunks. It stays so.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.part, Part::Body(Body::Broken))
    }

    /// Whether the next byte is the first of a head.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.part, Part::Between)
    }

    /// Whether a head has begun, and nobody was told of it yet.
    pub(super) fn is_head(&self) -> bool {
        matches!(self.part, Part::Head(_) | Part::Complete)
    }

    /// What follows the head that is complete.
    pub(super) fn begin(&mut self, length: BodyLength) {
        self.part = Part::Body(match length {
            BodyLength::Known(count) => Body::Bytes(count),
            BodyLength::Chunked => Body::Chunks(Chunks::START),
            BodyLength::Unknown => Body::Endless,
        });
    }

    /// Whether the body of the request is complete.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.part, Part::Body(Body::Bytes(0)))
    }

    /// The request was answered. If its body is not complete no other one follows.
    pub(super) fn end(&mut self) {
        if self.is_whole() {
            self.part = Part::Between;
        }
    }

    /// Whether a target had a fragment, which none may have (RFC 9112, section 3.2). The framework
    /// leaves it out, with all that follows, so that this is asked of the bytes. It stays so for
    /// the rest of the connection.
    pub(super) fn has_fragment(&self) -> bool {
        self.has_fragment
    }

    /// Takes at least one byte, but for one that breaks a rule.
    fn advance(&mut self, bytes: &[u8]) -> usize {
        let part = match self.part {
            Part::Between => self.head(Head::default(), bytes[0]),
            Part::Head(head) => self.head(head, bytes[0]),
            Part::Body(Body::Bytes(count)) => {
                let (taken, left) = skip(count, bytes);
                self.part = Part::Body(Body::Bytes(left));
                return taken;
            }
            Part::Body(Body::Chunks(Chunks::Data(count))) => {
                let (taken, left) = skip(count, bytes);
                let next = if left == 0 {
                    Chunks::DataEnd
                } else {
                    Chunks::Data(left)
                };
                self.part = Part::Body(Body::Chunks(next));
                return taken;
            }
            Part::Body(Body::Chunks(chunks)) => match chunks.after(bytes[0]) {
                None => {
                    self.part = Part::Body(Body::Broken);
                    return 0;
                }
                Some(Chunks::Complete) => Part::Body(Body::Bytes(0)),
                Some(next) => Part::Body(Body::Chunks(next)),
            },
            Part::Body(Body::Endless | Body::Broken) | Part::Complete | Part::TooLarge => {
                return bytes.len();
            }
        };
        self.part = part;
        1
    }

    fn head(&mut self, head: Head, byte: u8) -> Part {
        let length = head.length + 1;
        let head = match byte {
            b'\n' if head.has_text => Head {
                length,
                has_line: true,
                ..Head::default()
            },
            b'\n' if head.has_line => return Part::Complete,
            _ => Head {
                length,
                has_text: head.has_text || !matches!(byte, b'\r' | b'\n'),
                has_blank: head.has_blank || (byte == b' ' && !head.has_line),
                ..head
            },
        };
        self.has_fragment |= byte == b'#' && head.has_blank;
        if length < HEAD_MAX {
            Part::Head(head)
        } else {
            Part::TooLarge
        }
    }
}

/// How many of these bytes are among the next so many, and how many are still to come.
fn skip(count: u64, bytes: &[u8]) -> (usize, u64) {
    let taken = usize::try_from(count).map_or(bytes.len(), |count| count.min(bytes.len()));
    (taken, count - taken as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of each request, given in pieces of every size.
    fn requests(bytes: &[u8], lengths: &[BodyLength]) -> Vec<Vec<String>> {
        (1..=bytes.len())
            .map(|size| {
                let mut framing = Framing::default();
                let (mut found, mut current) = (Vec::new(), Vec::new());
                let mut lengths = lengths.iter();
                for piece in bytes.chunks(size) {
                    let mut rest = piece;
                    loop {
                        let taken = framing.take(rest);
                        current.extend_from_slice(&rest[..taken]);
                        rest = &rest[taken..];
                        if matches!(framing.part, Part::Complete) {
                            framing.begin(*lengths.next().unwrap());
                        } else if framing.is_full() {
                            framing.end();
                            assert!(framing.is_between());
                            found.push(String::from_utf8(std::mem::take(&mut current)).unwrap());
                        } else {
                            break;
                        }
                    }
                    assert!(rest.is_empty());
                }
                found.push(String::from_utf8(current).unwrap());
                found
            })
            .collect()
    }

    #[test]
    fn requests_are_told_apart_however_their_bytes_come() {
        use BodyLength::{Chunked, Known, Unknown};
        let parts = [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Known(0)),
            ("\r\n\r\nGET / HTTP/1.1\nHost: a\n\n", Known(0)),
            ("PUT / HTTP/1.1\r\nHost: a\r\n\r\nGET /\r\n\r\n", Known(9)),
            (
                "PUT / HTTP/1.1\r\n\r\n3;a=b\r\n\r\n\r\r\n0A\r\n0123456789\r\n0\r\n\r\n",
                Chunked,
            ),
            (
                "PUT / HTTP/1.1\r\n\r\n1 \t;a\tb\r\n0\r\n000;\r\nA: b\r\nC: d\r\n\r\n",
                Chunked,
            ),
            ("GET /x HTTP/1.1\r\n\r\nwhatever\r\n\r\n", Unknown),
        ];
        let bytes: String = parts.iter().map(|(text, _)| *text).collect();
        let expected: Vec<&str> = parts.iter().map(|(text, _)| *text).collect();
        let lengths: Vec<BodyLength> = parts.iter().map(|(_, length)| *length).collect();
        for found in requests(bytes.as_bytes(), &lengths) {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn nothing_follows_a_request_that_was_answered_before_its_body_was_complete() {
        let mut framing = Framing::default();
        assert_eq!(framing.take(b"PUT / HTTP/1.1\r\n\r\n12"), 18);
        framing.begin(BodyLength::Known(4));
        assert_eq!(framing.take(b"12"), 2);
        framing.end();
        assert!(!framing.is_between());
        assert_eq!(framing.take(b"34GET / HTTP/1.1\r\n\r\n"), 2);
        assert!(!framing.is_between());
    }

    #[test]
    fn a_body_in_chunks_ends_where_it_breaks_a_rule() {
        // The rest of each begins with the byte that breaks it.
        for (body, rest) in [
            ("", "\r\n"),
            ("", "\n"),
            ("", ";a\r\n"),
            ("", " 1\r\n"),
            ("", "-1\r\n"),
            ("0", "x0\r\n"),
            ("1", "\n0"),
            ("1 ", "1\r\n"),
            ("1\r", "\r\n"),
            ("1;a", "\n0\r\n"),
            ("1;a", "\0\r\n"),
            ("1;a", "\x7f\r\n"),
            ("ffffffffffffffff", "f\r\n"),
            ("1000000000000000", "00\r\n"),
            ("1\r\nx", "y\r\n"),
            ("1\r\nx", "\n0\r\n"),
            ("1\r\nx\r", "0\r\n"),
            ("0\r\n", "\n"),
            ("0\r\n\r", "\r\n"),
            ("0\r\nA: b", "\n\r\n"),
            ("0\r\nA: b\r", "\r\n\r\n"),
            ("0\r\nA: b\r\n", "\n"),
            ("0\r\nA: b\r\n\r", "\0"),
        ] {
            let bytes = format!("{body}{rest}GET / HTTP/1.1\r\n\r\n");
            for size in [1, 2, bytes.len()] {
                let mut framing = Framing::default();
                framing.take(b"PUT / HTTP/1.1\r\n\r\n");
                framing.begin(BodyLength::Chunked);
                let pieces = bytes.as_bytes().chunks(size);
                let taken: usize = pieces.map(|piece| framing.take(piece)).sum();
                assert_eq!(taken, body.len(), "{body:?} {rest:?} {size}");
                assert!(framing.is_full() && framing.is_broken());
                framing.end();
                assert!(!framing.is_between());
                assert_eq!(framing.take(b"GET / HTTP/1.1\r\n\r\n"), 0);
            }
        }
    }

    #[test]
    fn a_head_has_a_limit() {
        let filled = |length: usize| format!("\r\nGET {}\r\n\r\n", "a".repeat(length - 10));
        for (length, is_too_large) in [(HEAD_MAX, false), (HEAD_MAX + 1, true)] {
            let bytes = filled(length);
            for size in [1, 1000, bytes.len()] {
                let mut framing = Framing::default();
                let taken: usize = bytes
                    .as_bytes()
                    .chunks(size)
                    .map(|piece| framing.take(piece))
                    .sum();
                assert_eq!((taken, framing.is_full()), (HEAD_MAX, true));
                assert_eq!(framing.is_too_large(), is_too_large);
            }
        }
        // The next one has a limit of its own.
        let mut framing = Framing::default();
        for _ in 0..3 {
            assert_eq!(framing.take(filled(HEAD_MAX).as_bytes()), HEAD_MAX);
            assert!(!framing.is_too_large());
            framing.begin(BodyLength::Known(0));
            framing.end();
        }
    }

    #[test]
    fn only_targets_have_fragments() {
        for (head, has_fragment) in [
            ("GET /tasks#a HTTP/1.1\r\n\r\n", true),
            ("GET /tasks?a#b HTTP/1.1\r\n\r\n", true),
            ("\r\nGET # HTTP/1.1\r\n\r\n", true),
            ("GE#T /tasks HTTP/1.1\r\n\r\n", false),
            ("GET /tasks HTTP/1.1\r\nA: b #c\r\n\r\n", false),
            ("PUT / HTTP/1.1\r\n\r\n/ # HTTP/1.1\r\n", false),
        ] {
            let mut framing = Framing::default();
            framing.take(head.as_bytes());
            assert_eq!(framing.has_fragment(), has_fragment, "{head:?}");
        }
    }
}

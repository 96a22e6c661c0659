//! Where a body in chunks ends (RFC 9112, section 7.1), by the rules of the framework's decoder,
//! which must not see another end.
//!
//! One thing is stricter here: a line of the trailer ends with CR and LF only. The decoder takes an
//! LF alone for a part of the line, and others take it for the end of one.

/// What the next byte of a body in chunks belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Chunks {
    /// The digits of a size.
    Size {
        size: u64,
        has_digits: bool,
    },
    /// The blanks behind them.
    Blank(u64),
    /// What stands between the size and the end of its line, and means nothing here.
    Extension(u64),
    /// The LF at the end of that line.
    SizeEnd(u64),
    /// What is left of a chunk.
    Data(u64),
    /// The CR behind it, and the LF.
    DataEnd,
    DataEndLf,
    /// The first of a line behind the last chunk.
    Trailer,
    /// The others of the line.
    Line,
    /// The LF at its end.
    LineEnd,
    /// The LF at the end of everything.
    LastEnd,
    /// Nothing: the body is complete.
    Complete,
}

impl Chunks {
    /// Nothing of the body has come.
    pub(super) const START: Self = Self::Size {
        size: 0,
        has_digits: false,
    };

    /// What the byte behind this one belongs to, unless this one breaks a rule, so that nobody can
    /// say where the body ends.
    pub(super) fn after(self, byte: u8) -> Option<Self> {
        let digit = char::from(byte).to_digit(16);
        Some(match (self, byte) {
            (Self::Size { size, .. }, _) if digit.is_some() => Self::Size {
                size: size.checked_mul(16)? + u64::from(digit?),
                has_digits: true,
            },
            (
                Self::Size {
                    has_digits: false, ..
                },
                _,
            ) => return None,
            (Self::Size { size, .. } | Self::Blank(size), b'\t' | b' ') => Self::Blank(size),
            (Self::Size { size, .. } | Self::Blank(size), b';') => Self::Extension(size),
            (Self::Size { size, .. } | Self::Blank(size) | Self::Extension(size), b'\r') => {
                Self::SizeEnd(size)
            }
            (Self::Extension(size), byte) if byte == b'\t' || !byte.is_ascii_control() => {
                Self::Extension(size)
            }
            (Self::SizeEnd(0) | Self::LineEnd, b'\n') => Self::Trailer,
            (Self::SizeEnd(size), b'\n') => Self::Data(size),
            (Self::Data(size), _) if size > 1 => Self::Data(size - 1),
            (Self::Data(_), _) => Self::DataEnd,
            (Self::DataEnd, b'\r') => Self::DataEndLf,
            (Self::DataEndLf, b'\n') => Self::START,
            (Self::Trailer, b'\r') => Self::LastEnd,
            (Self::Line, b'\r') => Self::LineEnd,
            (Self::Trailer | Self::Line, byte) if byte != b'\n' => Self::Line,
            (Self::LastEnd, b'\n') => Self::Complete,
            _ => return None,
        })
    }
}

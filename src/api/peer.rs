//! Where a request comes from: the other end of its connection or, if that is a proxy which is
//! trusted, whom it names.
//!
//! A proxy adds to `X-Forwarded-For` or `Forwarded` (RFC 9110 lists; RFC 7239) the address from
//! which the request came to it, behind whatever the request brought along. So the lists are read
//! from their end, as long as whoever wrote an entry is trusted: what anybody else wrote stands in
//! front of the entry that names them, and is never read. An entry that has to be read and is no
//! address ends it, and the peer is the last proxy that is known.
//!
//! A proxy that writes one of the two headers may pass the other on as it came. If both are there
//! and do not lead to the same address, neither is believed.

use std::net::{IpAddr, SocketAddr};

use actix_web::{
    HttpRequest,
    http::header::{self, HeaderMap, HeaderName, HeaderValue},
};

use crate::domain::audit::Peer;

/// Addresses that begin with the same bits: of proxies that are believed when they say where a
/// request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    /// How many bits at the end are free.
    free: u32,
}

impl Network {
    /// An address, or its first address and the number of the bits that all its addresses begin
    /// with (`192.0.2.0/24`). `None` if it is neither, or if the address has other bits set.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            None => (text, None),
            Some((address, length)) => (address, Some(length)),
        };
        let first: IpAddr = address.parse().ok()?;
        let width: u32 = if first.is_ipv4() { 32 } else { 128 };
        let free = match length {
            None => 0,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                width.checked_sub(digits.parse().ok()?)?
            }
            Some(_) => return None,
        };
        let is_first = fixed(bits(first), free) == bits(first);
        // Peers are never compared in this form.
        let is_mapped = first.to_canonical() != first;
        (is_first && !is_mapped).then_some(Self { first, free })
    }

    fn contains(self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4()
            && fixed(bits(address), self.free) == bits(self.first)
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The bits without so many at the end.
fn fixed(bits: u128, free: u32) -> u128 {
    let kept = bits.checked_shr(free).unwrap_or(0);
    kept.checked_shl(free).unwrap_or(0)
}

/// Where a request comes from; `None` if its connection is not known.
pub(super) fn of(request: &HttpRequest, trusted: &[Network]) -> Option<Peer> {
    let direct = request.peer_addr()?;
    Some(behind(direct.into(), request.headers(), trusted))
}

fn behind(direct: Peer, headers: &HeaderMap, trusted: &[Network]) -> Peer {
    let is_trusted = |peer: Peer| trusted.iter().any(|network| network.contains(peer.address));
    if !is_trusted(direct) {
        return direct;
    }
    let told = |name: HeaderName, read: fn(&HeaderValue) -> Vec<Option<Peer>>| {
        let lines: Vec<_> = headers.get_all(&name).collect();
        let mut peer = lines.last().map(|_| direct)?;
        // Each line is read by itself: what is wrong in one of somebody else does not spoil that of
        // a proxy.
        for entry in lines.into_iter().rev().flat_map(read) {
            match entry {
                Some(next) if is_trusted(peer) => peer = next,
                Some(_) | None => break,
            }
        }
        Some(peer)
    };
    match (
        told(header::X_FORWARDED_FOR, x_forwarded_for),
        told(header::FORWARDED, forwarded),
    ) {
        (Some(one), Some(other)) if one.address != other.address => direct,
        (Some(one), _) | (None, Some(one)) => one,
        (None, None) => direct,
    }
}

/// The entries of a line of `X-Forwarded-For`, the last one first.
fn x_forwarded_for(line: &HeaderValue) -> Vec<Option<Peer>> {
    let entries = line.as_bytes().rsplit(|byte| *byte == b',');
    entries
        .map(|entry| node(str::from_utf8(entry).ok()?))
        .collect()
}

/// The `for` of the entries of a line of `Forwarded`, the last one first. A line that cannot be
/// read has one entry, which is none.
fn forwarded(line: &HeaderValue) -> Vec<Option<Peer>> {
    let text = str::from_utf8(line.as_bytes()).ok();
    let Some(entries) = text.and_then(|text| split(text, ',')) else {
        return vec![None];
    };
    entries.into_iter().rev().map(named_for).collect()
}

/// Whom an entry of `Forwarded` names. An address needs no backslash, so that one with any is none.
fn named_for(entry: &str) -> Option<Peer> {
    let pairs = split(entry, ';')?;
    let mut named = pairs.into_iter().filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("for")
            .then(|| value.trim())
    });
    let (value, None) = (named.next()?, named.next()) else {
        return None;
    };
    let quoted = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    node(quoted.unwrap_or(value))
}

/// The parts between separators that are not quoted; `None` if a quotation does not end.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let is_separator = |character: char| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match character {
            '"' if !was_escaped => is_quoted = !is_quoted,
            '\\' if is_quoted && !was_escaped => is_escaped = true,
            _ => {}
        }
        !is_quoted && character == separator
    };
    let parts = text.split(is_separator).collect();
    (!is_quoted).then_some(parts)
}

/// An address, which may have a port and, if it is one of IPv6, brackets.
fn node(text: &str) -> Option<Peer> {
    let text = text.trim_matches([' ', '\t']);
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(text).parse::<IpAddr>() {
        let is_one = bare.is_none() || address.is_ipv6();
        return is_one.then(|| Peer {
            address: address.to_canonical(),
            port: None,
        });
    }
    text.parse::<SocketAddr>().ok().map(Peer::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network(text: &str) -> Network {
        Network::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    /// Who is behind 10.0.0.1, which is trusted as all of 10.0.0.0/8 and `2001:db8:1::/48` are.
    fn told(lines: &[(&str, &[u8])]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::try_from(*name).expect("a name");
            headers.append(name, HeaderValue::from_bytes(value).expect("a value"));
        }
        let direct = SocketAddr::from(([10, 0, 0, 1], 4711)).into();
        let trusted = ["10.0.0.0/8", "2001:db8:1::/48"].map(network);
        behind(direct, &headers, &trusted).to_string()
    }

    const DIRECT: &str = "10.0.0.1:4711";

    #[test]
    fn networks_hold_the_addresses_that_begin_as_they_do() {
        for (text, inside, outside) in [
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.0/25", "192.0.2.127", "192.0.2.128"),
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("0.0.0.0/0", "203.0.113.1", "::1"),
            ("::1", "::1", "127.0.0.1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::/0", "2001:db8::1", "0.0.0.0"),
        ] {
            let network = network(text);
            assert!(network.contains(inside.parse().expect("one")), "{text}");
            assert!(!network.contains(outside.parse().expect("one")), "{text}");
        }
        for text in [
            "",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.0/255.0.0.0",
            "10.0.0.0/99999999999",
            "2001:db8::/129",
            "2001:db8::1/64",
            "[::1]",
            "::ffff:10.0.0.0/104",
            "localhost",
            "10.0.0",
            " 10.0.0.1",
        ] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_last_address_that_is_not_a_proxys_is_whom_the_proxies_name() {
        for (value, peer) in [
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7:80", "192.0.2.7:80"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:443", "[2001:db8::7]:443"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("6.6.6.6, 192.0.2.7", "192.0.2.7"),
            ("6.6.6.6,192.0.2.7 ,\t10.9.9.9,2001:db8:1::5", "192.0.2.7"),
            ("<script>, 192.0.2.7, 10.9.9.9", "192.0.2.7"),
            // All are proxies: the request began at the first.
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
            // The last proxy that is known.
            ("6.6.6.6, unknown, 10.0.0.2", "10.0.0.2"),
            ("6.6.6.6, 192.0.2.7, ", DIRECT),
            ("", DIRECT),
            ("unknown", DIRECT),
            ("192.0.2.7:99999", DIRECT),
            ("192.0.2.7/32", DIRECT),
            ("[192.0.2.7]", DIRECT),
            ("192.0.2.7 6.6.6.6", DIRECT),
            ("fe80::1%eth0", DIRECT),
            ("0300.0.2.7", DIRECT),
            ("\u{661}92.0.2.7", DIRECT),
        ] {
            assert_eq!(
                told(&[("x-forwarded-for", value.as_bytes())]),
                peer,
                "{value}"
            );
        }
        let lines: [(&str, &[u8]); 3] = [
            ("x-forwarded-for", b"\xff"),
            ("x-forwarded-for", b"6.6.6.6, 192.0.2.7"),
            ("x-forwarded-for", b"10.0.0.2"),
        ];
        assert_eq!(told(&lines), "192.0.2.7");
    }

    #[test]
    fn forwarded_is_read_as_its_standard_says() {
        for (value, peer) in [
            ("for=192.0.2.7", "192.0.2.7"),
            ("For=\"192.0.2.7:80\"", "192.0.2.7:80"),
            ("for=\"[2001:db8::7]\"", "2001:db8::7"),
            (
                "proto=https; FOR=\"[2001:db8::7]:443\" ;by=10.0.0.1",
                "[2001:db8::7]:443",
            ),
            (
                "for=6.6.6.6, for=192.0.2.7;host=\"a,b;for=6.6.6.6\", for=10.0.0.2",
                "192.0.2.7",
            ),
            ("for=\"a\\\",for=6.6.6.6\", for=192.0.2.7", "192.0.2.7"),
            ("for=unknown", DIRECT),
            ("for=_hidden", DIRECT),
            ("for=\"192.0.2.7:_port\"", DIRECT),
            ("proto=https", DIRECT),
            ("for=192.0.2.7;for=6.6.6.6", DIRECT),
            ("for=6.6.6.6;host=\", for=192.0.2.7", DIRECT),
            ("192.0.2.7", DIRECT),
            ("", DIRECT),
        ] {
            assert_eq!(told(&[("forwarded", value.as_bytes())]), peer, "{value}");
        }
    }

    #[test]
    fn headers_that_do_not_agree_are_not_believed() {
        let x: (&str, &[u8]) = ("x-forwarded-for", b"192.0.2.7");
        assert_eq!(
            told(&[x, ("forwarded", b"for=\"192.0.2.7:80\"")]),
            "192.0.2.7"
        );
        for other in ["for=6.6.6.6", "for=unknown", "\"", "for=10.0.0.1"] {
            assert_eq!(told(&[x, ("forwarded", other.as_bytes())]), DIRECT);
        }
    }

    proptest! {
        #[test]
        fn what_stands_in_front_of_a_proxys_entry_changes_nobody(
            front in "[\\x20-\\x7e\\t\u{80}-\u{ff}]{0,60}",
            list in prop::collection::vec(
                prop::sample::select(vec![
                    "for=6.6.6.6", ",", ";", "\"", "\\", "=", "[", "]", "6.6.6.6", "10.0.0.9", " ", "for=\"[::6]\"",
                ]),
                0..12,
            ),
        ) {
            for front in [front.clone(), list.concat()] {
                let named = told(&[("x-forwarded-for", format!("{front}, 192.0.2.7").as_bytes())]);
                prop_assert_eq!(named, "192.0.2.7");
                // A quotation that somebody begins swallows what the proxy adds: then it is the
                // proxy.
                for own in ["for=192.0.2.7", "for=\"192.0.2.7\"", "by=\"_x\";for=\"192.0.2.7\""] {
                    let named = told(&[("forwarded", format!("{front}, {own}").as_bytes())]);
                    prop_assert!(["192.0.2.7", DIRECT].contains(&named.as_str()), "{}: {}", front, named);
                    let lines = [("forwarded", front.as_bytes()), ("forwarded", own.as_bytes())];
                    prop_assert_eq!(told(&lines), "192.0.2.7");
                }
            }
        }
    }
}

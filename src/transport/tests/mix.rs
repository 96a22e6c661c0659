//! Many callers at once, and a peer that picks what goes wrong at random, from a seed.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::future::join_all;

use super::{
    get,
    peer::{Peer, Seen, Then, answer, settings, write},
};
use crate::transport::{Method, Request, Settings, Transport};

const CALLERS: usize = 24;
const TURNS: usize = 16;

/// What happens to a request. An answer of its own, where there is one, holds [`body_of`] its path.
type Fault = fn(&Seen, &mut dyn Write) -> Then;

/// The whole answer to a path: long enough to be cut, and no part of it looks like the whole.
fn body_of(path: &str) -> String {
    format!("{path} {}end of {path}", ".".repeat(path.len() * 20))
}

fn fine(seen: &Seen, writer: &mut dyn Write) -> Then {
    answer(writer, 200, "", &body_of(seen.path()))
}

fn chunked(seen: &Seen, writer: &mut dyn Write) -> Then {
    write(
        writer,
        "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n",
    );
    for piece in body_of(seen.path()).as_bytes().chunks(7) {
        let piece = String::from_utf8_lossy(piece);
        write(writer, &format!("{:x}\r\n{piece}\r\n", piece.len()));
    }
    write(writer, "0\r\n\r\n")
}

/// A head, and after a while the answer.
fn late(head: &str, seen: &Seen, writer: &mut dyn Write) -> Then {
    write(writer, head);
    thread::sleep(Duration::from_millis(3));
    fine(seen, writer)
}

fn cut(head: &str, seen: &Seen, writer: &mut dyn Write) -> Then {
    let body = body_of(seen.path());
    write(writer, head);
    write(writer, &body[..body.len() / 2]);
    Then::Close
}

const FAULTS: [Fault; 26] = [
    chunked,
    // Interim answers.
    |_, writer| write(writer, "HTTP/1.1 100 X\r\n\r\n"),
    |seen, writer| late("HTTP/1.1 103 X\r\n\r\n", seen, writer),
    |seen, writer| late(&"HTTP/1.1 102 X\r\n\r\n".repeat(10), seen, writer),
    |seen, writer| {
        write(writer, "HTTP/1.1 199 X\r\n\r\n");
        fine(seen, writer)
    },
    // More than was asked for.
    |seen, writer| {
        let body = body_of(seen.path());
        let more = format!("{body}HTTP/1.1 200 X\r\ncontent-length: 6\r\n\r\nnobody");
        let length = body.len();
        write(
            writer,
            &format!("HTTP/1.1 200 X\r\ncontent-length: {length}\r\n\r\n{more}"),
        )
    },
    // Less than was promised.
    |seen, writer| {
        cut(
            "HTTP/1.1 200 X\r\ncontent-length: 9999\r\n\r\n",
            seen,
            writer,
        )
    },
    |seen, writer| {
        cut(
            "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n270f\r\n",
            seen,
            writer,
        )
    },
    |seen, writer| cut("HTTP/1.1 200 X\r\n\r\n", seen, writer),
    |seen, writer| cut("HTTP/1.0 200 X\r\n\r\n", seen, writer),
    |_, _| Then::Close,
    |_, writer| {
        write(writer, "HTTP/1.1 200 X\r\ncont");
        Then::Close
    },
    // Nothing, for ever.
    |_, _| Then::KeepOpen,
    |_, writer| write(writer, "HTTP/1.1 200 X\r\ncontent-length: 99\r\n\r\nhalf"),
    // Heads that nobody should write.
    |_, writer| {
        let headers = "content-length: 2\r\ntransfer-encoding: chunked\r\n";
        write(writer, &format!("HTTP/1.1 200 X\r\n{headers}\r\n0\r\n\r\n"))
    },
    |seen, writer| answer(writer, 200, "content-length: 5\r\n", seen.path()),
    |seen, writer| answer(writer, 600, "", &body_of(seen.path())),
    |seen, writer| answer(writer, 0, "", &body_of(seen.path())),
    |seen, writer| answer(writer, 200, &"x: y\r\n".repeat(10_000), seen.path()),
    |_, writer| write(writer, "\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64"),
    // Bodies where none should be, and none where one should be.
    |seen, writer| late("HTTP/1.1 200 X\r\n\r\n", seen, writer),
    |seen, writer| late("HTTP/1.1 204 X\r\n\r\n", seen, writer),
    |seen, writer| late("HTTP/1.1 304 X\r\n\r\n", seen, writer),
    |seen, writer| {
        let length = body_of(seen.path()).len();
        let head = format!("HTTP/1.1 200 X\r\nupgrade: websocket\r\ncontent-length: {length}");
        late(&format!("{head}\r\n\r\n"), seen, writer)
    },
    |seen, writer| answer(writer, 200, "content-encoding: gzip\r\n", seen.path()),
    |seen, writer| {
        answer(
            writer,
            307,
            "location: /elsewhere\r\n",
            &body_of(seen.path()),
        )
    },
];

/// One round from one seed. Tells how many calls were answered, and how many failed.
async fn round(seed: u64, fired: &Arc<[AtomicUsize; FAULTS.len()]>) -> (usize, usize) {
    let counted = Arc::clone(fired);
    let peer = Peer::start(move |seen, writer| {
        // By the path and not by the order, which nobody can repeat.
        let mut random = fastrand::Rng::with_seed(seed);
        seen.path().bytes().for_each(|byte| {
            random = fastrand::Rng::with_seed(random.u64(..).wrapping_add(u64::from(byte)));
        });
        if random.u8(..100) < 40 {
            return fine(seen, writer);
        }
        let which = random.usize(..FAULTS.len());
        counted[which].fetch_add(1, Ordering::SeqCst);
        FAULTS[which](seen, writer)
    });
    let limits = Settings {
        request_timeout: Duration::from_millis(500),
        ..settings()
    };
    let transport = Transport::new(&limits).unwrap();
    let endpoint = peer.endpoint();
    let call = async |caller: usize| {
        let mut outcomes = (0, 0);
        for turn in 0..TURNS {
            let path = format!("/{caller}/{turn}");
            let method = if (caller + turn).is_multiple_of(4) {
                Method::Post
            } else {
                Method::Get
            };
            let request = Request {
                method,
                ..get(&path)
            };
            match transport.send(&endpoint, &[], &request).await {
                Ok(response) => {
                    let expected = match response.status {
                        204 | 304 => String::new(),
                        _ => body_of(&path),
                    };
                    let body = String::from_utf8_lossy(&response.body);
                    assert_eq!(body, expected, "{path} of seed {seed}: {response:?}");
                    outcomes.0 += 1;
                }
                Err(_) => outcomes.1 += 1,
            }
        }
        outcomes
    };
    join_all((0..CALLERS).map(call))
        .await
        .into_iter()
        .fold((0, 0), |sum, (answered, failed)| {
            (sum.0 + answered, sum.1 + failed)
        })
}

#[actix_rt::test]
async fn everybody_gets_their_own_whole_answer_or_an_error() {
    let begun = Instant::now();
    let fired = Arc::new([const { AtomicUsize::new(0) }; FAULTS.len()]);
    for seed in [1, 2, fastrand::u64(..)] {
        let (answered, failed) = round(seed, &fired).await;
        assert_eq!(answered + failed, CALLERS * TURNS);
        assert!(answered > CALLERS * TURNS / 3, "{answered} of seed {seed}");
        assert!(failed > CALLERS * TURNS / 5, "{failed} of seed {seed}");
    }
    for (number, fired) in fired.iter().enumerate() {
        assert!(fired.load(Ordering::SeqCst) > 0, "fault {number}");
    }
    assert!(begun.elapsed() < Duration::from_secs(30));
}

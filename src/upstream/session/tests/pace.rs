//! What waits keeps to the pace.

use super::*;

#[actix_rt::test]
async fn a_read_that_is_sent_again_after_a_lost_connection_takes_a_turn() {
    let arrivals = Arrivals::default();
    let (noted, served) = (arrivals.clone(), Mutex::new(BTreeSet::new()));
    // The second request of each connection is read and not answered.
    let peer = peer::Peer::start(move |seen, writer| {
        noted.note();
        if served.lock().unwrap().insert(seen.connection) {
            fine(seen, writer)
        } else {
            Then::Close
        }
    });
    let mut bench = Bench::new(fine);
    bench.pace = Pace {
        requests_per_second: 20,
        burst: 1,
    };
    let (session, request) = (bench.session_at("oms", peer.endpoint()), read());
    let results = join_all((0..40).map(|_| session.exchange("show", &request, None))).await;
    assert!(results.iter().all(Result::is_ok));
    let count = peer.seen().len();
    assert!(count > 55, "{count}: hardly a connection was lost");
    let busiest = arrivals.busiest_second();
    assert!(busiest <= 22, "{busiest} requests in a second");
}

#[actix_rt::test]
async fn those_who_waited_for_a_connection_keep_to_the_pace_after_it() {
    let arrivals = Arrivals::default();
    let noted = arrivals.clone();
    let (release, is_released) = mpsc::channel::<()>();
    let is_released = Mutex::new(is_released);
    let peer = peer::Peer::start(move |seen, writer| {
        noted.note();
        // Until the other end is gone.
        _ = is_released.lock().unwrap().recv();
        fine(seen, writer)
    });
    let mut bench = Bench::new(fine);
    bench.pace = Pace {
        requests_per_second: 50,
        burst: 1,
    };
    let (session, request) = (bench.session_at("oms", peer.endpoint()), read());
    let all = join_all((0..150).map(|_| session.exchange("show", &request, None)));
    let stalled = async {
        while peer.seen().len() < 64 || flow::tests::waiting(&session.flow) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(release);
    };
    let (results, ()) = tokio::join!(all, stalled);
    assert!(results.iter().all(Result::is_ok));
    let busiest = arrivals.busiest_second();
    assert!(busiest <= 53, "{busiest} requests in a second");
}

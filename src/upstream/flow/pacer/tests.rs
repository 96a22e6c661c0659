use std::{
    cell::RefCell,
    pin::pin,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use futures_util::{
    future::{join_all, select},
    poll,
};
use tokio::time::{Instant, advance, timeout};

use super::{Lane, Pacer, TooBusy};
use crate::{
    domain::service::{ProjectName, ServiceName},
    transport::Purpose,
    upstream::flow::{Pace, metrics::Metrics},
};

use Lane::{Callers, Rounds};
use Purpose::{Change, Read};

fn pacer(requests_per_second: u32, burst: u32) -> Arc<Pacer> {
    let pace = Pace {
        requests_per_second,
        burst,
    };
    Arc::new(Pacer::new(
        ProjectName::parse("p").unwrap(),
        ServiceName::parse("oms").unwrap(),
        pace,
        Metrics::default(),
    ))
}

fn seconds(number: f64) -> Duration {
    Duration::from_secs_f64(number)
}

fn waiting(pacer: &Pacer) -> usize {
    pacer.view().waiting
}

#[tokio::test(start_paused = true)]
async fn after_the_burst_one_goes_at_a_time() {
    let (pacer, began) = (pacer(20, 5), Instant::now());
    let until = began + seconds(10.0);
    let went = RefCell::new(Vec::new());
    join_all((0..45).map(|_| async {
        pacer.permit(Callers, Read, until).await.unwrap().used();
        went.borrow_mut().push(began.elapsed().as_millis());
    }))
    .await;
    let went = went.into_inner();
    assert!(went[..5].iter().all(|at| *at == 0), "{went:?}");
    for (number, at) in (1..).zip(&went[5..]) {
        let due = number * 50;
        // The clock of the runtime goes in milliseconds.
        assert!((due..=due + 2).contains(at), "{at} for {due}");
    }
}

#[tokio::test(start_paused = true)]
async fn lanes_take_turns_whoever_waits_longer() {
    let (pacer, began) = (pacer(20, 1), Instant::now());
    let until = began + seconds(60.0);
    let order = RefCell::new(String::new());
    let order = &order;
    let waiters = |lane, purpose, name: char, number: usize| {
        let pacer = &pacer;
        (0..number).map(move |_| async move {
            pacer.permit(lane, purpose, until).await.unwrap().used();
            order.borrow_mut().push(name);
        })
    };
    let first = join_all(waiters(Rounds, Read, 'r', 200));
    let mut first = pin!(first);
    assert!(poll!(&mut first).is_pending());
    let callers = join_all(waiters(Callers, Read, 'c', 8));
    let changes = join_all(waiters(Rounds, Change, 'X', 3));
    tokio::join!(first, callers, changes);
    let order = order.borrow();
    assert!(order.starts_with("rcXcXcXcrcrcrcrcrrr"), "{order}");
    assert_eq!(order.len(), 211);
    assert!(began.elapsed() < seconds(10.6), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_it_can() {
    let pacer = pacer(2, 1);
    pacer
        .permit(Callers, Read, Instant::now())
        .await
        .unwrap()
        .used();
    let until = Instant::now() + seconds(3.0);
    let results = join_all((0..100).map(|_| async {
        let permit = pacer.permit(Callers, Read, until).await;
        permit.map(|permit| drop(permit.used()))
    }))
    .await;
    let passed = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(passed, 6);
    assert_eq!(waiting(&pacer), 0);
    // Those without a prospect were told at once, and when to come back.
    let refused = TooBusy { wait: seconds(3.5) };
    assert_eq!(results.last().unwrap().as_ref().unwrap_err(), &refused);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_in_time_though_the_pace_slows_down() {
    let pacer = pacer(2, 1);
    pacer
        .permit(Callers, Read, Instant::now())
        .await
        .unwrap()
        .used();
    let began = Instant::now();
    let wait = pacer.permit(Callers, Read, began + seconds(3.0));
    let mut wait = pin!(wait);
    assert!(poll!(&mut wait).is_pending());
    pacer.throttled(0, Some(seconds(20.0)));
    let refused = wait.await.unwrap_err();
    assert_eq!(began.elapsed().as_secs(), 3);
    assert!(refused.wait > seconds(17.0), "{refused:?}");
    assert_eq!(waiting(&pacer), 0);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_gives_its_place_and_its_permit_to_the_next() {
    let (pacer, began) = (pacer(1, 1), Instant::now());
    let until = began + seconds(100.0);
    let unused = pacer.permit(Callers, Read, until).await.unwrap();
    let mut ahead: Vec<_> = (0..50)
        .map(|_| Box::pin(pacer.permit(Callers, Read, until)))
        .collect();
    for wait in &mut ahead {
        assert!(poll!(wait).is_pending());
    }
    let last = pacer.permit(Callers, Read, until);
    let mut last = pin!(last);
    assert!(poll!(&mut last).is_pending());
    assert_eq!(waiting(&pacer), 51);
    drop(ahead);
    assert_eq!(waiting(&pacer), 1);
    drop(unused);
    last.await.unwrap().used();
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_came_to_one_who_left_is_not_lost() {
    let (pacer, began) = (pacer(1, 1), Instant::now());
    let until = began + seconds(100.0);
    pacer.permit(Callers, Read, until).await.unwrap().used();
    let mut first = Box::pin(pacer.permit(Callers, Read, until));
    assert!(poll!(&mut first).is_pending());
    advance(seconds(1.0)).await;
    // Lets the first go, which does not know of it yet.
    assert_eq!(waiting(&pacer), 0);
    let mut second = Box::pin(pacer.permit(Callers, Read, until));
    assert!(poll!(&mut second).is_pending());
    drop(first);
    second.await.unwrap().used();
    assert_eq!(began.elapsed(), seconds(1.0));
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_go_faster_when_the_pace_recovers() {
    let pacer = pacer(16, 16);
    for _ in 0..4 {
        let stretch = pacer
            .permit(Callers, Read, Instant::now())
            .await
            .map_or(0, |permit| permit.used().stretch());
        pacer.throttled(stretch, None);
        advance(seconds(0.1)).await;
        pacer.view();
    }
    let began = Instant::now();
    let until = began + seconds(60.0);
    let slow = pacer.view().rate;
    assert!(slow < 9.0, "{slow}");
    let waits = (0..60).map(|_| async {
        pacer.permit(Rounds, Read, until).await.unwrap().used();
    });
    join_all(waits).await;
    assert!(
        began.elapsed() < seconds(60.0 / slow),
        "{:?}",
        began.elapsed()
    );
    advance(seconds(20.0)).await;
    let view = pacer.view();
    assert!((view.rate - view.rate_max).abs() < 1e-9, "{view:?}");
}

#[test]
fn a_thread_that_stands_still_holds_up_nobody_else() {
    let pacer = pacer(50, 1);
    let run = |work: Box<dyn FnOnce(&tokio::runtime::Runtime)>| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        work(&runtime.unwrap());
    };
    let until = Instant::now() + seconds(10.0);
    let (ready, is_ready) = mpsc::channel();
    let (done, is_done) = mpsc::channel();
    thread::scope(|scope| {
        // Frees the thread, also when the test fails.
        let done = done;
        let still = Arc::clone(&pacer);
        scope.spawn(move || {
            run(Box::new(move |runtime| {
                runtime.block_on(async {
                    still.permit(Callers, Read, until).await.unwrap().used();
                    let next = pin!(still.permit(Callers, Read, until));
                    let leave = pin!(async {
                        ready.send(()).unwrap();
                        // The whole thread.
                        is_done.recv().unwrap();
                    });
                    select(next, leave).await;
                });
            }));
        });
        is_ready.recv().unwrap();
        run(Box::new(|runtime| {
            runtime.block_on(async {
                for _ in 0..5 {
                    let wait = timeout(seconds(9.0), pacer.permit(Rounds, Read, until));
                    wait.await.expect("a turn").unwrap().used();
                }
            });
        }));
        done.send(()).unwrap();
    });
}

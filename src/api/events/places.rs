//! How many streams of events there may be, and how often what they watch is looked at.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use crate::{
    api::problem::{Problem, kinds::ProblemType},
    domain::{
        service::{CallerName, Sent},
        task::TaskRef,
    },
};

/// How often a task is looked at for those who watch it, as long as few tasks are watched.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// From so many watched tasks on they are looked at less often, so that all of them together cost
/// the cloud no more looks a second than this.
const TASKS_PER_SECOND: usize = 10;

/// The most streams at the same time.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// Of all callers.
    pub all: u32,
    /// Of one caller.
    pub per_caller: u32,
}

/// The streams of this process. Clones count together.
#[derive(Clone)]
pub(in crate::api) struct StreamPlaces(Arc<Shared>);

struct Shared {
    limits: StreamLimits,
    began: Instant,
    open: Mutex<Open>,
    gauge: Gauge,
}

#[derive(Default)]
struct Open {
    all: u32,
    callers: HashMap<CallerName, u32>,
    tasks: HashMap<TaskRef, u32>,
}

/// The place of one stream, until it is dropped.
pub(in crate::api) struct Place {
    places: StreamPlaces,
    caller: CallerName,
    task: Option<TaskRef>,
}

impl StreamPlaces {
    /// Nobody watches yet. `gauge` says how many do.
    pub(in crate::api) fn new(limits: StreamLimits, gauge: Gauge) -> Self {
        Self(Arc::new(Shared {
            limits,
            began: Instant::now(),
            open: Mutex::default(),
            gauge,
        }))
    }

    /// A place for a caller, who watches a task or something that costs the cloud nothing. The
    /// error is the answer to one too many.
    pub(in crate::api) fn take(
        &self,
        caller: &CallerName,
        task: Option<&TaskRef>,
    ) -> Result<Place, Problem> {
        let mut open = self.open();
        let limits = self.0.limits;
        if open.all >= limits.all {
            let detail = "The gateway has as many streams of events open as it may.";
            return Err(refusal(ProblemType::Overloaded, detail));
        }
        if open.callers.get(caller).copied().unwrap_or(0) >= limits.per_caller {
            let most = limits.per_caller;
            let detail =
                format!("The caller may have {most} streams of events open, and has them.");
            return Err(refusal(ProblemType::RateLimited, detail));
        }
        open.all += 1;
        *open.callers.entry(caller.clone()).or_default() += 1;
        if let Some(task) = task {
            *open.tasks.entry(task.clone()).or_default() += 1;
        }
        self.0.gauge.set(open.all.into());
        Ok(Place {
            places: self.clone(),
            caller: caller.clone(),
            task: task.cloned(),
        })
    }

    /// The next moment at which a task is looked at, so long from now at least. It is the same for
    /// all who watch the task, so that they share the look, and another for other tasks, so that
    /// looks come evenly.
    pub(in crate::api) fn next_look(&self, task: &TaskRef, wait: Duration) -> Instant {
        let watched = self.open().tasks.len();
        let rounds = u32::try_from(watched.div_ceil(TASKS_PER_SECOND)).unwrap_or(u32::MAX);
        let interval = LOOK_EVERY.saturating_mul(rounds.max(1));
        let mut hasher = DefaultHasher::new();
        task.hash(&mut hasher);
        let from = Instant::now() + wait;
        let elapsed = from.saturating_duration_since(self.0.began);
        from + until_next(elapsed, interval, hasher.finish())
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // The numbers belong together again after every change, so a panic elsewhere does not spoil
        // them.
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long it is from a moment to the next of an even row of moments, more than nothing. `seed`
/// says where the row begins.
fn until_next(elapsed: Duration, interval: Duration, seed: u64) -> Duration {
    let interval = interval.as_nanos().max(1);
    let offset = u128::from(seed) % interval;
    let since = (elapsed.as_nanos() + interval - offset) % interval;
    Duration::from_nanos(u64::try_from(interval - since).unwrap_or(u64::MAX))
}

fn refusal(kind: ProblemType, detail: impl Into<String>) -> Problem {
    Problem::new(kind, detail).sent(Sent::No).retry_after(5)
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.places.open();
        open.all = open.all.saturating_sub(1);
        leave(&mut open.callers, &self.caller);
        if let Some(task) = &self.task {
            leave(&mut open.tasks, task);
        }
        self.places.0.gauge.set(open.all.into());
    }
}

fn leave<K: Hash + Eq>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        service::{ProjectName, ServiceName},
        task::TaskId,
    };

    fn task(number: usize) -> TaskRef {
        TaskRef {
            project: ProjectName::parse("default").unwrap(),
            service: ServiceName::parse("oms").unwrap(),
            id: TaskId::parse(&number.to_string()).unwrap(),
        }
    }

    fn places(all: u32, per_caller: u32) -> StreamPlaces {
        StreamPlaces::new(StreamLimits { all, per_caller }, Gauge::default())
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_watches_a_task_looks_at_the_same_moments_and_tasks_take_turns() {
        let places = places(1000, 1000);
        let caller = CallerName::configured("team-a").unwrap();
        let mut held = vec![places.take(&caller, Some(&task(0))).unwrap()];
        let first = places.next_look(&task(0), Duration::ZERO);
        assert!(first <= Instant::now() + LOOK_EVERY);
        tokio::time::advance((first - Instant::now()) / 2).await;
        assert_eq!(places.next_look(&task(0), Duration::ZERO), first);
        tokio::time::advance(first - Instant::now()).await;
        assert_eq!(
            places.next_look(&task(0), Duration::ZERO),
            first + LOOK_EVERY
        );
        assert_eq!(
            places.next_look(&task(0), 3 * LOOK_EVERY),
            first + 4 * LOOK_EVERY
        );
        held.extend((1..100).map(|number| places.take(&caller, Some(&task(number))).unwrap()));
        let mut moments: Vec<_> = (0..100)
            .map(|number| places.next_look(&task(number), Duration::ZERO) - first)
            .collect();
        moments.sort_unstable();
        moments.dedup();
        assert_eq!(moments.len(), 100, "they are spread");
        assert!(
            *moments.last().unwrap() > 5 * LOOK_EVERY,
            "over ten seconds"
        );
        drop(held);
        assert!(places.open().tasks.is_empty() && places.open().callers.is_empty());
    }

    #[test]
    fn a_place_is_free_again_once_its_stream_is_over() {
        let places = places(2, 1);
        let [first, second, third] =
            ["a", "b", "c"].map(|name| CallerName::configured(name).unwrap());
        let held = places.take(&first, None).unwrap();
        let status = |caller| {
            let taken = places.take(caller, None);
            taken.err().map(|problem| problem.document().status)
        };
        assert_eq!(status(&first), Some(429));
        let _second = places.take(&second, None).unwrap();
        assert_eq!(status(&third), Some(503));
        drop(held);
        assert_eq!(status(&third), None);
        assert_eq!(status(&first), None);
    }
}

//! Which routes of a mesh requests come by: the evidence of what its Envoys do.
//!
//! Nobody can be asked whether an Envoy has taken over a new route. A request says it: the
//! route that it came by has set a header with its generation.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sconce_catalog::Generation;

/// What was seen of one model's routes. Handed from set to set, as its tickets are.
#[derive(Clone, Default)]
pub struct Routes(Arc<Mutex<BTreeMap<Arc<str>, Caller>>>);

/// When each generation last arrived from one caller, the oldest generation first.
type Caller = Vec<(Generation, Instant)>;

/// A generation that has arrived lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Whose request carried it.
    pub caller: Arc<str>,
    /// Which route it came by.
    pub generation: Generation,
    /// Since the latest such request.
    pub ago: Duration,
}

/// How long a sighting is remembered: much longer than a new route takes to be in force.
const MEMORY: Duration = Duration::from_secs(60);
/// A header is whatever a caller wrote: neither may grow with their fantasy.
const MOST_CALLERS: usize = 1024;
const MOST_GENERATIONS: usize = 8;

impl Routes {
    /// A request of this caller has come by a route of this generation.
    pub fn saw(&self, caller: &str, generation: Generation, now: Instant) {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = callers.get_mut(caller) {
            note(known, generation, now);
            return;
        }
        if callers.len() >= MOST_CALLERS {
            forget(&mut callers, now);
        }
        if callers.len() < MOST_CALLERS {
            callers.insert(caller.into(), vec![(generation, now)]);
        }
    }

    /// What arrived lately.
    pub fn lately(&self, now: Instant) -> Vec<Sighting> {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        forget(&mut callers, now);
        let sightings = callers.iter().flat_map(|(caller, known)| {
            known.iter().map(|(generation, at)| Sighting {
                caller: Arc::clone(caller),
                generation: *generation,
                ago: now.saturating_duration_since(*at),
            })
        });
        sightings.collect()
    }
}

fn note(known: &mut Caller, generation: Generation, now: Instant) {
    match known.binary_search_by_key(&generation, |(known, _)| *known) {
        Ok(at) => known[at].1 = now,
        Err(at) => {
            known.insert(at, (generation, now));
            if known.len() > MOST_GENERATIONS {
                let stalest = known.iter().enumerate().min_by_key(|(_, (_, at))| *at);
                if let Some((index, _)) = stalest {
                    known.remove(index);
                }
            }
        }
    }
}

fn forget(callers: &mut BTreeMap<Arc<str>, Caller>, now: Instant) {
    callers.retain(|_, known| {
        known.retain(|(_, at)| now.saturating_duration_since(*at) < MEMORY);
        !known.is_empty()
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(routes: &Routes, now: Instant) -> Vec<(String, u64, u64)> {
        let lately = routes.lately(now).into_iter();
        lately.map(|s| (s.caller.to_string(), s.generation.0, s.ago.as_secs())).collect()
    }

    #[test]
    fn the_latest_arrival_of_each_generation_is_told_until_it_is_old() {
        let (routes, start) = (Routes::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        routes.saw("a", Generation(7), at(0));
        routes.saw("a", Generation(8), at(5));
        routes.saw("b", Generation(8), at(6));
        routes.saw("a", Generation(7), at(10));
        let expected = [("a".into(), 7, 2), ("a".into(), 8, 7), ("b".into(), 8, 6)];
        assert_eq!(seen(&routes, at(12)), expected);
        assert_eq!(seen(&routes, at(66)), [("a".into(), 7, 56)]);
        assert_eq!(seen(&routes, at(200)), []);
    }

    #[test]
    fn what_callers_make_up_takes_no_memory() {
        let (routes, now) = (Routes::default(), Instant::now());
        for n in 0..100 {
            routes.saw("a", Generation(n), now + Duration::from_millis(n));
        }
        let kept: Vec<u64> = routes.lately(now).iter().map(|s| s.generation.0).collect();
        assert_eq!(kept, [92, 93, 94, 95, 96, 97, 98, 99]);
        for n in 0..10_000 {
            routes.saw(&format!("caller {n}"), Generation(1), now);
        }
        assert!(seen(&routes, now).len() < MOST_CALLERS + MOST_GENERATIONS);
    }
}

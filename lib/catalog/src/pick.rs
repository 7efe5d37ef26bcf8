//! The one place where the version that answers a request is decided.
//!
//! A pure function of what the request asks for and what is served. There are no
//! dice: a request without a pin takes the next [`Ticket`] of its model, and tickets
//! walk the line of shares so evenly that any hundred requests in a row come
//! within a few of the shares, and any 10,000 meet them exactly. Where a model is sticky,
//! a caller that says who it is has a [`Place`] of its own on that line.

use crate::{Generation, Lane, Place, Route, ServedSplit, Share, Version};

/// What a request says about the version it wants.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The lane it came by.
    pub lane: Lane,
    /// A version in the path, in the gRPC field, or in `x-sconce-pin`.
    pub pin: Option<&'a Version>,
    /// What a mesh's route chose, in `x-sconce-route`.
    pub route: Option<&'a Route>,
    /// Where its caller is, where the model is sticky and the request says who that is.
    pub caller: Option<Place>,
    /// Which split is served.
    pub generation: Generation,
    /// The request's place in the order of its model's requests.
    pub ticket: Ticket,
}

/// A number from a counter that each model has of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub u64);

/// The version that answers, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick<'a> {
    /// The request named it.
    Pinned(&'a Version),
    /// The mesh's route named it.
    Routed(&'a Version),
    /// The mesh's route named a version that has left or that has no share any more, so the
    /// stable one answers.
    Stable(&'a Version),
    /// It came by the shadow lane, where whatever it names was meant for the live request.
    Shadow(&'a Version),
    /// The caller's place decided.
    Sticky(&'a Version),
    /// The split decided.
    Split(&'a Version),
}

/// Why no version answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// The request names a version that is not served here.
    #[error("version {0} is not ready here")]
    PinNotReady(Version),
    /// No version with a share is ready.
    #[error("no version with a share of the traffic is ready here")]
    NothingReady,
}

/// Decides which version answers.
///
/// Live and canary answer alike: what a mesh sends down which lane, its route header says.
///
/// # Errors
/// Where the pinned version, or every version with a share, is not ready.
pub fn pick<'a>(
    ask: Ask<'a>,
    served: Option<&'a ServedSplit>,
    ready: impl Fn(&Version) -> bool,
) -> Result<Pick<'a>, PickError> {
    // A mirrored request is a copy of the live one, with the route of the version that was
    // chosen for that. Without a version bound to the lane the stable one answers.
    if ask.lane == Lane::Shadow {
        let served = served.ok_or(PickError::NothingReady)?;
        return Ok(Pick::Shadow(served.split().stable()));
    }
    if let Some(pin) = ask.pin {
        return if ready(pin) { Ok(Pick::Pinned(pin)) } else { Err(PickError::PinNotReady(pin.clone())) };
    }
    let Some((route, version)) = ask.route.and_then(|route| Some((route, route.version.as_ref()?))) else {
        let served = served.ok_or(PickError::NothingReady)?;
        return Ok(match ask.caller {
            Some(place) => Pick::Sticky(served.of_caller(place.get())),
            None => Pick::Split(served.split().at(ask.ticket.place())),
        });
    };
    // Whoever takes a version's share away wants it to stop now, and not once the last Envoy has
    // heard of it. Only a route newer than our split knows better than we do.
    let withdrawn = route.generation <= ask.generation
        && served.is_some_and(|served| served.split().share(version) == Share::NOTHING);
    if !withdrawn && ready(version) {
        return Ok(Pick::Routed(version));
    }
    // Routes reach Envoys at different times: a request on an old one must not fail.
    let served = served.ok_or(PickError::NothingReady)?;
    Ok(Pick::Stable(served.split().stable()))
}

impl<'a> Pick<'a> {
    /// The version that answers.
    pub fn version(self) -> &'a Version {
        match self {
            Pick::Pinned(version)
            | Pick::Routed(version)
            | Pick::Stable(version)
            | Pick::Shadow(version)
            | Pick::Sticky(version)
            | Pick::Split(version) => version,
        }
    }
}

impl Ticket {
    /// A place from 0 to 9,999.
    ///
    /// 6,181 is the integer nearest to 10,000 divided by the golden ratio that has no
    /// factor in common with 10,000: steps of that size visit every place once in
    /// 10,000 steps, and spread as evenly as steps can on the way (Weyl sequence).
    fn place(self) -> u32 {
        const STEP: u64 = 6_181;
        let line = u64::from(Share::WHOLE.ten_thousandths());
        // Below 10,000, so it fits.
        ((self.0 % line) * STEP % line) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Split;

    const ASK: Ask<'static> = Ask {
        lane: Lane::Live,
        pin: None,
        route: None,
        caller: None,
        generation: Generation(5),
        ticket: Ticket(0),
    };

    fn version(text: &str) -> Version {
        text.parse().expect("valid version")
    }

    fn served(shares: &[(&str, u32)]) -> ServedSplit {
        let split = Split::new(shares.iter().map(|(v, s)| (version(v), Share::new(*s).expect("in range"))));
        ServedSplit::among(&split.expect("valid split"), |_| true).expect("something is ready")
    }

    fn answered(served: &ServedSplit, tickets: std::ops::Range<u64>, by: &str) -> usize {
        let by = version(by);
        tickets
            .filter(|n| {
                let ask = Ask { ticket: Ticket(*n), ..ASK };
                pick(ask, Some(served), |_| true).expect("served").version() == &by
            })
            .count()
    }

    #[test]
    fn ten_thousand_requests_meet_the_shares_exactly() {
        for shares in [[("1", 5_000), ("2", 5_000)], [("1", 9_999), ("2", 1)], [("1", 1_234), ("2", 8_766)]] {
            let served = served(&shares);
            for (v, share) in shares {
                assert_eq!(answered(&served, 77..10_077, v), share as usize, "{shares:?}");
            }
        }
    }

    #[test]
    fn any_hundred_requests_in_a_row_come_close() {
        let served = served(&[("1", 7_500), ("2", 2_500)]);
        for start in 0..2_000 {
            let count = answered(&served, start..start + 100, "2");
            assert!((22..=28).contains(&count), "{count} of 100 from {start}");
        }
    }

    #[test]
    fn a_pin_wins_over_the_split_or_says_that_it_cannot() {
        let served = served(&[("1", 10_000)]);
        let (one, two, nine) = (version("1"), version("2"), version("9"));
        let ready = |v: &Version| *v == one || *v == two;
        let ask = |pin| Ask { pin, ..ASK };
        assert_eq!(pick(ask(Some(&two)), Some(&served), ready), Ok(Pick::Pinned(&two)));
        assert_eq!(pick(ask(Some(&nine)), Some(&served), ready), Err(PickError::PinNotReady(nine.clone())));
        assert_eq!(pick(ask(None), None, ready), Err(PickError::NothingReady));
    }

    #[test]
    fn a_route_is_followed_below_a_pin_and_falls_back_to_stable() {
        let served = served(&[("1", 9_000), ("2", 1_000)]);
        let (one, two) = (version("1"), version("2"));
        let (to_two, to_nine) = (route("2", 5), route("9", 5));
        let ready = |v: &Version| *v == one || *v == two;
        let ask = |pin, route| Ask { pin, route: Some(route), ..ASK };
        assert_eq!(pick(ask(None, &to_two), Some(&served), ready), Ok(Pick::Routed(&two)));
        assert_eq!(pick(ask(Some(&one), &to_two), Some(&served), ready), Ok(Pick::Pinned(&one)));
        assert_eq!(pick(ask(None, &to_nine), Some(&served), ready), Ok(Pick::Stable(&one)));
        assert_eq!(pick(ask(None, &to_nine), None, ready), Err(PickError::NothingReady));
    }

    #[test]
    fn an_old_route_cannot_bring_back_a_version_whose_share_was_taken_away() {
        let (one, two) = (version("1"), version("2"));
        let aborted = served(&[("1", 10_000)]);
        let picked = |generation| {
            let route = route("2", generation);
            let ask = Ask { route: Some(&route), ..ASK };
            pick(ask, Some(&aborted), |_| true).map(|picked| picked.version().clone())
        };
        assert_eq!(picked(4), Ok(one.clone()));
        // No route of this very split names it: somebody made that up.
        assert_eq!(picked(5), Ok(one.clone()));
        // The catalog that gives it a share is still on its way here.
        assert_eq!(picked(6), Ok(two.clone()));
        let both = served(&[("1", 5_000), ("2", 5_000)]);
        let old = route("2", 4);
        let ask = Ask { route: Some(&old), ..ASK };
        assert_eq!(pick(ask, Some(&both), |_| true), Ok(Pick::Routed(&two)));
    }

    fn route(named: &str, generation: u64) -> Route {
        Route { version: Some(version(named)), generation: Generation(generation) }
    }

    fn caller(n: usize) -> Option<Place> {
        Place::of(&"ml/fraud".parse().expect("valid"), format!("user {n}").as_bytes())
    }

    /// Who answers each of many callers, whatever ticket they get.
    fn answers(served: &ServedSplit) -> Vec<Version> {
        let one = |n| {
            let ask = |ticket| Ask { caller: caller(n), ticket: Ticket(ticket), ..ASK };
            let picked = pick(ask(0), Some(served), |_| true).expect("served");
            assert_eq!(pick(ask(n as u64), Some(served), |_| true), Ok(picked), "the same each time");
            picked.version().clone()
        };
        (0..10_000).map(one).collect()
    }

    #[test]
    fn a_callers_version_is_the_same_each_time_and_callers_meet_the_shares() {
        for share in [100, 2_500, 5_000, 9_900] {
            let all = answers(&served(&[("1", 10_000 - share), ("2", share)]));
            let two = all.iter().filter(|picked| picked.as_str() == "2").count();
            // Five standard deviations of a binomial distribution.
            let p = f64::from(share) / 10_000.0;
            let allowed = 5.0 * (10_000.0 * p * (1.0 - p)).sqrt();
            assert!((two as f64 - 10_000.0 * p).abs() < allowed, "{two} of 10,000 for {share}");
        }
    }

    #[test]
    fn as_a_share_grows_callers_move_to_it_and_none_back() {
        // Whichever of the two comes first on the line.
        for (old, new) in [("1", "2"), ("9", "10")] {
            let mut before: Option<Vec<Version>> = None;
            for share in [1, 100, 500, 2_500, 5_000, 7_500, 9_999] {
                let now = answers(&served(&[(old, 10_000 - share), (new, share)]));
                for (was, is) in before.iter().flatten().zip(&now) {
                    assert!(
                        was == is || (was.as_str(), is.as_str()) == (old, new),
                        "{was} to {is} at {share}"
                    );
                }
                before = Some(now);
            }
        }
    }

    #[test]
    fn a_version_that_is_missing_here_moves_nobody_elses_callers() {
        let shares = [("1", 5_000), ("2", 3_000), ("3", 2_000)];
        let split = Split::new(shares.map(|(v, s)| (version(v), Share::new(s).expect("in range"))));
        let split = split.expect("valid");
        let everywhere = answers(&served(&shares));
        let here = answers(&ServedSplit::among(&split, |v| v.as_str() != "2").expect("two are ready"));
        for (everywhere, here) in everywhere.iter().zip(&here) {
            assert!(here.as_str() != "2" && (here == everywhere || everywhere.as_str() == "2"));
        }
    }

    #[test]
    fn a_caller_comes_after_pins_and_named_routes_and_before_the_split() {
        let served = served(&[("1", 5_000), ("2", 5_000)]);
        let (one, two) = (version("1"), version("2"));
        let of = |wanted: &Version| {
            let ask = |n| Ask { caller: caller(n), ..ASK };
            (0..).find(|n| pick(ask(*n), Some(&served), |_| true) == Ok(Pick::Sticky(wanted))).expect("some")
        };
        let to_one = Ask { caller: caller(of(&one)), ..ASK };
        let (routed, open) = (route("2", 5), Route { version: None, generation: Generation(5) });
        let picked = |ask| pick(ask, Some(&served), |_| true);
        assert_eq!(picked(Ask { pin: Some(&two), ..to_one }), Ok(Pick::Pinned(&two)));
        assert_eq!(picked(Ask { route: Some(&routed), ..to_one }), Ok(Pick::Routed(&two)));
        assert_eq!(picked(Ask { route: Some(&open), ..to_one }), Ok(Pick::Sticky(&one)));
        assert_eq!(picked(Ask { lane: Lane::Shadow, ..to_one }), Ok(Pick::Shadow(&one)));
        // Nobody says who it is, so the split decides, also where the route leaves it to us.
        for ticket in 0..4 {
            let ask = Ask { ticket: Ticket(ticket), ..ASK };
            assert_eq!(picked(Ask { route: Some(&open), ..ask }), picked(ask));
            assert!(matches!(picked(ask), Ok(Pick::Split(_))));
        }
        assert_eq!(pick(to_one, None, |_| true), Err(PickError::NothingReady));
    }

    #[test]
    fn the_shadow_lane_ignores_what_was_meant_for_the_live_request() {
        let served = served(&[("1", 9_000), ("2", 1_000)]);
        let (one, two) = (version("1"), version("2"));
        let to_two = route("2", 5);
        let ask = |lane, pin, route| Ask { lane, pin, route, ..ASK };
        for (pin, route) in
            [(None, None), (None, Some(&to_two)), (Some(&two), None), (Some(&two), Some(&to_two))]
        {
            let shadowed = pick(ask(Lane::Shadow, pin, route), Some(&served), |_| true);
            assert_eq!(shadowed, Ok(Pick::Shadow(&one)), "{pin:?} {route:?}");
            let (live, canary) = (ask(Lane::Live, pin, route), ask(Lane::Canary, pin, route));
            assert_eq!(pick(live, Some(&served), |_| true), pick(canary, Some(&served), |_| true));
        }
        assert_eq!(pick(ask(Lane::Shadow, Some(&two), None), None, |_| true), Err(PickError::NothingReady));
    }
}

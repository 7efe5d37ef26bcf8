//! Whether a split is really in force: what the sidecars say of themselves and of the routes
//! that requests still come by, held against what was published.
//!
//! Neither an API server nor Istio can tell when the last Envoy has taken over a new route. The
//! requests can: each carries the generation of the route that it came by.

use sconce_catalog::{Generation, Model, ModelName};
use sconce_proto::v1::{SidecarStatus, SplitState};

use crate::{
    fleet::Fleet,
    publish::{Lacking, Publication, Publications, State, together},
};

/// How far a split has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) state: SplitState,
    /// One sentence for people.
    pub(crate) message: String,
}

/// How long no request may have come by an older route. Envoys take a new one over within
/// 0.2 s of each other (measured); a caller that was silent for longer may still wake up with an
/// old one, and is answered by what the split gives a share.
const QUIET_MS: i64 = 1_000;

/// How far a model's split has come on these sidecars, which serve it.
pub(crate) fn judge(
    fleet: &Fleet,
    publications: &Publications,
    (name, model): (&ModelName, &Model),
    sidecars: &[SidecarStatus],
) -> Progress {
    if model.split.is_none() {
        return Progress::applied("it has no split yet".into());
    }
    if fleet.is_coming_back() && !sidecars.iter().any(|sidecar| sidecar.connected) {
        return Progress::moving("this control plane has just started, sidecars are coming back".into());
    }
    progress(name, model.generation, sidecars, publications.of(name).as_ref())
}

/// Holds the evidence against what is wanted. `sidecars` are those that serve the model.
fn progress(
    model: &ModelName,
    wanted: Generation,
    sidecars: &[SidecarStatus],
    publication: Option<&Publication>,
) -> Progress {
    let connected: Vec<&SidecarStatus> = sidecars.iter().filter(|sidecar| sidecar.connected).collect();
    let lost: Vec<&str> =
        sidecars.iter().filter(|sidecar| !sidecar.connected).map(|sidecar| &*sidecar.sidecar).collect();
    // The route leads no request to those, so nothing waits for them.
    let left_out: &[Lacking] = publication.map_or(&[], |publication| &publication.left_out);
    let is_left_out = |sidecar: &SidecarStatus| {
        let pod = sidecar.sidecar.strip_prefix(model.namespace()).and_then(|rest| rest.strip_prefix('/'));
        pod.is_some_and(|pod| left_out.iter().any(|lacking| lacking.pod == pod))
    };
    let told = |mut progress: Progress| {
        if !lost.is_empty() {
            progress.message += &format!("; not connected: {}", lost.join(", "));
        }
        if !left_out.is_empty() {
            progress.message += &format!("; no endpoints: {}", together(left_out));
        }
        progress
    };
    let endpoints: Vec<&SidecarStatus> =
        connected.iter().copied().filter(|sidecar| !is_left_out(sidecar)).collect();
    let behind = names(&endpoints, |sidecar| served(sidecar, model) < wanted);
    if !behind.is_empty() {
        return told(Progress::moving(format!("not in force yet on {behind}")));
    }
    told(match publication {
        None if connected.is_empty() => Progress::applied("no sidecar that serves it is connected".into()),
        None => Progress::applied(format!("in force on {} of {}", connected.len(), sidecars.len())),
        Some(publication) => routed(model, wanted, (&connected, &endpoints), publication),
    })
}

/// How far the route has come that carries the split.
fn routed(
    model: &ModelName,
    wanted: Generation,
    (connected, endpoints): (&[&SidecarStatus], &[&SidecarStatus]),
    publication: &Publication,
) -> Progress {
    match (&publication.state, publication.in_force) {
        (State::Waiting(reason), _) => Progress::moving(reason.clone()),
        (State::Conflict(reason) | State::Failed(reason), _) => Progress::stuck(reason.clone()),
        (State::Published, Some(route)) if route.generation >= wanted => {
            in_band(model, wanted, (connected, endpoints), route.at_ms)
        }
        (State::Published, _) => Progress::moving("its route is not published yet".into()),
    }
}

/// The proof by requests: for a while after the route was published none came by an older one,
/// not even to a pod that is no endpoint any more.
fn in_band(
    model: &ModelName,
    wanted: Generation,
    (connected, endpoints): (&[&SidecarStatus], &[&SidecarStatus]),
    at_ms: i64,
) -> Progress {
    let unheard = names(endpoints, |sidecar| sidecar.last_seen_ms < at_ms + QUIET_MS);
    if !unheard.is_empty() {
        return Progress::moving(format!("published, waiting for reports of {unheard}"));
    }
    let name = model.to_string();
    let routes = || {
        let routes = |sidecar: &&SidecarStatus| sidecar.routes.clone();
        connected.iter().flat_map(routes).filter(|route| route.model == name)
    };
    let quiet = u64::try_from(QUIET_MS).unwrap_or_default();
    let old = routes().filter(|route| route.generation < wanted.0 && route.ms_ago < quiet);
    let mut callers: Vec<String> = old.map(|route| route.caller).collect();
    callers.sort();
    callers.dedup();
    if !callers.is_empty() {
        return Progress::moving(format!("published, older routes still in use by {}", callers.join(", ")));
    }
    let mut proven: Vec<String> =
        routes().filter(|route| route.generation == wanted.0).map(|route| route.caller).collect();
    proven.sort();
    proven.dedup();
    Progress::applied(match proven.len() {
        0 => "published; no request has come by it yet".into(),
        count => format!("proven by the requests of {count} caller{}", if count == 1 { "" } else { "s" }),
    })
}

/// Which split of the model this sidecar serves.
fn served(sidecar: &SidecarStatus, model: &ModelName) -> Generation {
    Generation(sidecar.generations.get(&model.to_string()).copied().unwrap_or_default())
}

fn names(sidecars: &[&SidecarStatus], which: impl Fn(&SidecarStatus) -> bool) -> String {
    let names: Vec<&str> =
        sidecars.iter().filter(|sidecar| which(sidecar)).map(|sidecar| &*sidecar.sidecar).collect();
    names.join(", ")
}

impl Progress {
    pub(crate) fn is_applied(&self) -> bool {
        self.state == SplitState::Applied
    }

    /// It will not get further without somebody's help.
    pub(crate) fn is_stuck(&self) -> bool {
        self.state == SplitState::Stuck
    }

    fn moving(message: String) -> Self {
        Self { state: SplitState::Moving, message }
    }

    fn applied(message: String) -> Self {
        Self { state: SplitState::Applied, message }
    }

    fn stuck(message: String) -> Self {
        Self { state: SplitState::Stuck, message }
    }
}

#[cfg(test)]
mod tests {
    use sconce_proto::v1::RouteSeen;

    use super::*;
    use crate::publish::InForce;

    const MODEL: &str = "ml/fraud";

    fn sidecar(name: &str, generation: u64, last_seen_ms: i64, routes: &[(&str, u64, u64)]) -> SidecarStatus {
        let routes = routes.iter().map(|(caller, generation, ms_ago)| RouteSeen {
            model: MODEL.into(),
            caller: (*caller).into(),
            generation: *generation,
            ms_ago: *ms_ago,
        });
        SidecarStatus {
            sidecar: name.into(),
            connected: true,
            last_seen_ms,
            generations: [(MODEL.to_owned(), generation)].into(),
            routes: routes.collect(),
            ..SidecarStatus::default()
        }
    }

    fn judged(sidecars: &[SidecarStatus], publication: Option<Publication>) -> (SplitState, String) {
        let model = MODEL.parse().expect("valid");
        let progress = progress(&model, Generation(7), sidecars, publication.as_ref());
        (progress.state, progress.message)
    }

    fn publication(state: State, generation: u64, at_ms: i64) -> Option<Publication> {
        let in_force = Some(InForce { generation: Generation(generation), at_ms });
        Some(Publication { in_force, state, lacking: Vec::new(), left_out: Vec::new() })
    }

    fn published(at_ms: i64) -> Option<Publication> {
        publication(State::Published, 7, at_ms)
    }

    #[test]
    fn without_a_mesh_a_split_is_in_force_once_every_connected_sidecar_serves_it() {
        assert_eq!(judged(&[], None).0, SplitState::Applied);
        let (state, message) = judged(&[sidecar("a", 7, 0, &[]), sidecar("b", 6, 0, &[])], None);
        assert_eq!((state, message.as_str()), (SplitState::Moving, "not in force yet on b"));
        let gone = SidecarStatus { connected: false, ..sidecar("b", 6, 0, &[]) };
        let (state, message) = judged(&[sidecar("a", 7, 0, &[]), gone], None);
        assert_eq!(state, SplitState::Applied);
        assert!(message.ends_with("not connected: b"), "{message}");
    }

    #[test]
    fn a_published_split_is_in_force_once_no_request_comes_by_an_older_route() {
        let still = [sidecar("a", 7, 12_000, &[("x", 6, 300), ("x", 7, 10)])];
        let (state, message) = judged(&still, published(10_000));
        assert_eq!(state, SplitState::Moving);
        assert!(message.ends_with("in use by x"), "{message}");
        let quiet = [sidecar("a", 7, 12_000, &[("x", 6, 1_500), ("x", 7, 10)])];
        assert_eq!(
            judged(&quiet, published(10_000)),
            (SplitState::Applied, "proven by the requests of 1 caller".into())
        );
    }

    #[test]
    fn a_pod_that_is_no_endpoint_is_named_and_not_waited_for() {
        let left_out = vec![Lacking::new("b", "b: 2 is not loaded: the disk is full")];
        let publication = published(10_000).map(|published| Publication { left_out, ..published });
        let served = |name, generation, routes| sidecar(name, generation, 12_000, routes);
        let sidecars = [served("ml/a", 7, &[("x", 7, 10)]), served("ml/b", 6, &[])];
        assert_eq!(
            judged(&sidecars, publication.clone()),
            (
                SplitState::Applied,
                "proven by the requests of 1 caller; no endpoints: b: 2 is not loaded: the disk is full"
                    .into()
            )
        );
        // Envoys that have not heard of it still count.
        let sidecars = [served("ml/a", 7, &[]), served("ml/b", 6, &[("x", 6, 10)])];
        assert_eq!(judged(&sidecars, publication.clone()).0, SplitState::Moving);
        // Nor does it excuse anybody else.
        let sidecars = [served("ml/a", 6, &[]), served("other/b", 6, &[])];
        assert!(judged(&sidecars, publication).1.starts_with("not in force yet on ml/a, other/b"));
    }

    #[test]
    fn silence_before_the_route_was_published_proves_nothing() {
        let early = [sidecar("a", 7, 10_500, &[])];
        assert_eq!(judged(&early, published(10_000)).0, SplitState::Moving);
        let older = publication(State::Published, 6, 0);
        assert_eq!(judged(&[sidecar("a", 7, 12_000, &[])], older).0, SplitState::Moving);
    }

    #[test]
    fn what_keeps_a_route_from_being_published_is_told() {
        let sidecars = [sidecar("a", 7, 0, &[])];
        let waiting = judged(&sidecars, publication(State::Waiting("b has not loaded 2".into()), 6, 0));
        assert_eq!(waiting, (SplitState::Moving, "b has not loaded 2".into()));
        let failed = judged(&sidecars, publication(State::Failed("somebody else owns it".into()), 6, 0));
        assert_eq!(failed, (SplitState::Stuck, "somebody else owns it".into()));
    }
}

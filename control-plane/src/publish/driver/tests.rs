//! What a cluster sees of publishing.

use serde_json::json;

use super::{
    bench::{Bench, fraud, route, service},
    *,
};
use crate::publish::{keeper::Drift, plan::tests::routing};

mod lanes;
mod owned;
mod sticky;

#[tokio::test]
async fn the_first_split_is_published_before_pods_become_endpoints() {
    let mut bench = Bench::start();
    bench.want("1=100@1");
    bench.report(&[("a", &[])]);
    let waiting = bench.until("waiting", |it| matches!(it.state, State::Waiting(_))).await;
    assert_eq!((waiting.in_force, bench.memory.log().len()), (None, 0));
    bench.report(&[("a", &["1"])]);
    bench.published(1).await;
    let log = ["apply Service ml/fraud", "apply VirtualService ml/sconce-fraud", "+ml/a"];
    assert_eq!(bench.memory.log(), log);
}

#[tokio::test]
async fn a_new_version_waits_for_the_floor_then_those_without_it_leave_first() {
    let mut bench = Bench::start();
    bench.want("1=100@1");
    bench.report(&[("a", &["1"]), ("b", &["1"]), ("c", &["1"]), ("d", &["1"])]);
    bench.published(1).await;
    bench.want("1=99,2=1@2");
    let waiting = bench.until("waiting", |it| matches!(it.state, State::Waiting(_))).await;
    assert_eq!(waiting.in_force.map(|it| it.generation.0), Some(1));
    assert_eq!(bench.shares(), Some(routing("1=100@1")));
    let before = bench.memory.log().len();
    bench.report(&[("a", &["1", "2"]), ("b", &["1", "2"]), ("c", &["1", "2"]), ("d", &["1"])]);
    bench.published(2).await;
    assert_eq!(bench.memory.log()[before..], ["-ml/d", "apply VirtualService ml/sconce-fraud"]);
    bench.report(&[("a", &["1", "2"]), ("b", &["1", "2"]), ("c", &["1", "2"]), ("d", &["1", "2"])]);
    bench.memory.observed().wait_for(|seen| seen.pods.len() == 4).await.expect("d is back");
}

#[tokio::test]
async fn an_abort_waits_for_nobody() {
    let mut bench = Bench::start();
    bench.want("1=50,2=50@1");
    bench.report(&[("a", &["1", "2"])]);
    bench.published(1).await;
    bench.report(&[]);
    bench.want("1=100@2");
    bench.published(2).await;
    assert_eq!(
        (bench.shares(), bench.memory.endpoints("fraud")),
        (Some(routing("1=100@2")), vec!["a".into()])
    );
}

#[tokio::test]
async fn a_successor_reads_what_is_published_and_takes_no_pod_away() {
    let mut bench = Bench::start();
    bench.want("1=90,2=10@1");
    bench.report(&[("a", &["1", "2"]), ("b", &["1", "2"])]);
    bench.published(1).await;
    let before = bench.memory.log();
    let mut next = bench.succeed().await;
    let found = next.published(1).await;
    assert!(found.lacking.is_empty(), "{found:?}");
    // It applies what is there already, and touches no pod.
    let own = |line: &String| line.starts_with("apply");
    assert!(next.memory.log()[before.len()..].iter().all(own), "{:?}", next.memory.log());
    assert_eq!(next.memory.endpoints("fraud"), ["a", "b"]);
    // A version that is new waits for those that have not reconnected.
    next.want("1=90,3=10@2");
    next.report(&[("a", &["1", "2", "3"])]);
    let waits = |it: &Publication| matches!(&it.state, State::Waiting(why) if why.contains("reconnect: b"));
    next.until("waiting for b", waits).await;
    assert_eq!(next.shares(), Some(routing("1=90,2=10@1")));
}

#[tokio::test]
async fn who_loses_the_lease_forgets_and_who_gets_it_back_looks_again() {
    let mut bench = Bench::start();
    bench.want("1=100@1");
    bench.report(&[("a", &["1"])]);
    bench.published(1).await;
    let before = bench.memory.log().len();
    bench.held.send_replace(None);
    bench.until_silent().await;
    // Meanwhile another one publishes something else.
    bench.memory.edit(&route(), "sconce", "Apply", |object| {
        let backend = Backend::new(fraud()).expect("publishable");
        let theirs = render::virtual_service(&backend, &routing("1=50,2=50@2"), &render::Options::default());
        object["spec"] = theirs["spec"].clone();
    });
    bench.held.send_replace(Some(Instant::now() + Duration::from_secs(600)));
    bench.want("1=50,2=50@2");
    bench.published(2).await;
    // It was there already, also for versions that no pod here has reported.
    assert!(
        bench.memory.log()[before..].iter().all(|line| line.starts_with("apply")),
        "{:?}",
        bench.memory.log()
    );
}

#[tokio::test]
async fn while_nobody_answers_nothing_changes_and_then_it_goes_on() {
    let mut bench = Bench::start();
    bench.want("1=100@1");
    bench.report(&[("a", &["1"])]);
    bench.published(1).await;
    let before = bench.memory.log();
    bench.memory.set_down(true);
    bench.want("1=50,2=50@2");
    bench.report(&[("a", &["1", "2"])]);
    while bench.memory.missed() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.memory.log(), before);
    let told = bench.told().expect("publishing is on");
    assert!(matches!(&told.state, State::Waiting(why) if why.contains("cannot be reached")), "{told:?}");
    assert_eq!(told.in_force.map(|it| it.generation.0), Some(1));
    bench.memory.set_down(false);
    bench.published(2).await;
    let reached = bench.events().into_iter().filter(|event| event.kind == "route.published").count();
    assert_eq!((reached, bench.told().map(|it| it.state)), (2, Some(State::Published)));
}

#[tokio::test]
async fn somebody_elses_object_is_reported_and_left_alone() {
    let mut bench = Bench::start();
    bench.memory.edit(&service(), "kubectl", "Update", |object| {
        object["spec"] = json!({ "selector": { "app": "fraud" } });
    });
    let theirs = bench.memory.object(&service());
    bench.want("1=100@1");
    bench.report(&[("a", &["1"])]);
    let conflict = bench.until("conflict", |it| matches!(it.state, State::Conflict(_))).await;
    let State::Conflict(reason) = conflict.state else { unreachable!() };
    assert!(reason.contains("Service ml/fraud exists and is not managed by Sconce"), "{reason}");
    assert_eq!((bench.memory.object(&service()), bench.memory.log().len()), (theirs, 0));
    assert_eq!(bench.until_event("route.conflict").await, reason);
}

#[tokio::test]
async fn drift_is_repaired_once_and_then_ever_more_rarely() {
    let mut bench = Bench::start();
    bench.want("1=90,2=10@1");
    bench.report(&[("a", &["1", "2"])]);
    bench.published(1).await;
    let spoil = |object: &mut Value| object["spec"]["http"][2]["route"][0]["weight"] = json!(1);
    bench.memory.edit(&route(), "kubectl-edit", "Update", spoil);
    let told = bench.until_event("route.repaired").await;
    assert!(told.contains("VirtualService ml/sconce-fraud was changed by kubectl-edit"), "{told}");
    bench.until("published again", |it| it.state == State::Published).await;
    assert_eq!(bench.shares(), Some(routing("1=90,2=10@1")));
    // Whoever insists is told, and not answered at once: no loop.
    bench.memory.edit(&route(), "argo", "Update", spoil);
    let fights =
        |it: &Publication| matches!(&it.state, State::Conflict(why) if why.contains("after 1 repairs"));
    bench.until("a fight", fights).await;
    assert_eq!(bench.shares(), None);
    // Nobody insists any more, so the next repair holds.
    bench.until("published again", |it| it.state == State::Published).await;
    let forced = bench.memory.log().iter().filter(|line| line.starts_with("force")).count();
    assert_eq!((forced, bench.shares()), (2, Some(routing("1=90,2=10@1"))));
}

#[tokio::test]
async fn what_was_added_to_a_route_is_drift_and_so_is_its_deletion() {
    let mut bench = Bench::start();
    bench.want("1=100@1");
    bench.report(&[("a", &["1"])]);
    bench.published(1).await;
    bench.memory.edit(&route(), "kubectl", "Update", |object| object["spec"]["gateways"] = json!(["edge"]));
    bench.until_event("route.repaired").await;
    assert_eq!(bench.memory.object(&route()).expect("there")["spec"].get("gateways"), None);
    bench.memory.remove(&service());
    bench.until("repairs are due", |it| matches!(it.state, State::Published)).await;
    let restored = |seen: &Observed| seen.objects.contains_key(&service());
    bench.memory.observed().wait_for(restored).await.expect("put back");
}

#[tokio::test]
async fn drift_is_only_reported_where_so_configured() {
    let mut settings = Bench::start().settings;
    settings.drift = Drift::Report;
    let mut bench = Bench::with(settings, crate::publish::cluster::memory::Memory::new());
    bench.want("1=100@1");
    bench.report(&[("a", &["1"])]);
    bench.published(1).await;
    bench.memory.edit(&route(), "kubectl", "Update", |object| object["spec"]["http"] = json!([]));
    bench.until("reported", |it| matches!(it.state, State::Conflict(_))).await;
    assert_eq!(bench.memory.object(&route()).expect("there")["spec"]["http"], json!([]));
    // Endpoints are looked after all the same.
    bench.report(&[("a", &["1"]), ("b", &["1"])]);
    bench.memory.observed().wait_for(|seen| seen.pods.len() == 2).await.expect("b is an endpoint");
}

#[tokio::test]
async fn a_second_owner_is_a_conflict_even_where_drift_is_repaired() {
    let mut bench = Bench::start();
    bench.want("1=100@1");
    bench.report(&[("a", &["1"])]);
    bench.published(1).await;
    bench.memory.edit(&route(), "argocd-controller", "Apply", |object| object["spec"]["http"] = json!([]));
    let names =
        |it: &Publication| matches!(&it.state, State::Conflict(why) if why.contains("argocd-controller"));
    bench.until("a conflict", names).await;
    assert!(!bench.memory.log().iter().any(|line| line.starts_with("force")));
}

#[tokio::test]
async fn a_watch_that_lags_accuses_nobody() {
    let mut bench = Bench::start();
    bench.want("1=100@1");
    bench.report(&[("a", &["1"])]);
    bench.published(1).await;
    bench.memory.set_lagging(true);
    bench.want("1=100@2");
    bench.published(2).await;
    // Another pass sees the old route in the watch.
    bench.report(&[("a", &["1"]), ("b", &["1"])]);
    let mut log = bench.memory.log();
    while !log.contains(&"+ml/b".to_owned()) {
        tokio::task::yield_now().await;
        log = bench.memory.log();
    }
    assert!(!log.iter().any(|line| line.starts_with("force")), "{log:?}");
    assert!(bench.events().iter().all(|event| event.kind != "route.repaired"));
}

#[tokio::test]
async fn a_deleted_models_route_goes_first_and_nothing_is_left() {
    let mut bench = Bench::start();
    bench.want("1=100@1");
    bench.report(&[("a", &["1"])]);
    bench.published(1).await;
    let before = bench.memory.log().len();
    bench.set(None, 2);
    bench.until_event("route.withdrawn").await;
    let log = ["delete VirtualService ml/sconce-fraud", "delete Service ml/fraud", "-ml/a"];
    assert_eq!(bench.memory.log()[before..], log);
    bench.until_silent().await;
}

#[tokio::test]
async fn a_control_plane_that_lost_its_catalog_removes_no_route() {
    let mut bench = Bench::start();
    bench.want("1=100@7");
    bench.report(&[("a", &["1"])]);
    bench.published(7).await;
    let mut next = bench.succeed().await;
    next.set(None, 3);
    next.until("reported", |it| matches!(it.state, State::Conflict(_))).await;
    assert_eq!((next.shares(), next.memory.endpoints("fraud")), (Some(routing("1=100@7")), vec!["a".into()]));
}

#[tokio::test]
async fn what_the_cluster_refuses_is_said_and_keeps_no_other_model_waiting() {
    let mut bench = Bench::start();
    bench.memory.refuse(Some("sconce-fraud"));
    bench.want_two(["ml/fraud", "ml/other"], "1=100@1");
    bench.report(&[("a", &["1"])]);
    let failed = bench.until("refused", |it| matches!(it.state, State::Failed(_))).await;
    assert!(matches!(failed.state, State::Failed(why) if why.contains("not sconce-fraud")));
    bench.until_of("ml/other", "published", |it| it.state == State::Published).await;
    bench.memory.refuse(None);
    bench.published(1).await;
}

#[tokio::test]
async fn a_model_that_kubernetes_has_no_name_for_is_said_to_be_one() {
    let mut bench = Bench::start();
    bench.want_two(["ml/fraud", "ml/7up"], "1=100@1");
    bench.report(&[("a", &["1"])]);
    let failed = bench.until_of("ml/7up", "refused", |it| matches!(it.state, State::Failed(_))).await;
    assert!(matches!(failed.state, State::Failed(why) if why.contains("begins with a letter")));
    bench.published(1).await;
}

#[tokio::test]
async fn the_route_gives_up_its_host_when_a_root_delegates_to_it() {
    let mut bench = Bench::start();
    bench.want("1=100@1");
    bench.report(&[("a", &["1"])]);
    bench.published(1).await;
    let hosts = |object: &Value| object["spec"].get("hosts").cloned();
    assert_eq!(hosts(&bench.memory.object(&route()).expect("there")), Some(json!(["fraud"])));
    bench.memory.add_root("shop", ("ml", "sconce-fraud"));
    let gone = |seen: &Observed| seen.objects.get(&route()).is_some_and(|object| hosts(object).is_none());
    bench.memory.observed().wait_for(gone).await.expect("a delegate");
}

#[tokio::test]
async fn another_form_replaces_the_one_before_once_it_is_there() {
    let mut bench = Bench::start();
    bench.want("1=100@1");
    bench.report(&[("a", &["1"])]);
    bench.published(1).await;
    bench.settings.form = Form::GatewayApi;
    let before = bench.memory.log().len();
    // Nobody has reconnected yet, and nobody needs to: it is the same split.
    let mut next = bench.succeed().await;
    next.published(1).await;
    let log = [
        "apply Service ml/fraud",
        "apply HTTPRoute ml/sconce-fraud",
        "delete VirtualService ml/sconce-fraud",
    ];
    assert_eq!(next.memory.log()[before..], log);
    assert!(next.memory.object(&route_id(Kind::HttpRoute, &fraud())).is_some());
}

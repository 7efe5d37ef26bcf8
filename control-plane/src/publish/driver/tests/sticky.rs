//! Models whose callers are known: the mesh is given one destination, and what it cannot say is
//! read back all the same.

use sconce_catalog::Split;
use sconce_istio::names::SPLIT_ANNOTATION;

use super::*;

fn want(bench: &Bench, text: &str, sticky: Option<&str>) {
    let Routing { split, generation, .. } = routing(text);
    let sticky = sticky.map(|header| header.parse().expect("a header"));
    let model = Model { split: Some(split), generation, sticky, ..Model::default() };
    bench.set(Some(("ml/fraud", model)), generation.0);
}

fn published(bench: &Bench) -> Option<(Split, Option<String>)> {
    bench.shares().map(|routing| (routing.split, routing.sticky.map(|header| header.to_string())))
}

fn split(text: &str) -> Split {
    routing(text).split
}

#[tokio::test]
async fn what_a_sticky_route_cannot_say_survives_the_control_plane_that_wrote_it() {
    let mut bench = Bench::start();
    want(&bench, "1=90,2=10@1", Some("x-user-id"));
    bench.report(&[("a", &["1", "2"])]);
    bench.published(1).await;
    let sticky = Some("x-user-id".to_owned());
    assert_eq!(published(&bench), Some((split("1=90,2=10@1"), sticky.clone())));
    // A successor that nobody has reported to knows that an abort brings nothing new.
    let mut next = bench.succeed().await;
    want(&next, "1=100@2", Some("x-user-id"));
    next.published(2).await;
    assert_eq!(published(&next), Some((split("1=100@2"), sticky)));
    // The same split among requests again is another route.
    want(&next, "1=100@3", None);
    next.published(3).await;
    assert_eq!(published(&next), Some((split("1=100@3"), None)));
}

#[tokio::test]
async fn shares_that_somebody_writes_into_a_sticky_route_are_put_back() {
    let mut bench = Bench::start();
    want(&bench, "1=90,2=10@1", Some("x-user-id"));
    bench.report(&[("a", &["1", "2"])]);
    bench.published(1).await;
    bench.memory.edit(&route(), "kubectl-annotate", "Update", |object| {
        object["metadata"]["annotations"][SPLIT_ANNOTATION] = json!("1=10000");
    });
    bench.until_event("route.repaired").await;
    assert_eq!(published(&bench).map(|(split, _)| split), Some(split("1=90,2=10@1")));
}

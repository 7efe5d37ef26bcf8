//! Objects of declared models belong to the objects that declare them.

use super::*;

fn owned(object: &Value) -> bool {
    render::owner(object).is_some()
}

/// Waits until this holds of the Service and of the route.
async fn both(bench: &Bench, holds: impl Fn(&Value) -> bool) {
    let mut observed = bench.memory.observed();
    let all = observed.wait_for(|seen| {
        [service(), route()].iter().all(|id| seen.objects.get(id).is_some_and(|object| holds(object)))
    });
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("in time").expect("it lives");
}

#[tokio::test]
async fn what_is_published_for_a_declared_model_belongs_to_its_object() {
    let mut bench = Bench::start();
    bench.want("1=100@1");
    bench.report(&[("a", &["1"])]);
    bench.published(1).await;
    assert_eq!(bench.owned_by(), [None, None], "nobody declares it: it was pushed");
    bench.declare(Some(&["u-1"]));
    both(&bench, owned).await;
    let whose = [Some("u-1".to_owned()), Some("u-1".to_owned())];
    assert_eq!(bench.owned_by(), whose);
    // Who comes after a control plane does not know at once who declares what, and takes nothing away.
    let before = bench.memory.log().len();
    let mut next = bench.succeed().await;
    next.published(1).await;
    assert_eq!(next.owned_by(), whose);
    next.declare(Some(&["u-1"]));
    next.want("1=100@2");
    next.published(2).await;
    assert_eq!(next.owned_by(), whose);
    // Once each when it begins, and the route for the new split; nothing else.
    let written = &next.memory.log()[before..];
    assert_eq!(written.len(), 3, "{written:?}");
}

#[tokio::test]
async fn what_goes_with_a_deleted_object_is_put_back_once_while_the_catalog_has_the_model() {
    let mut bench = Bench::start();
    bench.declare(Some(&["u-1"]));
    bench.want("1=100@1");
    bench.report(&[("a", &["1"])]);
    bench.published(1).await;
    let before = bench.memory.log().len();
    // Somebody deletes the Model, and the garbage collector is faster than we are.
    bench.memory.remove(&route());
    bench.memory.remove(&service());
    bench.declare(Some(&[]));
    both(&bench, |object| !owned(object)).await;
    // Another generation, so that a whole pass has been made since.
    bench.want("1=100@2");
    bench.published(2).await;
    let log = bench.memory.log();
    let writes = |kind: &str| log[before..].iter().filter(|line| line.contains(kind)).count();
    // The route once more for the new generation.
    assert_eq!((writes("Service ml/fraud"), writes("VirtualService")), (1, 2), "{log:?}");
    assert_eq!(bench.owned_by(), [None, None]);
}

#[tokio::test]
async fn where_the_collector_is_slower_nothing_is_ever_away() {
    let mut bench = Bench::start();
    bench.declare(Some(&["u-1"]));
    bench.want("1=100@1");
    bench.report(&[("a", &["1"])]);
    bench.published(1).await;
    let uid = |bench: &Bench| bench.memory.object(&service()).expect("there")["metadata"]["uid"].clone();
    let first = uid(&bench);
    bench.declare(Some(&[]));
    both(&bench, |object| !owned(object)).await;
    // Another Model of that name, which is another owner.
    bench.declare(Some(&["u-2"]));
    both(&bench, owned).await;
    assert_eq!(bench.owned_by(), [Some("u-2".into()), Some("u-2".into())]);
    assert_eq!(uid(&bench), first, "it is the same Service all along");
    assert!(bench.memory.log().iter().all(|line| !line.starts_with("delete") && !line.starts_with("force")));
}

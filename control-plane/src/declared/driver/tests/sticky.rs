//! Callers of a model are known by what its object says.

use super::*;

#[tokio::test]
async fn a_sticky_header_is_enforced_while_it_is_said_and_left_alone_where_nothing_is() {
    let bench = Bench::start().await;
    bench.allow_secret(&bench.server);
    let one = bench.declare("1");
    bench.condition(&one, "Pulled", "Pulled").await;
    let known = async |by: Option<&str>| {
        let mut catalog = bench.store.catalog();
        let told = catalog.wait_for(|catalog| {
            let sticky = catalog.models[&fraud()].sticky.as_ref().map(ToString::to_string);
            sticky.as_deref() == by
        });
        tokio::time::timeout(PATIENCE, told).await.expect("in time").expect("it lives");
    };
    let model = bench.declare_model(&json!({ "stickyHeader": "X-User-Id" }));
    known(Some("x-user-id")).await;
    bench
        .until("the object says so", |observed| {
            let split = observed.objects.get(&model)?.status.split.as_deref();
            (split == Some("1=100 % by x-user-id")).then_some(())
        })
        .await;
    // Somebody says otherwise through the API, and it is put back.
    let whole = Split::whole("1".parse().expect("valid"));
    let set = bench.store.set_split("token:somebody", &fraud(), whole, Sticky::By(None)).await;
    set.expect("set");
    known(Some("x-user-id")).await;
    bench.declare_model(&json!({}));
    bench.declare_model(&json!({ "stickyHeader": "host" }));
    assert!(bench.condition(&model, "Ready", "Invalid").await.contains("spec.stickyHeader"));
    known(Some("x-user-id")).await;
    bench.declare_model(&json!({ "stickyHeader": "" }));
    known(None).await;
    bench.until_split("1=100 %").await;
}

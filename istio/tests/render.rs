//! Everything that is published, as files to review: `UPDATE=1 cargo test` rewrites them.

use std::{fs, path::PathBuf};

use sconce_catalog::{Generation, RouteHeader, Selector, Share, Split, Version};
use sconce_istio::{
    render::{
        Backend, Options, Owner, Routing, Snippet, http_route, lanes, owner, read, service, virtual_service,
    },
    selectors::Selectors,
    yaml,
};
use serde_json::{Value, json};

fn backend() -> Backend {
    Backend::new("ml/fraud".parse().expect("valid")).expect("publishable")
}

fn routing(shares: &[(&str, u32)]) -> Routing {
    let share = |n| Share::new(n).expect("in range");
    let split = Split::new(shares.iter().map(|(v, n)| (v.parse().expect("valid"), share(*n))));
    Routing { split: split.expect("a split"), generation: Generation(41), sticky: None }
}

fn sticky(routing: &Routing) -> Routing {
    Routing { sticky: Some("x-user-id".parse().expect("a header")), ..routing.clone() }
}

/// Compares with the file, or writes it.
fn golden(name: &str, objects: &[Value]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/render").join(name);
    let text = yaml::write(objects).expect("YAML");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).expect("written");
    }
    let kept = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(kept == text, "{} differs; UPDATE=1 rewrites it:\n{text}", path.display());
}

#[test]
fn what_is_published_is_what_was_reviewed() {
    let (backend, plain) = (backend(), Options::default());
    let canary = routing(&[("2026-11-22", 500), ("7", 9_500)]);
    let owned = Options { owner: Some(Owner { uid: "u-1".into() }), ..Options::default() };
    golden("service.yaml", &[service(&backend, &plain)]);
    golden("service-owned.yaml", &[service(&backend, &owned)]);
    golden("lanes.yaml", &[lanes("ml", &Selectors::default())]);
    let selector = |labels: &str| Selector::new(labels.parse().expect("labels"));
    let models = [("fraud", "team=pay,tier=edge"), ("churn", "team=pay"), ("everywhere", "")];
    let selectors: Selectors =
        models.map(|(model, labels)| (model.to_owned(), selector(labels))).into_iter().collect();
    golden("lanes-selectors.yaml", &[lanes("ml", &selectors)]);
    golden("whole.yaml", &[virtual_service(&backend, &routing(&[("7", 10_000)]), &plain)]);
    golden("canary.yaml", &[virtual_service(&backend, &canary, &plain)]);
    let delegate = Options { delegate: true, ..owned };
    golden("delegate.yaml", &[virtual_service(&backend, &canary, &delegate)]);
    golden("http-route.yaml", &[http_route(&backend, &canary, &plain).expect("few versions")]);
    golden("sticky.yaml", &[virtual_service(&backend, &sticky(&canary), &plain)]);
    golden("sticky-http-route.yaml", &[http_route(&backend, &sticky(&canary), &plain).expect("one")]);
    let snippets = ["authorization-policy", "peer-authentication", "telemetry", "destination-rule"];
    let snippet = |name: &str| name.parse::<Snippet>().expect("a snippet").render(&backend);
    golden("snippets.yaml", &snippets.map(snippet));
}

/// Numbers that look random and are the same in every run (the multiplier is Knuth's for MMIX).
fn numbers(seed: u64) -> impl Iterator<Item = u32> {
    let next =
        |n: &u64| Some(n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
    std::iter::successors(Some(seed), next).skip(1).map(|n| (n >> 33) as u32)
}

fn random_routing(seed: u64) -> Routing {
    let mut numbers = numbers(seed);
    let mut draw = |below: u32| numbers.next().expect("endless") % below;
    let count = 1 + draw(16);
    let mut cuts: Vec<u32> = (1..count).map(|_| draw(10_001)).collect();
    cuts.extend([0, 10_000]);
    cuts.sort_unstable();
    let shares = cuts.windows(2).enumerate().map(|(i, cut)| {
        (format!("v{i}").parse().expect("valid"), Share::new(cut[1] - cut[0]).expect("in range"))
    });
    Routing {
        split: Split::new(shares).expect("the cuts span the line"),
        generation: Generation(draw(u32::MAX).into()),
        sticky: None,
    }
}

#[test]
fn whatever_the_split_each_share_is_one_destination_and_they_sum_to_the_whole() {
    for seed in 0..500 {
        let (backend, routing) = (backend(), random_routing(seed));
        let object = virtual_service(&backend, &routing, &Options::default());
        let rules = object["spec"]["http"].as_array().expect("rules");
        let weighted = rules.last().expect("a rule")["route"].as_array().expect("destinations");
        let mut named: Vec<Version> = Vec::new();
        let mut sum = 0;
        for one in weighted {
            let set = one["headers"]["request"]["set"].as_object().expect("headers");
            assert_eq!(set.len(), 1, "one header, and no other: {one}");
            let header: RouteHeader =
                set["x-sconce-route"].as_str().expect("text").parse().expect("a sidecar reads it");
            let route = header.of(|spelled| spelled == "ml/fraud").expect("it is the model's");
            assert_eq!(route.generation, routing.generation);
            let version = route.version.expect("a version");
            let weight = one["weight"].as_u64().expect("a weight");
            assert_eq!(weight, u64::from(routing.split.share(&version).ten_thousandths()));
            let live = one["destination"]["port"]["number"] == 80;
            assert_eq!(live, version == *routing.split.stable(), "only stable is live: {one}");
            sum += weight;
            named.push(version);
        }
        assert_eq!((sum, named.len()), (10_000, routing.split.shares().len()), "seed {seed}");
        named.sort();
        named.dedup();
        assert_eq!(named.len(), routing.split.shares().len(), "each version once, seed {seed}");
        for rule in rules {
            assert!(rule.get("headers").is_none(), "a route's own operations would win: {rule}");
        }
    }
}

#[test]
fn a_cluster_says_what_is_published() {
    for seed in 0..500 {
        let (backend, routing) = (backend(), random_routing(seed));
        for delegate in [false, true] {
            let options = Options { delegate, ..Options::default() };
            assert_eq!(read(&virtual_service(&backend, &routing, &options)), Some(routing.clone()));
        }
        let route = http_route(&backend, &routing, &Options::default()).expect("16 at most");
        assert_eq!(read(&route), Some(routing.clone()));
        let sticky = sticky(&routing);
        for route in [
            virtual_service(&backend, &sticky, &Options::default()),
            http_route(&backend, &sticky, &Options::default()).expect("one"),
        ] {
            assert_eq!(read(&route), Some(sticky.clone()));
        }
    }
}

#[test]
fn of_a_sticky_model_the_mesh_decides_nothing() {
    let (backend, canary) = (backend(), sticky(&routing(&[("7", 9_500), ("8", 500)])));
    let route = virtual_service(&backend, &canary, &Options::default());
    let rules = route["spec"]["http"].as_array().expect("rules");
    let last = rules.last().expect("a rule")["route"].as_array().expect("destinations");
    assert_eq!(last.len(), 1, "{route}");
    assert_eq!(last[0]["headers"]["request"]["set"]["x-sconce-route"], "ml/fraud@41");
    // More versions than an HTTPRoute has destinations for are no trouble.
    let shares: Vec<(String, u32)> = (0..20).map(|i| (format!("v{i}"), 500)).collect();
    let shares: Vec<(&str, u32)> = shares.iter().map(|(v, n)| (v.as_str(), *n)).collect();
    assert!(http_route(&backend, &sticky(&routing(&shares)), &Options::default()).is_ok());
}

#[test]
fn a_cluster_says_whose_an_object_is() {
    let (backend, routing) = (backend(), routing(&[("7", 10_000)]));
    let whose = Owner { uid: "u-1".into() };
    let owned = Options { owner: Some(whose.clone()), ..Options::default() };
    let mut route = http_route(&backend, &routing, &owned).expect("few versions");
    for object in [&service(&backend, &owned), &virtual_service(&backend, &routing, &owned), &route] {
        assert_eq!(owner(object), Some(whose.clone()), "{object}");
    }
    // Somebody else may own it as well.
    let other = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "fraud", "uid": "u-2" });
    route["metadata"]["ownerReferences"].as_array_mut().expect("a list").insert(0, other.clone());
    assert_eq!(owner(&route), Some(whose));
    route["metadata"]["ownerReferences"] = json!([other]);
    assert_eq!(owner(&route), None);
    assert_eq!(owner(&service(&backend, &Options::default())), None);
}

#[test]
fn a_route_that_somebody_changed_is_not_taken_for_ours() {
    let good = virtual_service(&backend(), &routing(&[("1", 9_000), ("2", 1_000)]), &Options::default());
    let weighted = "/spec/http/2/route";
    let changes: [(&str, Value); 5] = [
        ("/0/weight", json!(8_000)),
        ("/0/weight", json!(10_000)),
        ("/1/headers/request/set/x-sconce-route", json!("ml/fraud/2@40")),
        ("/1/headers/request/set/x-sconce-route", json!("ml/other/2@41")),
        ("/1/headers", json!({})),
    ];
    for (at, value) in changes {
        let mut object = good.clone();
        *object.pointer_mut(&format!("{weighted}{at}")).expect("there") = value;
        assert_eq!(read(&object), None, "{at}");
    }
    assert_eq!(read(&service(&backend(), &Options::default())), None);
    let good =
        virtual_service(&backend(), &sticky(&routing(&[("1", 9_000), ("2", 1_000)])), &Options::default());
    for (key, text) in [
        ("sconce.dev/split", "1=9000,2=999"),
        ("sconce.dev/split", "1=9000"),
        ("sconce.dev/split", ""),
        ("sconce.dev/sticky", "host"),
    ] {
        let mut object = good.clone();
        object["metadata"]["annotations"][key] = json!(text);
        assert_eq!(read(&object), None, "{key}: {text}");
    }
}

#[test]
fn more_versions_than_an_http_route_can_have_are_refused_by_name() {
    let shares: Vec<(String, u32)> =
        (0..17).map(|i| (format!("v{i}"), if i == 0 { 8_400 } else { 100 })).collect();
    let shares: Vec<(&str, u32)> = shares.iter().map(|(v, n)| (v.as_str(), *n)).collect();
    let error = http_route(&backend(), &routing(&shares), &Options::default()).expect_err("17");
    assert!(error.to_string().contains("17 versions of `ml/fraud`"), "{error}");
}

#[test]
fn names_that_kubernetes_has_no_service_for_are_refused_with_what_to_do() {
    for name in ["7-eleven", &"a".repeat(58)] {
        let error = Backend::new(name.parse().expect("a model's name")).expect_err("no Service's");
        assert!(error.to_string().contains("push under another name"), "{error}");
    }
    let longest = Backend::new("a".repeat(57).parse().expect("valid")).expect("fits");
    let name_part = longest.label().split_once('/').map(|(_, name)| name.len());
    assert_eq!(name_part, Some(63), "the longest that a label's key may have");
}

#[test]
fn delegates_are_found_in_their_roots_namespace_unless_they_name_one() {
    let root = json!({
        "metadata": { "name": "fraud", "namespace": "shop" },
        "spec": { "http": [
            { "match": [{ "uri": { "prefix": "/user" } }], "route": [] },
            { "delegate": { "name": "sconce-fraud", "namespace": "ml" } },
            { "delegate": { "name": "sconce-near" } },
        ] },
    });
    let found = sconce_istio::render::delegates(&root);
    assert_eq!(found, [("ml".into(), "sconce-fraud".into()), ("shop".into(), "sconce-near".into())]);
    assert!(sconce_istio::render::delegates(&json!({})).is_empty());
}

#[test]
fn a_mesh_that_is_told_not_to_retry_is_told_so_in_every_rule() {
    let one = routing(&[("7", 10_000)]);
    let none = Options { retries: 0, ..Options::default() };
    let route = virtual_service(&backend(), &one, &none);
    let rules = route["spec"]["http"].as_array().expect("rules");
    // Left out, Istio would retry twice.
    assert!(rules.iter().all(|rule| rule["retries"] == json!({ "attempts": 0 })), "{route}");
    let usual = virtual_service(&backend(), &one, &Options::default());
    assert_eq!(usual["spec"]["http"][0]["retries"]["attempts"], 2);
}

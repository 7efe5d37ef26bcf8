//! Every transition, as a table: pods are written as `name`, `*` for an endpoint, and what they
//! say: `a*:1,2` has versions 1 and 2 ready, `b:1,2?` still loads 2, `c:1,2!` rejected it, and
//! `d*~90` has not been heard of for 90 seconds.

use sconce_catalog::{Generation, Share};

use super::*;

const RULES: Rules = Rules { floor: 75, grace: Duration::from_secs(60) };

fn pods(text: &str) -> BTreeMap<String, Pod> {
    text.split_whitespace().map(pod).collect()
}

fn pod(text: &str) -> (String, Pod) {
    let end = text.find(['*', ':', '~']).expect("a pod says something");
    let (name, rest) = text.split_at(end);
    let endpoint = rest.starts_with('*');
    let rest = rest.trim_start_matches('*');
    if let Some(seconds) = rest.strip_prefix('~') {
        let absent = Some(Duration::from_secs(seconds.parse().expect("seconds")));
        return (name.into(), Pod { endpoint, absent, versions: BTreeMap::new() });
    }
    let versions = rest.trim_start_matches(':').split(',').filter(|text| !text.is_empty());
    let versions = versions.map(|text| {
        let standing = match text.chars().last() {
            Some('?') => Standing::Loading(None),
            Some('!') => Standing::Rejected("it is bad".into()),
            _ => Standing::Ready,
        };
        (text.trim_end_matches(['?', '!']).parse().expect("a version"), standing)
    });
    (name.into(), Pod { endpoint, absent: None, versions: versions.collect() })
}

/// `1=90,2=10@5`.
pub(in crate::publish) fn routing(text: &str) -> Routing {
    let (split, generation) = text.split_once('@').expect("a generation");
    let shares = split.split(',').map(|share| {
        let (version, percent) = share.split_once('=').expect("a share");
        let percent: u32 = percent.parse().expect("a number");
        (version.parse().expect("a version"), Share::new(percent * 100).expect("in range"))
    });
    let generation = Generation(generation.parse().expect("a number"));
    Routing { split: Split::new(shares).expect("a split"), generation, sticky: None }
}

fn planned(published: &str, wanted: &str, text: &str) -> Plan {
    let published = (!published.is_empty()).then(|| routing(published));
    let (wanted, pods) = (routing(wanted), pods(text));
    plan(Situation { wanted: &wanted, published: published.as_ref(), pods: &pods, rules: RULES })
}

/// `-a -b publish +c`, as carried out.
fn said(plan: &Plan) -> String {
    let route = match &plan.route {
        Next::Stay => "stay",
        Next::Publish => "publish",
        Next::Wait(_) => "wait",
    };
    let unlabel = plan.unlabel.iter().map(|name| format!("-{name}"));
    let label = plan.label.iter().map(|name| format!("+{name}"));
    unlabel.chain([route.to_owned()]).chain(label).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_transition() {
    let table: &[(&str, &str, &str, &str)] = &[
        // The first split.
        ("", "1=100@1", "", "wait"),
        ("", "1=100@1", "a:1?", "wait"),
        ("", "1=100@1", "a:1", "publish +a"),
        ("", "1=100@1", "a:1 b:1 c:1 d:1?", "publish +a +b +c"),
        ("", "1=100@1", "a:1 b:1 c:1? d:1?", "wait"),
        ("", "1=100@1", "a:1!", "wait"),
        // Nothing is known of labels from another life, so they are left as they are.
        ("", "1=100@1", "a*:1?", "wait"),
        ("", "1=100@1", "a*~90", "wait"),
        // Nothing changes, pods come and go.
        ("1=100@1", "1=100@1", "a*:1", "stay"),
        ("1=100@1", "1=100@1", "a*:1 b:1", "stay +b"),
        ("1=100@1", "1=100@1", "a*:1 b:1?", "stay"),
        ("1=90,2=10@1", "1=90,2=10@1", "a*:1,2 b:1", "stay"),
        // A version with a share is not ready on an endpoint any more.
        ("1=90,2=10@1", "1=90,2=10@1", "a*:1,2 b*:1,2 c*:1,2 d*:1", "-d stay"),
        ("1=90,2=10@1", "1=90,2=10@1", "a*:1,2 b*:1,2 c*:1,2 d*:1,2!", "-d stay"),
        // A newcomer makes room for one that lacks something.
        ("1=90,2=10@1", "1=90,2=10@1", "a*:1,2 b*:1 c:1,2", "stay +c"),
        ("1=90,2=10@1", "1=90,2=10@1", "a*:1,2 b*:1 c:1,2 d:1,2", "-b stay +c +d"),
        // Never below the floor: those that lack one version answer with the other.
        ("1=90,2=10@1", "1=90,2=10@1", "a*:1,2 b*:1 c*:1 d*:1", "-b stay"),
        ("1=90,2=10@1", "1=90,2=10@1", "a*:1 b*:1", "stay"),
        // One that can answer nothing goes whatever the floor says.
        ("1=90,2=10@1", "1=90,2=10@1", "a*:1,2 b*: c*:3", "-b -c stay"),
        ("1=100@1", "1=100@1", "a*:1?", "-a stay"),
        // Endpoints that are not heard of: for a while, nothing; then, as far as the floor allows.
        ("1=100@1", "1=100@1", "a*~5 b*~5 c*~5 d*:1", "stay"),
        ("1=100@1", "1=100@1", "a*~59 b*:1 c*:1 d*:1", "stay"),
        ("1=100@1", "1=100@1", "a*~60 b*:1 c*:1 d*:1", "-a stay"),
        ("1=100@1", "1=100@1", "a*~60 b*~60 c*:1 d*:1", "-a stay"),
        ("1=100@1", "1=100@1", "a*~900 b*~900", "stay"),
        // A new version: it waits for the floor, and meanwhile endpoints are those of the old.
        ("1=100@1", "1=99,2=1@2", "a*:1 b*:1", "wait"),
        ("1=100@1", "1=99,2=1@2", "a*:1,2 b*:1,2?", "wait"),
        ("1=100@1", "1=99,2=1@2", "a*:1,2 b*:1,2? c:1", "wait +c"),
        ("1=100@1", "1=99,2=1@2", "a*:1,2 b*:1,2", "publish"),
        ("1=100@1", "1=99,2=1@2", "a*:1,2 b*:1,2 c*:1,2 d*:1,2!", "-d publish"),
        ("1=100@1", "1=99,2=1@2", "a*:1,2 b*:1,2 c:1,2 d*:1,2!", "-d publish +c"),
        ("1=100@1", "2=100@2", "a*:1,2 b*:1,2", "publish"),
        // It also waits for endpoints that may be about to reconnect, and then goes without them.
        ("1=100@1", "1=99,2=1@2", "a*:1,2 b*:1,2 c*:1,2 d*~5", "wait"),
        ("1=100@1", "1=99,2=1@2", "a*:1,2 b*:1,2 c*:1,2 d*~60", "-d publish"),
        ("1=100@1", "1=99,2=1@2", "a*:1,2 b*~60", "wait"),
        // After a restart nobody is connected: nothing happens.
        ("1=100@1", "1=99,2=1@2", "a*~0 b*~0", "wait"),
        ("1=90,2=10@1", "1=90,2=10@1", "a*~0 b*~0", "stay"),
        // Steps between the same versions and aborts wait for nothing and nobody.
        ("1=99,2=1@2", "1=50,2=50@3", "a*:1,2 b*:1,2", "publish"),
        ("1=50,2=50@3", "1=100@4", "a*:1,2 b*:1,2 c*:1", "publish"),
        ("1=50,2=50@3", "1=100@4", "a*~5 b*~5", "publish"),
        ("1=50,2=50@3", "1=100@4", "", "publish"),
        ("1=50,2=50@3", "1=100@4", "a*:1 b*:1", "publish"),
        ("1=50,2=50@3", "2=100@4", "a*:1,2 b*:1,2", "publish"),
        // The same shares again are a route of their own: its generation is to be proven.
        ("1=100@1", "1=100@2", "a*:1", "publish"),
        // An old version is gone from the pods before the new route was ready.
        ("1=90,8=10@1", "1=50,9=50@2", "a*:1 b*:1 c*:1 d*:1", "-a wait"),
        ("1=90,8=10@1", "1=50,9=50@2", "a*:1,9 b*:1,9", "publish"),
    ];
    for (published, wanted, pods, expected) in table {
        let plan = planned(published, wanted, pods);
        assert_eq!(said(&plan), *expected, "{published} → {wanted} with {pods}: {plan:?}");
    }
}

#[test]
fn who_waits_is_told_for_which_pods_and_versions() {
    let reason = |published, wanted, pods| match planned(published, wanted, pods).route {
        Next::Wait(reason) => reason,
        other => panic!("{other:?}"),
    };
    let told = reason("1=100@1", "1=99,2=1@2", "a*:1,2 b*:1,2? c*:1,2! d*:1");
    assert_eq!(
        told,
        "1 of 4 pods have every version of the split ready, 3 are needed; b: 2 is loading; \
         c: 2 was rejected: it is bad; d: 2 has not been heard of"
    );
    assert!(reason("1=100@1", "2=100@2", "a*:1,2 b*~3").contains("reconnect: b"));
    let many: String = (0..30).map(|n| format!("p{n}:1 ")).collect();
    assert!(reason("1=100@1", "2=100@2", &many).ends_with("and 25 more"));
}

#[test]
fn endpoints_that_stay_although_they_lack_something_are_named() {
    let plan = planned("1=90,2=10@1", "1=90,2=10@1", "a*:1 b*:1");
    let texts: Vec<&str> = plan.lacking.iter().map(Lacking::text).collect();
    assert_eq!(texts, ["a: 2 has not been heard of", "b: 2 has not been heard of"]);
}

#[test]
fn connected_pods_that_are_no_endpoints_are_named() {
    let left_out = |published, wanted, pods| {
        let plan = planned(published, wanted, pods);
        plan.left_out.iter().map(|lacking| lacking.text().to_owned()).collect::<Vec<_>>()
    };
    let pods = "a*:1,2 b*:1,2 c*:1,2 d*:1 e:1,2? f~5";
    assert_eq!(
        left_out("1=100@1", "1=50,2=50@2", "a*:1,2 b*:1,2 c*:1,2 d*:1"),
        ["d: 2 has not been heard of"]
    );
    // The floor keeps d.
    assert_eq!(left_out("1=50,2=50@1", "1=50,2=50@1", pods), ["e: 2 is loading"]);
    assert!(left_out("1=100@1", "1=100@1", pods).is_empty());
}

#[test]
fn time_alone_changes_a_plan_when_a_grace_ends() {
    assert_eq!(planned("1=100@1", "1=100@1", "a*~10 b*~55 c*:1").recheck, Some(Duration::from_secs(5)));
    assert_eq!(planned("1=100@1", "1=100@1", "a*~60 b:1 c~10").recheck, None);
}

/// Whatever happens, in whatever order: a share that is published points only at what every
/// endpoint that can be heard has ready, unless a pod lost a version by itself.
#[test]
fn a_new_version_is_never_published_to_an_endpoint_without_it() {
    let states = ["a*:1", "a*:1,2", "a*:1,2?", "a*~5", "a*~90", "a:1", "a:1,2", "a~5"];
    let pick = |n: usize, name: &str| states[n % states.len()].replacen('a', name, 1);
    for n in 0..states.len().pow(4) {
        let text = [("p", 1), ("q", 8), ("r", 64), ("s", 512)].map(|(name, by)| pick(n / by, name)).join(" ");
        let plan = planned("1=100@1", "1=50,2=50@2", &text);
        if plan.route != Next::Publish {
            continue;
        }
        let pods = pods(&text);
        let endpoints = pods.iter().filter(|(name, pod)| pod.endpoint && !plan.unlabel.contains(*name));
        let joining = pods.iter().filter(|(name, _)| plan.label.contains(*name));
        for (name, pod) in endpoints.chain(joining) {
            assert!(pod.keeps(&routing("1=50,2=50@2")), "{name} in {text}: {plan:?}");
        }
    }
}

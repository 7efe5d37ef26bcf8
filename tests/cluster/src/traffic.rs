//! Callers in pods of the cluster, and what they saw.

use serde_json::Value;

use crate::{Cluster, Scenario, binomial, eventually};

/// How improbable a share must be that is taken for a wrong one.
const ALPHA: f64 = 1e-6;

/// A container to call from.
#[derive(Clone, Copy)]
pub struct Caller<'c> {
    cluster: &'c Cluster,
    namespace: &'static str,
    pod: &'c str,
}

/// What a caller saw.
#[derive(Clone, Debug)]
pub struct Seen(Value);

/// Somebody who calls until told to stop: the file that tells, what was printed, and the file that
/// says that it was.
pub struct Background {
    files: [String; 3],
}

impl<'c> Caller<'c> {
    /// The container `app` of this pod.
    pub fn new(cluster: &'c Cluster, namespace: &'static str, pod: &'c str) -> Self {
        Self { cluster, namespace, pod }
    }

    /// Calls with these words, such as `http digits.models 1000 --callers 4`.
    ///
    /// # Panics
    /// Where no caller runs there.
    pub fn call(&self, words: &str) -> Seen {
        let said = self.cluster.shell(self.namespace, self.pod, &format!("caller {words}"));
        Seen(serde_json::from_str(&said.expect("the caller runs")).expect("its report"))
    }

    /// Calls in the background, until stopped; `name` tells it from others in the same pod. The
    /// caller is the pod's own process: it goes on while the API server is away.
    ///
    /// # Panics
    /// Where the pod cannot be reached.
    pub fn keep_calling(&self, protocol: &str, authority: &str, name: &str, more: &str) -> Background {
        let files = ["enough", "seen", "done"].map(|what| format!("/tmp/{what}-{name}"));
        let [enough, seen, done] = &files;
        let call = format!("caller {protocol} {authority} {enough} {more} > {seen} 2>&1; touch {done}");
        let line = format!("rm -f {enough} {seen} {done}; ( {call} ) > /dev/null 2>&1 < /dev/null &");
        self.cluster.shell(self.namespace, self.pod, &line).expect("it runs");
        Background { files }
    }

    /// Ends a caller in the background: what it saw.
    ///
    /// # Panics
    /// Where it did not end as it should.
    pub fn stop(&self, background: Background) -> Seen {
        let [enough, seen, done] = &background.files;
        let shell = |line: &str| self.cluster.shell(self.namespace, self.pod, line);
        shell(&format!("touch {enough}")).expect("it runs");
        eventually("the caller has ended", || shell(&format!("cat {done}")).is_ok());
        let said = shell(&format!("cat {seen}")).expect("what it printed");
        Seen(serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}")))
    }
}

impl Seen {
    /// Requests that were asked.
    pub fn requests(&self) -> u64 {
        self.0["requests"].as_u64().unwrap_or_default()
    }

    /// Of those, the ones that failed.
    pub fn failed(&self) -> u64 {
        self.0["failed"].as_u64().unwrap_or(u64::MAX)
    }

    /// Of those, the ones that a server had too much to do for, and said so.
    pub fn refused(&self) -> u64 {
        self.0["refused"].as_u64().unwrap_or_default()
    }

    /// Of those, the ones that this version answered.
    pub fn answers(&self, version: &str) -> u64 {
        self.0["versions"][version].as_u64().unwrap_or_default()
    }

    /// When the last answer of this version came, in milliseconds since 1970.
    pub fn last(&self, version: &str) -> u64 {
        self.0["last_ms"][version].as_u64().unwrap_or_default()
    }

    /// When the request was sent that this version answered and that was sent last, in
    /// milliseconds since 1970.
    pub fn last_sent(&self, version: &str) -> u64 {
        self.0["last_sent_ms"][version].as_u64().unwrap_or_default()
    }

    /// Of the people that requests were for, those that only this version answered; `several`, those
    /// that more than one did.
    pub fn people(&self, version: &str) -> u64 {
        self.0["people"][version].as_u64().unwrap_or_default()
    }

    /// A figure of the report, such as `p99_ms`.
    pub fn figure(&self, name: &str) -> Value {
        self.0[name].clone()
    }

    /// Counts what was seen, none of which may have failed.
    ///
    /// # Panics
    /// Where one has.
    pub fn none_failed(self, scenario: &mut Scenario, when: &str) -> Self {
        let failed = self.failed() + self.refused();
        scenario.count(self.requests(), failed);
        assert!(self.requests() > 0 && failed == 0, "{when}: {}", self.0);
        self
    }

    /// Whether version 2 answered as much as it should, but for chance.
    ///
    /// # Panics
    /// Where it did not.
    pub fn has_share(&self, percent: u32) {
        let expected = binomial::interval(self.requests(), f64::from(percent) / 100.0, ALPHA);
        assert!(expected.contains(&self.answers("2")), "{percent} %: {}, expected {expected:?}", self.0);
    }
}

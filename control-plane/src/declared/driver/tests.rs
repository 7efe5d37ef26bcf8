//! The reconciler on a cluster in memory, with a real store and pulls from a real server.

use sconce_catalog::{ModelName, Version};
use sconce_lifecycle::Stopping;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use self::server::{Server, archive, digest};
use super::*;
use crate::{
    declared::{
        cluster::{Secret, memory::Memory},
        objects::tests::version,
    },
    fleet::{Member, PodName, Standing as OnPod},
    publish,
    pull::Settings,
};

mod dying;
mod server;
mod sticky;

const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    memory: Memory,
    store: Store,
    members: watch::Sender<Arc<Members>>,
    held: watch::Sender<Option<Instant>>,
    /// Where `/1.pt` and `/2.pt` are.
    server: String,
    files: Server,
    folder: tempfile::TempDir,
    driver: JoinSet<()>,
}

impl Bench {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let files = Server::start(folder.path()).await;
        Self::open(folder, files, Memory::new()).await
    }

    /// A control plane on this folder and this cluster.
    async fn open(folder: tempfile::TempDir, files: Server, memory: Memory) -> Self {
        let store = Store::open(&folder.path().join("store")).await.expect("a store");
        let server = files.address.clone();
        let settings = Settings {
            policy: format!("{server}/").parse().expect("valid"),
            ca: Some(folder.path().join("ca.pem")),
        };
        let pulls = Pulls::new(settings, store.clone()).expect("a client");
        let fleet = Fleet::new(store.clone());
        let sources = publish::Sources {
            name: "a".into(),
            store: store.clone(),
            fleet: fleet.clone(),
            owners: watch::channel(crate::declared::nobody()).1,
            stopping: Stopping::new(),
        };
        let (publications, _) = publish::open(None, sources).await.expect("nothing is published");
        let (members, seen) = watch::channel(Arc::new(Members::new()));
        let (held, holding) = watch::channel(Some(Instant::now() + PATIENCE * 10));
        let inputs =
            Inputs { observed: memory.observed(), catalog: store.catalog(), members: seen, held: holding };
        let plane = Plane { store: store.clone(), fleet, publications, pulls };
        let mut driver = JoinSet::new();
        driver.spawn(Driver::new(memory.clone(), inputs, plane).run());
        Self { memory, store, members, held, server, files, folder, driver }
    }

    /// Declares a version of `ml/fraud` as an object called `fraud-<version>`.
    fn declare(&self, number: &str) -> ObjectId {
        let address = format!("{}/{number}.pt", self.server);
        let object = version(&format!("fraud-{number}"), number, &address, &digest(number));
        self.memory.apply(Kind::Version, object)
    }

    fn declare_model(&self, spec: &Value) -> ObjectId {
        let object = json!({ "metadata": { "name": "fraud", "namespace": "ml" }, "spec": spec });
        self.memory.apply(Kind::Model, object)
    }

    async fn until<T>(&self, what: &str, holds: impl Fn(&Observed) -> Option<T>) -> T {
        let mut observed = self.memory.observed();
        let found = async {
            loop {
                if let Some(found) = holds(&observed.borrow_and_update()) {
                    return found;
                }
                observed.changed().await.expect("the cluster lives");
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| {
            panic!("it never came true: {what}; {:#?}", self.memory.observed().borrow().objects)
        })
    }

    /// Waits until a condition has this reason, and gives back its message.
    async fn condition(&self, id: &ObjectId, kind: &str, reason: &str) -> String {
        self.until(&format!("{kind} of {id} is {reason}"), |observed| {
            let condition = observed.objects.get(id)?.status.condition(kind)?;
            (condition.reason == reason).then(|| condition.message.clone())
        })
        .await
    }

    async fn gone(&self, id: &ObjectId) {
        self.until(&format!("{id} is gone"), |observed| (!observed.objects.contains_key(id)).then_some(()))
            .await;
    }

    fn catalog(&self) -> Arc<Catalog> {
        self.store.catalog().borrow().clone()
    }

    fn versions(&self) -> Vec<String> {
        let catalog = self.catalog();
        let model = catalog.models.get(&fraud());
        model.map(|model| model.versions.keys().map(Version::to_string).collect()).unwrap_or_default()
    }

    async fn until_split(&self, text: &str) {
        let mut catalog = self.store.catalog();
        let there = |catalog: &Arc<Catalog>| {
            let split = catalog.models.get(&fraud()).and_then(|model| model.split.as_ref());
            split.is_some_and(|split| split.to_string() == text)
        };
        let found = tokio::time::timeout(PATIENCE, catalog.wait_for(there)).await;
        assert!(found.is_ok(), "the split never was {text}");
    }

    /// The pods of `ml` that are connected, each with what it has of the model.
    fn report(&self, pods: &[(&str, &[(&str, OnPod)])]) {
        let one = |(name, versions): &(&str, &[(&str, OnPod)])| {
            let versions =
                versions.iter().map(|(name, on)| (name.parse().expect("valid"), on.clone())).collect();
            let pod = PodName { namespace: "ml".into(), name: (*name).into() };
            (pod, Member { connected: true, versions: [(fraud(), versions)].into(), ..Member::default() })
        };
        self.members.send_replace(Arc::new(pods.iter().map(one).collect()));
    }

    fn allow_secret(&self, sources: &str) {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let secret = Secret {
            annotations: [pair("sconce.dev/sources", sources)].into(),
            values: [pair("username", "ci"), pair("password", "secret")].into(),
        };
        self.memory.put_secret("ml", "files", secret);
    }
}

fn fraud() -> ModelName {
    "ml/fraud".parse().expect("valid")
}

#[tokio::test]
async fn a_declared_version_is_pulled_and_its_pods_are_told_of() {
    let bench = Bench::start().await;
    let one = bench.declare("1");
    bench.condition(&one, "Pulled", "Pulled").await;
    assert_eq!(bench.versions(), ["1"]);
    let record = bench.catalog().models[&fraud()].versions[&"1".parse().expect("valid")].clone();
    assert_eq!(record.pushed_by, "kubernetes:modelversions/ml/fraud-1");
    bench.condition(&one, "Ready", "NoPods").await;
    bench.report(&[("a", &[("1", OnPod::Ready)]), ("b", &[])]);
    assert_eq!(bench.condition(&one, "Ready", "Loading").await, "not loaded yet by b");
    bench.report(&[("a", &[("1", OnPod::Ready)]), ("b", &[("1", OnPod::Rejected("NaN".into()))])]);
    assert!(bench.condition(&one, "Ready", "Rejected").await.contains("b: NaN"));
    bench.report(&[("a", &[("1", OnPod::Ready)]), ("b", &[("1", OnPod::Ready)])]);
    bench.condition(&one, "Ready", "Ready").await;
    let told: Vec<String> = bench.memory.notes().into_iter().map(|(_, reason)| reason).collect();
    assert_eq!(told, ["Pulled", "NoPods", "Rejected", "Ready"]);
    let status = bench.memory.observed().borrow().objects[&one].status.clone();
    assert_eq!((status.pods.as_deref(), status.share.as_deref()), (Some("2/2"), Some("100 %")));
}

#[tokio::test]
async fn why_a_version_is_not_pulled_is_said_and_a_new_secret_is_tried_at_once() {
    let bench = Bench::start().await;
    let wrong = version("wrong", "9", &format!("{}/1.pt", bench.server), &digest("2"));
    let wrong = bench.memory.apply(Kind::Version, wrong);
    assert!(bench.condition(&wrong, "Pulled", "DigestMismatch").await.contains("has other bytes"));
    let foreign = version("foreign", "8", "s3://elsewhere/1.pt", &digest("1"));
    let foreign = bench.memory.apply(Kind::Version, foreign);
    assert!(bench.condition(&foreign, "Ready", "SourceNotAllowed").await.contains("SCONCE_SOURCES"));
    let invalid = version("invalid", "auto", "s3://elsewhere/1.pt", "none");
    let invalid = bench.memory.apply(Kind::Version, invalid);
    assert!(bench.condition(&invalid, "Ready", "Invalid").await.contains("auto"));

    let two = bench.declare("2");
    assert!(bench.condition(&two, "Pulled", "SourceDenied").await.contains("/2.pt"));
    let with = |secret: &str| {
        let mut object = version("fraud-2", "2", &format!("{}/2.pt", bench.server), &digest("2"));
        object["spec"]["source"]["secretRef"] = json!({ "name": secret });
        bench.memory.apply(Kind::Version, object);
    };
    with("none");
    assert!(bench.condition(&two, "Pulled", "SecretMissing").await.contains("ml/none"));
    bench.allow_secret("https://elsewhere.example.com/");
    with("files");
    assert!(bench.condition(&two, "Pulled", "SecretNotAllowed").await.contains("sconce.dev/sources"));
    bench.allow_secret(&bench.server);
    with("files");
    bench.condition(&two, "Pulled", "Pulled").await;

    bench.memory.forbid_secrets("ml");
    let mut object = version("three", "3", &format!("{}/2.pt", bench.server), &digest("2"));
    object["spec"]["source"]["secretRef"] = json!({ "name": "files" });
    let three = bench.memory.apply(Kind::Version, object);
    assert!(bench.condition(&three, "Pulled", "SecretNotReadable").await.contains("`get` on it"));
}

#[tokio::test]
async fn a_declared_split_wins_and_an_absent_one_is_left_alone() {
    let bench = Bench::start().await;
    bench.allow_secret(&bench.server);
    let model = bench.declare_model(&json!({ "selector": { "matchLabels": { "team": "pay" } } }));
    bench.condition(&model, "Ready", "NoVersions").await;
    let one = bench.declare("1");
    bench.condition(&one, "Pulled", "Pulled").await;
    assert_eq!(bench.catalog().models[&fraud()].selector.labels().to_string(), "team=pay");

    let halves = json!({ "split": [{ "version": "1", "share": 5_000 }, { "version": "2", "share": 5_000 }] });
    bench.declare_model(&halves);
    assert!(bench.condition(&model, "Ready", "VersionsMissing").await.ends_with(": 2"));
    let mut two = version("fraud-2", "2", &format!("{}/2.pt", bench.server), &digest("2"));
    two["spec"]["source"]["secretRef"] = json!({ "name": "files" });
    bench.memory.apply(Kind::Version, two);
    bench.until_split("1=50 %, 2=50 %").await;
    // Somebody moves it by hand, and it is moved back.
    let whole = Split::whole("1".parse().expect("valid"));
    bench.store.set_split("token:somebody", &fraud(), whole.clone(), Sticky::AsItIs).await.expect("moved");
    bench.until_split("1=50 %, 2=50 %").await;
    // Without a wish, whatever was set stays.
    bench.declare_model(&json!({}));
    bench.store.set_split("token:somebody", &fraud(), whole, Sticky::AsItIs).await.expect("moved");
    bench
        .until("the model says so", |observed| {
            (observed.objects.get(&model)?.status.split.as_deref() == Some("1=100 %")).then_some(())
        })
        .await;
    bench.until_split("1=100 %").await;
    assert_eq!(bench.catalog().models[&fraud()].selector.labels().to_string(), "team=pay");
    bench.memory.delete(&model);
    bench.gone(&model).await;
}

#[tokio::test]
async fn a_version_with_a_share_stays_and_one_without_goes_with_its_object() {
    let bench = Bench::start().await;
    bench.allow_secret(&bench.server);
    let one = bench.declare("1");
    bench.condition(&one, "Pulled", "Pulled").await;
    let mut second = version("fraud-2", "2", &format!("{}/2.pt", bench.server), &digest("2"));
    second["spec"]["source"]["secretRef"] = json!({ "name": "files" });
    let two = bench.memory.apply(Kind::Version, second);
    bench.condition(&two, "Pulled", "Pulled").await;

    bench.memory.delete(&one);
    assert!(bench.condition(&one, "Deleted", "HasShare").await.contains("still answers 100 %"));
    assert_eq!(bench.versions(), ["1", "2"]);
    let whole = Split::whole("2".parse().expect("valid"));
    bench.store.set_split("token:somebody", &fraud(), whole, Sticky::AsItIs).await.expect("moved");
    bench.gone(&one).await;
    assert_eq!(bench.versions(), ["2"]);
    bench.memory.delete(&two);
    bench.gone(&two).await;
    assert!(bench.catalog().models.is_empty(), "the last version takes the model along");
}

#[tokio::test]
async fn where_every_version_goes_no_share_keeps_them() {
    let bench = Bench::start().await;
    bench.allow_secret(&bench.server);
    let one = bench.declare("1");
    let mut second = version("fraud-2", "2", &format!("{}/2.pt", bench.server), &digest("2"));
    second["spec"]["source"]["secretRef"] = json!({ "name": "files" });
    let two = bench.memory.apply(Kind::Version, second);
    bench.declare_model(
        &json!({ "split": [{ "version": "1", "share": 5_000 }, { "version": "2", "share": 5_000 }] }),
    );
    bench.until_split("1=50 %, 2=50 %").await;
    let model = ObjectId { kind: Kind::Model, namespace: "ml".into(), name: "fraud".into() };
    for id in [&model, &one, &two] {
        bench.memory.delete(id);
    }
    for id in [&model, &one, &two] {
        bench.gone(id).await;
    }
    assert!(bench.catalog().models.is_empty());
}

#[tokio::test]
async fn versions_of_others_are_left_alone_and_conflicts_are_said() {
    let bench = Bench::start().await;
    let announced = crate::store::Announced {
        model: fraud(),
        version: Some("1".parse().expect("valid")),
        metadata: BTreeMap::new(),
        selector: None,
        overrides: Signature::default(),
        source: None,
    };
    let mut file = tempfile::tempfile().expect("a file");
    std::io::Write::write_all(&mut file, &archive("1")).expect("written");
    bench.store.take_in("token:ci", file, announced, false).await.expect("pushed");

    let one = bench.declare("1");
    assert!(bench.condition(&one, "Pulled", "Conflict").await.contains("was pushed by token:ci"));
    bench.memory.delete(&one);
    bench.gone(&one).await;
    assert_eq!(bench.versions(), ["1"], "it is not this object's to delete");

    let address = format!("{}/1.pt", bench.server);
    let first = bench.memory.apply(Kind::Version, version("z", "7", &address, &digest("1")));
    bench.condition(&first, "Pulled", "Pulled").await;
    let later = bench.memory.apply(Kind::Version, version("a", "7", &address, &digest("1")));
    assert!(
        bench.condition(&later, "Pulled", "Conflict").await.contains("ModelVersion ml/z declares the same")
    );
}

#[tokio::test]
async fn an_object_that_the_api_server_refuses_keeps_no_other_waiting() {
    let bench = Bench::start().await;
    let one = bench.declare("1");
    bench.condition(&one, "Pulled", "Pulled").await;
    let refused = version("aaa", "9", &format!("{}/none.pt", bench.server), &digest("1"));
    bench.memory.refuse(&ObjectId { name: "aaa".into(), ..one.clone() });
    bench.memory.apply(Kind::Version, refused);
    bench.report(&[("a", &[("1", OnPod::Ready)])]);
    bench.condition(&one, "Ready", "Ready").await;
}

#[tokio::test]
async fn nothing_is_done_without_the_lease() {
    let bench = Bench::start().await;
    bench.held.send_replace(None);
    let one = bench.declare("1");
    bench.report(&[]);
    for _ in 0..50 {
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(!bench.memory.observed().borrow().objects[&one].is_held() && bench.catalog().models.is_empty());
    bench.held.send_replace(Some(Instant::now() + PATIENCE));
    bench.condition(&one, "Pulled", "Pulled").await;
}

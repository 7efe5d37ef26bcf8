//! `kill -9` at random points of a push: what was acknowledged is whole, what was not
//! asked for is not there, and a repeated push goes on where the last one broke off.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use futures::future::join_all;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sconce_artifact::{Assembly, chunk_file};
use sconce_catalog::{Digest, Manifest};
use sconce_identity::{
    Connector, Identity, PeerPolicy, Publisher, SpiffeId,
    authority::{Authority, Validity},
    files, identity,
};
use sconce_proto::v1::{self, registry_client::RegistryClient, sidecar_control_client::SidecarControlClient};
use tokio::process::{Child, Command};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use zip::{ZipArchive, ZipWriter, write::SimpleFileOptions};

const KILLS: usize = 100;
/// They share the kills, to share the cores.
const CONTROL_PLANES: usize = 4;
const MODEL: &str = "default/digits";
const PATIENCE: Duration = Duration::from_secs(60);
/// Chunks of a kind of its own in each archive, so that every push has bytes to move.
const NOISE: usize = 1 << 20;

/// What a push had been told when it broke off.
#[derive(Debug, Default)]
struct Told {
    /// Chunks that were acknowledged as durable.
    durable: Vec<Digest>,
    /// The commit was sent: from here on only its answer says what became of it.
    committing: bool,
    committed: bool,
}

/// Where the kills fell.
#[derive(Debug, Default)]
struct Tally {
    before_commit: usize,
    /// Of those, the ones that went on from chunks stored before.
    resumed: usize,
    /// Between the commit and its answer.
    unanswered: usize,
}

/// An archive that no other is equal to.
struct Archive {
    file: File,
    bytes: Vec<u8>,
    assembly: Assembly,
}

/// The control plane as a process, and who talks to it.
struct Plane {
    folder: tempfile::TempDir,
    port: u16,
    operator: Option<(Publisher, Identity)>,
    sidecar: Option<(Publisher, Identity)>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_survives_being_killed_at_any_point() {
    let control_planes = (0..CONTROL_PLANES).map(|_| tokio::spawn(kill(KILLS / CONTROL_PLANES)));
    let mut seen = Tally::default();
    for done in join_all(control_planes).await {
        let done = done.expect("every push survives");
        seen.before_commit += done.before_commit;
        seen.resumed += done.resumed;
        seen.unanswered += done.unanswered;
    }
    println!("{KILLS} kills: {seen:?}, the rest after the answer");
    // Otherwise the kills missed what they are for.
    assert!(seen.before_commit >= KILLS / 10 && seen.resumed >= KILLS / 20, "{seen:?}");
}

/// Kills one control plane this many times.
async fn kill(times: usize) -> Tally {
    let mut plane = Plane::new();
    // One that may cross an await.
    let mut rng = StdRng::from_rng(&mut rand::rng());
    // One push in peace says how long the window is that the kills should fall into.
    let mut process = plane.start().await;
    let archive = Archive::new(&mut rng);
    let began = Instant::now();
    plane.push(&archive, "0", &mut Told::default()).await.expect("nobody disturbs it");
    let usual = began.elapsed();
    plane.check(&archive, "0").await;
    let mut pushed = vec![archive];
    let mut tally = Tally::default();

    for round in 1..=times {
        let (version, archive) = (round.to_string(), Archive::new(&mut rng));
        let after = usual.mul_f64(rng.random_range(0.0..1.2));
        let mut told = Told::default();
        // The delay is the point of this test, not a wait for something.
        let done = tokio::time::timeout(after, plane.push(&archive, &version, &mut told)).await;
        process.kill().await.expect("killed");
        if let Ok(done) = done {
            done.expect("nothing disturbed it");
        }

        process = plane.start().await;
        let visible = plane.versions().await;
        for (number, _) in pushed.iter().enumerate() {
            assert!(visible.contains(&number.to_string()), "round {round}: version {number} is gone");
        }
        let there = visible.contains(&version);
        assert!(there || !told.committed, "round {round}: it was acknowledged, and is gone");
        assert!(!there || told.committing, "round {round}: nobody had asked for it to be visible");
        if there {
            // Acknowledged or not: whatever is visible is whole.
            plane.check(&archive, &version).await;
        }
        tally.unanswered += usize::from(there && !told.committed);
        tally.before_commit += usize::from(!there);

        let begun = plane.begin(&archive, &version).await.expect("the push is begun again");
        assert_eq!(begun.already_committed, there, "round {round}");
        for digest in &told.durable {
            let missing = begun.missing.iter().any(|missing| missing[..] == digest.as_bytes()[..]);
            assert!(!missing, "round {round}: an acknowledged chunk has to be sent again");
        }
        tally.resumed += usize::from(!there && !told.durable.is_empty());
        plane.push(&archive, &version, &mut Told::default()).await.expect("the repeated push");
        plane.check(&archive, &version).await;
        pushed.push(archive);
    }

    for (number, archive) in pushed.iter().enumerate() {
        plane.check(archive, &number.to_string()).await;
    }
    process.kill().await.expect("killed");
    tally
}

impl Archive {
    fn new(rng: &mut impl rand::Rng) -> Self {
        let mut source = ZipArchive::new(File::open(digits()).expect("the example")).expect("a zip");
        let file = tempfile::tempfile().expect("a file");
        let mut writer = ZipWriter::new(file.try_clone().expect("a handle"));
        let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        for at in 0..source.len() {
            let mut entry = source.by_index(at).expect("an entry");
            writer.start_file(entry.name().expect("a name"), stored).expect("writable");
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("readable");
            writer.write_all(&bytes).expect("writable");
        }
        // Stretched by a hash that is compiled with optimisations: a generator is not, in tests.
        let mut noise = vec![0; NOISE];
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        blake3::Hasher::new_keyed(&seed).finalize_xof().fill(&mut noise);
        writer.start_file("digits/extra/noise", stored).expect("writable");
        writer.write_all(&noise).expect("writable");
        writer.finish().expect("writable");
        let manifest = chunk_file(&file).expect("an archive");
        let mut bytes = vec![0; usize::try_from(manifest.size()).expect("small")];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).expect("readable");
        Self { file, bytes, assembly: Assembly::new(manifest) }
    }
}

impl Plane {
    fn new() -> Self {
        // Not one that the system gives to who asks for any: somebody else would get it while the control
        // plane is dead.
        let mut tried = (20_000..30_000).cycle().skip(rand::random_range(0..10_000)).take(10_000);
        let port = tried.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
        let port = port.expect("a port that nobody listens on");
        Self { folder: tempfile::tempdir().expect("a folder"), port, operator: None, sidecar: None }
    }

    fn data(&self, inner: &str) -> PathBuf {
        self.folder.path().join(inner)
    }

    /// Starts the process and waits until it answers.
    async fn start(&mut self) -> Child {
        let log = File::options().create(true).append(true).open(self.data("log")).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_sconce-control-plane"))
            .env("SCONCE_LISTEN", format!("127.0.0.1:{}", self.port))
            .env("SCONCE_ADMIN_LISTEN", "127.0.0.1:0")
            .env("SCONCE_DATA_DIR", self.folder.path())
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let began = Instant::now();
        loop {
            if self.listening().await {
                return child;
            }
            assert!(began.elapsed() < PATIENCE, "{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn listening(&mut self) -> bool {
        if self.operator.is_none() {
            let Ok(material) = files::read(&self.data("operator")) else { return false };
            let (publisher, identity) = identity();
            publisher.publish(material);
            self.operator = Some((publisher, identity));
        }
        self.registry().list_models(v1::ListModelsRequest::default()).await.is_ok()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.data("log")).unwrap_or_default()
    }

    fn channel(&self, who: &Identity) -> Channel {
        let tls = who.client_config(PeerPolicy::own_trust_domain());
        let endpoint = Endpoint::from_shared(format!("http://localhost:{}", self.port)).expect("an address");
        endpoint.connect_with_connector_lazy(Connector::new(tls))
    }

    fn registry(&self) -> RegistryClient<Channel> {
        RegistryClient::new(self.channel(&self.operator.as_ref().expect("it has started once").1))
    }

    /// A workload, as sidecars are.
    fn sidecar(&mut self) -> SidecarControlClient<Channel> {
        if self.sidecar.is_none() {
            let authority = Authority::load_or_create(&self.data("ca"), "sconce.local").expect("the CA");
            let id = SpiffeId::new("sconce.local", "/ns/default/sa/checker").expect("an id");
            let own = authority.issue_credentials(&id, &[], Validity::of(Duration::from_secs(3600)));
            let folder = self.data("checker");
            files::write(&folder, &own.expect("a certificate"), authority.roots_pem()).expect("written");
            let (publisher, identity) = identity();
            publisher.publish(files::read(&folder).expect("its files"));
            self.sidecar = Some((publisher, identity));
        }
        let channel = self.channel(&self.sidecar.as_ref().expect("just made").1);
        SidecarControlClient::new(channel).max_decoding_message_size(64 << 20)
    }

    async fn versions(&self) -> Vec<String> {
        let models = self.registry().list_models(v1::ListModelsRequest::default()).await.expect("listed");
        let models = models.into_inner().models.into_iter();
        models.flat_map(|model| model.versions).map(|version| version.version).collect()
    }

    async fn begin(&self, archive: &Archive, version: &str) -> Result<v1::BeginPushResponse, Status> {
        let request = v1::BeginPushRequest {
            model: MODEL.into(),
            version: version.into(),
            manifest: Some(archive.assembly.manifest().into()),
            ..Default::default()
        };
        Ok(self.registry().begin_push(request).await?.into_inner())
    }

    /// A whole push, which notes what it has been told so far.
    async fn push(&self, archive: &Archive, version: &str, told: &mut Told) -> Result<(), Status> {
        let begun = self.begin(archive, version).await?;
        if begun.already_committed {
            return Ok(());
        }
        for missing in begun.missing {
            let digest = Digest::try_from(&missing[..]).expect("a digest");
            let number = archive.assembly.chunk_with(&digest).expect("one of ours");
            let data = archive.assembly.read_chunk(&archive.file, number).expect("readable").into();
            let chunk = Some(v1::Chunk { digest: missing, data });
            let message = v1::UploadChunksRequest { push: begun.push.clone(), chunk };
            self.registry().upload_chunks(futures::stream::iter([message])).await?;
            told.durable.push(digest);
        }
        told.committing = true;
        self.registry().commit_push(v1::CommitPushRequest { push: begun.push, activate: false }).await?;
        told.committed = true;
        Ok(())
    }

    /// Fetches a version as a sidecar does, and compares it byte for byte.
    async fn check(&mut self, archive: &Archive, version: &str) {
        let request = v1::GetModelRequest { model: MODEL.into() };
        let model = self.registry().get_model(request).await.expect("described").into_inner().model;
        let versions = model.expect("the model").versions;
        let found = versions.into_iter().find(|found| found.version == version).expect("the version");
        let mut sidecar = self.sidecar();
        let manifest =
            sidecar.get_manifest(v1::GetManifestRequest { artifact: found.artifact.clone() }).await;
        let manifest = Manifest::try_from(manifest.expect("its manifest").into_inner()).expect("valid");
        let digests = manifest.chunks().iter().map(|chunk| chunk.digest.as_bytes().to_vec()).collect();
        let assembly = Assembly::new(manifest);
        let file = tempfile::tempfile().expect("a file");
        let request = v1::FetchChunksRequest { digests, artifact: found.artifact };
        let mut chunks = sidecar.fetch_chunks(request).await.expect("fetched").into_inner();
        let mut number = 0;
        while let Some(chunk) = chunks.message().await.expect("every chunk") {
            assembly.write_chunk(&file, number, &chunk.data).expect("the right bytes");
            number += 1;
        }
        let mut bytes = vec![0; archive.bytes.len()];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).expect("whole");
        assert!(bytes == archive.bytes, "version {version} is not what was pushed");
    }
}

fn digits() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/digits/models/v1/digits.pt")
}

//! What a person does at the keyboard: `sconce up`, then the README's commands as they are
//! printed there, a push that is interrupted, and Ctrl-C.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json as value};
use zip::{ZipArchive, ZipWriter, write::SimpleFileOptions};

const SCONCE: &str = env!("CARGO_BIN_EXE_sconce");
const PATIENCE: Duration = Duration::from_secs(90);

/// A running `sconce up`, and the folder it keeps everything in.
struct Session {
    folder: tempfile::TempDir,
    up: Child,
    context: Value,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository")
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "it never came true: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn interrupt(child: &Child) {
    // SAFETY: a signal to a process of ours that has not been waited for.
    unsafe { libc::kill(libc::pid_t::try_from(child.id()).expect("a pid"), libc::SIGINT) };
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

fn said(output: &Output) -> String {
    format!(
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

impl Session {
    fn start(sidecars: &str) -> Self {
        let beside = Path::new(SCONCE).parent().expect("a folder");
        for name in ["sconce-control-plane", "sconce-sidecar"] {
            assert!(beside.join(name).is_file(), "{name} is not built; run `cargo build --workspace` first");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let (dir, ready) = (folder.path().join("home"), folder.path().join("ready.json"));
        let mut up = Command::new(SCONCE)
            .args([
                "up",
                "--sidecars",
                sidecars,
                "--listen",
                "127.0.0.1:0",
                "--sidecar-port",
                "0",
                "--plaintext",
            ])
            .arg("--dir")
            .arg(&dir)
            .arg("--ready-file")
            .arg(&ready)
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        wait_until("`sconce up` is ready", || {
            assert!(up.try_wait().expect("a child").is_none(), "`sconce up` ended early");
            ready.exists()
        });
        let context = serde_json::from_slice(&fs::read(&ready).expect("its context")).expect("JSON");
        Self { folder, up, context }
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// A line as somebody types it at the repository's root.
    fn shell(&self, line: &str) -> Output {
        let beside = Path::new(SCONCE).parent().expect("a folder").display().to_string();
        let path = format!("{beside}:{}", std::env::var("PATH").unwrap_or_default());
        Command::new("bash")
            .args(["-c", line])
            .current_dir(repository())
            .env("PATH", path)
            .env("SCONCE_HOME", self.home())
            .output()
            .expect("bash runs")
    }

    fn address(&self, pointer: &str) -> String {
        self.context.pointer(pointer).and_then(Value::as_str).expect("an address").to_owned()
    }

    /// Ctrl-C, after which nothing is left.
    fn stop(mut self) {
        interrupt(&self.up);
        let status = self.up.wait().expect("it ends");
        assert!(status.success(), "{status}");
        for pointer in ["/control_plane", "/sidecars/0/address"] {
            let address = self.address(pointer).replace("https://", "");
            assert!(TcpStream::connect(&address).is_err(), "{address} still answers");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Where a test failed half-way: its children end with it.
        let _ = self.up.kill();
        let _ = self.up.wait();
    }
}

/// The fenced lines of the README that begin with this word.
fn readme(word: &str) -> Vec<String> {
    let text = fs::read_to_string(repository().join("README.md")).expect("the README");
    let mut fenced = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced && line.starts_with(word) {
            lines.push(line.to_owned());
        }
    }
    lines
}

#[test]
fn the_readmes_commands_work_as_printed() {
    let session = Session::start("2");
    let empty = session.shell("sconce models");
    assert!(empty.status.success(), "{}", said(&empty));
    assert!(said(&empty).contains("sconce push"), "an empty list says what to do: {}", said(&empty));

    let commands: Vec<String> = readme("sconce ")
        .into_iter()
        // Installing is for a cluster: the walk through `examples/canary` does that.
        .filter(|line| !["sconce up ", "sconce install "].iter().any(|other| line.starts_with(other)))
        .filter(|line| !line.contains("model.pt"))
        .collect();
    assert!(commands.len() >= 6, "{commands:?}");
    for line in &commands {
        let done = session.shell(line);
        assert!(done.status.success(), "{line}: {}", said(&done));
    }
    let versions = json(&session.shell("sconce versions digits -o json"));
    assert!(versions.to_string().contains("\"2\""), "{versions}");
    let sidecars = json(&session.shell("sconce sidecars -o json"));
    assert_eq!(sidecars.as_array().map(Vec::len), Some(2), "{sidecars}");

    // Who is calling is said once, and holds for later splits.
    for (line, split, sticky) in [
        ("sconce split digits --sticky X-User-Id", "10.0", value!("x-user-id")),
        ("sconce split digits 1=75 2=25", "25.0", value!("x-user-id")),
        ("sconce split digits", "25.0", value!("x-user-id")),
        ("sconce split digits --no-sticky", "25.0", Value::Null),
    ] {
        let set = json(&session.shell(&format!("{line} -o json")));
        assert_eq!(set["sticky"], sticky, "{line}: {set}");
        assert!(set["split"].to_string().contains(split), "{line}: {set}");
    }

    let port = |pointer: &str| session.address(pointer).rsplit_once(':').expect("a port").1.to_owned();
    let curls = readme("curl ");
    assert!(curls.len() >= 3, "{curls:?}");
    if !session.shell("curl --version").status.success() {
        eprintln!("the README's curl commands were NOT run: there is no curl here");
        return session.stop();
    }
    for line in curls {
        let line = line
            .replace(":8443", &format!(":{}", port("/sidecars/0/address")))
            .replace(":8440", &format!(":{}", port("/control_plane")));
        let done = session.shell(&format!("cd \"$SCONCE_HOME/client\"; {line} --fail --silent --show-error"));
        assert!(done.status.success(), "{line}: {}", said(&done));
        assert!(done.stdout.starts_with(b"{") || done.stdout.starts_with(b"["), "{line}: {}", said(&done));
    }
    // Refusals reach a client that is still sending, over HTTP/1.1 and, as curl does here, HTTP/2.
    let large = session.folder.path().join("large");
    fs::write(&large, vec![b' '; 80 << 20]).expect("written");
    let at = |pointer: &str| session.address(pointer);
    for (method, url, says) in [
        ("POST", format!("{}/v2/models/digits/infer", at("/sidecars/0/address")), "67108864 bytes"),
        ("PUT", format!("{}/api/v1/models/default/Bad/versions/1", at("/control_plane")), "is not valid"),
    ] {
        for http in ["--http1.1", "--http2"] {
            let line = format!(
                "cd \"$SCONCE_HOME/client\"; curl --silent --show-error --cacert ca.pem --cert cert.pem --key key.pem \
                 {http} -X {method} --data-binary @{} {url}",
                large.display()
            );
            let done = session.shell(&line);
            assert!(said(&done).contains(says), "{line}: {}", said(&done));
        }
    }
    let plain = session.address("/sidecars/0/address").replace("https", "http");
    let plain = session.shell(&format!("curl --fail --silent --show-error {plain}/v2"));
    assert_eq!(json(&plain)["name"], "sconce");
    session.stop();
}

#[test]
fn failures_have_their_exit_code_and_say_what_to_do() {
    let session = Session::start("1");
    let digits = "examples/digits/models/v1/digits.pt";
    json(&session.shell(&format!("sconce push {digits} --model digits --activate -o json")));
    for (line, code, says) in [
        ("sconce infer nothing --input examples/digits/seven.npy", 5, "nothing"),
        ("sconce versions nothing", 5, "nothing"),
        ("sconce split digits 1=90 9=10", 5, "9"),
        ("sconce split digits 1=90", 2, "90"),
        ("sconce split digits 1=100 --sticky Host", 2, "x-user-id"),
        ("sconce push no-such-file.pt --model digits", 1, "no-such-file.pt"),
        ("sconce push README.md --model digits", 1, "README.md"),
        ("sconce infer digits --input nonsense=examples/digits/seven.npy", 2, "inputs are image"),
        ("sconce --control-plane https://127.0.0.1:1 models", 3, "127.0.0.1:1"),
        ("SCONCE_HOME=/nonexistent sconce models", 2, "sconce up"),
    ] {
        let done = session.shell(line);
        assert_eq!(done.status.code(), Some(code), "{line}: {}", said(&done));
        assert!(said(&done).contains(says), "{line}: {}", said(&done));
    }
    session.stop();
}

#[test]
fn an_interrupted_push_is_resumed_by_repeating_it() {
    let session = Session::start("1");
    let model = session.folder.path().join("large.pt");
    large_archive(&model, 96);
    let line = ["push", &model.display().to_string(), "--model", "large", "--version", "7", "-o", "json"];
    let push = || {
        let mut command = Command::new(SCONCE);
        command.args(line).env("SCONCE_HOME", session.home()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("it starts")
    };
    let chunks = session.home().join("control-plane/chunks");
    let first = push();
    wait_until("some of it has been stored", || count(&chunks) > 8);
    interrupt(&first);
    let first = first.wait_with_output().expect("it ends");
    assert_eq!(first.status.code(), Some(130), "{}", said(&first));
    assert!(said(&first).contains("resume"), "{}", said(&first));
    let hidden = session.shell("sconce versions large");
    assert_eq!(hidden.status.code(), Some(5), "half a push is visible: {}", said(&hidden));

    let second = json(&push().wait_with_output().expect("it ends"));
    let (total, sent) =
        (second["bytes_total"].as_u64().expect("bytes"), second["bytes_sent"].as_u64().expect("bytes"));
    assert!(sent > 0 && sent + (4 << 20) <= total, "{sent} of {total} were sent again");
    assert_eq!(second["version"], "7");
    let third = json(&push().wait_with_output().expect("it ends"));
    assert_eq!((&third["bytes_sent"], &third["already_committed"]), (&0.into(), &true.into()));
    session.stop();
}

fn count(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries.flatten().map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
}

/// The digits model beside this many MiB that no other archive has.
fn large_archive(path: &Path, mebibytes: u32) {
    let digits = repository().join("examples/digits/models/v1/digits.pt");
    let mut source = ZipArchive::new(File::open(digits).expect("the example")).expect("a zip");
    let mut writer = ZipWriter::new(File::create(path).expect("a file"));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for at in 0..source.len() {
        let mut entry = source.by_index(at).expect("an entry");
        writer.start_file(entry.name().expect("a name"), stored).expect("writable");
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("readable");
        writer.write_all(&bytes).expect("writable");
    }
    for part in 0..mebibytes {
        writer.start_file(format!("digits/extra/{part}"), stored).expect("writable");
        let bytes: Vec<u8> = (0..1u32 << 20)
            .map(|at| (at.wrapping_mul(2_654_435_761).wrapping_add(part * 97) >> 11) as u8)
            .collect();
        writer.write_all(&bytes).expect("writable");
    }
    writer.finish().expect("writable");
}

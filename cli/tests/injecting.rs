//! `sconce inject` and `sconce uninject` as they are typed: no cluster, no control plane.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

const WORKLOADS: &str = r#"# The shop's workloads.
apiVersion: v1
kind: Service
metadata: {name: fraud}   # not ours
spec: {selector: {app: fraud}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: fraud, namespace: shop}
spec:
  template:
    metadata: {labels: {app: fraud}}
    spec:
      containers: [{name: app, image: "registry.example.org/fraud:3"}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: migrate}
spec:
  template:
    metadata: {labels: {sconce.dev/inject: "false"}}
    spec: {restartPolicy: Never, containers: [{name: migrate, image: "registry.example.org/migrate:1"}]}
---
# Somebody's own.
apiVersion: example.org/v1
kind: Recipe
spec: {mode: 0644, note: "yes"}
"#;

fn sconce(args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sconce"))
        .args(args)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // Where it reads files instead, nobody reads this.
    let _ = child.stdin.take().expect("piped").write_all(stdin.as_bytes());
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn workloads_are_injected_and_everything_else_is_written_as_it_was_read() {
    let done = sconce(&["inject", "-f", "-"], WORKLOADS);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let written = text(&done.stdout);
    let parts: Vec<&str> = WORKLOADS.split("---\n").collect();
    for same in [0, 2, 3] {
        assert!(written.contains(parts[same]), "document {same} is another: {written}");
    }
    assert!(
        written.contains("name: sconce\n") && written.contains("sconce.dev/inject: \"true\""),
        "{written}"
    );
    let said = text(&done.stderr);
    for line in [
        "unchanged  Service default/fraud: it has no pods",
        "injected  Deployment shop/fraud",
        "skipped  Job default/migrate: the pod's label sconce.dev/inject is \"false\"",
        "unchanged  Recipe: it has no pods",
    ] {
        assert!(said.lines().any(|said| said == line), "{line} in {said}");
    }
}

#[test]
fn a_second_run_and_a_way_back_change_nothing_else() {
    let once = sconce(&["inject", "-f", "-"], WORKLOADS).stdout;
    let twice = sconce(&["inject", "-f", "-"], &text(&once));
    assert_eq!(text(&twice.stdout), text(&once));
    assert!(text(&twice.stderr).contains("unchanged  Deployment shop/fraud: it has the sidecar already"));

    let back = sconce(&["uninject", "-f", "-"], &text(&once));
    assert!(back.status.success(), "{}", text(&back.stderr));
    assert!(!text(&back.stdout).contains("sconce-sidecar"), "{}", text(&back.stdout));
    let again = sconce(&["inject", "-f", "-"], &text(&back.stdout));
    assert_eq!(text(&again.stdout), text(&once), "what was taken out can be put in again");
}

#[test]
fn a_check_shows_the_difference_and_fails_while_there_is_one() {
    let check = sconce(&["inject", "--check", "-f", "-"], WORKLOADS);
    assert_eq!(check.status.code(), Some(1));
    let diff = text(&check.stdout);
    assert!(diff.starts_with("--- -\n+++ - (injected)\n@@ "), "{diff}");
    let lines = |sign: char| diff.lines().skip(2).filter(|line| line.starts_with(sign)).count();
    assert!(lines('+') > 50 && lines('-') == 0, "only additions: {diff}");

    let injected = text(&sconce(&["inject", "-f", "-"], WORKLOADS).stdout);
    let check = sconce(&["inject", "--check", "-f", "-"], &injected);
    assert_eq!(
        (check.status.code(), text(&check.stdout)),
        (Some(0), String::new()),
        "{}",
        text(&check.stderr)
    );
}

#[test]
fn settings_come_from_the_webhooks_file_and_options_win_over_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let settings =
        file("settings.yaml", "nativeSidecars: false\ndefaults: { image: \"a:1\", memory: 1Gi }\n");
    let (one, two) = (file("one.yaml", WORKLOADS), file("two.yaml", WORKLOADS));
    let args = [
        "inject",
        "-f",
        &one,
        "-f",
        &two,
        "--settings",
        &settings,
        "--set",
        "image=b:2",
        "-n",
        "ml",
        "--no-mesh",
    ];
    let done = sconce(&args, "");
    let written = text(&done.stdout);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(written.contains("image: b:2") && written.contains("memory: 1Gi"), "{written}");
    assert!(!written.contains("restartPolicy: Always") && !written.contains("istio.io"), "{written}");
    assert_eq!(written.matches("kind: Deployment").count(), 2);
    assert!(text(&done.stderr).contains("Service ml/fraud"), "{}", text(&done.stderr));
}

#[test]
fn failures_name_the_file_or_object_and_write_nothing() {
    let much = WORKLOADS.replace(
        "labels: {app: fraud}}\n    spec:\n      containers",
        "labels: {app: fraud}, annotations: {sconce.dev/cpu: much}}\n    spec:\n      containers",
    );
    let broken = "kind: [\n";
    let folder = tempfile::tempdir().expect("a folder");
    let settings = folder.path().join("settings.yaml");
    fs::write(&settings, "image: a:1\n").expect("written");
    let settings = settings.display().to_string();
    let cases: [(&[&str], &str, i32, &str); 6] = [
        (
            &["inject", "-f", "-"],
            &much,
            1,
            "Deployment shop/fraud: the pod's annotation sconce.dev/cpu is \"much\"",
        ),
        (&["inject", "-f", "-"], broken, 1, "-: document 1"),
        (&["inject", "-f", "no-such-file.yaml"], "", 1, "no-such-file.yaml cannot be read"),
        (&["inject", "-f", "-", "--set", "memori=1Gi"], WORKLOADS, 2, "memori is unknown"),
        (&["inject", "-f", "-", "--settings", &settings], WORKLOADS, 2, "settings.yaml"),
        (&["inject"], "", 2, "--filename"),
    ];
    for (args, stdin, code, says) in cases {
        let done = sconce(args, stdin);
        assert_eq!(done.status.code(), Some(code), "{args:?}: {}", text(&done.stderr));
        assert!(text(&done.stderr).contains(says), "{args:?}: {}", text(&done.stderr));
        assert!(done.stdout.is_empty(), "{args:?}");
    }
    assert!(!Path::new("no-such-file.yaml").exists());
}

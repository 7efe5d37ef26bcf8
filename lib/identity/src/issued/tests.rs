//! What the renewing promises, with an issuer in this process.

use std::{collections::VecDeque, os::unix::fs::PermissionsExt as _, sync::Mutex};

use tokio::task::JoinHandle;

use super::*;
use crate::{
    Identity,
    authority::{Authority, Validity},
    identity,
    testing::{authority, expired, hour, id, patiently},
};

/// What the issuer does when asked; the last is repeated.
#[derive(Clone, Copy)]
enum Does {
    Issue(&'static str, Validity),
    Fail,
    ForeignKey,
}

struct Scripted {
    ca: Authority,
    script: Mutex<VecDeque<Does>>,
    asked: tokio::sync::watch::Sender<Vec<String>>,
}

impl Scripted {
    fn new<const N: usize>(script: [Does; N]) -> Arc<Self> {
        let asked = tokio::sync::watch::channel(Vec::new()).0;
        Arc::new(Self { ca: authority(), script: Mutex::new(script.into()), asked })
    }

    async fn asked(&self, times: usize) {
        let mut asked = self.asked.subscribe();
        patiently(asked.wait_for(|requests| requests.len() >= times)).await.unwrap();
    }

    fn answer(&self, csr: &str) -> Result<Issued, IssueError> {
        let mut script = self.script.lock().unwrap();
        let next = if script.len() > 1 { script.pop_front() } else { script.front().copied() };
        let chain_pem = match next.unwrap() {
            Does::Issue(path, validity) => self.ca.issue(csr, &id(path), &[], validity).unwrap(),
            Does::Fail => return Err(IssueError("the issuer is away".to_owned())),
            Does::ForeignKey => self.ca.issue_credentials(&id("/foreign"), &[], hour()).unwrap().chain_pem,
        };
        Ok(Issued { chain_pem, roots_pem: self.ca.roots_pem().to_owned() })
    }
}

impl Issuer for Scripted {
    fn issue(&self, csr_pem: String) -> BoxFuture<'_, Result<Issued, IssueError>> {
        Box::pin(async move {
            let answer = self.answer(&csr_pem);
            self.asked.send_modify(|asked| asked.push(csr_pem));
            answer
        })
    }
}

fn start(folder: &Path, issuer: &Arc<Scripted>) -> (Identity, JoinHandle<()>) {
    let (publisher, identity) = identity();
    let names = vec!["edge.example".to_owned(), "10.0.0.1".to_owned()];
    let renewing = renew(folder.to_owned(), names, issuer.clone(), publisher);
    (identity, tokio::spawn(renewing))
}

/// Valid now, and past its half.
fn half_spent() -> Validity {
    let (now, minute) = (SystemTime::now(), Duration::from_secs(60));
    Validity { not_before: now - 2 * minute, not_after: now + minute }
}

#[tokio::test]
async fn a_certificate_is_asked_for_kept_and_used_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Scripted::new([Does::Issue("/edge", hour())]);
    let (identity, task) = start(folder.path(), &issuer);
    let first = patiently(identity.ready()).await;
    assert_eq!(*first.id(), id("/edge"));
    let wanted = Authority::requested_names(&issuer.asked.borrow()[0]).unwrap();
    assert_eq!(wanted, ["edge.example", "10.0.0.1"]);
    task.abort();
    let kept = fs::metadata(folder.path().join(IDENTITY)).unwrap();
    assert_eq!(kept.permissions().mode() & 0o777, 0o600);

    let away = Scripted::new([Does::Fail]);
    let (identity, task) = start(folder.path(), &away);
    assert_eq!(patiently(identity.ready()).await.not_after(), first.not_after());
    assert_eq!(away.asked.borrow().len(), 0, "half of its life is still to come");
    task.abort();
}

#[tokio::test]
async fn a_certificate_past_its_half_is_used_while_a_new_one_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let script = [Does::Issue("/first", half_spent()), Does::Fail, Does::Issue("/second", hour())];
    let issuer = Scripted::new(script);
    let (mut identity, task) = start(folder.path(), &issuer);
    assert_eq!(*patiently(identity.changed()).await.id(), id("/first"));
    issuer.asked(2).await;
    assert_eq!(*identity.current().unwrap().id(), id("/first"), "the issuer was away");
    assert_eq!(*patiently(identity.changed()).await.id(), id("/second"));
    task.abort();
}

#[tokio::test]
async fn nothing_invalid_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let script = [Does::ForeignKey, Does::Issue("/expired", expired()), Does::Issue("/good", hour())];
    let issuer = Scripted::new(script);
    let (mut identity, task) = start(folder.path(), &issuer);
    assert_eq!(*patiently(identity.changed()).await.id(), id("/good"));
    assert_eq!(issuer.asked.borrow().len(), 3);
    task.abort();
}

#[tokio::test]
async fn a_disk_that_fails_costs_only_the_restart() {
    let folder = tempfile::tempdir().unwrap();
    let not_a_folder = folder.path().join("file");
    fs::write(&not_a_folder, "").unwrap();
    let issuer = Scripted::new([Does::Issue("/edge", hour())]);
    let (identity, task) = start(&not_a_folder, &issuer);
    assert_eq!(*patiently(identity.ready()).await.id(), id("/edge"));
    task.abort();
}

#[tokio::test]
async fn a_kept_certificate_that_has_expired_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Scripted::new([Does::Issue("/new", hour())]);
    let old = issuer.ca.issue_credentials(&id("/old"), &[], expired()).unwrap();
    let issued = Issued { chain_pem: old.chain_pem, roots_pem: issuer.ca.roots_pem().to_owned() };
    keep(folder.path(), &issued, &old.key_pem).unwrap();
    let (mut identity, task) = start(folder.path(), &issuer);
    assert_eq!(*patiently(identity.changed()).await.id(), id("/new"));
    task.abort();
}

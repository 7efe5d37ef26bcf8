//! `sconce push`: cut the file into chunks, send those the store lacks, commit, and say
//! how it went on the sidecars. An address is fetched by the control plane.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sconce_catalog::{Signature, Split, Version, VersionRecord};
use serde::Serialize;

use super::models::{ShareView, shares};
use crate::{
    args::{Archive, Push, VersionChoice},
    client::{Announcement, Begun, Control},
    failure::{Exit, Failure},
    output::{Output, bytes},
};

mod progress;
mod pull;
mod source;
#[cfg(test)]
mod tests;
mod wait;

use self::{progress::Progress, source::Source, wait::Standing};

const WAIT_WHEN_ACTIVATING: Duration = Duration::from_secs(60);

/// What a push did, as machines read it.
#[derive(Serialize)]
struct Report {
    model: String,
    version: String,
    artifact: String,
    bytes_total: u64,
    bytes_sent: u64,
    /// The same bytes were this version already.
    already_committed: bool,
    split: Vec<ShareView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sidecars: Option<Standing>,
}

/// A version in the catalog.
struct Landed {
    record: VersionRecord,
    split: Option<Split>,
    serial: Option<u64>,
}

/// Pushes a file.
pub(super) async fn run(args: Push, mut control: Control, out: Output) -> Result<(), Failure> {
    let announcement = Announcement {
        model: args.model.clone(),
        version: match &args.version {
            VersionChoice::Auto => None,
            VersionChoice::Named(version) => Some(version.clone()),
        },
        metadata: args.meta.iter().cloned().collect::<BTreeMap<_, _>>(),
        selector: args.selector.clone(),
        overrides: Signature {
            inputs: args.input.clone(),
            outputs: args.output.clone(),
            batching: args.batching,
        },
    };
    let (version, landed, moved, already_committed) = match &args.what {
        Archive::File(_) if args.digest.is_some() => {
            return Err(Failure::usage(
                "--digest is for addresses; a file's chunks have digests of their own",
            ));
        }
        Archive::File(file) => {
            let source = Arc::new(Source::open(file.clone()).await?);
            let begun = control.begin_push(&announcement, source.manifest()).await?;
            let sent = source.size_of(&begun.missing);
            upload(&mut control, &begun, &source, sent).await?;
            let landed = land(&mut control, &args, &begun).await?;
            (begun.version, landed, sent, begun.already_committed)
        }
        Archive::Address(address) => {
            let pulled = pull::pull(address, &args, &announcement, &mut control).await?;
            (pulled.version, pulled.landed, pulled.bytes_stored, pulled.already_committed)
        }
    };

    let mut report = Report {
        model: args.model.to_string(),
        version: version.to_string(),
        artifact: landed.record.artifact.to_string(),
        bytes_total: landed.record.size,
        bytes_sent: moved,
        already_committed,
        split: shares(landed.split.as_ref()),
        serial: landed.serial,
        sidecars: None,
    };
    eprintln!("{}", said(&report));
    let wait = args.wait.or(args.activate.then_some(WAIT_WHEN_ACTIVATING));
    if let Some(limit) = wait {
        report.sidecars = Some(wait::settle(&mut control, &args.model, &version, limit).await?);
    }
    out.show(&report, |report| people(report, landed.split.as_ref()))?;
    report.sidecars.as_ref().map_or(Ok(()), |standing| standing.verdict(&args.model, &version))
}

async fn upload(
    control: &mut Control,
    begun: &Begun,
    source: &Arc<Source>,
    size: u64,
) -> Result<(), Failure> {
    if begun.missing.is_empty() {
        return Ok(());
    }
    let progress = Progress::new("sent", size);
    let (chunks, reading) = source.clone().read(begun.missing.clone(), progress.clone());
    let uploaded = control.upload_chunks(&begun.push, chunks).await;
    // What went wrong with the file explains whatever went wrong with the upload.
    match reading.await {
        Ok(read) => read?,
        Err(error) => return Err(Failure::failed(format!("reading the file stopped: {error}"))),
    }
    uploaded.map_err(|failure| match failure.exit {
        Exit::Unreachable => failure.hint("what was sent is kept: repeat the same command to resume"),
        _ => failure,
    })?;
    progress.finish();
    Ok(())
}

async fn land(control: &mut Control, args: &Push, begun: &Begun) -> Result<Landed, Failure> {
    if !begun.already_committed {
        let committed = control.commit_push(&begun.push, args.activate).await?;
        return Ok(Landed {
            record: committed.record,
            split: committed.split,
            serial: Some(committed.serial),
        });
    }
    let mut model = control.model(&args.model).await?.model;
    let record = model.versions.remove(&begun.version).ok_or_else(|| gone(args, &begun.version))?;
    if !args.activate {
        return Ok(Landed { record, split: model.split, serial: None });
    }
    let set = control.set_split(&args.model, &Split::whole(begun.version.clone()), None).await?;
    Ok(Landed { record, split: Some(set.split), serial: Some(set.serial) })
}

fn gone(args: &Push, version: &Version) -> Failure {
    Failure::failed(format!("version {version} of {} was deleted meanwhile", args.model))
        .hint("repeat the same command to push it again")
}

/// How much was already there.
fn said(report: &Report) -> String {
    if report.already_committed {
        return format!("version {} of {} has these bytes already", report.version, report.model);
    }
    let (sent, total) = (report.bytes_sent.min(report.bytes_total), report.bytes_total);
    let there = (total - sent) * 100 / total.max(1);
    format!("{} of {} was new, {there} % was already there", bytes(sent), bytes(total))
}

fn people(report: &Report, split: Option<&Split>) -> String {
    let split = split.map_or_else(String::new, |split| format!("; split: {split}"));
    let pushed = if report.already_committed { "is already" } else { "is now" };
    let mut text = format!("{} version {} {pushed} in the catalog{split}", report.model, report.version);
    if let Some(standing) = &report.sidecars {
        text += &format!("\n{standing}");
    } else if !report.split.iter().any(|share| share.is_of(&report.version)) {
        text += &format!(
            "\nit answers nobody yet: `sconce split {} {}=100` gives it all traffic",
            report.model, report.version
        );
    }
    text
}

#[cfg(test)]
mod wording {
    use super::*;

    fn report(sent: u64, total: u64, already_committed: bool) -> Report {
        Report {
            model: "digits".into(),
            version: "2".into(),
            artifact: String::new(),
            bytes_total: total,
            bytes_sent: sent,
            already_committed,
            split: vec![],
            serial: Some(1),
            sidecars: None,
        }
    }

    #[test]
    fn a_push_says_how_much_was_already_there() {
        assert_eq!(
            said(&report(63_488, 1_258_291, false)),
            "62 KiB of 1.2 MiB was new, 94 % was already there"
        );
        assert_eq!(said(&report(0, 1_024, false)), "0 B of 1.0 KiB was new, 100 % was already there");
        // One byte sent is not "100 % already there".
        assert_eq!(said(&report(1, 1_024, false)), "1 B of 1.0 KiB was new, 99 % was already there");
        assert!(said(&report(0, 1_024, true)).contains("already"));
    }

    #[test]
    fn a_version_without_traffic_says_how_to_give_it_some() {
        let split = Split::whole("1".parse().expect("valid"));
        let mut pushed = report(1, 2, false);
        pushed.split = shares(Some(&split));
        assert!(people(&pushed, Some(&split)).contains("sconce split digits 2=100"));
        let split = Split::whole("2".parse().expect("valid"));
        pushed.split = shares(Some(&split));
        assert!(!people(&pushed, Some(&split)).contains("sconce split"));
    }
}

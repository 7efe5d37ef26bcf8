//! `sconce split` and `sconce delete`: which versions answer.

mod wait;

use std::time::{Duration, Instant};

use sconce_catalog::Split;
use serde::Serialize;

use super::models::{ShareView, shares};
use crate::{
    args::{self, Pinned, SplitShare},
    client::{Control, SplitProgress},
    failure::Failure,
    output::Output,
};

#[derive(Serialize)]
struct SplitView {
    model: String,
    split: Vec<ShareView>,
    /// The header by which callers are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    sticky: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<u64>,
    /// How far it has come.
    progress: SplitProgress,
    /// How long it took to get there, where it was waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
}

#[derive(Serialize)]
struct Deleted {
    model: String,
    version: String,
    serial: u64,
}

/// Sets the split, or shows it where nothing is given. Who only says by what callers are known leaves
/// the shares as they are.
pub(super) async fn run(args: args::Split, mut control: Control, out: Output) -> Result<(), Failure> {
    let model = args.model.to_string();
    let sticky = if args.no_sticky { Some(None) } else { args.sticky.as_ref().map(Some) };
    let wanted = if args.shares.is_empty() {
        let described = control.model(&args.model).await?;
        match (described.model.split, sticky) {
            (Some(split), Some(_)) => split,
            (split, _) => {
                let view = SplitView {
                    model,
                    split: shares(split.as_ref()),
                    sticky: described.model.sticky.map(|header| header.to_string()),
                    serial: None,
                    progress: described.progress,
                    seconds: None,
                };
                return show(&view, split.as_ref(), out);
            }
        }
    } else {
        wanted(&args.shares).map_err(|failure| {
            failure
                .hint(format!("write it as `sconce split {} 1=90 2=10`; the shares sum to 100", args.model))
        })?
    };
    let began = Instant::now();
    let set = control.set_split(&args.model, &wanted, sticky).await?;
    let (progress, seconds) = match args.wait {
        0 => (control.model(&args.model).await?.progress, None),
        limit => {
            let progress = wait::in_force(&mut control, &args.model, Duration::from_secs(limit)).await?;
            (progress, Some(began.elapsed().as_secs_f64()))
        }
    };
    let view = SplitView {
        model,
        split: shares(Some(&set.split)),
        sticky: set.sticky.map(|header| header.to_string()),
        serial: Some(set.serial),
        progress,
        seconds,
    };
    show(&view, Some(&set.split), out)
}

/// The split that was typed.
pub(super) fn wanted(shares: &[SplitShare]) -> Result<Split, Failure> {
    let shares = shares.iter().map(|share| (share.version.clone(), share.percent.0));
    Split::new(shares).map_err(|error| Failure::usage(error.to_string()))
}

fn show(view: &SplitView, split: Option<&Split>, out: Output) -> Result<(), Failure> {
    out.show(view, |view| match split {
        None => format!("{} has no version yet, hence no split", view.model),
        Some(split) => {
            let by = view.sticky.as_ref().map(|header| format!(", callers by {header}")).unwrap_or_default();
            format!("{}: {split}{by}\n{}", view.model, view.progress.message)
        }
    })
}

/// Deletes a version.
pub(super) async fn delete(what: Pinned, mut control: Control, out: Output) -> Result<(), Failure> {
    let Some(version) = what.version else {
        return Err(Failure::usage(format!("no version of {} is named", what.model))
            .hint(format!("write it as `sconce delete {}:VERSION`", what.model)));
    };
    let serial = control.delete(&what.model, &version).await?;
    let deleted = Deleted { model: what.model.to_string(), version: version.to_string(), serial };
    out.show(&deleted, |it| format!("deleted version {} of {} (serial {})", it.version, it.model, it.serial))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    fn typed(shares: &[&str]) -> Result<Split, Failure> {
        wanted(&shares.iter().map(|share| share.parse().expect("valid")).collect::<Vec<_>>())
    }

    #[test]
    fn shares_that_do_not_sum_to_100_are_a_usage_error_that_says_the_sum() {
        let failure = typed(&["1=50", "2=49.5"]).expect_err("99.5");
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.to_string().contains("99.5 %"), "{failure}");
        assert!(typed(&["1=50", "1=50"]).is_err());
        assert_eq!(typed(&["1=33.33", "2=66.67"]).expect("100").to_string(), "1=33.33 %, 2=66.67 %");
    }
}

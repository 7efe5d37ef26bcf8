//! What can be typed about a measurement.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{Args as Options, ValueEnum};
use sconce_catalog::Version;

use super::{InputFile, values};

#[derive(Debug, Options)]
pub(crate) struct Bench {
    /// The model, by the name that the server has for it
    pub(crate) model: String,
    /// Ask this version, whatever the server would choose
    #[arg(long)]
    pub(crate) version: Option<Version>,
    /// The server: `http://host:port`, `https://host:port`, or a sidecar's name
    #[arg(long, env = "SCONCE_SIDECAR", value_name = "ADDRESS", visible_alias = "sidecar")]
    pub(crate) server: Option<String>,
    /// Judge the server's certificate by this DNS name or IP address, not by a SPIFFE id: for
    /// servers that belong to no trust domain
    #[arg(long, value_name = "NAME")]
    pub(crate) server_name: Option<String>,
    /// A header of every request, such as `x-sconce-route=canary` (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::pair)]
    pub(crate) header: Vec<(String, String)>,

    /// How tensors travel; several are measured in turn
    #[arg(long, value_delimiter = ',', default_value = "binary", help_heading = "Requests")]
    pub(crate) protocol: Vec<Protocol>,
    /// HTTP/2 also for json and binary
    #[arg(long, help_heading = "Requests")]
    pub(crate) http2: bool,
    /// An input from a .npy, .json, .png or .jpg file, or JSON from standard input (`@-`).
    /// Without any, inputs are made up from what the server says the model takes
    #[arg(long, short, value_name = "[NAME=]FILE", verbatim_doc_comment, help_heading = "Requests")]
    pub(crate) input: Vec<InputFile>,
    /// A whole Open Inference Protocol request in place of --input (`-`: standard input)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["input", "shape"], help_heading = "Requests")]
    pub(crate) json: Option<PathBuf>,
    /// Pixels become 0 to MAX in place of 0 to 255
    #[arg(long, value_name = "MAX", num_args = 0..=1, require_equals = true, default_missing_value = "1", help_heading = "Requests")]
    pub(crate) scale: Option<f64>,
    /// Shape, and datatype where the server does not say, of an input that is made up, such as
    /// `image=8,64` or `ids=INT64[1,128]` (repeatable)
    #[arg(
        long,
        value_name = "[NAME=]SHAPE",
        conflicts_with = "input",
        verbatim_doc_comment,
        help_heading = "Requests"
    )]
    pub(crate) shape: Vec<Shape>,
    /// What a dimension that varies is made
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..), help_heading = "Requests")]
    pub(crate) variable: u64,
    /// Integers that are made up are 0 to N-1
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(i64).range(1..), help_heading = "Requests")]
    pub(crate) below: i64,

    /// Open loop: this many requests a second become due, answered or not; several are measured
    /// in turn, such as `100,200,400`
    #[arg(long, value_name = "PER_SECOND,…", value_delimiter = ',', value_parser = rate, conflicts_with = "concurrency", help_heading = "Load")]
    pub(crate) rate: Vec<f64>,
    /// Closed loop: this many callers, each with its next request once it has an answer
    /// [default: 1, where there is no --rate]
    #[arg(long, short, value_name = "CALLERS,…", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..), verbatim_doc_comment, help_heading = "Load")]
    pub(crate) concurrency: Vec<u16>,
    /// When the requests of an open loop become due
    #[arg(long, default_value = "poisson", help_heading = "Load")]
    pub(crate) arrivals: Arrivals,
    /// How long each is measured, such as `500ms`, `10s` or `2m`
    #[arg(long, short, default_value = "10s", value_parser = span, help_heading = "Load")]
    pub(crate) duration: Duration,
    /// Stop each after this many requests, if that is sooner
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Load")]
    pub(crate) requests: Option<u64>,
    /// The same load before, which does not count; `0s` for none
    #[arg(long, default_value = "2s", value_parser = span, help_heading = "Load")]
    pub(crate) warmup: Duration,
    /// How long an answer may take from when its request is sent
    #[arg(long, default_value = "10s", value_parser = positive_span, help_heading = "Load")]
    pub(crate) timeout: Duration,
    /// Open loop: at most this many requests unanswered; what is due beyond waits, and is counted
    /// as unsent if that takes longer than --timeout
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..), help_heading = "Load")]
    pub(crate) outstanding: u16,
    /// Connections of HTTP/2 and gRPC [default: one for each caller, or for each thread of an
    /// open loop]; HTTP/1.1 has one for each request under way
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Load")]
    pub(crate) connections: Option<u16>,
    /// Threads that send and receive
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "Load")]
    pub(crate) threads: u16,
    /// Seed of the Poisson arrivals and of made-up inputs
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Load")]
    pub(crate) seed: u64,

    /// Percent of the requests that may fail or stay unsent before the exit code says so
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = percent, help_heading = "Results")]
    pub(crate) tolerate: f64,
    /// Write everything as JSON: settings, machine, whole histograms, the timeline
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub(crate) out: Option<PathBuf>,
    /// Draw latency over time and by percentile
    #[arg(long, value_name = "FILE.svg|.png", value_parser = picture, help_heading = "Results")]
    pub(crate) plot: Option<PathBuf>,
}

/// How tensors travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// HTTP, tensors as JSON
    Json,
    /// HTTP, tensors as bytes behind their description
    Binary,
    /// gRPC, tensors as bytes
    Grpc,
}

/// When the requests of an open loop become due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arrivals {
    /// Independent of each other, as those of many callers are
    Poisson,
    /// At equal distances
    Constant,
}

/// `[NAME=][DATATYPE]SHAPE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) name: Option<String>,
    pub(crate) datatype: Option<sconce_catalog::Datatype>,
    pub(crate) dimensions: Vec<u64>,
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("{text:?} is no shape; write it as `8,64`, `image=8,64` or `ids=INT64[1,128]`");
        let (name, shape) = match text.split_once('=') {
            Some((name, shape)) if !name.is_empty() => (Some(name.to_owned()), shape),
            Some(_) => return Err(form()),
            None => (None, text),
        };
        let (datatype, numbers) = match shape.split_once('[') {
            Some((datatype, rest)) => (datatype, rest.strip_suffix(']').ok_or_else(form)?),
            None => ("", shape),
        };
        let datatype = match datatype {
            "" => None,
            name => Some(name.to_uppercase().parse().map_err(|_| format!("{name:?} is no datatype"))?),
        };
        let dimension = |text: &str| text.trim().parse().map_err(|_| form());
        let dimensions = match numbers {
            "" if datatype.is_some() => vec![],
            numbers => numbers.split(',').map(dimension).collect::<Result<_, _>>()?,
        };
        Ok(Self { name, datatype, dimensions })
    }
}

/// `500ms`, `2.5s`, `1m`, `2h`, or a number of seconds; also none.
fn span(text: &str) -> Result<Duration, String> {
    let invalid = || format!("{text:?} is no length of time; write `500ms`, `10s`, `2m` or `1h`");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = match unit {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(invalid()),
    };
    let seconds = number.parse::<f64>().map_err(|_| invalid())? * unit;
    // Longer than a day is a typing error, and timers count only so far.
    Duration::try_from_secs_f64(seconds).ok().filter(|span| span.as_secs() <= 86_400).ok_or_else(invalid)
}

fn positive_span(text: &str) -> Result<Duration, String> {
    span(text).and_then(|span| if span.is_zero() { Err("it must not be nothing".into()) } else { Ok(span) })
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (1e-3..=1e7).contains(rate));
    rate.ok_or_else(|| format!("{text:?} is no number of requests a second"))
}

fn percent(text: &str) -> Result<f64, String> {
    let percent = text.trim_end_matches('%').parse::<f64>().ok();
    percent
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or_else(|| format!("{text:?} is no percentage"))
}

fn picture(text: &str) -> Result<PathBuf, String> {
    let file = PathBuf::from(text);
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("svg" | "png") => Ok(file),
        _ => Err("the name must end in .svg or .png".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_may_be_short() {
        assert_eq!(span("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(span("2.5"), Ok(Duration::from_millis(2_500)));
        assert_eq!(span("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(span("0s"), Ok(Duration::ZERO));
        for text in ["", "s", "-1s", "1d", "1e3s", "25h", "1.2.3s"] {
            assert!(span(text).is_err(), "{text:?}");
        }
        assert!(positive_span("0").is_err());
    }

    #[test]
    fn a_shape_may_name_its_input_and_datatype() {
        let shape =
            |text: &str| text.parse::<Shape>().map(|s| (s.name, s.datatype.map(|d| d.name()), s.dimensions));
        assert_eq!(shape("8,64"), Ok((None, None, vec![8, 64])));
        assert_eq!(shape("image=1, 3"), Ok((Some("image".into()), None, vec![1, 3])));
        assert_eq!(shape("ids=int64[1,128]"), Ok((Some("ids".into()), Some("INT64"), vec![1, 128])));
        assert_eq!(shape("x=FP32[]"), Ok((Some("x".into()), Some("FP32"), vec![])));
        for text in ["", "=1", "x=", "x=-1,2", "x=FP31[1]", "x=FP32[1"] {
            assert!(shape(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_pictures_that_can_be_drawn_are_named() {
        assert!(picture("a.svg").is_ok() && picture("a/b.png").is_ok());
        assert!(picture("a.jpg").is_err() && picture("svg").is_err());
    }
}

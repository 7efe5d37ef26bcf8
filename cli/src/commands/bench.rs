//! `sconce bench`: how fast a server answers. It measures any that speaks the Open Inference
//! Protocol, so that others and we are measured by the same tool.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    args::{Bench, Global, Protocol},
    config::Surroundings,
    context::{Access, Credentials},
    failure::{Exit, Failure},
    output::{self, Output},
};

mod arrivals;
mod call;
mod events;
mod generated;
mod load;
mod machine;
mod plot;
mod pool;
mod prepare;
mod progress;
mod record;
mod results;
#[cfg(test)]
mod specimen;
#[cfg(test)]
mod stalls;
mod table;
mod target;
mod timer;

use self::{
    call::Call,
    events::Follower,
    load::{Load, Plan, Running},
    machine::Machine,
    progress::Progress,
    results::{Point, Results, Run, Settings},
    target::{Target, Trust},
};

/// Slices of a timeline: enough to see a pause, few enough to have percentiles.
const SLICES: u32 = 200;
const NARROWEST_SLICE: Duration = Duration::from_millis(50);
/// A run in which nothing succeeds is ended after so many failures.
const HOPELESS: u64 = 50;
/// And not before this time.
const HOPE: Duration = Duration::from_secs(2);

/// Why a run ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    Interrupted,
    /// Everything failed.
    Hopeless,
}

/// Measures, shows and writes.
pub(super) async fn run(args: Bench, global: &Global, surroundings: &Surroundings) -> Result<(), Failure> {
    let access = match Access::resolve(global, surroundings) {
        Ok(access) => Some(access),
        // No control plane is needed for a server of somebody else.
        Err(failure) if failure.exit == Exit::Usage => None,
        Err(failure) => return Err(failure),
    };
    let stopped = super::stopped()?;
    tokio::pin!(stopped);
    let address = address(&args, access.as_ref()).await?;
    let follower = follow(&args, access.as_ref()).await;
    let mut results = Results {
        sconce: env!("CARGO_PKG_VERSION"),
        began_at: output::time(jiff::Timestamp::now().as_millisecond()),
        server: address.clone(),
        security: "",
        model: args.model.clone(),
        machine: Machine::this(),
        settings: settings(&args),
        interrupted: false,
        points: vec![],
    };
    let given = Credentials::given(global);
    let credentials = access.as_ref().map(|access| &access.identity).or(given.as_ref());
    let mut end = End::Done;
    'all: for protocol in &args.protocol {
        let trust = Trust { credentials, name: args.server_name.as_deref() };
        let target = Target::new(&address, trust, args.http2 || *protocol == Protocol::Grpc).await?;
        results.security = target.security();
        let calls = tokio::select! {
            calls = prepare::calls(&args, &target, *protocol) => calls?,
            () = &mut stopped => return Err(Failure::new(Exit::Interrupted, "interrupted before anything was measured")),
        };
        for load in loads(&args) {
            let offer = Offer { args: &args, target: &target, protocol: *protocol, calls: &calls, load };
            let (point, why) = offer.measured(follower.as_ref(), &mut stopped).await?;
            results.points.push(point);
            end = why;
            if end != End::Done {
                break 'all;
            }
        }
    }
    results.interrupted = end == End::Interrupted;
    shown(&args, global, &results)?;
    judged(&args, &results, end)
}

/// The server named, else a sidecar as `infer` would choose it.
async fn address(args: &Bench, access: Option<&Access>) -> Result<String, Failure> {
    let known = access.map_or(&[][..], |access| &access.sidecars);
    if let Some(address) = super::locate::without_asking(args.server.as_deref(), known) {
        return Ok(address);
    }
    let Some(access) = access else {
        return Err(Failure::usage("there is no server to measure")
            .hint("give --server https://host:port, or http://host:port without TLS"));
    };
    let model = args.model.parse().map_err(|error| {
        Failure::usage(format!("{error}")).hint("only such a model is found by its name; give --server")
    })?;
    super::locate::sidecar(&model, args.server.as_deref(), access).await
}

/// The events of the model, where somebody tells them. A measurement does not need them.
async fn follow(args: &Bench, access: Option<&Access>) -> Option<Follower> {
    let (access, model) = (access?, args.model.parse().ok()?);
    match Follower::start(access, model).await {
        Ok(follower) => Some(follower),
        Err(failure) => {
            eprintln!("note: without the control plane's events: {failure}");
            None
        }
    }
}

fn loads(args: &Bench) -> Vec<Load> {
    if !args.rate.is_empty() {
        return args.rate.iter().map(|rate| Load::Open { arrivals: args.arrivals, rate: *rate }).collect();
    }
    let callers = if args.concurrency.is_empty() { &[1][..] } else { &args.concurrency[..] };
    callers.iter().map(|concurrency| Load::Closed { concurrency: *concurrency }).collect()
}

fn settings(args: &Bench) -> Settings {
    let inputs = match (&args.json, args.input.is_empty()) {
        (Some(_), _) => "a whole request",
        (None, false) => "files",
        (None, true) => "made up",
    };
    Settings {
        inputs,
        version: args.version.as_ref().map(ToString::to_string),
        duration_s: args.duration.as_secs_f64(),
        requests: args.requests,
        warmup_s: args.warmup.as_secs_f64(),
        timeout_s: args.timeout.as_secs_f64(),
        outstanding: args.outstanding,
        connections: args.connections,
        threads: args.threads,
        seed: args.seed,
        http2: args.http2,
    }
}

/// One protocol under one load.
struct Offer<'a> {
    args: &'a Bench,
    target: &'a Target,
    protocol: Protocol,
    calls: &'a [Call],
    load: Load,
}

impl Offer<'_> {
    /// Sends it until it is over or somebody has had enough.
    async fn measured(
        &self,
        follower: Option<&Follower>,
        stopped: &mut (impl Future<Output = ()> + Unpin),
    ) -> Result<(Point, End), Failure> {
        let title = format!("{} {}", results::name(self.protocol), table::load(&self.load.into()));
        let mut running =
            self.plan().start().map_err(|error| Failure::failed(format!("no load can be made: {error}")))?;
        let mut progress = Progress::new(&title, self.args.duration);
        let end = watched(&mut running, &mut progress, stopped).await;
        progress.finish();
        let end = end.map_err(|error| Failure::failed(format!("the load broke off: {error}")))?;
        running.stop();
        let (began, record) = (running.began(), running.record());
        let run = Run {
            protocol: self.protocol,
            load: self.load,
            request_bytes: self.calls.first().map_or(0, Call::size),
            record: &record,
            began,
            took: Instant::now().saturating_duration_since(began).min(self.args.duration),
            connections: running.opened(),
            happened: follower.map_or_else(Vec::new, |follower| follower.since(began)),
        };
        Ok((run.point(), end))
    }

    fn plan(&self) -> Plan {
        let args = self.args;
        Plan {
            target: self.target.clone(),
            calls: self.calls.to_vec(),
            load: self.load,
            warmup: args.warmup,
            duration: args.duration,
            requests: args.requests,
            timeout: args.timeout,
            outstanding: args.outstanding,
            connections: args.connections,
            threads: args.threads,
            seed: args.seed,
            slice: (args.duration / SLICES).max(NARROWEST_SLICE),
        }
    }
}

async fn watched(
    running: &mut Running,
    progress: &mut Progress,
    stopped: &mut (impl Future<Output = ()> + Unpin),
) -> io::Result<End> {
    let mut tick = tokio::time::interval(progress::TICK);
    loop {
        tokio::select! {
            biased;
            () = &mut *stopped => return Ok(End::Interrupted),
            ended = running.ended() => return ended.map(|()| End::Done),
            _ = tick.tick() => {
                progress.look(running);
                let (answered, failed) = running.counts();
                if answered == 0 && failed >= HOPELESS && running.began().elapsed() >= HOPE {
                    return Ok(End::Hopeless);
                }
            }
        }
    }
}

fn shown(args: &Bench, global: &Global, results: &Results) -> Result<(), Failure> {
    Output(global.format).show(&results.summary(), table::all)?;
    if let Some(file) = &args.out {
        let json = serde_json::to_vec_pretty(results)
            .map_err(|error| Failure::failed(format!("the result has no JSON form: {error}")))?;
        written(file, &json)?;
    }
    match &args.plot {
        Some(file) => plot::write(results, file),
        None => Ok(()),
    }
}

fn written(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(file, bytes)
        .map_err(|error| Failure::failed(format!("{} cannot be written: {error}", file.display())))
}

/// Whether that was good enough.
fn judged(args: &Bench, results: &Results, end: End) -> Result<(), Failure> {
    let example = results.points.iter().flat_map(|point| &point.failures).next();
    let example = example.map_or_else(
        || "those that waited too long for others to be answered (see --outstanding)".to_owned(),
        |failure| format!("{}: {}", failure.kind, failure.example),
    );
    match end {
        End::Interrupted => {
            Err(Failure::new(Exit::Interrupted, "interrupted; what was measured until then is above"))
        }
        End::Hopeless => Err(Failure::failed(format!(
            "stopped early: no request to {} for {} succeeds; the first failed with {example}",
            results.server, results.model
        ))),
        End::Done if results.percent_failed() > args.tolerate => Err(Failure::failed(format!(
            "{:.3} % of the requests to {} for {} failed or were not sent, such as {example}",
            results.percent_failed(),
            results.server,
            results.model
        ))
        .hint("--tolerate PERCENT lets a share of them fail")),
        End::Done => Ok(()),
    }
}

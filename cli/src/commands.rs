//! The commands: each is one module that asks the control plane or a sidecar and shows
//! the answer.

use clap::CommandFactory;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    args::{Archive, Args, Command, Global, JoinToken, Push, Token},
    client::Control,
    config::Surroundings,
    context::Access,
    failure::{Exit, Failure},
    output::{self, Output},
};

mod bench;
mod describe;
mod doctor;
mod fleet;
mod history;
mod infer;
mod inject;
mod install;
mod locate;
mod models;
mod push;
mod question;
mod render;
mod split;
mod tokens;
mod uninstall;
mod up;

/// Runs what was typed.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let surroundings = Surroundings::of_process();
    match args.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "sconce", &mut script);
            output::write(&String::from_utf8_lossy(&script))
        }
        // Nobody is asked, so nobody needs to be reachable.
        Command::Render(render) if render.generation.is_some() => {
            render::offline(&render, Output(args.global.format))
        }
        Command::Inject(inject) => inject::inject(&inject),
        Command::Uninject(uninject) => inject::uninject(&uninject),
        // Ctrl-C ends the load, and what was measured is still shown.
        Command::Bench(bench) => bench::run(*bench, &args.global, &surroundings).await,
        Command::Up(up) => up::run(up, &args.global, &surroundings).await,
        command => {
            let interrupted = match &command {
                Command::Push(Push { what: Archive::Address(_), .. }) => {
                    "interrupted; the pull has stopped: repeat the same command to begin it anew"
                }
                Command::Push(_) => "interrupted; what was sent is kept: repeat the same command to resume",
                Command::Install(_) | Command::Uninstall(_) => {
                    "interrupted; the same command goes on from here"
                }
                _ => "interrupted",
            };
            tokio::select! {
                done = dispatch(command, &args.global, &surroundings) => done,
                () = stopped()? => Err(Failure::new(Exit::Interrupted, interrupted)),
            }
        }
    }
}

async fn dispatch(command: Command, global: &Global, surroundings: &Surroundings) -> Result<(), Failure> {
    let out = Output(global.format);
    // These ask a cluster; a control plane may not be there yet, or not any more.
    let command = match command {
        Command::Install(install) => return install::run(install, out).await,
        Command::Uninstall(uninstall) => return uninstall::run(uninstall, out).await,
        Command::Doctor(doctor) => return doctor::run(doctor, global, surroundings, out).await,
        other => other,
    };
    let access = Access::resolve(global, surroundings)?;
    let control = async || Control::connect(&access).await;
    match command {
        Command::Push(push) => push::run(push, control().await?, out).await,
        Command::Models(models) => models::list(models, control().await?, out).await,
        Command::Versions(one) => models::versions(&one.model, control().await?, out).await,
        Command::Describe { what } => describe::run(&what, control().await?, out).await,
        Command::Delete { what } => split::delete(what, control().await?, out).await,
        Command::Split(split) => split::run(split, control().await?, out).await,
        Command::Render(render) => render::run(&render, control().await?, out).await,
        Command::Sidecars => fleet::run(control().await?, out).await,
        Command::Events(events) => history::events(events, control().await?, out).await,
        Command::Audit(audit) => history::audit(&audit, control().await?, out).await,
        Command::Infer(infer) => infer::run(infer, &access, out).await,
        Command::Token(Token::Create { name, role }) => {
            tokens::create(&name, role, control().await?, out).await
        }
        Command::Token(Token::Revoke { name }) => tokens::revoke(&name, control().await?, out).await,
        Command::JoinToken(JoinToken::Create(create)) => {
            tokens::create_join(&create, control().await?, out).await
        }
        Command::Up(_)
        | Command::Bench(_)
        | Command::Completions { .. }
        | Command::Inject(_)
        | Command::Uninject(_) => {
            unreachable!("`run` handles them")
        }
        Command::Install(_) | Command::Uninstall(_) | Command::Doctor(_) => unreachable!("handled above"),
    }
}

/// Ends at the first SIGINT or SIGTERM. They count from the call on.
fn stopped() -> Result<impl Future<Output = ()>, Failure> {
    let listen = |kind| {
        signal(kind).map_err(|error| Failure::failed(format!("signals cannot be listened to: {error}")))
    };
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
        }
    })
}

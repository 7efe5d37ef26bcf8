//! The command line: push, models, split, sidecars, infer, up.

use std::process::ExitCode;

use clap::Parser;

mod args;
mod client;
mod cluster;
mod commands;
mod config;
mod connection;
mod context;
mod failure;
mod http;
mod output;
mod pods;
mod tensor;
mod troubles;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the async runtime cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(commands::run(args));
    // A thread that still reads standard input must not keep the process.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit.into()
        }
    }
}

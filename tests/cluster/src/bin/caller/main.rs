//! A caller in a pod: asks the example's model for predictions over kept connections, one
//! request after the other on each, and prints what came of them as JSON. `caller echo` is the
//! other side of a comparison: a server that does nothing but answer.

mod echo;
mod grpc;
mod http;
mod tally;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::{Parser, Subcommand};

use self::tally::Tally;

/// Asks for predictions, as a client in the mesh does.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    way: Way,
}

#[derive(Subcommand)]
enum Way {
    /// Over HTTP/1.1: JSON where it is one row, else the binary tensor extension.
    Http(Ask),
    /// Over gRPC.
    Grpc(Ask),
    /// Answers whatever is sent with a short JSON, over HTTP/1.1 and HTTP/2.
    Echo {
        /// On which port.
        port: u16,
    },
}

#[derive(clap::Args, Clone)]
struct Ask {
    /// Host, and port where it is not 80.
    authority: String,
    /// How often; or until a file of this name exists.
    until: String,
    /// How many connections ask at the same time.
    #[arg(long, default_value_t = 4)]
    callers: usize,
    /// Rows in each request, of 256 bytes each.
    #[arg(long, default_value_t = 1)]
    rows: usize,
    /// A header (in gRPC: metadata) that says for whom each request is.
    #[arg(long, value_name = "HEADER")]
    known_by: Option<String>,
    /// How many they are: one asks after the other.
    #[arg(long, default_value_t = 1_000, requires = "known_by")]
    people: u64,
    /// Requests per second, at even distances, as far as there are connections; else as many as are answered.
    #[arg(long)]
    rate: Option<f64>,
}

/// One request.
struct Question<'a> {
    authority: &'a str,
    rows: usize,
    /// The header that says for whom it is, and what it says.
    person: Option<(&'a str, String)>,
}

/// When to stop.
enum Until {
    Asked(AtomicU64),
    Exists(PathBuf),
}

/// Longer than any answer should take: a request that hangs is one that failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// The example's model, its input, and how many values a row has.
const MODEL: &str = "digits";
const INPUT: &str = "image";
const VALUES: usize = 64;

/// A connection that is opened when it is needed and kept while it works.
trait Connection: Default {
    /// One request; the version that answered it.
    async fn ask(&mut self, question: &Question<'_>) -> Result<String, Unanswered>;
}

/// What came instead of a prediction.
enum Unanswered {
    /// The server has too much to do, and said so.
    Refused,
    /// Anything else, in words.
    Failed(String),
}

impl From<String> for Unanswered {
    fn from(error: String) -> Self {
        Self::Failed(error)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    match Arguments::parse().way {
        Way::Http(ask) => call::<http::Kept>(ask).await,
        Way::Grpc(ask) => call::<grpc::Kept>(ask).await,
        Way::Echo { port } => return echo::serve(port).await,
    }
    Ok(())
}

async fn call<C: Connection + 'static>(ask: Ask) {
    let until = Arc::new(match ask.until.parse() {
        Ok(count) => Until::Asked(AtomicU64::new(count)),
        Err(_) => Until::Exists(ask.until.clone().into()),
    });
    let (tally, began) = (Arc::new(Mutex::new(Tally::default())), Instant::now());
    let next = Arc::new(AtomicU64::new(0));
    // Everybody asks on this one thread: a connection need not be sent to another.
    let here = tokio::task::LocalSet::new();
    for _ in 0..ask.callers {
        let (until, tally, next) = (Arc::clone(&until), Arc::clone(&tally), Arc::clone(&next));
        here.spawn_local(one::<C>(ask.clone(), began, until, tally, next));
    }
    here.await;
    println!("{}", tally.lock().unwrap_or_else(PoisonError::into_inner).report(began.elapsed()));
}

async fn one<C: Connection>(
    ask: Ask,
    start: Instant,
    until: Arc<Until>,
    tally: Arc<Mutex<Tally>>,
    next: Arc<AtomicU64>,
) {
    let mut connection = C::default();
    while until.goes_on() {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let began = match ask.rate {
            // Whoever waits for a connection waits as well, so a late request counts from when it was due.
            Some(rate) => {
                let due = start + Duration::from_secs_f64(number as f64 / rate);
                tokio::time::sleep_until(due.into()).await;
                due
            }
            None => Instant::now(),
        };
        let person = number % ask.people;
        let header = ask.known_by.as_deref().map(|header| (header, format!("person-{person}")));
        let question = Question { authority: &ask.authority, rows: ask.rows, person: header };
        let asked = tokio::time::timeout(PATIENCE, connection.ask(&question)).await;
        let late = |_| Err(Unanswered::Failed(format!("no answer within {PATIENCE:?}")));
        let outcome = asked.unwrap_or_else(late);
        if let Err(Unanswered::Failed(_)) = outcome {
            connection = C::default();
        }
        let person = question.person.map(|_| person);
        tally.lock().unwrap_or_else(PoisonError::into_inner).note(outcome, began.elapsed(), person);
    }
}

impl Until {
    fn goes_on(&self) -> bool {
        match self {
            Until::Asked(left) => {
                left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            }
            Until::Exists(file) => !file.exists(),
        }
    }
}

/// The tensor of a request, as both protocols send it.
fn tensor(rows: usize) -> Vec<u8> {
    0.5_f32.to_le_bytes().repeat(rows * VALUES)
}

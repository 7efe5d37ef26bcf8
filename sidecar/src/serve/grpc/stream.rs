//! Triton's `ModelStreamInfer`: requests that come and answers that go on one call.
//!
//! Requests run beside each other, as if each had come alone, and are answered in the order in which
//! they came, as Triton's server does for models that give one answer a request. A request that
//! fails is answered by an `error_message`, with its id, and the stream goes on; where the call's
//! metadata have `triton_grpc_error: true`, it ends the stream with the status of the failure.
//!
//! Only so many requests of a stream are here at a time, and so many bytes of them, those included whose
//! answers have not been taken yet: the next is read when there is room, so that whoever sends faster than the model runs
//! or does not read is slowed down by flow control. A caller that goes away drops the stream, and with
//! it what has not begun.

use std::{collections::VecDeque, panic::AssertUnwindSafe};

use futures::{
    FutureExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{BoxStream, FuturesOrdered, unfold},
};
use prost::Message as _;
use sconce_lifecycle::Stopping;
use sconce_proto::inference::{
    InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
    infer_parameter::ParameterChoice,
};
use tonic::{Request, Status, Streaming};

use super::{
    super::{
        Server,
        error::ServeError,
        measure::{Measure, Protocol},
    },
    answered::message,
    asked::Call,
};

/// Ends the stream with the status of the first request that fails.
const STATUS: &str = "triton_grpc_error";
/// Of each answer: whether it is the last one to its request. Here there is only one.
const FINAL: &str = "triton_final_response";
/// Requests of one stream that are here at a time.
pub(in crate::serve) const MOST: usize = 32;

/// One answer, or why there is none, with the request's id.
type Answer = Result<ModelInferResponse, (ServeError, String)>;

struct Stream {
    server: Server,
    call: Call,
    requests: Streaming<ModelInferRequest>,
    answers: FuturesOrdered<BoxFuture<'static, Answer>>,
    /// Bytes of each of their requests.
    sizes: VecDeque<usize>,
    stopping: Stopping,
    is_reading: bool,
    /// Whether a failure ends the stream.
    fails: bool,
    /// How it ends once everything is answered; well, where there is nothing.
    end: Option<Status>,
}

/// Answers a stream.
pub(super) fn answers(
    server: Server,
    request: Request<Streaming<ModelInferRequest>>,
) -> Result<BoxStream<'static, Result<ModelStreamInferResponse, Status>>, ServeError> {
    let (metadata, extensions, requests) = request.into_parts();
    let fails = metadata.get(STATUS).is_some_and(|value| value.as_bytes() == b"true");
    let call = Call::read(metadata, &extensions)?;
    let (stopping, answers) = (server.0.config.stopping.clone(), FuturesOrdered::new());
    let (sizes, is_reading, end) = (VecDeque::new(), true, None);
    let stream = Stream { server, call, requests, answers, sizes, stopping, is_reading, fails, end };
    Ok(unfold(stream, Stream::next).boxed())
}

impl Stream {
    async fn next(mut self) -> Option<(Result<ModelStreamInferResponse, Status>, Self)> {
        loop {
            let (waits, has_room) = (!self.answers.is_empty(), self.has_room());
            tokio::select! {
                // What is done goes first, or a fast sender would keep it from being sent.
                biased;
                Some(answer) = self.answers.next(), if waits => return self.give(answer),
                () = self.stopping.cancelled(), if self.is_reading => self.close(ServeError::Stopping.into()),
                request = self.requests.message(), if self.is_reading && has_room => match request {
                    Ok(Some(request)) => self.begin(request),
                    Ok(None) => self.is_reading = false,
                    Err(status) => self.close(status),
                },
                else => return self.end.take().map(|status| (Err(status), self)),
            }
        }
    }

    fn has_room(&self) -> bool {
        self.answers.len() < MOST && self.sizes.iter().sum::<usize>() < self.server.0.config.max_body_bytes
    }

    /// Reads nothing more.
    fn close(&mut self, status: Status) {
        self.is_reading = false;
        self.end = Some(status);
    }

    fn begin(&mut self, request: ModelInferRequest) {
        self.sizes.push_back(request.encoded_len());
        let answer = answer(self.server.clone(), self.call.clone(), request);
        let mut answer: BoxFuture<'static, Answer> = Box::pin(answer);
        // As far as it goes, before the next is read: it takes its place in a sequence and in a queue
        // here, so that places are in the order of the requests.
        self.answers.push_back(match answer.as_mut().now_or_never() {
            Some(answer) => Box::pin(std::future::ready(answer)),
            None => answer,
        });
    }

    fn give(mut self, answer: Answer) -> Option<(Result<ModelStreamInferResponse, Status>, Self)> {
        self.sizes.pop_front();
        let reply = match answer {
            Ok(answer) => ModelStreamInferResponse { infer_response: Some(answer), ..Default::default() },
            Err((error, _)) if self.fails => {
                // Nobody will read what the others give.
                self.answers.clear();
                self.is_reading = false;
                self.end = None;
                return Some((Err(error.into()), self));
            }
            Err((error, id)) => ModelStreamInferResponse {
                error_message: error.to_string(),
                infer_response: Some(ModelInferResponse { id, ..Default::default() }),
            },
        };
        Some((Ok(reply), self))
    }
}

async fn answer(server: Server, call: Call, request: ModelInferRequest) -> Answer {
    let mut measure = Measure::begin(Protocol::Grpc, call.lane);
    let id = request.id.clone();
    let answering = async {
        // Beyond the limit of all requests, it is refused as if it had come alone.
        let place =
            server.0.places.try_acquire().map_err(|_| match server.0.config.leaving.is_cancelled() {
                true => ServeError::Stopping,
                false => ServeError::Overloaded,
            })?;
        let (infer, sinks) = call.ask(&server, request)?;
        let answer = server.infer(infer, &mut measure).await;
        drop(place);
        message(answer?, &sinks)
    };
    // A bug in one request must not end the others'.
    let answer = AssertUnwindSafe(answering).catch_unwind().await;
    let answer = answer.unwrap_or(Err(ServeError::Panicked));
    measure.ended(&answer);
    let mut reply = answer.map_err(|error| (error, id))?;
    let is_final = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
    reply.parameters.insert(FINAL.to_owned(), is_final);
    Ok(reply)
}

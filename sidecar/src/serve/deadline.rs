//! When an answer is of no use any more, by what a request says of it.
//!
//! Sources: `grpc-timeout` is of the gRPC protocol over HTTP/2 ("Timeout → TimeoutValue
//! TimeoutUnit"); `x-envoy-expected-rq-timeout-ms` is what Envoy's router tells an upstream;
//! `timeout`, in microseconds, is a parameter of Triton's schedule policy extension. Where several
//! say something, the earliest counts; the headers count from when they came.

use std::time::{Duration, Instant};

use axum::body::Body;
use http::{HeaderMap, Request};

use super::error::ServeError;

/// What the gRPC caller waits at most.
const GRPC: &str = "grpc-timeout";
/// What the Envoy in front of us waits at most.
const ENVOY: &str = "x-envoy-expected-rq-timeout-ms";
/// No request is waited for as long, and no sum with it is out of bounds.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What a request's headers say. Put among its extensions when they have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    By(Instant),
    /// The header that cannot be read.
    Malformed(&'static str),
}

/// Notes what the headers say, before the body is read: that takes part of the time.
pub(super) fn note(mut request: Request<Body>) -> Request<Body> {
    if let Some(due) = due(request.headers(), Instant::now()) {
        request.extensions_mut().insert(due);
    }
    request
}

fn due(headers: &HeaderMap, now: Instant) -> Option<Due> {
    let read = |name: &'static str, parse: fn(&str) -> Option<Duration>| {
        let value = headers.get(name)?;
        let timeout = value.to_str().ok().and_then(|text| parse(text.trim()));
        Some(timeout.ok_or(name))
    };
    let (grpc, envoy) = (read(GRPC, of_grpc), read(ENVOY, of_envoy));
    match [grpc, envoy].into_iter().flatten().collect::<Result<Vec<_>, _>>() {
        Ok(timeouts) => timeouts.into_iter().min().map(|timeout| Due::By(now + timeout.min(LONGEST))),
        Err(name) => Some(Due::Malformed(name)),
    }
}

/// At most eight digits and a unit.
fn of_grpc(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

fn of_envoy(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_millis)
}

/// When the answer must be there: by the headers, as [`note`] put them among the extensions, by the parameter `timeout` in microseconds,
/// which counts from now; `None` where neither says.
pub(super) fn deadline(due: Option<Due>, timeout: Option<u64>) -> Result<Option<Instant>, ServeError> {
    let by_header = match due {
        None => None,
        Some(Due::By(due)) => Some(due),
        Some(Due::Malformed(name)) => {
            return Err(ServeError::Malformed(format!("the header {name} is not a timeout")));
        }
    };
    let by_parameter = timeout.map(|timeout| Instant::now() + Duration::from_micros(timeout).min(LONGEST));
    Ok([by_header, by_parameter].into_iter().flatten().min())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_earliest_of_what_is_said_counts() {
        let now = Instant::now();
        let by = |ms| Some(Due::By(now + Duration::from_millis(ms)));
        assert_eq!(due(&headers(&[]), now), None);
        assert_eq!(due(&headers(&[(GRPC, "250m")]), now), by(250));
        assert_eq!(due(&headers(&[(GRPC, "250m"), (ENVOY, "100")]), now), by(100));
        for (text, ms) in [("2H", 7_200_000), ("3M", 180_000), ("4S", 4_000), ("5000u", 5), ("6000000n", 6)] {
            assert_eq!(due(&headers(&[(GRPC, text)]), now), by(ms), "{text}");
        }
        assert_eq!(due(&headers(&[(GRPC, "99999999H")]), now), Some(Due::By(now + LONGEST)));
    }

    #[test]
    fn what_is_no_timeout_is_refused_by_its_name() {
        let now = Instant::now();
        for text in ["", "m", "1", "1s", "-1m", "1.5S", "123456789m", "+1m", "é"] {
            let map = [(GRPC.parse().unwrap(), http::HeaderValue::from_bytes(text.as_bytes()).unwrap())];
            assert_eq!(due(&map.into_iter().collect(), now), Some(Due::Malformed(GRPC)), "{text:?}");
        }
        let request = note(Request::post("/").header(ENVOY, "soon").body(Body::empty()).unwrap());
        let refused = deadline(request.extensions().get().copied(), None).expect_err("no number");
        assert!(refused.to_string().contains(ENVOY), "{refused}");
    }
}

//! Every metric, by the name it has for good: dashboards and alerts depend on it.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Requests answered, by `model`, `version`, `lane`, `protocol` and `outcome`.
pub const REQUESTS: &str = "sconce_requests_total";
/// Seconds from the request's last byte to the reply's first, by `model`, `version` and `protocol`.
pub const REQUEST_SECONDS: &str = "sconce_request_seconds";
/// Requests being answered now.
pub const REQUESTS_IN_FLIGHT: &str = "sconce_requests_in_flight";
/// Requests whose route named a version that has left, by `model`: the stable one answered.
pub const ROUTE_FALLBACKS: &str = "sconce_route_fallbacks_total";
/// Seconds a request waited for an inference thread, by `model` and `version`.
pub const QUEUE_SECONDS: &str = "sconce_queue_seconds";
/// Requests that wait for an inference thread, by `model` and `version`.
pub const QUEUED: &str = "sconce_queued_requests";
/// Times a model ran, by `model` and `version`; a batch runs once.
pub const RUNS: &str = "sconce_runs_total";
/// Rows that a model ran on, by `model` and `version`; 1 a request where rows are not counted.
pub const ROWS: &str = "sconce_rows_total";
/// Rows of a run, by `model` and `version`.
pub const BATCH_ROWS: &str = "sconce_batch_rows";
/// Rows that left a queue without having run, by `model`, `version` and `reason`: `late` for those
/// whose deadline could not be met any more, `abandoned` by their caller, `displaced` by a higher
/// priority.
pub const SAVED_ROWS: &str = "sconce_saved_rows_total";
/// Batches that failed, or whose outputs could not be cut apart, by `model` and `version`: their
/// members ran one by one.
pub const BATCHES_TAKEN_APART: &str = "sconce_batches_taken_apart_total";
/// Sequences that are running, by `model` and `version`.
pub const SEQUENCES: &str = "sconce_sequences";
/// Sequences that are over, by `model`, `version` and `reason`: `ended` by their caller, `expired`
/// when nobody had asked for them for too long, `restarted` by their caller, or `refused` before
/// their first request ran.
pub const SEQUENCES_ENDED: &str = "sconce_sequences_ended_total";
/// Versions by `state` on this sidecar.
pub const VERSIONS: &str = "sconce_versions";
/// Versions rejected, by `model` and `version`.
pub const REJECTIONS: &str = "sconce_rejections_total";
/// Model sets published: one for every change of what is served.
pub const SWAPS: &str = "sconce_swaps_total";
/// Seconds from the catalog's arrival to the swap.
pub const SWAP_SECONDS: &str = "sconce_swap_seconds";
/// Bytes of artifacts fetched from the control plane.
pub const FETCHED_BYTES: &str = "sconce_fetched_bytes_total";
/// Serial of the catalog that is served.
pub const CATALOG_SERIAL: &str = "sconce_catalog_serial";
/// 1 while the stream to the control plane is open.
pub const CONTROL_CONNECTED: &str = "sconce_control_plane_connected";
/// Sidecars with an open stream, on the control plane.
pub const SIDECARS_CONNECTED: &str = "sconce_sidecars_connected";
/// Pods that the webhook has judged, by `outcome`.
pub const WEBHOOK_REVIEWS: &str = "sconce_webhook_reviews_total";
/// Versions pushed, on the control plane.
pub const PUSHES: &str = "sconce_pushes_total";
/// Bytes of chunks received by pushes, on the control plane.
pub const PUSHED_BYTES: &str = "sconce_pushed_bytes_total";
/// 1 while this control plane is the one that publishes.
pub const PUBLISHES: &str = "sconce_publishes";
/// 1 while this control plane is the one that reconciles declared objects.
pub const RECONCILES: &str = "sconce_reconciles";
/// Pulls, by `outcome`: `pulled`, or the reason of the failure.
pub const PULLS: &str = "sconce_pulls_total";
/// Bytes that pulls have fetched, on the control plane.
pub const PULLED_BYTES: &str = "sconce_pulled_bytes_total";
/// Generation of the route that the mesh was given last, by `model`.
pub const ROUTE_GENERATION: &str = "sconce_route_generation";
/// Pods that are endpoints, by `model`.
pub const ENDPOINTS: &str = "sconce_endpoints";
/// What became of splits, by `outcome`: the type of the event.
pub const PUBLICATIONS: &str = "sconce_publications_total";
/// Objects of ours that somebody had changed and that were put back, by `model`.
pub const REPAIRS: &str = "sconce_route_repairs_total";

pub(crate) fn describe() {
    describe_counter!(REQUESTS, "Requests answered");
    describe_histogram!(REQUEST_SECONDS, Unit::Seconds, "Time to answer a request");
    describe_gauge!(REQUESTS_IN_FLIGHT, "Requests being answered now");
    describe_counter!(ROUTE_FALLBACKS, "Requests whose route named a version that has left");
    describe_histogram!(QUEUE_SECONDS, Unit::Seconds, "Time a request waited for an inference thread");
    describe_gauge!(QUEUED, "Requests that wait for an inference thread");
    describe_counter!(RUNS, "Times a model ran");
    describe_counter!(ROWS, "Rows that a model ran on");
    describe_histogram!(BATCH_ROWS, "Rows of a run");
    describe_counter!(SAVED_ROWS, "Rows that left a queue without having run");
    describe_counter!(BATCHES_TAKEN_APART, "Batches whose members had to run one by one");
    describe_gauge!(SEQUENCES, "Sequences that are running");
    describe_counter!(SEQUENCES_ENDED, "Sequences that are over");
    describe_gauge!(VERSIONS, "Versions by state");
    describe_counter!(REJECTIONS, "Versions rejected");
    describe_counter!(SWAPS, "Model sets published");
    describe_histogram!(SWAP_SECONDS, Unit::Seconds, "Time from a catalog's arrival to the swap");
    describe_counter!(FETCHED_BYTES, Unit::Bytes, "Bytes of artifacts fetched");
    describe_gauge!(CATALOG_SERIAL, "Serial of the catalog that is served");
    describe_gauge!(CONTROL_CONNECTED, "1 while the stream to the control plane is open");
    describe_gauge!(SIDECARS_CONNECTED, "Sidecars with an open stream");
    describe_counter!(WEBHOOK_REVIEWS, "Pods that the webhook has judged");
    describe_counter!(PUSHES, "Versions pushed");
    describe_counter!(PUSHED_BYTES, Unit::Bytes, "Bytes of chunks received");
    describe_gauge!(PUBLISHES, "1 while this control plane is the one that publishes");
    describe_gauge!(RECONCILES, "1 while this control plane is the one that reconciles declared objects");
    describe_counter!(PULLS, "Pulls");
    describe_counter!(PULLED_BYTES, Unit::Bytes, "Bytes that pulls have fetched");
    describe_gauge!(ROUTE_GENERATION, "Generation of the route that the mesh was given last");
    describe_gauge!(ENDPOINTS, "Pods that are endpoints");
    describe_counter!(PUBLICATIONS, "What became of splits");
    describe_counter!(REPAIRS, "Objects that were put back after somebody had changed them");
}

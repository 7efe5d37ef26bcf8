//! The statistics extension over HTTP.

use axum::{Json, Router, extract::State, routing::get};
use serde_json::{Value, json};

use super::{
    super::{Server, error::ServeError, statistics::VersionStatistics},
    Target,
};
use crate::engine::Total;

pub(super) fn routes() -> Router<Server> {
    Router::new()
        // Wins over a model called `stats`, as in Triton.
        .route("/v2/models/stats", get(all))
        .route("/v2/models/{model}/stats", get(one))
        .route("/v2/models/{model}/versions/{version}/stats", get(one))
}

async fn all(State(server): State<Server>) -> Result<Json<Value>, ServeError> {
    Ok(write(server.statistics(None, None)?))
}

async fn one(State(server): State<Server>, target: Target) -> Result<Json<Value>, ServeError> {
    Ok(write(server.statistics(Some(&target.model), target.version.as_deref())?))
}

fn write(versions: Vec<VersionStatistics>) -> Json<Value> {
    Json(json!({ "model_stats": versions.into_iter().map(version).collect::<Vec<_>>() }))
}

fn version(VersionStatistics { model, version, statistics }: VersionStatistics) -> Value {
    let [input, infer, output] = statistics.compute.map(total);
    let batch = |(rows, phases): (u64, [Total; 3])| {
        let [input, infer, output] = phases.map(total);
        json!({ "batch_size": rows, "compute_input": input, "compute_infer": infer, "compute_output": output })
    };
    json!({
        "name": model,
        "version": version,
        "last_inference": statistics.last_ms,
        "inference_count": statistics.rows,
        "execution_count": statistics.runs,
        "inference_stats": {
            "success": total(statistics.success),
            "fail": total(statistics.fail),
            "queue": total(statistics.queue),
            "compute_input": input,
            "compute_infer": infer,
            "compute_output": output,
            // There is no cache. Clients read these all the same.
            "cache_hit": total(Total::default()),
            "cache_miss": total(Total::default()),
        },
        "response_stats": {},
        "batch_stats": statistics.batches.into_iter().map(batch).collect::<Vec<_>>(),
        "memory_usage": [],
    })
}

fn total(total: Total) -> Value {
    json!({ "count": total.count, "ns": total.ns })
}

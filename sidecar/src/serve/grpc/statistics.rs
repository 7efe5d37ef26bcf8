//! The statistics extension over gRPC.

use sconce_proto::inference::{
    InferBatchStatistics, InferStatistics, ModelStatistics, ModelStatisticsRequest, ModelStatisticsResponse,
    StatisticDuration,
};

use super::{
    super::{Server, error::ServeError, statistics::VersionStatistics},
    some,
};
use crate::engine::Total;

pub(super) fn answer(
    server: &Server,
    request: ModelStatisticsRequest,
) -> Result<ModelStatisticsResponse, ServeError> {
    let ModelStatisticsRequest { name, version } = request;
    let versions = server.statistics(some(name).as_deref(), some(version).as_deref())?;
    Ok(ModelStatisticsResponse { model_stats: versions.into_iter().map(write).collect() })
}

fn write(VersionStatistics { model, version, statistics }: VersionStatistics) -> ModelStatistics {
    let [compute_input, compute_infer, compute_output] = statistics.compute.map(total);
    let batch = |(batch_size, phases): (u64, [Total; 3])| {
        let [compute_input, compute_infer, compute_output] = phases.map(total);
        InferBatchStatistics { batch_size, compute_input, compute_infer, compute_output }
    };
    ModelStatistics {
        name: model,
        version,
        last_inference: statistics.last_ms,
        inference_count: statistics.rows,
        execution_count: statistics.runs,
        inference_stats: Some(InferStatistics {
            success: total(statistics.success),
            fail: total(statistics.fail),
            queue: total(statistics.queue),
            compute_input,
            compute_infer,
            compute_output,
            cache_hit: total(Total::default()),
            cache_miss: total(Total::default()),
        }),
        batch_stats: statistics.batches.into_iter().map(batch).collect(),
    }
}

fn total(total: Total) -> Option<StatisticDuration> {
    Some(StatisticDuration { count: total.count, ns: total.ns })
}

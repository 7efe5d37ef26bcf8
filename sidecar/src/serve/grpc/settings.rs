//! The logging extension over gRPC, and what is answered of traces.

use sconce_identity::Principal;
use sconce_proto::inference::{
    LogSettingsRequest, LogSettingsResponse, TraceSettingRequest, TraceSettingResponse, log_settings_request,
    log_settings_response, trace_setting_response,
};

use super::{
    super::{Server, error::ServeError, settings::Setting},
    some,
};

pub(super) fn log(
    server: &Server,
    request: LogSettingsRequest,
    caller: Option<&Principal>,
) -> Result<LogSettingsResponse, ServeError> {
    use log_settings_request::setting_value::ParameterChoice as Said;
    use log_settings_response::{SettingValue, setting_value::ParameterChoice as Told};
    // A name without a value changes nothing.
    let said = request.settings.into_iter().filter_map(|(name, value)| Some((name, value.parameter_choice?)));
    let changes = said.map(|(name, value)| {
        let value = match value {
            Said::BoolParam(value) => Setting::Bool(value),
            Said::Uint32Param(value) => Setting::Number(value),
            Said::StringParam(value) => Setting::Text(value),
        };
        (name, value)
    });
    let settings = server.log_settings(changes.collect(), caller)?.into_iter().map(|(name, value)| {
        let value = match value {
            Setting::Bool(value) => Told::BoolParam(value),
            Setting::Number(value) => Told::Uint32Param(value),
            Setting::Text(value) => Told::StringParam(value),
        };
        (name, SettingValue { parameter_choice: Some(value) })
    });
    Ok(LogSettingsResponse { settings: settings.collect() })
}

pub(super) fn trace(
    server: &Server,
    request: TraceSettingRequest,
) -> Result<TraceSettingResponse, ServeError> {
    let changes = request.settings.into_iter().map(|(name, value)| (name, value.value)).collect();
    let settings = server.trace_settings(some(request.model_name).as_deref(), &changes)?;
    let told = |(name, value)| (name, trace_setting_response::SettingValue { value });
    Ok(TraceSettingResponse { settings: settings.into_iter().map(told).collect() })
}

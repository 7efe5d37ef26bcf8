//! What the environment says of publishing.

use std::time::Duration;

use sconce_istio::render::RETRIES;

use crate::publish::{Drift, Form, Rules, Settings};

/// Reads `SCONCE_PUBLISH` and what belongs to it; `None` where nothing is to be published.
pub(super) fn read(lookup: &dyn Fn(&str) -> Option<String>, problems: &mut Vec<String>) -> Option<Settings> {
    let mut wrong = |name: &str, text: &str, expected: &str| {
        problems.push(format!("{name} is {text:?}; expected {expected}"));
    };
    let text = |name: &str, default: &str| lookup(name).unwrap_or_else(|| default.to_owned());
    let publish = text("SCONCE_PUBLISH", "off");
    let form = match publish.as_str() {
        "off" => None,
        "istio" => Some(Form::Istio),
        "gateway-api" => Some(Form::GatewayApi),
        other => {
            wrong("SCONCE_PUBLISH", other, "istio, gateway-api or off");
            None
        }
    };
    let drift = match text("SCONCE_PUBLISH_DRIFT", "repair").as_str() {
        "repair" => Drift::Repair,
        "report" => Drift::Report,
        other => {
            wrong("SCONCE_PUBLISH_DRIFT", other, "repair or report");
            Drift::default()
        }
    };
    let mut number = |name: &str, default: u64, least: u64, most: u64| {
        let given = text(name, &default.to_string());
        given.parse().ok().filter(|n| (least..=most).contains(n)).unwrap_or_else(|| {
            wrong(name, &given, &format!("a number from {least} to {most}"));
            default
        })
    };
    // At most 100, so it fits.
    let floor = number("SCONCE_PUBLISH_FLOOR", 75, 1, 100) as u8;
    let grace = Duration::from_secs(number("SCONCE_PUBLISH_GRACE_SECONDS", 60, 1, 86_400));
    let retries = number("SCONCE_PUBLISH_RETRIES", u64::from(RETRIES), 0, 10) as u32;
    form.map(|form| Settings { form, drift, rules: Rules { floor, grace }, retries })
}

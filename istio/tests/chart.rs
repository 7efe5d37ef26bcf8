//! The chart says what the code says.

use sconce_istio::inject::{Settings, registration};
use serde_json::Value;

fn template(name: &str) -> String {
    let path = format!("{}/chart/templates/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A template for the release `sconce-system`, without what only helm can fill in.
fn filled(text: &str) -> String {
    let text = text.replace("{{ .Release.Namespace }}", "sconce-system");
    text.lines().filter(|line| !line.contains("{{- include")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_chart_registers_the_webhook_as_the_code_does() {
    let ours: Value = serde_saphyr::from_str(&filled(&template("webhook.yaml"))).expect("YAML");
    let code = registration("a.sconce-injector", "sconce-system", "sconce-webhook");
    assert_eq!(ours["webhooks"], code["webhooks"]);
    assert_eq!(ours["metadata"]["name"], code["metadata"]["name"]);
}

#[test]
fn the_settings_in_the_chart_are_ones_that_the_injector_reads() {
    let text = template("injector.yaml");
    let settings = text.split("settings.yaml: |\n").nth(1).expect("the settings");
    let settings: String =
        settings.lines().take_while(|line| line.starts_with("    ")).fold(String::new(), |mut text, line| {
            // An indented block; helm's own lines say nothing.
            if !line.trim_start().starts_with("{{") {
                text.push_str(&line[4..]);
                text.push('\n');
            }
            text
        });
    let settings = settings
        .replace("{{ .Release.Namespace }}", "sconce-system")
        .replace("{{ .Values.injector.pullSecrets | toJson }}", "[]")
        .replace("{{ .Values.image.prefix }}", "localhost/sconce")
        .replace("{{ .Values.image.tag }}", "dev")
        .replace("{{ .Values.image.pullPolicy }}", "IfNotPresent");
    let settings = Settings::from_yaml(&settings).unwrap_or_else(|error| panic!("{error}\n{settings}"));
    assert_eq!(settings.own_namespace, "sconce-system");
    assert_eq!(settings.defaults["image"], "localhost/sconce-sidecar:dev");
}

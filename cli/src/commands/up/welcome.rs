//! What `sconce up` says when everything is ready: where things are, and what to try.

use super::Plan;
use crate::context::Context;

/// Addresses, and commands that work as printed.
pub(super) fn text(plan: &Plan, context: &Context) -> String {
    let mut text = format!("control plane  {}\n", context.control_plane);
    for sidecar in &context.sidecars {
        text += &format!("{:<14} {}   metrics {}/metrics\n", sidecar.name, sidecar.address, sidecar.admin);
    }
    let client = plan.dir.join("client");
    let client = client.display();
    text += &format!("credentials    {client}\nlogs           {}\n\n", plan.dir.join("logs").display());
    text += "Try, in another terminal:\n";
    if let Some(home) = &plan.home_option {
        text += &format!("  export SCONCE_HOME='{home}'\n");
    }
    text += "  sconce push MODEL.pt --model NAME --activate\n";
    text += "  sconce infer NAME --input FILE.npy\n";
    text += "  sconce sidecars\n";
    if let Some(first) = context.sidecars.first() {
        text += &format!(
            "  curl --cacert '{client}/ca.pem' --cert '{client}/cert.pem' --key '{client}/key.pem' {}/v2\n",
            first.address
        );
        if plan.plaintext {
            text += &format!("  curl {}/v2\n", first.address.replacen("https", "http", 1));
        }
    }
    text += "\nCtrl-C stops everything; the data stays.";
    text
}

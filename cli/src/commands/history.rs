//! `sconce events` and `sconce audit`: what happened, and who did it.

use futures::StreamExt;

use crate::{
    args::{Audit, Events},
    client::{Control, Event},
    failure::Failure,
    output::{Output, Table},
};

/// Shows events, and goes on if asked to.
pub(super) async fn events(args: Events, mut control: Control, out: Output) -> Result<(), Failure> {
    let mut events = control.events(args.after, !args.follow).await?;
    while let Some(event) = events.next().await {
        out.line(&event?, people)?;
    }
    if args.follow {
        return Err(Failure::failed("the control plane ended the stream of events")
            .hint("repeat the command with --after and the number of the last event"));
    }
    Ok(())
}

fn people(event: &Event) -> String {
    format!("{:>6}  {}  {:<20}  {}", event.id, event.at, event.kind, event.message)
}

/// Shows the audit log.
pub(super) async fn audit(args: &Audit, mut control: Control, out: Output) -> Result<(), Failure> {
    let entries = control.audit(args.after, args.limit).await?;
    out.show(&entries, |entries| {
        let mut table = Table::new(
            ["ID", "AT", "PRINCIPAL", "ACTION", "SUBJECT", "OUTCOME", "DETAIL"],
            "the audit log is empty",
        );
        for entry in entries {
            table.row([
                entry.id.to_string(),
                entry.at.clone(),
                entry.principal.clone(),
                entry.action.clone(),
                entry.subject.clone(),
                (if entry.allowed { "allowed" } else { "denied" }).to_owned(),
                entry.detail.clone(),
            ]);
        }
        table.to_string()
    })
}

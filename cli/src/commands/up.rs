//! `sconce up`: a control plane and sidecars on this machine, with certificates, ready to
//! use. They are the real binaries, as children that never outlive this process.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};

use crate::{
    args::{self, Global},
    client::Control,
    config::Surroundings,
    context::{self, Access, Context, Credentials, Sidecar},
    failure::{Exit, Failure},
    output::Output,
};

mod binaries;
mod child;
mod files;
mod ports;
mod welcome;

use self::{binaries::Binaries, child::Child, ports::Ports};

const JOIN_TOKEN_TTL: Duration = Duration::from_secs(600);

/// What was asked, made definite.
struct Plan {
    dir: PathBuf,
    host: IpAddr,
    ports: Ports,
    plaintext: bool,
    binaries: Binaries,
    /// What other commands must be told, where the folder is not the one they look in.
    home_option: Option<String>,
}

/// Runs until a signal, or until a child ends.
pub(super) async fn run(args: args::Up, global: &Global, around: &Surroundings) -> Result<(), Failure> {
    let stopped = super::stopped()?;
    let home = args.dir.clone().map_or_else(|| context::home(global.home.as_deref(), around), Ok)?;
    let dir = files::folder(&home)?;
    let _alone = files::lock(&dir)?;
    let binaries = Binaries::find(around)?;
    let ports = Ports::choose(args.listen, args.sidecar_port, args.sidecars)?;
    let usual = around.home.as_ref().and_then(|home| home.canonicalize().ok());
    let home_option = (usual.as_ref() != Some(&dir)).then(|| dir.display().to_string());
    let plan = Plan { dir, host: args.listen.ip(), ports, plaintext: args.plaintext, binaries, home_option };

    let mut children = Vec::new();
    let outcome = tokio::select! {
        ended = work(&plan, args.ready_file.as_deref(), Output(global.format), &mut children) => ended,
        () = stopped => Ok(()),
    };
    if children.len() > 1 {
        eprintln!("stopping");
    }
    let stopping: FuturesUnordered<_> = children.iter_mut().skip(1).map(Child::stop).collect();
    stopping.collect::<()>().await;
    // Last, because the sidecars report to it until their end.
    if let Some(control_plane) = children.first_mut() {
        control_plane.stop().await;
    }
    if let Some(file) = &args.ready_file {
        let _ = std::fs::remove_file(file);
    }
    outcome
}

/// Starts everything, says so, and ends only when a child does.
async fn work(
    plan: &Plan,
    ready_file: Option<&Path>,
    out: Output,
    children: &mut Vec<Child>,
) -> Result<(), Failure> {
    children.push(start_control_plane(plan)?);
    children[0].ready().await?;
    let operator = plan.dir.join("control-plane/operator");
    let mut context = files::credentials(&plan.dir, &operator)?;
    context.control_plane = url(true, plan.ports.control_plane);

    let mut control = Control::connect(&access(&context)).await?;
    for (index, (port, admin)) in plan.ports.sidecars.iter().enumerate() {
        let name = format!("sidecar-{}", index + 1);
        children.push(start_sidecar(plan, &mut control, &name, *port, *admin).await?);
        context.sidecars.push(Sidecar { name, address: url(true, *port), admin: url(false, *admin) });
    }
    let mut starting: FuturesUnordered<_> = children.iter_mut().skip(1).map(Child::ready).collect();
    while let Some(ready) = starting.next().await {
        ready?;
    }
    drop(starting);

    files::write_context(&Context::file(&plan.dir), &context)?;
    if let Some(file) = ready_file {
        files::write_context(file, &context)?;
    }
    out.show(&context, |context| welcome::text(plan, context))?;
    let mut living: FuturesUnordered<_> = children.iter_mut().map(Child::ended).collect();
    Err(living.next().await.unwrap_or_else(|| Failure::new(Exit::Failed, "nothing runs")))
}

fn start_control_plane(plan: &Plan) -> Result<Child, Failure> {
    let data = plan.dir.join("control-plane");
    let names = names(plan.host);
    let environment = [
        ("SCONCE_LISTEN", plan.ports.control_plane.to_string()),
        ("SCONCE_ADMIN_LISTEN", plan.ports.control_plane_admin.to_string()),
        ("SCONCE_DATA_DIR", data.display().to_string()),
        ("SCONCE_NAMES", names),
    ];
    let log = plan.dir.join("logs/control-plane.log");
    Child::start(
        "control-plane",
        &plan.binaries.control_plane,
        &environment,
        log,
        plan.ports.control_plane_admin,
    )
}

async fn start_sidecar(
    plan: &Plan,
    control: &mut Control,
    name: &str,
    port: SocketAddr,
    admin: SocketAddr,
) -> Result<Child, Failure> {
    let names: Vec<String> = names(plan.host).split(',').map(str::to_owned).collect();
    let path = format!("/ns/default/sa/{name}");
    let token = control.create_join_token(&path, &names, JOIN_TOKEN_TTL, 1).await?;
    let token_file = plan.dir.join(format!("tokens/{name}"));
    files::write_secret(&token_file, token.as_bytes())?;
    let environment = [
        ("SCONCE_NAME", name.to_owned()),
        ("SCONCE_LISTEN", port.to_string()),
        ("SCONCE_ADMIN_LISTEN", admin.to_string()),
        ("SCONCE_CONTROL_PLANE", url(true, plan.ports.control_plane)),
        ("SCONCE_TRUST_BUNDLE", plan.dir.join("client/ca.pem").display().to_string()),
        ("SCONCE_JOIN_TOKEN_FILE", token_file.display().to_string()),
        ("SCONCE_NAMES", names.join(",")),
        ("SCONCE_DATA_DIR", plan.dir.join(name).display().to_string()),
        ("SCONCE_LABELS", format!("sidecar={name}")),
        ("SCONCE_PLAINTEXT_LOOPBACK", plan.plaintext.to_string()),
        // Nobody's load balancer has to learn that they stop.
        ("SCONCE_LINGER_SECONDS", "0".to_owned()),
    ];
    let log = plan.dir.join(format!("logs/{name}.log"));
    Child::start(name, &plan.binaries.sidecar, &environment, log, admin)
}

/// The names by which this machine's clients call what listens on `host`.
fn names(host: IpAddr) -> String {
    let local = ["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string()];
    let mut names = local.to_vec();
    if !host.is_unspecified() && !names.contains(&host.to_string()) {
        names.push(host.to_string());
    }
    names.join(",")
}

/// How this machine's clients call what listens on `address`.
fn url(tls: bool, address: SocketAddr) -> String {
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{}", ports::dialled(address))
}

fn access(context: &Context) -> Access {
    Access {
        control_plane: context.control_plane.clone(),
        control_plane_id: context::CONTROL_PLANE_ID.into(),
        identity: Credentials::Files {
            ca: context.ca.clone(),
            certificate: Some((context.cert.clone(), context.key.clone())),
        },
        token: None,
        sidecars: vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_carries_the_names_that_clients_use() {
        assert_eq!(names([127, 0, 0, 1].into()), "localhost,127.0.0.1");
        assert_eq!(names([0, 0, 0, 0].into()), "localhost,127.0.0.1");
        assert_eq!(names([10, 0, 0, 7].into()), "localhost,127.0.0.1,10.0.0.7");
    }

    #[test]
    fn what_listens_everywhere_is_called_by_the_loopback_address() {
        assert_eq!(url(true, ([0, 0, 0, 0], 8440).into()), "https://127.0.0.1:8440");
        assert_eq!(url(false, "[::]:9".parse().expect("valid")), "http://[::1]:9");
        assert_eq!(url(true, ([10, 0, 0, 7], 1).into()), "https://10.0.0.7:1");
    }
}

//! `sconce render`: what the control plane would publish for a model, for those who apply
//! it themselves.

use sconce_catalog::Generation;
use sconce_istio::{
    render::{Backend, Options, Routing, http_route, service, virtual_service},
    yaml,
};
use serde_json::{Value, json};

use super::split;
use crate::{
    args::{Render, RouteKind},
    client::Control,
    failure::Failure,
    output::Output,
};

/// Prints the split as the control plane has it.
pub(super) async fn run(args: &Render, mut control: Control, out: Output) -> Result<(), Failure> {
    let model = control.model(&args.model).await?.model;
    let routing = Routing::of(&model).ok_or_else(|| {
        Failure::failed(format!("{} has no version yet, hence nothing to publish", args.model))
            .hint("push one first, or name a split with --split and --generation")
    })?;
    print(args, &routing, out)
}

/// Prints the split that was typed.
pub(super) fn offline(args: &Render, out: Output) -> Result<(), Failure> {
    print(args, &typed(args)?, out)
}

fn typed(args: &Render) -> Result<Routing, Failure> {
    let generation = Generation(args.generation.unwrap_or_default());
    Ok(Routing { split: split::wanted(&args.split)?, generation, sticky: args.sticky.clone() })
}

fn print(args: &Render, routing: &Routing, out: Output) -> Result<(), Failure> {
    let objects = objects(args, routing)?;
    let text = yaml::write(&objects)
        .map_err(|error| Failure::failed(format!("the objects cannot be written as YAML: {error}")))?;
    out.show(&json!({ "apiVersion": "v1", "kind": "List", "items": objects }), |_| text)
}

fn objects(args: &Render, routing: &Routing) -> Result<Vec<Value>, Failure> {
    let backend = Backend::new(args.model.clone()).map_err(|error| Failure::failed(error.to_string()))?;
    let options = Options { delegate: args.delegate, ..Options::default() };
    let route = match args.route {
        RouteKind::VirtualService => virtual_service(&backend, routing, &options),
        RouteKind::HttpRoute if args.delegate => {
            return Err(Failure::usage("an HTTPRoute cannot be a delegate")
                .hint("only a VirtualService delegates, and only to another"));
        }
        RouteKind::HttpRoute => http_route(&backend, routing, &options)
            .map_err(|error| Failure::failed(error.to_string()).hint("use --as virtual-service"))?,
    };
    let policies = args.with.iter().map(|policy| policy.render(&backend));
    Ok([service(&backend, &options), route].into_iter().chain(policies).collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{
        args::{Args, Command, Format},
        client::standin::Standin,
        failure::Exit,
    };

    fn parsed(line: &str) -> Render {
        match Args::try_parse_from(line.split(' ')).expect("valid").command {
            Command::Render(render) => render,
            other => panic!("{other:?}"),
        }
    }

    fn rendered(line: &str) -> Result<Vec<Value>, Failure> {
        let args = parsed(line);
        objects(&args, &typed(&args)?)
    }

    #[test]
    fn what_is_asked_for_is_printed_and_nothing_else() {
        let kinds = |line: &str| -> Vec<String> {
            let objects = rendered(line).expect("rendered");
            objects.iter().map(|object| object["kind"].as_str().expect("a kind").to_owned()).collect()
        };
        let line = "sconce render ml/fraud --split 1=90,2=10 --generation 41";
        assert_eq!(kinds(line), ["Service", "VirtualService"]);
        assert_eq!(kinds(&format!("{line} --as http-route")), ["Service", "HTTPRoute"]);
        assert_eq!(
            kinds(&format!("{line} --with telemetry,peer-authentication")),
            ["Service", "VirtualService", "Telemetry", "PeerAuthentication"]
        );
        let whole = rendered(line).expect("rendered");
        assert_eq!(whole[1]["spec"]["hosts"], json!(["fraud"]));
        let delegate = rendered(&format!("{line} --delegate")).expect("rendered");
        assert_eq!(delegate[1]["spec"].get("hosts"), None);
        assert_eq!(whole[1]["spec"]["http"], delegate[1]["spec"]["http"]);
        let sticky = rendered(&format!("{line} --sticky X-User-Id")).expect("rendered");
        let route = &sticky[1]["spec"]["http"][2]["route"];
        assert_eq!(route[0]["headers"]["request"]["set"]["x-sconce-route"], "ml/fraud@41");
        assert_eq!(sticky[1]["metadata"]["annotations"]["sconce.dev/sticky"], "x-user-id");
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        let line = "sconce render ml/fraud --generation 41 --split";
        assert_eq!(rendered(&format!("{line} 1=90,2=20")).expect_err("110 %").exit, Exit::Usage);
        let http = format!("{line} 1=100 --as http-route --delegate");
        assert_eq!(rendered(&http).expect_err("no such thing").exit, Exit::Usage);
    }

    #[tokio::test]
    async fn the_control_plane_is_asked_where_no_split_is_typed() {
        let standin = Standin::start().await;
        let control = Control::connect(&standin.access).await.expect("connected");
        let failure = run(&parsed("sconce render m"), control, Output(Format::Table)).await;
        // The stand-in's model has no version.
        assert!(failure.expect_err("nothing to publish").to_string().contains("no version yet"));
    }
}

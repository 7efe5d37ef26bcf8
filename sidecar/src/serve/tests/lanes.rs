//! What the port that a request came by changes: nothing on live and canary, everything on shadow.

use sconce_catalog::Lane;

use super::*;

const BODY: &str = r#"{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#;

async fn answered(lane: Lane, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut request = Request::post(format!("/v2/models/{path}/infer"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let server = server(Config::default(), Inline).layer(Extension(lane));
    let reply = send(server, request.body(BODY.into()).unwrap()).await;
    (reply.status.as_u16(), reply.json()["model_version"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn live_and_canary_follow_the_route_and_the_pin() {
    for lane in [Lane::Live, Lane::Canary] {
        let routed = answered(lane, "halves", &[("x-sconce-route", "halves/1@3")]).await;
        assert_eq!(routed, (200, "1".into()), "{lane}");
        let pinned = answered(lane, "halves/versions/1", &[]).await;
        assert_eq!(pinned, (200, "1".into()), "{lane}");
        assert_eq!(answered(lane, "halves", &[("x-sconce-route", "?")]).await.0, 400, "{lane}");
    }
}

#[tokio::test]
async fn on_the_shadow_lane_the_stable_version_answers_whatever_is_asked_for() {
    for (path, headers) in [
        ("halves", &[][..]),
        ("halves", &[("x-sconce-route", "halves/1@3")][..]),
        ("halves", &[("x-sconce-pin", "1")][..]),
        ("halves/versions/1", &[][..]),
        // What nobody asks for cannot be wrong.
        ("halves", &[("x-sconce-route", "?")][..]),
        ("halves/versions/-x", &[("x-sconce-pin", "1")][..]),
    ] {
        for _ in 0..20 {
            let answer = answered(Lane::Shadow, path, headers).await;
            assert_eq!(answer, (200, "v10".into()), "{path} {headers:?}");
        }
    }
}

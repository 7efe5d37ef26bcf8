//! Whether somebody may do what a command is about to do: asked first, all of it, so that
//! nothing stops half way.

use std::collections::BTreeSet;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{Api, api::PostParams};

use super::{Cluster, Id};

/// How many questions are open at once.
const AT_ONCE: usize = 8;

/// What of these verbs on these objects is not allowed, such as `patch deployments.apps in serving`.
pub(crate) async fn lacking(
    cluster: &Cluster,
    verbs: &[&str],
    objects: &[Id],
) -> Result<Vec<String>, kube::Error> {
    let wanted: BTreeSet<(String, String, String, Option<String>)> = objects
        .iter()
        .flat_map(|id| {
            let resource = id.resource();
            verbs.iter().map(move |verb| {
                ((*verb).to_owned(), resource.group.clone(), resource.plural.clone(), id.namespace.clone())
            })
        })
        .collect();
    let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.client());
    let answers = stream::iter(wanted).map(|(verb, group, resource, namespace)| {
        let reviews = reviews.clone();
        async move {
            let attributes = ResourceAttributes {
                verb: Some(verb.clone()),
                group: Some(group.clone()),
                resource: Some(resource.clone()),
                namespace: namespace.clone(),
                ..ResourceAttributes::default()
            };
            let spec =
                SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
            let review = SelfSubjectAccessReview { spec, ..Default::default() };
            let answer = reviews.create(&PostParams::default(), &review).await?;
            let allowed = answer.status.is_some_and(|status| status.allowed);
            Ok::<_, kube::Error>(
                (!allowed).then(|| described(&verb, &group, &resource, namespace.as_deref())),
            )
        }
    });
    let all: Vec<Option<String>> = answers.buffered(AT_ONCE).try_collect().await?;
    Ok(all.into_iter().flatten().collect())
}

fn described(verb: &str, group: &str, resource: &str, namespace: Option<&str>) -> String {
    let dot = if group.is_empty() { "" } else { "." };
    let place = namespace.map_or_else(|| "in the whole cluster".to_owned(), |name| format!("in {name}"));
    format!("{verb} {resource}{dot}{group} {place}")
}

//! `sconce describe`: what a version takes and gives.

use std::collections::BTreeMap;

use sconce_catalog::{Batching, Field, Model, ModelName, Signature, Version, VersionRecord};
use serde::Serialize;

use super::models::{self, ShareView, shares};
use crate::{
    args::Pinned,
    client::Control,
    failure::{Exit, Failure},
    output::{Output, Table, bytes, pairs, time},
};

#[derive(Serialize)]
struct DescribedView {
    model: String,
    version: String,
    size: u64,
    artifact: String,
    pushed_at: String,
    pushed_by: String,
    metadata: BTreeMap<String, String>,
    split: Vec<ShareView>,
    selector: BTreeMap<String, String>,
    signature: Signature,
}

/// Shows one version: the one named, else the one with the largest share.
pub(super) async fn run(what: &Pinned, mut control: Control, out: Output) -> Result<(), Failure> {
    let model = control.model(&what.model).await?.model;
    let (version, record) = chosen(&what.model, &model, what.version.as_ref())?;
    let labels = model.selector.labels().iter();
    let view = DescribedView {
        model: what.model.to_string(),
        version: version.to_string(),
        size: record.size,
        artifact: record.artifact.to_string(),
        pushed_at: time(record.pushed_at_ms),
        pushed_by: record.pushed_by.clone(),
        metadata: record.metadata.clone(),
        split: shares(model.split.as_ref()),
        selector: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        signature: record.signature.clone(),
    };
    let split = models::split(&model);
    out.show(&view, |view| people(view, &split))
}

fn chosen<'a>(
    name: &ModelName,
    model: &'a Model,
    version: Option<&Version>,
) -> Result<(&'a Version, &'a VersionRecord), Failure> {
    let stable = model.split.as_ref().map(|split| split.stable());
    let Some(wanted) = version.or(stable) else {
        return Err(Failure::new(Exit::NotFound, format!("model {name} has no version yet")));
    };
    model.versions.get_key_value(wanted).ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("model {name} has no version {wanted}"))
            .hint(format!("see `sconce versions {name}`"))
    })
}

fn people(view: &DescribedView, split: &str) -> String {
    let text = |map: &BTreeMap<String, String>| pairs(map.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    let mut table =
        Table::new(["", "NAME", "TYPE", "DATATYPE", "SHAPE"], "takes and gives nothing known yet");
    let sides = [("input", &view.signature.inputs), ("output", &view.signature.outputs)];
    for (side, field) in sides.iter().flat_map(|(side, fields)| fields.iter().map(move |f| (side, f))) {
        table.row([
            (*side).to_owned(),
            field.name.clone(),
            kind(field),
            field.datatype.or(field.kind.datatype()).map_or_else(|| "?".into(), |d| d.to_string()),
            field.shape.as_ref().map_or_else(|| "?".into(), ToString::to_string),
        ]);
    }
    format!(
        "model     {}\nversion   {}\nsplit     {split}\nselector  {}\nsize      {}\nartifact  {}\npushed    {} by \
         {}\nmetadata  {}\nbatching  {}\n\n{table}",
        view.model,
        view.version,
        text(&view.selector),
        bytes(view.size),
        view.artifact,
        view.pushed_at,
        view.pushed_by,
        text(&view.metadata),
        view.signature.batching.unwrap_or(Batching::Off),
    )
}

fn kind(field: &Field) -> String {
    format!("{}{}", field.kind, if field.optional { " (optional)" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_version_is_not_found_and_says_where_to_look() {
        let model = Model::default();
        let name = "fraud".parse().expect("valid");
        let failure = chosen(&name, &model, Some(&"9".parse().expect("valid"))).expect_err("no versions");
        assert_eq!(failure.exit, Exit::NotFound);
        assert!(failure.to_string().contains("sconce versions fraud"), "{failure}");
        assert_eq!(chosen(&name, &model, None).expect_err("no versions").exit, Exit::NotFound);
    }
}

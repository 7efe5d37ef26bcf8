//! `sconce.v1` messages to and from the domain.

use sconce_catalog::{
    Batching, Catalog, ChunkRef, Digest, Field, Generation, InvalidDigest, InvalidLabel, InvalidManifest,
    InvalidName, InvalidSplit, InvalidStickyHeader, Kind, Labels, Manifest, Model, ModelName, Piece,
    Selector, Serial, Share, Signature, Split, StickyHeader, UnknownDatatype, Version, VersionRecord,
};

use crate::v1;

/// A message that no valid value corresponds to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is the domain's own error")]
pub enum InvalidMessage {
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    #[error(transparent)]
    Manifest(#[from] InvalidManifest),
    #[error(transparent)]
    Split(#[from] InvalidSplit),
    #[error(transparent)]
    Sticky(#[from] InvalidStickyHeader),
    #[error(transparent)]
    Label(#[from] InvalidLabel),
    #[error(transparent)]
    Datatype(#[from] UnknownDatatype),
    #[error("the message lacks `{0}`")]
    Missing(&'static str),
}

impl TryFrom<v1::Catalog> for Catalog {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Catalog) -> Result<Self, InvalidMessage> {
        let models = wire.models.into_iter().map(|model| Ok((model.name.parse()?, model.try_into()?)));
        Ok(Self { serial: Serial(wire.serial), models: models.collect::<Result<_, InvalidMessage>>()? })
    }
}

impl From<&Catalog> for v1::Catalog {
    fn from(catalog: &Catalog) -> Self {
        Self {
            serial: catalog.serial.0,
            models: catalog.models.iter().map(|(name, model)| model_to_wire(name, model)).collect(),
        }
    }
}

impl TryFrom<v1::Model> for Model {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Model) -> Result<Self, InvalidMessage> {
        let versions =
            wire.versions.into_iter().map(|version| Ok((version.version.parse()?, version.try_into()?)));
        Ok(Self {
            selector: Selector::new(Labels::new(wire.selector)?),
            versions: versions.collect::<Result<_, InvalidMessage>>()?,
            split: wire.split.map(Split::try_from).transpose()?,
            generation: Generation(wire.generation),
            sticky: sticky_from_wire(&wire.sticky_header)?,
        })
    }
}

/// A model and its name as one message.
pub fn model_to_wire(name: &ModelName, model: &Model) -> v1::Model {
    v1::Model {
        name: name.to_string(),
        selector: labels_to_wire(model.selector.labels()),
        versions: model.versions.iter().map(|(version, record)| version_to_wire(version, record)).collect(),
        split: model.split.as_ref().map(v1::Split::from),
        generation: model.generation.0,
        sticky_header: sticky_to_wire(model.sticky.as_ref()),
    }
}

/// The header by which callers are known, as text that is empty where there is none.
pub fn sticky_to_wire(header: Option<&StickyHeader>) -> String {
    header.map(StickyHeader::to_string).unwrap_or_default()
}

/// The way back.
///
/// # Errors
/// Where callers cannot be known by such a header.
pub fn sticky_from_wire(text: &str) -> Result<Option<StickyHeader>, InvalidStickyHeader> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

/// Labels as a map.
pub fn labels_to_wire(labels: &Labels) -> std::collections::HashMap<String, String> {
    labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

impl TryFrom<v1::Version> for VersionRecord {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Version) -> Result<Self, InvalidMessage> {
        Ok(Self {
            artifact: Digest::try_from(&wire.artifact[..])?,
            size: wire.size,
            signature: wire.signature.unwrap_or_default().try_into()?,
            metadata: wire.metadata.into_iter().collect(),
            pushed_at_ms: wire.pushed_at_ms,
            pushed_by: wire.pushed_by,
        })
    }
}

/// A version and its name as one message.
pub fn version_to_wire(version: &Version, record: &VersionRecord) -> v1::Version {
    v1::Version {
        version: version.to_string(),
        artifact: record.artifact.as_bytes().to_vec(),
        size: record.size,
        signature: Some((&record.signature).into()),
        metadata: record.metadata.clone().into_iter().collect(),
        pushed_at_ms: record.pushed_at_ms,
        pushed_by: record.pushed_by.clone(),
    }
}

impl TryFrom<v1::Split> for Split {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Split) -> Result<Self, InvalidMessage> {
        let shares =
            wire.shares.into_iter().map(|share| Ok((share.version.parse()?, Share::new(share.share)?)));
        Ok(Split::new(shares.collect::<Result<Vec<_>, InvalidMessage>>()?)?)
    }
}

impl From<&Split> for v1::Split {
    fn from(split: &Split) -> Self {
        let shares = split.shares().iter();
        Self {
            shares: shares
                .map(|(version, share)| v1::Share {
                    version: version.to_string(),
                    share: share.ten_thousandths(),
                })
                .collect(),
        }
    }
}

impl TryFrom<v1::Signature> for Signature {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Signature) -> Result<Self, InvalidMessage> {
        let fields = |wire: Vec<v1::Field>| wire.into_iter().map(Field::try_from).collect::<Result<_, _>>();
        let batching = match wire.batching() {
            v1::Batching::Unspecified => None,
            v1::Batching::Rows => Some(Batching::Rows),
            v1::Batching::Off => Some(Batching::Off),
        };
        Ok(Self { inputs: fields(wire.inputs)?, outputs: fields(wire.outputs)?, batching })
    }
}

impl From<&Signature> for v1::Signature {
    fn from(signature: &Signature) -> Self {
        let batching = match signature.batching {
            None => v1::Batching::Unspecified,
            Some(Batching::Rows) => v1::Batching::Rows,
            Some(Batching::Off) => v1::Batching::Off,
        };
        Self {
            inputs: signature.inputs.iter().map(v1::Field::from).collect(),
            outputs: signature.outputs.iter().map(v1::Field::from).collect(),
            batching: batching.into(),
        }
    }
}

impl TryFrom<v1::Field> for Field {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Field) -> Result<Self, InvalidMessage> {
        let kind = match wire.kind() {
            v1::Kind::Unspecified | v1::Kind::Tensor => Kind::Tensor,
            v1::Kind::Int => Kind::Int,
            v1::Kind::Float => Kind::Float,
            v1::Kind::Bool => Kind::Bool,
            v1::Kind::String => Kind::String,
            v1::Kind::StringList => Kind::StringList,
            v1::Kind::TensorList => Kind::TensorList,
        };
        Ok(Self {
            kind,
            datatype: if wire.datatype.is_empty() { None } else { Some(wire.datatype.parse()?) },
            shape: wire.ranked.then(|| wire.shape.into()),
            name: wire.name,
            optional: wire.optional,
        })
    }
}

impl From<&Field> for v1::Field {
    fn from(field: &Field) -> Self {
        let kind = match field.kind {
            Kind::Tensor => v1::Kind::Tensor,
            Kind::Int => v1::Kind::Int,
            Kind::Float => v1::Kind::Float,
            Kind::Bool => v1::Kind::Bool,
            Kind::String => v1::Kind::String,
            Kind::StringList => v1::Kind::StringList,
            Kind::TensorList => v1::Kind::TensorList,
        };
        Self {
            name: field.name.clone(),
            kind: kind.into(),
            datatype: field.datatype.map_or_else(String::new, |d| d.name().to_owned()),
            shape: field.shape.clone().map(Vec::from).unwrap_or_default(),
            ranked: field.shape.is_some(),
            optional: field.optional,
        }
    }
}

impl TryFrom<v1::Manifest> for Manifest {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Manifest) -> Result<Self, InvalidMessage> {
        let chunks = wire
            .chunks
            .into_iter()
            .map(|chunk| Ok(ChunkRef { digest: Digest::try_from(&chunk.digest[..])?, size: chunk.size }))
            .collect::<Result<_, InvalidMessage>>()?;
        let pieces =
            wire.pieces.into_iter().map(|p| Piece { chunk: p.chunk, offset: p.offset, length: p.length });
        Ok(Manifest::new(chunks, pieces.collect())?)
    }
}

impl From<&Manifest> for v1::Manifest {
    fn from(manifest: &Manifest) -> Self {
        let chunks = manifest.chunks().iter();
        let pieces = manifest.pieces().iter();
        Self {
            chunks: chunks
                .map(|chunk| v1::ChunkRef { digest: chunk.digest.as_bytes().to_vec(), size: chunk.size })
                .collect(),
            pieces: pieces
                .map(|p| v1::Piece { chunk: p.chunk, offset: p.offset, length: p.length })
                .collect(),
            size: manifest.size(),
        }
    }
}

#[cfg(test)]
mod tests {
    use sconce_catalog::Datatype;

    use super::*;

    #[test]
    fn a_catalog_survives_the_wire() {
        let record = VersionRecord {
            artifact: Digest::from_bytes([7; 32]),
            size: 9,
            signature: Signature {
                inputs: vec![Field {
                    name: "image".into(),
                    kind: Kind::Tensor,
                    datatype: Some(Datatype::Fp32),
                    shape: Some(vec![-1, 64].into()),
                    optional: true,
                }],
                outputs: vec![],
                batching: Some(Batching::Rows),
            },
            metadata: [("git".to_owned(), "abc".to_owned())].into(),
            pushed_at_ms: 5,
            pushed_by: "token:ci".into(),
        };
        let version: Version = "7".parse().expect("valid");
        let model = Model {
            selector: Selector::new("team=pay".parse().expect("valid")),
            versions: [(version.clone(), record)].into(),
            split: Some(Split::whole(version)),
            generation: Generation(2),
            sticky: Some("x-user-id".parse().expect("valid")),
        };
        let catalog =
            Catalog { serial: Serial(3), models: [("pay/fraud".parse().expect("valid"), model)].into() };
        assert_eq!(Catalog::try_from(v1::Catalog::from(&catalog)), Ok(catalog));
    }

    #[test]
    fn a_split_that_does_not_sum_to_the_whole_never_gets_in() {
        let wire = v1::Split { shares: vec![v1::Share { version: "1".into(), share: 9_999 }] };
        assert_eq!(Split::try_from(wire), Err(InvalidMessage::Split(InvalidSplit::Sum(9_999))));
    }
}

//! Values typed on the command line, parsed before anything is sent.

use std::{path::PathBuf, str::FromStr, time::Duration};

use sconce_catalog::{Field, Kind, ModelName, Share, Version};

/// `auto` or a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VersionChoice {
    Auto,
    Named(Version),
}

/// What is pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Archive {
    File(PathBuf),
    /// For the control plane to judge.
    Address(String),
}

/// `MODEL` or `MODEL:VERSION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pinned {
    pub(crate) model: ModelName,
    pub(crate) version: Option<Version>,
}

/// `VERSION=PERCENT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SplitShare {
    pub(crate) version: Version,
    pub(crate) percent: Percent,
}

/// A percentage with at most two decimals: exactly a [`Share`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Percent(pub(crate) Share);

/// `[NAME=]FILE`, where `@-` is standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InputFile {
    pub(crate) name: Option<String>,
    pub(crate) file: Option<PathBuf>,
}

impl FromStr for VersionChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            name => name.parse().map(Self::Named).map_err(|e: sconce_catalog::InvalidName| e.to_string()),
        }
    }
}

impl FromStr for Archive {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text.contains("://") { Self::Address(text.to_owned()) } else { Self::File(text.into()) })
    }
}

impl FromStr for Pinned {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (model, version) = text.split_once(':').map_or((text, None), |(m, v)| (m, Some(v)));
        let said = |e: sconce_catalog::InvalidName| e.to_string();
        let version = version.map(Version::from_str).transpose().map_err(said)?;
        Ok(Self { model: model.parse().map_err(said)?, version })
    }
}

impl FromStr for SplitShare {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (version, percent) =
            text.split_once('=').ok_or("write it as VERSION=PERCENT, such as `2=12.5`")?;
        let version = version.parse().map_err(|e: sconce_catalog::InvalidName| e.to_string())?;
        Ok(Self { version, percent: percent.parse()? })
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid =
            || format!("{text:?} is not a percentage; use 0 to 100 with at most two decimals, such as 12.5");
        let number = text.strip_suffix('%').unwrap_or(text).trim();
        let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
        // By digits, not through a float: 33.33 is exactly 3,333 ten-thousandths.
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || whole.len() > 3 || decimals.len() > 2 || !digits(whole) || !digits(decimals) {
            return Err(invalid());
        }
        let hundredths: u32 = format!("{whole}{decimals:0<2}").parse().map_err(|_| invalid())?;
        Share::new(hundredths).map(Percent).map_err(|_| invalid())
    }
}

impl FromStr for InputFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, file) = match text.split_once('=') {
            Some(("", _)) => return Err("the name before `=` is empty".into()),
            Some((name, file)) => (Some(name.to_owned()), file),
            None => (None, text),
        };
        match file {
            "" => Err("the file after `=` is empty".into()),
            "@-" => Ok(Self { name, file: None }),
            path => Ok(Self { name, file: Some(path.strip_prefix('@').unwrap_or(path).into()) }),
        }
    }
}

/// `KEY=VALUE`, where the value may hold anything.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE, such as `git=4f2a91c`".into()),
    }
}

/// `NAME:DATATYPE[SHAPE]`, the shape being optional and -1 a variable dimension.
pub(super) fn field(text: &str) -> Result<Field, String> {
    let form = "write it as NAME:DATATYPE[SHAPE], such as `image:FP32[-1,64]`";
    let (name, rest) = text.rsplit_once(':').filter(|(name, _)| !name.is_empty()).ok_or(form)?;
    let (datatype, shape) = match rest.split_once('[') {
        None => (rest, None),
        Some((datatype, shape)) => (datatype, Some(shape.strip_suffix(']').ok_or(form)?)),
    };
    let datatype =
        datatype.to_uppercase().parse().map_err(|e: sconce_catalog::UnknownDatatype| e.to_string())?;
    let dimension = |text: &str| match text.trim().parse::<i64>() {
        Ok(size) if size >= -1 => Ok(size),
        _ => Err(format!("{text:?} is not a dimension; use a size, or -1 where it varies")),
    };
    let shape = match shape {
        None => None,
        Some("") => Some(Vec::new()),
        Some(text) => Some(text.split(',').map(dimension).collect::<Result<Vec<_>, _>>()?),
    };
    Ok(Field {
        name: name.to_owned(),
        kind: Kind::Tensor,
        datatype: Some(datatype),
        shape: shape.map(Into::into),
        optional: false,
    })
}

/// A number of seconds, at least one.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<u32>().ok().filter(|seconds| *seconds > 0);
    seconds.map(|s| Duration::from_secs(s.into())).ok_or_else(|| format!("{text:?} is no number of seconds"))
}

/// `90s`, `10m`, `2h`, `1d`, or a number of seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("{text:?} is not a duration; write `90s`, `10m`, `2h` or `1d`");
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(invalid()),
    };
    let number: u32 = number.parse().map_err(|_| invalid())?;
    let seconds = number.checked_mul(unit).filter(|seconds| *seconds > 0).ok_or_else(invalid)?;
    Ok(Duration::from_secs(seconds.into()))
}

/// The name of a namespace (RFC 1123).
pub(super) fn label(text: &str) -> Result<String, String> {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = text.len() <= 63 && text.chars().all(|c| alphanumeric(c) || c == '-');
    if fits && text.starts_with(alphanumeric) && text.ends_with(alphanumeric) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is no name of a namespace; use small letters, digits and dashes"))
    }
}

/// The path of a SPIFFE id; the control plane checks the rest.
pub(super) fn spiffe_path(text: &str) -> Result<String, String> {
    if text.len() > 1 && text.starts_with('/') && !text.ends_with('/') {
        Ok(text.to_owned())
    } else {
        Err("write the path of a SPIFFE id, such as `/ns/default/sa/fraud`".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_exact_to_the_hundredth() {
        let share = |text: &str| text.parse::<Percent>().ok().map(|p| p.0.ten_thousandths());
        assert_eq!(share("33.33"), Some(3_333));
        assert_eq!(share("0.5"), Some(50));
        assert_eq!(share("0.05"), Some(5));
        assert_eq!(share("100"), Some(10_000));
        assert_eq!(share("12.5%"), Some(1_250));
        assert_eq!(share("0"), Some(0));
        for text in ["", ".5", "-1", "100.01", "101", "33.333", "1e1", "+5", "50 50", "NaN", "1.-1"] {
            assert_eq!(share(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_share_names_its_version() {
        let share: SplitShare = "2026-11-22=12.5".parse().expect("valid");
        assert_eq!(share.version.as_str(), "2026-11-22");
        for text in ["2", "=50", "auto=50", "2=", "2=50=1"] {
            assert!(text.parse::<SplitShare>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_field_says_name_datatype_and_shape() {
        let image = field("image:FP32[-1,64]").expect("valid");
        assert_eq!((image.name.as_str(), image.datatype.map(|d| d.name())), ("image", Some("FP32")));
        assert_eq!(image.shape.map(|shape| shape.0), Some(vec![None, Some(64)]));
        assert_eq!(field("x:int64").expect("valid").shape, None);
        assert_eq!(field("x:BOOL[]").expect("valid").shape.map(|shape| shape.0), Some(vec![]));
        for text in ["", "image", ":FP32", "x:FP31", "x:FP32[", "x:FP32[1,]", "x:FP32[-2]", "x:FP32[a]"] {
            assert!(field(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn namespaces_have_the_names_that_kubernetes_allows() {
        assert_eq!(label("sconce-system"), Ok("sconce-system".to_owned()));
        for text in ["", "-a", "a-", "A", "a.b", "a b", &"a".repeat(64)] {
            assert!(label(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        for text in ["", "0s", "m", "10 m", "-1s", "99999999d", "1w"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_input_is_a_file_or_standard_input() {
        let parse = |text: &str| text.parse::<InputFile>().map(|input| (input.name, input.file));
        assert_eq!(parse("image=a.png"), Ok((Some("image".into()), Some("a.png".into()))));
        assert_eq!(parse("a.png"), Ok((None, Some("a.png".into()))));
        assert_eq!(parse("x=@-"), Ok((Some("x".into()), None)));
        assert!(parse("=a.png").is_err() && parse("x=").is_err());
    }

    #[test]
    fn a_version_follows_the_colon() {
        let pinned: Pinned = "pay/fraud:7".parse().expect("valid");
        assert_eq!((pinned.model.namespace(), pinned.version.expect("given").as_str()), ("pay", "7"));
        assert_eq!("fraud".parse::<Pinned>().expect("valid").version, None);
        assert!("fraud:".parse::<Pinned>().is_err() && ":7".parse::<Pinned>().is_err());
    }
}

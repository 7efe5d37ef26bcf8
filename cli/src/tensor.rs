//! Values for a model and from it: read from files, turned into the bytes of a datatype
//! and back.

use half::{bf16, f16};
use sconce_catalog::Datatype;
use serde_json::Value;

mod image;
mod nested;
mod npy;

pub(crate) use self::{image::Pixels, nested::from_json, npy::read as from_npy};

/// Values of any datatype, exactly as they were read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Elements {
    Bools(Vec<bool>),
    Ints(Vec<i128>),
    Floats(Vec<f64>),
    Texts(Vec<Vec<u8>>),
}

/// Values and their dimensions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) shape: Vec<u64>,
    pub(crate) elements: Elements,
    /// Its datatype in the file, where the file has one.
    pub(crate) own: Option<Datatype>,
}

impl Elements {
    /// How many.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Bools(all) => all.len(),
            Self::Ints(all) => all.len(),
            Self::Floats(all) => all.len(),
            Self::Texts(all) => all.len(),
        }
    }

    /// The datatype these are by themselves, where a model does not ask for another.
    pub(crate) fn natural(&self) -> Datatype {
        match self {
            Self::Bools(_) => Datatype::Bool,
            Self::Ints(_) => Datatype::Int64,
            Self::Floats(_) => Datatype::Fp32,
            Self::Texts(_) => Datatype::Bytes,
        }
    }

    /// The bytes of these values as elements of `datatype`.
    ///
    /// # Errors
    /// Where a value would change by more than rounding.
    pub(crate) fn encode(&self, datatype: Datatype) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        match self {
            Self::Texts(all) if datatype == Datatype::Bytes => {
                for text in all {
                    let length = u32::try_from(text.len()).map_err(|_| "a text is longer than 4 GiB")?;
                    out.extend_from_slice(&length.to_le_bytes());
                    out.extend_from_slice(text);
                }
            }
            Self::Texts(_) => return Err(format!("texts do not fit {datatype}")),
            Self::Bools(all) if datatype == Datatype::Bool => out.extend(all.iter().map(|b| u8::from(*b))),
            Self::Bools(all) => all.iter().try_for_each(|b| push_int(&mut out, datatype, i128::from(*b)))?,
            Self::Ints(all) => all.iter().try_for_each(|int| push_int(&mut out, datatype, *int))?,
            Self::Floats(all) => all.iter().try_for_each(|float| push_float(&mut out, datatype, *float))?,
        }
        Ok(out)
    }

    /// The values that `bytes` hold as elements of `datatype`.
    pub(crate) fn decode(datatype: Datatype, bytes: &[u8]) -> Result<Self, String> {
        let Some(width) = datatype.width() else { return texts(bytes).map(Self::Texts) };
        if !bytes.len().is_multiple_of(width) {
            return Err(format!("{} bytes are no whole number of {datatype} elements", bytes.len()));
        }
        let each = bytes.chunks_exact(width);
        Ok(match datatype {
            Datatype::Bool => Self::Bools(bytes.iter().map(|b| *b != 0).collect()),
            Datatype::Fp16 => Self::Floats(each.map(|b| f16::from_le_bytes([b[0], b[1]]).to_f64()).collect()),
            Datatype::Bf16 => {
                Self::Floats(each.map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f64()).collect())
            }
            // Through its shortest text, so that 0.1 is shown as 0.1.
            Datatype::Fp32 => Self::Floats(each.map(|b| shortest(f32::from_le_bytes(fixed(b)))).collect()),
            Datatype::Fp64 => Self::Floats(each.map(|b| f64::from_le_bytes(fixed(b))).collect()),
            Datatype::Int8 | Datatype::Int16 | Datatype::Int32 | Datatype::Int64 => {
                Self::Ints(each.map(|b| int(b, b[b.len() - 1] & 0x80 != 0)).collect())
            }
            _ => Self::Ints(each.map(|b| int(b, false)).collect()),
        })
    }

    /// The values as flat JSON. What JSON has no number for becomes text.
    pub(crate) fn to_json(&self) -> Value {
        match self {
            Self::Bools(all) => all.iter().copied().collect(),
            Self::Ints(all) => all
                .iter()
                .map(|i| i64::try_from(*i).map_or_else(|_| Value::from(*i as u64), Value::from))
                .collect(),
            Self::Floats(all) => all
                .iter()
                .map(|f| if f.is_finite() { Value::from(*f) } else { Value::from(f.to_string()) })
                .collect(),
            Self::Texts(all) => all.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect(),
        }
    }

    /// The value at `index` as people read it.
    pub(crate) fn text(&self, index: usize) -> String {
        match self {
            Self::Bools(all) => all[index].to_string(),
            Self::Ints(all) => all[index].to_string(),
            Self::Floats(all) => readable(all[index]),
            Self::Texts(all) => format!("{:?}", String::from_utf8_lossy(&all[index])),
        }
    }
}

/// A float with six significant digits at most.
pub(crate) fn readable(float: f64) -> String {
    let size = float.abs();
    if float == 0.0 || !float.is_finite() {
        return float.to_string();
    }
    if !(1e-4..1e7).contains(&size) {
        return format!("{float:.4e}");
    }
    let decimals = (5 - size.log10().floor() as i32).clamp(0, 9) as usize;
    let text = format!("{float:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn shortest(float: f32) -> f64 {
    if float.is_finite() { float.to_string().parse().unwrap_or(f64::from(float)) } else { f64::from(float) }
}

fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("chunks_exact yields the datatype's width")
}

fn int(bytes: &[u8], negative: bool) -> i128 {
    let mut whole = if negative { [0xff; 16] } else { [0; 16] };
    whole[..bytes.len()].copy_from_slice(bytes);
    i128::from_le_bytes(whole)
}

fn push_int(out: &mut Vec<u8>, datatype: Datatype, int: i128) -> Result<(), String> {
    let misfit = || format!("{int} does not fit {datatype}");
    let range = match datatype {
        Datatype::Bool => 0..=1,
        Datatype::Uint8 => 0..=i128::from(u8::MAX),
        Datatype::Uint16 => 0..=i128::from(u16::MAX),
        Datatype::Uint32 => 0..=i128::from(u32::MAX),
        Datatype::Uint64 => 0..=i128::from(u64::MAX),
        Datatype::Int8 => i8::MIN.into()..=i8::MAX.into(),
        Datatype::Int16 => i16::MIN.into()..=i16::MAX.into(),
        Datatype::Int32 => i32::MIN.into()..=i32::MAX.into(),
        Datatype::Int64 => i64::MIN.into()..=i64::MAX.into(),
        Datatype::Bytes => return Err("numbers do not fit BYTES".into()),
        Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64 => {
            return push_float(out, datatype, int as f64);
        }
    };
    if !range.contains(&int) {
        return Err(misfit());
    }
    out.extend_from_slice(&int.to_le_bytes()[..datatype.width().ok_or_else(misfit)?]);
    Ok(())
}

fn push_float(out: &mut Vec<u8>, datatype: Datatype, float: f64) -> Result<(), String> {
    match datatype {
        Datatype::Fp16 => out.extend_from_slice(&f16::from_f64(float).to_le_bytes()),
        Datatype::Bf16 => out.extend_from_slice(&bf16::from_f64(float).to_le_bytes()),
        Datatype::Fp32 => out.extend_from_slice(&(float as f32).to_le_bytes()),
        Datatype::Fp64 => out.extend_from_slice(&float.to_le_bytes()),
        Datatype::Bytes => return Err("numbers do not fit BYTES".into()),
        _ if float.fract() == 0.0 && float.abs() < 2f64.powi(64) => push_int(out, datatype, float as i128)?,
        _ => return Err(format!("{float} does not fit {datatype}")),
    }
    Ok(())
}

fn texts(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut all = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let text = rest.get(..length).ok_or("a BYTES element is longer than its tensor")?;
        all.push(text.to_vec());
        bytes = &rest[length..];
    }
    if bytes.is_empty() { Ok(all) } else { Err("a BYTES tensor ends within a length".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_the_bytes_of_every_datatype() {
        let ints = Elements::Ints(vec![0, 1, 100]);
        let floats = Elements::Floats(vec![0.0, 1.5, -0.25]);
        for datatype in Datatype::ALL {
            let elements = match datatype {
                Datatype::Bool => Elements::Bools(vec![true, false]),
                Datatype::Bytes => Elements::Texts(vec![b"a".to_vec(), vec![], "é".into()]),
                Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64 => floats.clone(),
                _ => ints.clone(),
            };
            let bytes = elements.encode(datatype).expect("fits");
            assert_eq!(Elements::decode(datatype, &bytes), Ok(elements), "{datatype}");
        }
        let negative = Elements::Ints(vec![-1, i64::MIN.into()]);
        assert_eq!(
            Elements::decode(Datatype::Int64, &negative.encode(Datatype::Int64).expect("fits")),
            Ok(negative)
        );
    }

    #[test]
    fn a_value_is_never_changed_silently() {
        let refused = |elements: Elements, datatype| elements.encode(datatype).is_err();
        assert!(refused(Elements::Ints(vec![256]), Datatype::Uint8));
        assert!(refused(Elements::Ints(vec![-1]), Datatype::Uint64));
        assert!(refused(Elements::Floats(vec![1.5]), Datatype::Int64));
        assert!(refused(Elements::Floats(vec![f64::NAN]), Datatype::Int64));
        assert!(refused(Elements::Texts(vec![vec![]]), Datatype::Fp32));
        assert!(!refused(Elements::Floats(vec![3.0]), Datatype::Int64));
    }

    #[test]
    fn bytes_that_are_no_tensor_are_refused() {
        assert!(Elements::decode(Datatype::Fp32, &[0; 3]).is_err());
        assert!(Elements::decode(Datatype::Bytes, &[5, 0, 0, 0, 1]).is_err());
        assert!(Elements::decode(Datatype::Bytes, &[5, 0]).is_err());
    }

    #[test]
    fn floats_are_shown_as_people_write_them() {
        let fp32 = Elements::decode(Datatype::Fp32, &0.1f32.to_le_bytes()).expect("valid");
        assert_eq!(fp32.to_json(), serde_json::json!([0.1]));
        let shown = [0.0, 1.0, 0.123_456_789, 1234.5, -2.5e-7, 1e9, f64::NAN].map(readable);
        assert_eq!(shown, ["0", "1", "0.123457", "1234.5", "-2.5000e-7", "1.0000e9", "NaN"]);
    }
}

//! Amounts as Kubernetes writes them: `250m`, `1.5Gi`, `2e9`.

use std::{fmt, str::FromStr};

/// An amount, exact to a billionth. Text such as `0.5` and `500m` is the same amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i128);

/// Text that is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no quantity such as 250m, 2 or 512Mi")]
pub struct InvalidQuantity(String);

/// Billionths in one, the smallest unit that Kubernetes knows.
const ONE: i128 = 1_000_000_000;

impl Quantity {
    /// Whether this is at most so many times the other.
    pub(super) fn is_within(self, other: Self, times: Self) -> bool {
        // Thousandths of a ratio are exact enough, and what there is of a resource times a ratio fits.
        let thousandths = times.0 / (ONE / 1000);
        self.0.saturating_mul(1000) <= other.0.saturating_mul(thousandths)
    }
}

impl FromStr for Quantity {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        parse(text).map(Self).ok_or_else(|| InvalidQuantity(text.to_owned()))
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            whole if whole % ONE == 0 => write!(f, "{}", whole / ONE),
            part if part % (ONE / 1000) == 0 => write!(f, "{}m", part / (ONE / 1000)),
            part => write!(f, "{part}n"),
        }
    }
}

fn parse(text: &str) -> Option<i128> {
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(at);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    // Nothing here is ever owed, so there is no sign to read.
    if !digits(whole) || !digits(fraction) || whole.len() + fraction.len() == 0 || fraction.len() > 9 {
        return None;
    }
    let scaled: i128 = format!("{whole}{fraction:0<9}").parse().ok()?;
    let (times, per) = scale(suffix)?;
    // Rounded up, as Kubernetes does.
    Some((scaled.checked_mul(times)? + per - 1) / per)
}

/// What a suffix multiplies by and divides by.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    const UNITS: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let power = |base: i128, units: &[&str]| {
        let at = units.iter().position(|unit| *unit == suffix)?;
        Some((base.pow(u32::try_from(at).ok()? + 1), 1))
    };
    match suffix {
        "" => Some((1, 1)),
        "m" => Some((1, 1_000)),
        "u" => Some((1, 1_000_000)),
        "n" => Some((1, ONE)),
        _ => power(1000, &UNITS).or_else(|| power(1024, &BINARY)).or_else(|| exponent(suffix)),
    }
}

fn exponent(suffix: &str) -> Option<(i128, i128)> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let ten = |power: u32| 10_i128.checked_pow(power);
    if power.unsigned_abs() > 18 {
        return None;
    }
    if power >= 0 { Some((ten(power.unsigned_abs())?, 1)) } else { Some((1, ten(power.unsigned_abs())?)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn one_amount_has_many_spellings() {
        for (one, other) in
            [("0.5", "500m"), ("1Ki", "1024"), ("2e3", "2k"), ("1.5Gi", "1536Mi"), ("1E", "1e18")]
        {
            assert_eq!(quantity(one), quantity(other), "{one} and {other}");
        }
        assert!(quantity("1G") < quantity("1Gi"));
        assert_eq!(quantity("0.1").to_string(), "100m");
        assert_eq!(quantity("2Ki").to_string(), "2048");
    }

    #[test]
    fn text_that_is_no_amount_is_refused() {
        for text in ["", "Gi", "1gb", "1 Gi", "-1", "1.2.3", "1e99", "lots", "１"] {
            assert!(text.parse::<Quantity>().is_err(), "{text:?}");
        }
    }
}

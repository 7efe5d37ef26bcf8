//! Shares of versions.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Version;

/// A share in ten-thousandths: 0 to [`Share::WHOLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Share(u16);

/// Which version answers how much of a model's traffic. Shares sum to the whole,
/// each version is named once, and versions with no share are not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(Version, Share)>", into = "Vec<(Version, Share)>")]
pub struct Split(Vec<(Version, Share)>);

/// A [`Split`] among versions that are ready here.
///
/// What a missing version would have answered goes to the others in proportion,
/// so a version that one pod cannot load takes nothing down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedSplit {
    served: Split,
    wanted: Split,
}

/// Shares that are no split.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSplit {
    /// The shares do not sum to the whole.
    #[error("the shares sum to {}, not 100 %", Share::percent_of(*.0))]
    Sum(u32),
    /// A version is named twice.
    #[error("version {0} is named twice")]
    Twice(Version),
    /// One share is over the whole.
    #[error("a share of {}; 0 to 100 % are allowed", Share::percent_of(*.0))]
    Share(u32),
}

impl Share {
    /// Everything.
    pub const WHOLE: Share = Share(10_000);
    /// What a version has that is not named.
    pub const NOTHING: Share = Share(0);

    /// The share of this many ten-thousandths.
    ///
    /// # Errors
    /// Above 10,000.
    pub fn new(ten_thousandths: u32) -> Result<Self, InvalidSplit> {
        u16::try_from(ten_thousandths)
            .ok()
            .filter(|n| *n <= Self::WHOLE.0)
            .map(Self)
            .ok_or(InvalidSplit::Share(ten_thousandths))
    }

    /// In ten-thousandths.
    pub fn ten_thousandths(self) -> u32 {
        u32::from(self.0)
    }

    fn percent_of(ten_thousandths: u32) -> String {
        format!("{} %", f64::from(ten_thousandths) / 100.0)
    }
}

impl Split {
    /// The split with these shares.
    ///
    /// # Errors
    /// Where they do not sum to the whole or a version is named twice.
    pub fn new(shares: impl IntoIterator<Item = (Version, Share)>) -> Result<Self, InvalidSplit> {
        let mut kept: Vec<(Version, Share)> = Vec::new();
        let mut named = std::collections::BTreeSet::new();
        for (version, share) in shares {
            if !named.insert(version.clone()) {
                return Err(InvalidSplit::Twice(version));
            }
            if share.0 > 0 {
                kept.push((version, share));
            }
        }
        let sum = kept.iter().map(|(_, share)| share.ten_thousandths()).sum();
        if sum != Share::WHOLE.ten_thousandths() {
            return Err(InvalidSplit::Sum(sum));
        }
        // One order everywhere, so that every pod decides alike.
        kept.sort();
        Ok(Self(kept))
    }

    /// Everything to one version.
    pub fn whole(version: Version) -> Self {
        Self(vec![(version, Share::WHOLE)])
    }

    /// The versions with a share, and their shares.
    pub fn shares(&self) -> &[(Version, Share)] {
        &self.0
    }

    /// The share of a version, zero where it has none.
    pub fn share(&self, version: &Version) -> Share {
        self.0.iter().find(|(v, _)| v == version).map_or(Share(0), |(_, share)| *share)
    }

    /// The version with the largest share, the first by name among equals.
    pub fn stable(&self) -> &Version {
        let mut best = &self.0[0];
        for entry in &self.0[1..] {
            if entry.1 > best.1 {
                best = entry;
            }
        }
        &best.0
    }

    /// The version at a place on the line from 0 to 9,999.
    pub(crate) fn at(&self, place: u32) -> &Version {
        let mut end = 0;
        for (version, share) in &self.0 {
            end += share.ten_thousandths();
            if place < end {
                return version;
            }
        }
        // Not reached for places on the line, since the shares sum to its length.
        self.stable()
    }
}

impl ServedSplit {
    /// What of `wanted` can be served when only versions that are `ready` may answer;
    /// `None` where no version with a share is ready.
    pub fn among(wanted: &Split, ready: impl Fn(&Version) -> bool) -> Option<Self> {
        let able: Vec<&(Version, Share)> = wanted.0.iter().filter(|(version, _)| ready(version)).collect();
        let sum: u32 = able.iter().map(|(_, share)| share.ten_thousandths()).sum();
        if sum == 0 {
            return None;
        }
        let whole = Share::WHOLE.ten_thousandths();
        let mut shares: Vec<(Version, Share)> = able
            .iter()
            // At most the whole, since a share is at most the sum.
            .map(|(version, share)| (version.clone(), Share((share.ten_thousandths() * whole / sum) as u16)))
            .collect();
        // Rounding down leaves less than one unit a version; the largest takes it.
        let rest = whole - shares.iter().map(|(_, share)| share.ten_thousandths()).sum::<u32>();
        if let Some(largest) = shares.iter_mut().max_by_key(|(_, share)| *share) {
            largest.1.0 += rest as u16;
        }
        shares.retain(|(_, share)| share.0 > 0);
        Some(Self { served: Split(shares), wanted: wanted.clone() })
    }

    /// The split that is really served.
    pub fn split(&self) -> &Split {
        &self.served
    }

    /// The version of the caller at this place: as everywhere else, unless it is missing here. Then
    /// its callers go to others, and nobody else's do.
    pub(crate) fn of_caller(&self, place: u32) -> &Version {
        let wanted = self.wanted.at(place);
        if self.served.share(wanted) > Share::NOTHING { wanted } else { self.served.at(place) }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Self::percent_of(self.ten_thousandths()))
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (version, share)) in self.0.iter().enumerate() {
            write!(f, "{}{version}={share}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl TryFrom<Vec<(Version, Share)>> for Split {
    type Error = InvalidSplit;

    fn try_from(shares: Vec<(Version, Share)>) -> Result<Self, InvalidSplit> {
        Self::new(shares)
    }
}

impl From<Split> for Vec<(Version, Share)> {
    fn from(split: Split) -> Self {
        split.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().expect("valid version")
    }

    fn split(shares: &[(&str, u32)]) -> Result<Split, InvalidSplit> {
        Split::new(shares.iter().map(|(v, s)| (version(v), Share::new(*s).expect("in range"))))
    }

    #[test]
    fn shares_sum_to_the_whole() {
        assert_eq!(split(&[("1", 5_000), ("2", 4_999)]), Err(InvalidSplit::Sum(9_999)));
        assert_eq!(split(&[("1", 5_000), ("1", 5_000)]), Err(InvalidSplit::Twice(version("1"))));
        assert_eq!(split(&[]), Err(InvalidSplit::Sum(0)));
        assert!(Share::new(10_001).is_err());
        assert_eq!(split(&[("1", 10_000), ("2", 0)]), Ok(Split::whole(version("1"))));
    }

    #[test]
    fn what_a_missing_version_would_answer_goes_to_the_others_in_proportion() {
        let wanted = split(&[("1", 6_000), ("2", 3_000), ("3", 1_000)]).expect("valid");
        let served = ServedSplit::among(&wanted, |v| v.as_str() != "1").expect("two are ready");
        assert_eq!(served.split(), &split(&[("2", 7_500), ("3", 2_500)]).expect("valid"));
        assert_eq!(ServedSplit::among(&wanted, |_| false), None);
    }

    #[test]
    fn a_served_split_always_sums_to_the_whole() {
        let wanted = split(&[("1", 3_334), ("2", 3_333), ("3", 3_333)]).expect("valid");
        for left_out in ["1", "2", "3"] {
            let served = ServedSplit::among(&wanted, |v| v.as_str() != left_out).expect("two are ready");
            assert_eq!(split_sum(served.split()), 10_000, "without {left_out}");
        }
    }

    fn split_sum(split: &Split) -> u32 {
        split.shares().iter().map(|(_, share)| share.ten_thousandths()).sum()
    }
}

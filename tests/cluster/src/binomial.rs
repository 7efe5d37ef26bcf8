//! Whether a share that was observed can be the one that was asked for.

use std::ops::RangeInclusive;

/// How many of `n` independent requests may go to a version with this share: the smallest
/// interval that leaves out at most half of `alpha` at either end of the binomial distribution.
pub fn interval(n: u64, share: f64, alpha: f64) -> RangeInclusive<u64> {
    if share <= 0.0 {
        return 0..=0;
    }
    if share >= 1.0 {
        return n..=n;
    }
    let odds = (share / (1.0 - share)).ln();
    // ln P(k), from one k to the next; in logarithms, since P(0) is too small for an f64.
    let mut at = n as f64 * (1.0 - share).ln();
    let mut probabilities = Vec::with_capacity(n as usize + 1);
    for k in 0..=n {
        probabilities.push(at.exp());
        at += ((n - k) as f64).ln() - ((k + 1) as f64).ln() + odds;
    }
    let left_out = |tail: &mut dyn Iterator<Item = &f64>| {
        let mut sum = 0.0;
        tail.take_while(|probability| {
            sum += **probability;
            sum <= alpha / 2.0
        })
        .count() as u64
    };
    left_out(&mut probabilities.iter())..=n - left_out(&mut probabilities.iter().rev())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_distributions_that_can_be_told_by_hand() {
        // Four coins: 0 and 4 have 1/16 each, 1 and 3 have 4/16 each.
        assert_eq!(interval(4, 0.5, 0.2), 1..=3);
        assert_eq!(interval(4, 0.5, 0.1), 0..=4);
        assert_eq!((interval(10, 0.0, 1e-6), interval(10, 1.0, 1e-6)), (0..=0, 10..=10));
    }

    #[test]
    fn at_one_percent_of_ten_thousand_it_is_close_to_five_deviations() {
        let (low, high) = interval(10_000, 0.01, 1e-6).into_inner();
        assert!((52..=60).contains(&low) && (150..=158).contains(&high), "{low} to {high}");
    }
}

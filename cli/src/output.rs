//! Results on standard output: aligned columns for people, JSON with stable keys for
//! machines. Everything else goes to standard error.

use std::io::{self, Write};

use serde::Serialize;

use crate::{args::Format, failure::Failure};

/// Where results go, and in which form.
#[derive(Clone, Copy)]
pub(crate) struct Output(pub(crate) Format);

/// Rows under a header, aligned when shown.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    empty: &'static str,
}

impl Table {
    /// A table with these columns; `empty` is shown in place of no rows.
    pub(crate) fn new<const N: usize>(header: [&str; N], empty: &'static str) -> Self {
        Self { rows: vec![header.map(str::to_owned).to_vec()], empty }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.rows.len() == 1 {
            return writeln!(f, "{}", self.empty);
        }
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        for row in &self.rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(c, w)| format!("{c:<w$}")).collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

impl Output {
    /// Shows `value` as JSON, or what `people` makes of it.
    pub(crate) fn show<T: Serialize>(
        self,
        value: &T,
        people: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let text = match self.0 {
            Format::Table => people(value),
            Format::Json => json(serde_json::to_string_pretty(value))?,
        };
        write(&text)
    }

    /// Shows one of a stream: a line of JSON, or a line for people.
    pub(crate) fn line<T: Serialize>(
        self,
        value: &T,
        people: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let text = match self.0 {
            Format::Table => people(value),
            Format::Json => json(serde_json::to_string(value))?,
        };
        write(&text)
    }
}

fn json(text: Result<String, serde_json::Error>) -> Result<String, Failure> {
    text.map_err(|error| Failure::failed(format!("the result has no JSON form: {error}")))
}

/// Writes to standard output, ending the line. A reader that went away is no failure.
pub(crate) fn write(text: &str) -> Result<(), Failure> {
    let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
    let mut out = io::stdout().lock();
    match write!(out, "{text}{end}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("standard output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// A number of bytes with the unit people would choose.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ if value < 10.0 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// A moment as RFC 3339 in UTC, to the millisecond: what follows a split is over in fewer than a
/// thousand. Empty for never.
pub(crate) fn time(at_ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(at_ms) {
        Ok(at) if at_ms > 0 => at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        _ => String::new(),
    }
}

/// Pairs as `a=b c=d`, or a dash.
pub(crate) fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let texts: Vec<String> = pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    if texts.is_empty() { "-".into() } else { texts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_lines_do_not_trail_spaces() {
        let mut table = Table::new(["MODEL", "SHARE"], "none");
        table.row(["fraud-detection".into(), "100 %".into()]);
        table.row(["é".into(), String::new()]);
        assert_eq!(table.to_string(), "MODEL            SHARE\nfraud-detection  100 %\né\n");
    }

    #[test]
    fn a_table_without_rows_says_so() {
        assert_eq!(Table::new(["MODEL"], "no models yet").to_string(), "no models yet\n");
    }

    #[test]
    fn sizes_read_as_people_would_say_them() {
        let shown = [0, 1_023, 1_024, 63_488, 1_258_291, 1_048_575, 5 << 40].map(bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "62 KiB", "1.2 MiB", "1.0 MiB", "5.0 TiB"]);
    }

    #[test]
    fn times_are_utc_and_never_is_empty() {
        assert_eq!(time(1_763_972_400_123), "2025-11-24T08:20:00.123Z");
        assert_eq!(time(0), "");
    }
}

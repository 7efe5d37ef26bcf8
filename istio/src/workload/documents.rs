//! The documents of a YAML file, each with its text: what is not changed is written as it was
//! read, comments and all.

use serde_json::Value;

/// One document.
#[derive(Clone, Debug, PartialEq)]
pub struct Document<'a> {
    /// As it stands in the file, with the line that separates it from the one before.
    pub text: &'a str,
    /// What it says; nothing for a document that is only comments.
    pub value: Option<Value>,
}

/// A document that is no YAML.
#[derive(Debug, thiserror::Error)]
#[error("document {number}, which begins at line {line}, is no YAML: {why}")]
pub struct InvalidDocument {
    number: usize,
    line: usize,
    why: String,
}

/// Reads every document of a file. JSON is YAML as well.
///
/// # Errors
/// Naming the first document that is neither.
pub fn documents(text: &str) -> Result<Vec<Document<'_>>, InvalidDocument> {
    let mut line = 1;
    let mut documents = Vec::new();
    for (at, text) in split(text).into_iter().enumerate() {
        let value = if says_nothing(text) { Ok(None) } else { parse(text).map(Some) };
        let value = value.map_err(|why| InvalidDocument { number: at + 1, line, why })?;
        documents.push(Document { text, value });
        line += text.lines().count();
    }
    Ok(documents)
}

impl Document<'_> {
    /// The document with this value in place of its own.
    ///
    /// # Errors
    /// Where the value has no YAML form.
    pub fn with(&self, value: &Value) -> Result<String, String> {
        let separator = if self.text.starts_with("---") { "---\n" } else { "" };
        Ok(format!("{separator}{}", to_yaml(value)?))
    }
}

/// A value as YAML, ending in a line's end.
pub(crate) fn to_yaml(value: &Value) -> Result<String, String> {
    let text = serde_saphyr::to_string(value).map_err(|error| error.to_string())?;
    Ok(if text.ends_with('\n') { text } else { format!("{text}\n") })
}

/// As `kubectl` reads YAML: a mode of `0644` is octal, which YAML 1.2 has given up.
fn parse(text: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

/// No text within a document can begin a line with `---` (YAML 1.2, c-forbidden), so that
/// splitting needs no parser.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut from, mut at) = (0, 0);
    for line in text.split_inclusive('\n') {
        if at > from && is_separator(line) {
            parts.push(&text[from..at]);
            from = at;
        }
        at += line.len();
    }
    parts.push(&text[from..]);
    parts
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

fn says_nothing(text: &str) -> bool {
    text.lines()
        .map(|line| line.strip_prefix("---").unwrap_or(line).trim())
        .all(|line| line.is_empty() || line.starts_with('#') || line.starts_with('%') || line == "...")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_keep_their_text_and_together_are_the_file() {
        let text = "# head\n---\na: 1 # one\n--- # two\nb: |\n  x\n  ---\n\n---\n# nothing\n--- {c: 3}\n";
        let documents = documents(text).expect("YAML");
        let values: Vec<Option<Value>> = documents.iter().map(|document| document.value.clone()).collect();
        let wanted =
            [None, Some(json!({ "a": 1 })), Some(json!({ "b": "x\n---\n" })), None, Some(json!({ "c": 3 }))];
        assert_eq!(values, wanted);
        assert_eq!(documents.iter().map(|document| document.text).collect::<String>(), text);
    }

    #[test]
    fn values_mean_what_they_mean_to_kubectl_before_and_after() {
        let text = "mode: 0644\nquoted: \"0644\"\nyes: \"yes\"\non: yes\ndate: 2026-11-22\nexp: 1e3\nhex: \"0x1f\"\n\
                    nothing: ~\nversion: \"1.20\"\nbig: 18446744073709551615\nlines: |\n  a\n\n  b\nport: '8080'\n";
        let value = documents(text).expect("YAML")[0].value.clone().expect("a value");
        assert_eq!(value["mode"], 420);
        assert_eq!(value["quoted"], "0644");
        assert_eq!(value["on"], true);
        assert_eq!(value["date"], "2026-11-22");
        assert_eq!(value["version"], "1.20");
        let written = to_yaml(&value).expect("YAML");
        let again = documents(&written).expect("YAML")[0].value.clone();
        assert_eq!(again, Some(value), "{written}");
    }

    #[test]
    fn a_document_that_is_no_yaml_is_named() {
        let error = documents("a: 1\n---\nb: [\n").expect_err("unclosed").to_string();
        assert!(error.contains("document 2, which begins at line 2"), "{error}");
    }
}

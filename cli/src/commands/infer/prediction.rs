//! From an inference response to something readable.

use std::time::Duration;

use sconce_catalog::Datatype;
use serde::Serialize;
use serde_json::Value;

use crate::tensor::{self, Elements};

/// Values shown to people before the rest is only counted.
const SHOWN: usize = 16;
/// Rows whose classes are shown.
const ROWS: usize = 8;

/// What a model answered.
#[derive(Debug, Serialize)]
pub(super) struct Prediction {
    model: String,
    version: String,
    sidecar: String,
    latency_ms: f64,
    outputs: Vec<NamedOutput>,
}

#[derive(Debug, Serialize)]
struct NamedOutput {
    name: String,
    datatype: String,
    shape: Vec<u64>,
    data: Value,
    #[serde(skip)]
    elements: Elements,
}

impl Prediction {
    /// Reads a response whose tensors are JSON or follow it as bytes.
    pub(super) fn read(
        body: &[u8],
        json_length: Option<usize>,
        sidecar: String,
        latency: Duration,
    ) -> Result<Self, String> {
        let (json, mut tensors) =
            body.split_at_checked(json_length.unwrap_or(body.len())).ok_or("it is shorter than it says")?;
        let json: Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        let mut outputs = Vec::new();
        for output in json["outputs"].as_array().ok_or("it has no outputs")? {
            outputs.push(NamedOutput::read(output, &mut tensors)?);
        }
        Ok(Self {
            model: text("model_name"),
            version: text("model_version"),
            sidecar,
            latency_ms: (latency.as_secs_f64() * 1e6).round() / 1e3,
            outputs,
        })
    }

    /// The outputs, and the `top` highest of each row of scores.
    pub(super) fn people(&self, top: usize) -> String {
        let mut text =
            format!("{} version {} answered in {:.1} ms\n", self.model, self.version, self.latency_ms);
        for output in &self.outputs {
            let dimensions: Vec<String> = output.shape.iter().map(u64::to_string).collect();
            text += &format!("{} {}[{}]\n", output.name, output.datatype, dimensions.join(","));
            text += &format!("  {}\n", output.values());
            for line in output.classes(top) {
                text += &format!("  {line}\n");
            }
        }
        text
    }
}

impl NamedOutput {
    fn read(output: &Value, tensors: &mut &[u8]) -> Result<Self, String> {
        let name = output["name"].as_str().ok_or("an output has no name")?.to_owned();
        let datatype = output["datatype"].as_str().unwrap_or_default();
        let shape = output["shape"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        let elements = match output["parameters"]["binary_data_size"].as_u64() {
            Some(size) => {
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                let (bytes, rest) =
                    tensors.split_at_checked(size).ok_or_else(|| format!("output {name} is cut short"))?;
                *tensors = rest;
                let datatype: Datatype = datatype.parse().map_err(|_| format!("{datatype:?} is unknown"))?;
                Elements::decode(datatype, bytes)?
            }
            None => {
                tensor::from_json(&output["data"]).map_err(|why| format!("output {name}: {why}"))?.elements
            }
        };
        Ok(Self { name, datatype: datatype.to_owned(), shape, data: elements.to_json(), elements })
    }

    fn values(&self) -> String {
        let count = self.elements.len();
        let shown: Vec<String> = (0..count.min(SHOWN)).map(|index| self.elements.text(index)).collect();
        let rest = if count > SHOWN { format!(" … {} more", count - SHOWN) } else { String::new() };
        format!("{}{rest}", shown.join(" "))
    }

    /// The highest values of each row, where the values look like scores: a batch of rows of
    /// at least three floats.
    fn classes(&self, top: usize) -> Vec<String> {
        let Elements::Floats(values) = &self.elements else { return vec![] };
        let width = self.shape.last().map_or(0, |width| usize::try_from(*width).unwrap_or(0));
        if width < 3 || top == 0 || self.shape.len() < 2 {
            return vec![];
        }
        let rows = values.chunks_exact(width).enumerate();
        rows.take(ROWS)
            .map(|(row, values)| {
                let mut order: Vec<usize> = (0..width).collect();
                order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
                let best = order.iter().take(top).map(|i| format!("{i} ({})", tensor::readable(values[*i])));
                let best: Vec<String> = best.collect();
                let which = if values.len() == self.elements.len() {
                    String::new()
                } else {
                    format!(" of row {row}")
                };
                format!("top classes{which}: {}", best.join(", "))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(json: &Value, tensors: &[u8]) -> Result<Prediction, String> {
        let mut body = json.to_string().into_bytes();
        let length = (!tensors.is_empty()).then_some(body.len());
        body.extend_from_slice(tensors);
        Prediction::read(&body, length, "https://a:1".into(), Duration::from_micros(1_234))
    }

    #[test]
    fn the_highest_scores_come_first() {
        let answer = json!({"model_name": "digits", "model_version": "2", "outputs": [
            {"name": "logits", "datatype": "FP32", "shape": [1, 4], "data": [0.5, -1.0, 12.25, 3.0]}]});
        let prediction = read(&answer, &[]).expect("valid");
        let text = prediction.people(2);
        assert!(text.contains("digits version 2 answered in 1.2 ms"), "{text}");
        assert!(text.contains("logits FP32[1,4]"), "{text}");
        assert!(text.contains("top classes: 2 (12.25), 3 (3)\n"), "{text}");
        assert!(!prediction.people(0).contains("top classes"));
    }

    #[test]
    fn binary_outputs_are_taken_in_their_order() {
        let answer = json!({"model_name": "m", "model_version": "1", "outputs": [
            {"name": "a", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}},
            {"name": "b", "datatype": "INT64", "shape": [1], "parameters": {"binary_data_size": 8}}]});
        let tensors = [&1.5f32.to_le_bytes()[..], &7i64.to_le_bytes()[..]].concat();
        let prediction = read(&answer, &tensors).expect("valid");
        let json = serde_json::to_value(&prediction).expect("valid");
        assert_eq!((&json["outputs"][0]["data"], &json["outputs"][1]["data"]), (&json!([1.5]), &json!([7])));
        assert!(read(&answer, &tensors[..8]).is_err(), "cut short");
    }

    #[test]
    fn each_row_of_a_batch_has_its_own_classes() {
        let answer = json!({"model_name": "m", "outputs": [
            {"name": "y", "datatype": "FP64", "shape": [2, 3], "data": [[1.0, 2.0, 3.0], [9.0, 8.0, 7.5]]}]});
        let text = read(&answer, &[]).expect("valid").people(1);
        assert!(text.contains("row 0: 2 (3)") && text.contains("row 1: 0 (9)"), "{text}");
    }
}

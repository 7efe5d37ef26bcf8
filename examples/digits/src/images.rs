//! The images that were held out of training.

use std::path::Path;

use anyhow::{Context as _, ensure};

/// One image, ready to be sent.
pub(crate) struct Image {
    /// What a person sees in it.
    pub(crate) label: usize,
    /// A request of the Open Inference Protocol.
    pub(crate) request: bytes::Bytes,
}

const PIXELS: usize = 64;
/// The brightest pixel in the file.
const BRIGHTEST: f32 = 16.0;

/// Reads lines of a label and 64 pixels.
pub(crate) fn read(file: &Path) -> anyhow::Result<Vec<Image>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let images: anyhow::Result<Vec<Image>> = text.lines().map(image).collect();
    let images = images.with_context(|| file.display().to_string())?;
    ensure!(!images.is_empty(), "{} holds no images", file.display());
    Ok(images)
}

fn image(line: &str) -> anyhow::Result<Image> {
    let numbers: Vec<u8> = line.split(',').map(str::parse).collect::<Result<_, _>>()?;
    ensure!(numbers.len() == PIXELS + 1, "a line has {} numbers, not {}", numbers.len(), PIXELS + 1);
    let data: Vec<f32> = numbers[1..].iter().map(|pixel| f32::from(*pixel) / BRIGHTEST).collect();
    let input =
        serde_json::json!({ "name": "image", "datatype": "FP32", "shape": [1, PIXELS], "data": data });
    let request = serde_json::json!({ "inputs": [input] }).to_string();
    Ok(Image { label: usize::from(numbers[0]), request: request.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_of_the_example_are_all_readable() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("held-out.csv");
        let images = read(&file).expect("the file is in the repository");
        assert_eq!(images.len(), 797);
        assert!(images.iter().all(|image| image.label < 10));
    }

    #[test]
    fn a_line_that_is_no_image_is_refused() {
        assert!(image("7,1,2").is_err());
        assert!(image("seven").is_err());
    }
}

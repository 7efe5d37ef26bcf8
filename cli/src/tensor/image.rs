//! Pictures as tensors: what a model's input shape says of channels, height and width
//! decides how a picture is converted.

use image::{DynamicImage, imageops::FilterType};
use sconce_catalog::Datatype;

use super::{Elements, Tensor};

/// A picture read from a file.
pub(crate) struct Pixels(DynamicImage);

/// How a model wants a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    channels: Channels,
    order: Order,
    /// `None` takes the picture's own size.
    height: Option<u32>,
    width: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channels {
    Gray,
    Rgb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Planes,
    Interleaved,
}

impl Pixels {
    /// Decodes a PNG or JPEG file.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        image::load_from_memory(bytes).map(Self).map_err(|error| error.to_string())
    }

    /// The picture as the input of this shape (-1 where it varies) and datatype; values
    /// are 0 to 255, or 0 to `max`.
    pub(crate) fn tensor(
        &self,
        shape: &[i64],
        datatype: Datatype,
        max: Option<f64>,
    ) -> Result<Tensor, String> {
        let frame = frame(shape)
            .ok_or_else(|| format!("a picture does not fit shape {shape:?}; convert it to .npy yourself"))?;
        let (width, height) =
            (frame.width.unwrap_or(self.0.width()), frame.height.unwrap_or(self.0.height()));
        let resized = if (self.0.width(), self.0.height()) == (width, height) {
            self.0.clone()
        } else {
            self.0.resize_exact(width, height, FilterType::Triangle)
        };
        let channels: usize = match frame.channels {
            Channels::Gray => 1,
            Channels::Rgb => 3,
        };
        let interleaved = match frame.channels {
            Channels::Gray => resized.into_luma8().into_raw(),
            Channels::Rgb => resized.into_rgb8().into_raw(),
        };
        let ordered: Vec<u8> = match frame.order {
            Order::Interleaved => interleaved,
            Order::Planes => (0..channels)
                .flat_map(|channel| interleaved.iter().skip(channel).step_by(channels).copied())
                .collect(),
        };
        let sizes = [channels as u64, u64::from(height), u64::from(width)];
        let elements = values(&ordered, datatype, max);
        Ok(Tensor { shape: filled(shape, frame, sizes), elements, own: None })
    }
}

fn values(pixels: &[u8], datatype: Datatype, max: Option<f64>) -> Elements {
    let scaled = pixels.iter().map(|pixel| f64::from(*pixel) * max.map_or(1.0, |max| max / 255.0));
    match datatype {
        Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64 => {
            Elements::Floats(scaled.collect())
        }
        _ => Elements::Ints(scaled.map(|value| value.round() as i128).collect()),
    }
}

fn frame(shape: &[i64]) -> Option<Frame> {
    let batch = |size: i64| size == 1 || size == -1;
    let channels = |size: i64| match size {
        1 => Some(Channels::Gray),
        3 => Some(Channels::Rgb),
        _ => None,
    };
    let size = |size: i64| u32::try_from(size).ok();
    let whole = |channels, order, height, width| {
        Some(Frame { channels, order, height: size(height), width: size(width) })
    };
    match *shape {
        [b, c, h, w] if batch(b) && channels(c).is_some() => whole(channels(c)?, Order::Planes, h, w),
        [b, h, w, c] if batch(b) => whole(channels(c)?, Order::Interleaved, h, w),
        [c, h, w] if channels(c).is_some() => whole(channels(c)?, Order::Planes, h, w),
        [h, w, c] if channels(c).is_some() => whole(channels(c)?, Order::Interleaved, h, w),
        [-1, h, w] => whole(Channels::Gray, Order::Planes, h, w),
        [b, n] if batch(b) && n > 1 => square(n),
        [h, w] if !batch(h) => whole(Channels::Gray, Order::Planes, h, w),
        [n] if n > 1 => square(n),
        _ => None,
    }
}

/// A flat input: a square, gray if that fits, else of three planes.
fn square(count: i64) -> Option<Frame> {
    let side = |count: i64| {
        let side = count.isqrt();
        (side * side == count).then(|| u32::try_from(side).ok()).flatten()
    };
    let frame =
        |channels, side| Frame { channels, order: Order::Planes, height: Some(side), width: Some(side) };
    side(count)
        .map(|side| frame(Channels::Gray, side))
        .or_else(|| (count % 3 == 0).then(|| side(count / 3)).flatten().map(|s| frame(Channels::Rgb, s)))
}

/// The shape with its open dimensions filled in; a batch is of one picture.
fn filled(shape: &[i64], frame: Frame, [channels, height, width]: [u64; 3]) -> Vec<u64> {
    let picture = match frame.order {
        Order::Planes => [channels, height, width],
        Order::Interleaved => [height, width, channels],
    };
    match shape.len() {
        4 => [&[1], &picture[..]].concat(),
        3 => picture.to_vec(),
        2 if shape[0] == 1 || shape[0] == -1 => vec![1, channels * height * width],
        2 => vec![height, width],
        _ => vec![channels * height * width],
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    /// Two pixels wide and one high: red, then white.
    fn picture() -> Pixels {
        let mut image = RgbImage::new(2, 1);
        image.put_pixel(0, 0, Rgb([255, 0, 0]));
        image.put_pixel(1, 0, Rgb([255, 255, 255]));
        Pixels(DynamicImage::ImageRgb8(image))
    }

    #[test]
    fn planes_and_interleaved_pixels_follow_the_shape() {
        let ints = |shape: &[i64]| picture().tensor(shape, Datatype::Uint8, None).expect("fits");
        let planes = ints(&[-1, 3, -1, -1]);
        assert_eq!(planes.shape, [1, 3, 1, 2]);
        assert_eq!(planes.elements, Elements::Ints(vec![255, 255, 0, 255, 0, 255]));
        let interleaved = ints(&[1, 2, 3]);
        // A first dimension of 1 is a gray plane: [1, 2, 3] is two rows of three pixels.
        assert_eq!(interleaved.shape, [1, 2, 3]);
        let interleaved = ints(&[-1, 1, 2, 3]);
        assert_eq!(interleaved.shape, [1, 1, 2, 3], "one gray plane of 2 by 3");
        let rows = picture().tensor(&[5, 2, 3], Datatype::Uint8, None).expect("fits");
        assert_eq!((rows.shape, rows.elements.len()), (vec![5, 2, 3], 30));
    }

    #[test]
    fn a_flat_input_is_a_square() {
        let tensor = picture().tensor(&[-1, 64], Datatype::Fp32, Some(16.0)).expect("fits");
        assert_eq!(tensor.shape, [1, 64]);
        let Elements::Floats(values) = tensor.elements else { panic!("floats were asked for") };
        assert_eq!(values.len(), 64);
        assert!(values.iter().all(|value| (0.0..=16.0).contains(value)));
        assert!((values[63] - 16.0).abs() < 1e-9, "white is the maximum");
        let rgb = picture().tensor(&[12], Datatype::Uint8, None).expect("three planes of 2 by 2");
        assert_eq!(rgb.shape, [12]);
    }

    #[test]
    fn a_shape_that_is_no_picture_is_refused() {
        for shape in [&[][..], &[-1], &[7], &[-1, -1], &[2, 3, 8, 8], &[1, 1, 1, 1, 1], &[-1, 50]] {
            assert!(picture().tensor(shape, Datatype::Fp32, None).is_err(), "{shape:?}");
        }
    }
}

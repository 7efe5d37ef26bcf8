//! What a JSON text of arrays looks like: its sizes, and what its elements are.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, SeqAccess, Visitor},
};

use sconce_catalog::Datatype;

/// Sizes along the first element of each dimension, and the widest kind of element. Whether all
/// elements are in these sizes shows when they are read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outline {
    pub(super) sizes: Vec<i64>,
    pub(super) element: Option<Element>,
}

/// What an element is; the wider are further down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Element {
    Bool,
    Whole,
    Real,
    Text,
}

impl Element {
    /// The datatype of such elements where the model does not say.
    pub(super) fn datatype(self) -> Datatype {
        match self {
            Self::Bool => Datatype::Bool,
            Self::Whole => Datatype::Int64,
            Self::Real => Datatype::Fp32,
            Self::Text => Datatype::Bytes,
        }
    }
}

impl Outline {
    /// The outline of this text.
    pub(super) fn of(text: &str) -> Result<Self, String> {
        let mut outline = Self::default();
        let mut json = serde_json::Deserializer::from_str(text);
        let level = Level { depth: 0, first: true, outline: &mut outline };
        level.deserialize(&mut json).map_err(|error| error.to_string())?;
        Ok(outline)
    }

    fn saw(&mut self, element: Element) {
        self.element = self.element.max(Some(element));
    }
}

struct Level<'a> {
    depth: usize,
    /// Whether it is the first of everything around it.
    first: bool,
    outline: &'a mut Outline,
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a bool, a text, or an array of them")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.outline.saw(Element::Bool);
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.outline.saw(Element::Whole);
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.outline.saw(Element::Whole);
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.outline.saw(Element::Real);
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        // The names of numbers that JSON lacks, as they are read elsewhere here.
        let number = ["NaN", "Infinity", "-Infinity"].contains(&text);
        self.outline.saw(if number { Element::Real } else { Element::Text });
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        let Self { depth, first, outline } = self;
        if first {
            outline.sizes.push(0);
        }
        let mut length = 0i64;
        while let Some(()) = sequence.next_element_seed(Level {
            depth: depth + 1,
            first: first && length == 0,
            outline: &mut *outline,
        })? {
            length += 1;
        }
        if first {
            outline.sizes[depth] = length;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(text: &str) -> (Vec<i64>, Option<Element>) {
        let Outline { sizes, element } = Outline::of(text).unwrap();
        (sizes, element)
    }

    #[test]
    fn sizes_are_those_of_the_first_and_the_element_is_the_widest_of_all() {
        assert_eq!(outline("[[1,2,3],[4,5,6.5]]"), (vec![2, 3], Some(Element::Real)));
        assert_eq!(outline("[true,false]"), (vec![2], Some(Element::Bool)));
        assert_eq!(outline("[[[\"a\"]],[[\"b\"]]]"), (vec![2, 1, 1], Some(Element::Text)));
        assert_eq!(outline("[\"NaN\",1]"), (vec![2], Some(Element::Real)));
        assert_eq!(outline("[[],[]]"), (vec![2, 0], None));
        assert_eq!(outline("7"), (vec![], Some(Element::Whole)));
    }

    #[test]
    fn what_is_no_array_of_elements_is_refused_and_so_is_a_nest_of_them() {
        for text in ["[{}]", "[null]", "[1", &"[".repeat(100_000)] {
            assert!(Outline::of(text).is_err(), "{:.20}", text);
        }
    }
}

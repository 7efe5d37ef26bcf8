//! What a request says of the sequence that it belongs to.
//!
//! Source: Triton's sequence extension. `sequence_id` is a number that is not 0 or a text that is not
//! empty, of at most 128 bytes; `sequence_start` and `sequence_end` are bools. 0 and the empty text
//! stand for no sequence.

use std::fmt;

use sconce_identity::Principal;

use super::error::ServeError;

/// The name of a sequence among those of its caller. A number and its digits as text are two names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum SequenceId {
    Number(u64),
    Text(String),
}

/// What the parameters of a request say.
#[derive(Clone, Debug)]
pub(super) struct Sequence {
    /// `None` where only a flag is set, which a model that keeps state refuses.
    pub(super) id: Option<SequenceId>,
    /// It is the first request.
    pub(super) start: bool,
    /// It is the last one.
    pub(super) end: bool,
    /// Whose it is: callers do not know of each other's names.
    pub(super) caller: String,
}

/// A parameter, in either protocol.
pub(super) enum Value<'a> {
    Bool(bool),
    /// From 0 on.
    Whole(u64),
    Text(&'a str),
    Other,
}

/// Triton's limit for texts.
const LONGEST: usize = 128;

impl Sequence {
    /// From the three parameters; `None` where none of them says anything.
    pub(super) fn read<'a>(
        value: impl Fn(&'static str) -> Option<Value<'a>>,
        caller: Option<&Principal>,
    ) -> Result<Option<Self>, ServeError> {
        let flag = |name| match value(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(ServeError::Malformed(format!("the parameter {name} is neither true nor false"))),
        };
        let (start, end) = (flag("sequence_start")?, flag("sequence_end")?);
        let id = match value("sequence_id") {
            None | Some(Value::Whole(0) | Value::Text("")) => None,
            Some(Value::Whole(number)) => Some(SequenceId::Number(number)),
            Some(Value::Text(text)) if text.len() <= LONGEST => Some(SequenceId::Text(text.to_owned())),
            Some(_) => {
                return Err(ServeError::Malformed(format!(
                    "the parameter sequence_id is neither a whole number from 0 on nor a text of at most \
                     {LONGEST} bytes"
                )));
            }
        };
        if id.is_none() && !start && !end {
            return Ok(None);
        }
        // A caller without a name has been refused.
        let caller = caller.map_or("", Principal::name).to_owned();
        Ok(Some(Self { id, start, end, caller }))
    }
}

impl fmt::Display for SequenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[(&str, Value<'static>)]) -> Result<Option<Sequence>, String> {
        let find = |name: &'static str| {
            let (_, value) = values.iter().find(|(known, _)| *known == name)?;
            Some(match value {
                Value::Bool(flag) => Value::Bool(*flag),
                Value::Whole(number) => Value::Whole(*number),
                Value::Text(text) => Value::Text(text),
                Value::Other => Value::Other,
            })
        };
        Sequence::read(find, Some(&Principal::Loopback)).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_and_what_stands_for_it_is_no_sequence() {
        assert!(read(&[]).unwrap().is_none());
        assert!(
            read(&[("sequence_id", Value::Whole(0)), ("sequence_end", Value::Bool(false))])
                .unwrap()
                .is_none()
        );
        assert!(read(&[("sequence_id", Value::Text(""))]).unwrap().is_none());
        let flagged = read(&[("sequence_start", Value::Bool(true))]).unwrap().expect("it says something");
        assert!(flagged.id.is_none() && flagged.start);
    }

    #[test]
    fn a_number_is_not_the_text_that_looks_like_it() {
        let id = |value| read(&[("sequence_id", value)]).unwrap().and_then(|sequence| sequence.id);
        assert_eq!(id(Value::Whole(u64::MAX)), Some(SequenceId::Number(u64::MAX)));
        assert_ne!(id(Value::Whole(7)), id(Value::Text("7")));
    }

    #[test]
    fn what_is_neither_is_refused_by_its_name() {
        static LONG: [u8; 129] = [b'a'; 129];
        let long = std::str::from_utf8(&LONG).unwrap();
        for (name, value) in [
            ("sequence_id", Value::Other),
            ("sequence_id", Value::Bool(true)),
            ("sequence_id", Value::Text(long)),
            ("sequence_start", Value::Whole(1)),
            ("sequence_end", Value::Text("true")),
        ] {
            let refused = read(&[(name, value)]).expect_err(name);
            assert!(refused.contains(name), "{refused}");
        }
    }
}

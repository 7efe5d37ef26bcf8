//! What a person needs of libtorch's messages.

/// The longest reason that is passed on.
const LONGEST: usize = 500;

/// The error itself: not the trace through the model's code above it, nor the notes
/// below, nor where in libtorch's own source it was raised.
pub(super) fn reason(message: &str) -> String {
    let last_error = message.lines().rev().find(|line| names_an_error(line));
    let line = last_error.or_else(|| message.lines().find(|line| !line.trim().is_empty()));
    let text = without_source(line.unwrap_or("libtorch gave no reason"));
    text.chars().take(LONGEST).collect()
}

fn names_an_error(line: &str) -> bool {
    line.split_once(':').is_some_and(|(head, _)| {
        !head.contains(' ') && (head.ends_with("Error") || head.ends_with("Exception"))
    })
}

/// Cuts `[enforce fail at inline_container.cc:321] . ` and the like from the front.
fn without_source(line: &str) -> &str {
    let rest = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    let text = match rest {
        Some((head, rest)) if head.starts_with("enforce fail at ") => rest.trim_start_matches(['.', ' ']),
        _ => line,
    };
    text.trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_found_below_the_trace_through_the_models_code() {
        let long = "The following operation failed in the TorchScript interpreter.\nTraceback of TorchScript (most recent call last):\n  File \"x.py\", line 3\nRuntimeError: mat1 and mat2 shapes cannot be multiplied (1x3 and 4x5)\n";
        assert_eq!(reason(long), "RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x3 and 4x5)");
    }

    #[test]
    fn a_plain_message_is_its_first_line() {
        assert_eq!(reason("\n\nPytorchStreamReader failed\nmore"), "PytorchStreamReader failed");
        assert_eq!(reason(""), "libtorch gave no reason");
    }

    #[test]
    fn the_place_in_libtorchs_source_is_left_out() {
        let raised = "[enforce fail at inline_container.cc:321] . PytorchStreamReader failed locating file";
        assert_eq!(reason(raised), "PytorchStreamReader failed locating file");
        assert_eq!(reason("[1, 2] is no shape"), "[1, 2] is no shape");
    }
}

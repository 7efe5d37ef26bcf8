//! A document's commands, typed one after the other into one shell, as a reader would.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// What ends the output of one block.
const END: &str = "--- end of block";

/// The shell blocks of a Markdown document, in order.
pub fn blocks(document: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut inside: Option<String> = None;
    for line in document.lines() {
        match (&mut inside, line) {
            (None, "```sh") => inside = Some(String::new()),
            (Some(_), "```") => blocks.extend(inside.take()),
            (Some(block), line) => *block += &format!("{line}\n"),
            (None, _) => {}
        }
    }
    assert!(inside.is_none(), "a block does not end");
    blocks
}

/// A shell that ends, with what it left in the background, when this is dropped.
pub struct Walk {
    shell: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Walk {
    /// A shell in a folder, that finds programs in another first.
    ///
    /// # Panics
    /// Where there is no `bash`.
    pub fn begin(folder: &Path, programs: &Path) -> Self {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("bash")
            .arg("-s")
            .current_dir(folder)
            .env("PATH", format!("{}:{path}", programs.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash is in PATH");
        let (input, output) = (shell.stdin.take(), BufReader::new(shell.stdout.take().expect("piped")));
        let mut walk = Self { shell, input, output };
        walk.run("exec 2>&1; trap 'kill $(jobs -p) 2> /dev/null' EXIT; set -euo pipefail");
        walk
    }

    /// Types a block, and returns what it printed.
    ///
    /// # Panics
    /// Where a command of it fails.
    pub fn run(&mut self, block: &str) -> String {
        let input = self.input.as_mut().expect("open until it is dropped");
        // No command may read what is typed next.
        let typed = input.write_all(format!("{{ {block}\n}} < /dev/null\necho '{END}'\n").as_bytes());
        typed.and_then(|()| input.flush()).expect("the shell reads");
        let mut said = String::new();
        loop {
            let mut line = Vec::new();
            let read = self.output.read_until(b'\n', &mut line).expect("the shell writes");
            let line = String::from_utf8_lossy(&line);
            assert!(read > 0, "this failed:\n{block}\nit said:\n{said}");
            // What a command prints last need not end its line.
            if let Some(last) = line.strip_suffix(&format!("{END}\n")) {
                return said + last;
            }
            said += &line;
        }
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        // The shell reads its end, and ends what it started.
        drop(self.input.take());
        let _ = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shell_blocks_are_typed() {
        let document = "text\n```sh\na\nb\n```\n```yaml\nc: 1\n```\n```sh\nd\n```\n";
        assert_eq!(blocks(document), ["a\nb\n", "d\n"]);
    }

    #[test]
    fn one_shell_remembers_and_a_failure_is_seen() {
        let mut walk = Walk::begin(Path::new("."), Path::new("/nowhere"));
        assert_eq!(walk.run("export WORD=hello; printf 'no end'"), "no end");
        assert_eq!(walk.run("cat; echo $WORD"), "hello\n");
        let failed =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| walk.run("false\necho not reached")));
        assert!(failed.is_err());
    }
}

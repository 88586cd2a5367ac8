//! Runs one step after the other, says how long each took, and counts the tests in their output.

use std::{
    io::{self, BufRead, BufReader, IsTerminal, Read, Write},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::cargo;

/// Tests, counted from what they print.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Counts {
    /// Takes a line of a test program's output into account.
    fn read(&mut self, line: &str) {
        if line.starts_with("skipped: ") {
            self.skipped += 1;
            return;
        }
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        // Such as: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
        for part in result.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let Some(number) = words.next().and_then(|word| word.parse::<u32>().ok()) else {
                continue;
            };
            match words.next() {
                Some("passed") => self.passed += number,
                Some("failed") => self.failed += number,
                Some("ignored") => self.skipped += number,
                _ => {}
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// The steps of a run so far.
pub(crate) struct Steps {
    started: Instant,
    counts: Counts,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            counts: Counts::default(),
        }
    }

    /// Runs a step that is not a cargo command.
    pub(crate) fn step<T>(&mut self, name: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("==> {name}");
        let started = Instant::now();
        let ended = run().with_context(|| format!("step `{name}` failed"));
        let word = if ended.is_ok() { "ok" } else { "FAILED" };
        println!("<== {name}: {word} in {}", text(started.elapsed()));
        ended
    }

    /// Runs a cargo command.
    pub(crate) fn cargo(&mut self, name: &str, arguments: &[&str]) -> Result<()> {
        self.cargo_with(name, arguments, &[])
    }

    /// Runs a cargo command with variables of its own.
    pub(crate) fn cargo_with(
        &mut self,
        name: &str,
        arguments: &[&str],
        variables: &[(&str, String)],
    ) -> Result<()> {
        let mut counts = Counts::default();
        let ended = self.step(name, || run(arguments, variables, &mut counts));
        self.counts.add(counts);
        ended
    }

    /// The last line.
    pub(crate) fn summarize(&self, ended: &Result<()>) {
        let Counts {
            passed,
            failed,
            skipped,
        } = self.counts;
        let word = if ended.is_ok() { "ok" } else { "FAILED" };
        let took = text(self.started.elapsed());
        println!("{word}: {passed} tests passed, {failed} failed, {skipped} skipped in {took}");
    }
}

fn run(arguments: &[&str], variables: &[(&str, String)], counts: &mut Counts) -> Result<()> {
    let mut command = cargo();
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    if io::stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = command.spawn().context("cargo")?;
    let stderr = child.stderr.take().context("no error output")?;
    let stdout = child.stdout.take().context("no output")?;
    let errors = thread::spawn(move || forward(stderr, io::stderr()));
    *counts = forward(stdout, io::stdout());
    let skipped = errors.join().unwrap_or_default().skipped;
    // A test that skips itself passes for the test runner, which does not know a third way.
    counts.skipped += skipped;
    counts.passed = counts.passed.saturating_sub(skipped);
    let status = child.wait().context("cargo")?;
    if !status.success() {
        bail!("cargo {}: {status}", arguments.join(" "));
    }
    Ok(())
}

/// Passes the output on, line by line, and counts the tests in it.
fn forward(from: impl Read, mut to: impl Write) -> Counts {
    let mut counts = Counts::default();
    let mut lines = BufReader::new(from);
    let mut line = Vec::new();
    while lines
        .read_until(b'\n', &mut line)
        .is_ok_and(|read| read > 0)
    {
        counts.read(String::from_utf8_lossy(&line).trim_end());
        // A closed terminal is no reason to stop the tests.
        let _ = to.write_all(&line);
        line.clear();
    }
    counts
}

fn text(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds < 60 => format!("{:.1} s", duration.as_secs_f64()),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted_and_passed_on() {
        let output = "running 3 tests\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s\n\
            test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n\
            skipped: first_notification on real servers: HERALD_TEST_KAFKA is not set";
        let mut copy = Vec::new();
        let counts = forward(output.as_bytes(), &mut copy);
        assert_eq!(
            counts,
            Counts {
                passed: 4,
                failed: 2,
                skipped: 2
            }
        );
        assert_eq!(copy, output.as_bytes());
    }

    #[test]
    fn durations_are_for_people() {
        assert_eq!(text(Duration::from_millis(1_540)), "1.5 s");
        assert_eq!(text(Duration::from_secs(185)), "3 min 5 s");
    }
}

//! The project's own commands, `cargo xtask …`: the whole test run, the long one, and the servers
//! that both need.

mod steps;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use herald_test_servers::{REAL, Servers, fetch, process, unavailable};

use steps::Steps;

const EXAMPLES: &str = "\
Examples:
  cargo xtask test                         what CI runs
  HERALD_TEST_REAL=1 cargo xtask test      fails where the real servers cannot be started
  cargo xtask soak --rounds 50             the integration tests, 50 times over
  cargo xtask servers                      Kafka, Cassandra and a registry, until Ctrl-C

The suites on real servers need Java 17 to 23 and Maven, which fetches the servers on first use.";

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Herald's development commands", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Format, lints, unit, contract and end-to-end tests.
    Test,
    /// The contract and end-to-end tests, again and again.
    Soak {
        /// How many times; HERALD_SOAK where it is not given, else 20.
        #[arg(long, value_name = "N")]
        rounds: Option<u32>,
    },
    /// Starts the real servers and prints the variables by which tests find them.
    Servers,
}

fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Task::Test => test(),
        Task::Soak { rounds } => soak(rounds),
        Task::Servers => servers(),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn test() -> Result<()> {
    let mut steps = Steps::new();
    let ended = test_steps(&mut steps);
    steps.summarize(&ended);
    ended
}

fn test_steps(steps: &mut Steps) -> Result<()> {
    steps.cargo("format", &["fmt", "--all", "--check"])?;
    steps.cargo(
        "lints",
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    )?;
    build(steps)?;
    steps.cargo("unit tests", &["test", "--workspace", "--lib", "--bins"])?;
    let servers = start_servers(steps)?;
    integration_tests(steps, "contract and end-to-end tests", servers.as_ref())?;
    steps.cargo(
        "examples in the documentation",
        &["test", "--workspace", "--doc"],
    )
}

fn soak(rounds: Option<u32>) -> Result<()> {
    let rounds = match (rounds, env::var("HERALD_SOAK")) {
        (Some(rounds), _) => rounds,
        (None, Ok(text)) => text
            .parse()
            .with_context(|| format!("HERALD_SOAK={text}"))?,
        (None, Err(_)) => 20,
    };
    let mut steps = Steps::new();
    let ended = soak_steps(&mut steps, rounds);
    steps.summarize(&ended);
    ended
}

fn soak_steps(steps: &mut Steps, rounds: u32) -> Result<()> {
    build(steps)?;
    // The same servers for all rounds: what piles up in them is part of the test.
    let servers = start_servers(steps)?;
    for round in 1..=rounds {
        integration_tests(
            steps,
            &format!("round {round} of {rounds}"),
            servers.as_ref(),
        )?;
    }
    Ok(())
}

/// Everything the tests are made of. The whole workspace at once, here and wherever tests are run:
/// of a part of it, cargo would build the dependencies anew with that part's features.
fn build(steps: &mut Steps) -> Result<()> {
    steps.cargo("build", &["build", "--workspace", "--bins", "--tests"])
}

fn integration_tests(steps: &mut Steps, name: &str, servers: Option<&Servers>) -> Result<()> {
    let mut variables = vec![("HERALD_BIN", herald_binary()?)];
    variables.extend(
        servers
            .map(Servers::environment)
            .unwrap_or_default()
            .iter()
            .cloned(),
    );
    steps.cargo_with(name, &["test", "--workspace", "--test", "*"], &variables)
}

/// The servers, or nothing where they cannot be had and need not.
fn start_servers(steps: &mut Steps) -> Result<Option<Servers>> {
    if let Some(reason) = unavailable() {
        if env::var(REAL).is_ok_and(|value| value == "1") {
            bail!("{REAL}=1, but the real servers cannot be started: {reason}");
        }
        println!("left out: the suites on Kafka, Cassandra and a registry: {reason}");
        return Ok(None);
    }
    let target = target_directory()?;
    let installed = steps.step("fetch the servers", || Ok(fetch(&target)?))?;
    let servers = steps.step("start the servers", || {
        Ok(Servers::start(&installed, &target)?)
    })?;
    Ok(Some(servers))
}

fn servers() -> Result<()> {
    if let Some(reason) = unavailable() {
        bail!("{reason}");
    }
    let target = target_directory()?;
    let installed = fetch(&target)?;
    let mut servers = Servers::start(&installed, &target)?;
    for process in servers.processes() {
        println!("# {}: process {}", process.name(), process.id());
    }
    for (name, value) in servers.environment() {
        println!("export {name}={value}");
    }
    println!("# Ctrl-C ends them.");
    loop {
        thread::sleep(Duration::from_millis(500));
        for process in servers.processes() {
            if !process.is_running() {
                bail!("{} ended by itself\n{}", process.name(), process.tail());
            }
        }
    }
}

fn herald_binary() -> Result<String> {
    let binary = target_directory()?.join("debug/herald");
    let binary = binary
        .canonicalize()
        .with_context(|| binary.display().to_string())?;
    Ok(binary.display().to_string())
}

fn target_directory() -> Result<PathBuf> {
    if let Some(directory) = env::var_os("CARGO_TARGET_DIR") {
        return Ok(directory.into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("no workspace")?;
    Ok(root.join("target"))
}

/// Cargo, as it was called itself, in the workspace's root.
fn cargo() -> Command {
    let program = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = process::dying_with_parent(&program);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command
}

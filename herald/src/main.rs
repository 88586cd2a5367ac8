//! The binary: reads the configuration and wires the parts together. Nothing is decided here.

mod admin;
mod assemble;
mod commands;
mod config;
mod patience;
mod providers;
mod retry_policy;

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;
use clap::{Parser, Subcommand};
use herald_runtime::{stage::Stage, worker::Serves};
use herald_schemas::words::{Channel, Priority};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{Config, LogFormat};

const EXAMPLES: &str = "\
Examples:
  herald dev                               everything in one process, data in ./herald-data
  herald dev --data /tmp/h --listen 127.0.0.1:9000
  herald setup                             once, before api and worker, on real servers
  herald api
  herald worker                            every stage
  herald worker --stages match,render      some of them
  herald worker --stages deliver --channels sms,push --lanes high
  herald config                            every setting, its default and its reason

Settings come from --config FILE and from HERALD_… variables; `herald config` lists them.";

/// Turns events into notifications and delivers them.
#[derive(Parser)]
#[command(name = "herald", version, about, after_help = EXAMPLES)]
struct Cli {
    /// A file with settings that differ from the defaults.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs everything in one process, with nothing else to install.
    Dev {
        /// Where the log and the store are kept.
        #[arg(long, value_name = "DIR", default_value = "herald-data")]
        data: PathBuf,
        /// Where the API listens.
        #[arg(long, value_name = "ADDR")]
        listen: Option<std::net::SocketAddr>,
    },
    /// Creates topics and tables and registers schemas; safe to run again, and several at once.
    Setup,
    /// Serves the REST API.
    Api {
        /// Where it listens.
        #[arg(long, value_name = "ADDR")]
        listen: Option<std::net::SocketAddr>,
    },
    /// Runs stages of the pipeline.
    Worker {
        /// Which stages, separated by commas; all of them unless said.
        #[arg(long, value_name = "STAGES", value_delimiter = ',')]
        stages: Vec<Stage>,
        /// Deliver for these channels only; for all of them unless said. Other workers must take
        /// the rest.
        #[arg(long, value_name = "CHANNELS", value_delimiter = ',')]
        channels: Vec<Channel>,
        /// Render and deliver these lanes only (high, normal, low); all of them unless said.
        #[arg(long, value_name = "LANES", value_delimiter = ',')]
        lanes: Vec<Priority>,
    },
    /// Prints every setting with its default and its reason.
    Config,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("herald: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    if matches!(cli.command, Command::Config) {
        // A reader that has seen enough is no error.
        let _ = std::io::stdout().write_all(config::DEFAULTS.as_bytes());
        return Ok(());
    }
    let config = Config::load(cli.config.as_deref())?;
    start_log(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(async {
        match cli.command {
            Command::Dev { data, listen } => commands::dev(config, &data, listen).await,
            Command::Setup => commands::setup(&config).await,
            Command::Api { listen } => commands::api(config, listen).await,
            Command::Worker {
                stages,
                channels,
                lanes,
            } => commands::worker(config, stages, serves(channels, lanes)).await,
            Command::Config => Ok(()),
        }
    });
    runtime.shutdown_timeout(commands::UNBLOCK_WITHIN);
    ended
}

/// What is not said is all of it.
fn serves(channels: Vec<Channel>, lanes: Vec<Priority>) -> Serves {
    let mut serves = Serves::default();
    if !channels.is_empty() {
        serves.channels = channels;
    }
    if !lanes.is_empty() {
        serves.lanes = lanes;
    }
    serves
}

fn start_log(log: &config::Log) -> Result<()> {
    let words = ["off", "error", "warn", "info", "debug", "trace"];
    for part in log.level.split(',').filter(|part| !part.contains('=')) {
        // Else it would be the name of a part of the program, and everything else silent.
        if !words.contains(&part.trim().to_ascii_lowercase().as_str()) {
            anyhow::bail!(
                "level in [log]: {part:?}: expected one of {}",
                words.join(", ")
            );
        }
    }
    let filter = EnvFilter::try_new(&log.level)
        .map_err(|error| anyhow::anyhow!("level in [log]: {:?}: {error}", log.level))?;
    let registry = tracing_subscriber::registry().with(filter);
    match log.format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal();
            registry
                .with(fmt::layer().with_ansi(colours).with_writer(std::io::stderr))
                .init();
        }
        LogFormat::Json => registry
            .with(fmt::layer().json().with_writer(std::io::stderr))
            .init(),
    }
    Ok(())
}

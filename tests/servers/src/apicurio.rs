//! Apicurio Registry: speaks the Confluent schema registry's protocol, keeps everything in memory.

use std::{fs, path::Path};

use crate::{
    Error, Starting,
    install::{Installed, find, java},
    net::{free_port, http_ok},
    process::{Process, dying_with_parent},
};

pub(crate) fn start(installed: &Installed, directory: &Path) -> Result<Starting, Error> {
    fs::create_dir_all(directory).map_err(Error::io(directory.display()))?;
    let port = free_port();
    let runner = find(&installed.apicurio, "-runner.jar")?;
    let mut command = dying_with_parent(&java());
    command
        .args(["-Xmx384m", "-XX:+UseSerialGC", "-jar"])
        .arg(runner);
    command
        .env("QUARKUS_HTTP_HOST", "127.0.0.1")
        .env("QUARKUS_HTTP_PORT", port.to_string());
    command.current_dir(directory);
    let log = directory.join("apicurio.log");
    let process = Process::spawn("apicurio", command, &log).map_err(Error::io("apicurio"))?;
    Ok(Starting {
        process,
        port,
        is_ready,
    })
}

fn is_ready(port: u16) -> bool {
    http_ok(port, "/apis/ccompat/v7/subjects")
}

//! Apache Kafka: one process that is broker and controller.

use std::{fs, path::Path};

use crate::{
    Error, Starting,
    install::{Installed, java, run},
    net::{exchange, free_port},
    process::{Process, dying_with_parent},
};

/// Any will do: each run has storage of its own.
const CLUSTER_ID: &str = "SGVyYWxkVGVzdHNLYWZrYQ";

pub(crate) fn start(installed: &Installed, directory: &Path) -> Result<Starting, Error> {
    fs::create_dir_all(directory).map_err(Error::io(directory.display()))?;
    let port = free_port();
    let controller = free_port();
    let settings = directory.join("server.properties");
    let text = format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=5000
group.consumer.min.heartbeat.interval.ms=100
group.consumer.heartbeat.interval.ms=1000
",
        directory.join("data").display()
    );
    fs::write(&settings, text).map_err(Error::io(settings.display()))?;
    let classpath = format!("{}/libs/*", installed.kafka.display());

    let mut format = dying_with_parent(&java());
    format.args([
        "-cp",
        &classpath,
        "kafka.tools.StorageTool",
        "format",
        "-t",
        CLUSTER_ID,
        "-c",
    ]);
    format.arg(&settings);
    run("kafka storage format", format)?;

    let mut broker = dying_with_parent(&java());
    broker.args([
        "-Xms512m",
        "-Xmx512m",
        "-XX:+UseSerialGC",
        "-cp",
        &classpath,
        "kafka.Kafka",
    ]);
    broker.arg(&settings).current_dir(directory);
    let log = directory.join("kafka.log");
    let process = Process::spawn("kafka", broker, &log).map_err(Error::io("kafka"))?;
    Ok(Starting {
        process,
        port,
        is_ready,
    })
}

/// Whether it lists itself among the brokers that take part: only then topics can be made.
fn is_ready(port: u16) -> bool {
    // Metadata, version 1, correlation id 7, no client id, no topics.
    let request = [0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 7, 0xff, 0xff, 0, 0, 0, 0];
    // Size, correlation id, number of brokers.
    let mut answer = [0; 12];
    exchange(port, &request, &mut answer).is_ok() && answer[4..] == [0, 0, 0, 7, 0, 0, 0, 1]
}

//! Apache Cassandra: one node, which speaks the part of CQL that ScyllaDB speaks too.

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use crate::{
    Error, Starting,
    install::{Installed, java},
    net::{exchange, free_port},
    process::{Process, dying_with_parent},
};

/// What Cassandra reaches for inside the JDK.
const EXPORTS: &[&str] = &[
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.ref",
    "java.base/java.lang.ref",
    "java.base/sun.nio.ch",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.rmi/sun.rmi.transport.tcp",
    "java.sql/java.sql",
];
const OPENS: &[&str] = &[
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.lang.module",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.util.jar",
    "java.base/sun.nio.ch",
    "jdk.management/com.sun.management.internal",
];

/// Without it, everything down to debug goes to the output.
const LOGBACK: &str = "<configuration>
  <appender name=\"OUT\" class=\"ch.qos.logback.core.ConsoleAppender\">
    <encoder><pattern>%-5level %date{HH:mm:ss.SSS} %logger{0} - %msg%n</pattern></encoder>
  </appender>
  <root level=\"INFO\"><appender-ref ref=\"OUT\"/></root>
</configuration>
";

pub(crate) fn start(installed: &Installed, directory: &Path) -> Result<Starting, Error> {
    fs::create_dir_all(directory).map_err(Error::io(directory.display()))?;
    let port = free_port();
    let settings = directory.join("cassandra.yaml");
    fs::write(&settings, yaml(directory, port)).map_err(Error::io(settings.display()))?;
    let logback = directory.join("logback.xml");
    fs::write(&logback, LOGBACK).map_err(Error::io(logback.display()))?;

    let mut command = dying_with_parent(&java());
    command.args([
        "-Xms1536m",
        "-Xmx1536m",
        "-XX:+UseSerialGC",
        "-Djdk.attach.allowAttachSelf=true",
        // It installs a security manager, which from Java 18 on has to be allowed.
        "-Djava.security.manager=allow",
    ]);
    for export in EXPORTS {
        command.args(["--add-exports", &format!("{export}=ALL-UNNAMED")]);
    }
    for open in OPENS {
        command.args(["--add-opens", &format!("{open}=ALL-UNNAMED")]);
    }
    command.arg(format!("-Dcassandra.config=file://{}", settings.display()));
    command.arg(format!("-Dcassandra.storagedir={}", directory.display()));
    command.arg(format!("-Dlogback.configurationFile={}", logback.display()));
    command.arg(format!("-Dcassandra.jmx.local.port={}", free_port()));
    // There is nobody to gossip with.
    command.args([
        "-Dcassandra.skip_wait_for_gossip_to_settle=0",
        "-Dcassandra.ring_delay_ms=0",
    ]);
    // Every test makes tables of its own: their definitions stay in the commit log, instead of a flush
    // to disk for each.
    command.args([
        "-Dcassandra.unsafesystem=true",
        "-Dcassandra.test.flush_local_schema_changes=false",
    ]);
    command
        .arg("-cp")
        .arg(format!("{}/libs/*", installed.cassandra.display()));
    command
        .arg("org.apache.cassandra.service.CassandraDaemon")
        .current_dir(directory);
    let log = directory.join("cassandra.log");
    let process = Process::spawn("cassandra", command, &log).map_err(Error::io("cassandra"))?;
    Ok(Starting {
        process,
        port,
        is_ready,
    })
}

fn yaml(directory: &Path, port: u16) -> String {
    let storage = free_port();
    let ssl_storage = free_port();
    let directory = directory.display();
    // The timeouts are longer than usual: the tests share the machine with the server.
    format!(
        "cluster_name: herald-tests
num_tokens: 1
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
commitlog_sync: periodic
commitlog_sync_period: 10000ms
data_file_directories: [{directory}/data]
commitlog_directory: {directory}/commitlog
hints_directory: {directory}/hints
saved_caches_directory: {directory}/saved_caches
cdc_raw_directory: {directory}/cdc_raw
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{{seeds: '127.0.0.1:{storage}'}}]
listen_address: 127.0.0.1
rpc_address: 127.0.0.1
storage_port: {storage}
ssl_storage_port: {ssl_storage}
native_transport_port: {port}
endpoint_snitch: SimpleSnitch
auto_snapshot: false
# A table that holds a few rows takes no megabyte.
memtable_allocation_type: unslabbed_heap_buffers
read_request_timeout: 10000ms
write_request_timeout: 10000ms
request_timeout: 20000ms
"
    )
}

/// How long dropping a keyspace may take.
const DROP_TIMEOUT: Duration = Duration::from_secs(20);

/// Drops a keyspace: what many tests leave behind in one server slows it down.
///
/// CQL's binary protocol, version 4: STARTUP, then QUERY.
pub fn drop_keyspace(address: &str, keyspace: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DROP_TIMEOUT))?;
    stream.set_write_timeout(Some(DROP_TIMEOUT))?;
    let short = |text: &str| [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat();
    let startup = [vec![0, 1], short("CQL_VERSION"), short("3.0.0")].concat();
    let query = format!("DROP KEYSPACE IF EXISTS {keyspace}");
    let length = (query.len() as u32).to_be_bytes();
    // Consistency ONE, no flags.
    let query = [&length, query.as_bytes(), &[0, 1, 0]].concat();
    for (opcode, body) in [(0x01, startup), (0x07, query)] {
        let head = [4, 0, 0, 0, opcode];
        let length = (body.len() as u32).to_be_bytes();
        stream.write_all(&[&head, &length[..], &body].concat())?;
        let mut answer = [0; 9];
        stream.read_exact(&mut answer)?;
        let length = u32::from_be_bytes([answer[5], answer[6], answer[7], answer[8]]);
        let mut body = vec![0; length as usize];
        stream.read_exact(&mut body)?;
        if answer[4] == 0 {
            return Err(io::Error::other(
                String::from_utf8_lossy(&body).into_owned(),
            ));
        }
    }
    Ok(())
}

/// Whether it answers the protocol's OPTIONS: the native port is the last thing it opens.
fn is_ready(port: u16) -> bool {
    // Version 4, no flags, stream 0, OPTIONS, no body.
    let request = [0x04, 0, 0, 0, 0x05, 0, 0, 0, 0];
    let mut answer = [0; 9];
    exchange(port, &request, &mut answer).is_ok() && answer[0] == 0x84 && answer[4] == 0x06
}

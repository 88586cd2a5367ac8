//! Servers that are not there yet.

use herald_e2e::{Engine, Forwarder, Process, Provider, SOON, System, eventually};
use serde_json::json;

herald_e2e::on_real_servers!(servers_that_come_late_are_waited_for_and_it_is_said);

/// What is said while one is not there.
const WAITING: &str = "not yet; trying again";

async fn servers_that_come_late_are_waited_for_and_it_is_said(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::prepare(&engine, &provider, &[]);

    let servers = servers(&system);
    let mut closed = doors(&mut system, &servers);
    let mut setup = system.spawn("setup", &["setup"]);
    for (server, door) in servers.iter().zip(&mut closed) {
        waits(&mut setup, server.step).await;
        door.open().await;
    }
    let status = setup.ended(SOON);
    assert!(
        status.is_some_and(|status| status.success()),
        "{status:?}\n{}",
        setup.tail()
    );

    let mut closed = doors(&mut system, &servers);
    system.launch();
    for process in system.processes() {
        waits(process, "look the schemas up").await;
    }
    // Alive, and not ready.
    let client = system.client();
    client.get("/healthz").await.expect(200);
    for path in ["/readyz", "/api/v1/notifications"] {
        client.get(path).await.expect(503);
    }
    for door in closed.iter_mut().rev() {
        door.open().await;
    }
    system.until_ready();
    let client = system.client();
    let item = json!([{ "recipient": "token", "channel": "push", "content": "x" }]);
    let ids = client.notify(item).await;
    client.with_status(&ids[0], "sent").await;
    system.stop();
}

/// A setting that names a server, and the step of setup that needs it.
struct Server {
    setting: &'static str,
    step: &'static str,
    url: String,
}

/// The servers of a system, in the order in which setup needs them.
fn servers(system: &System) -> Vec<Server> {
    let servers = [
        ("HERALD_BROKER_URL", "set up the topics"),
        ("HERALD_STORE_URL", "set up the store"),
        ("HERALD_SCHEMA_REGISTRY_URL", "register the schemas"),
    ];
    let server = |(setting, step)| Server {
        setting,
        step,
        url: system.setting(setting).to_owned(),
    };
    let servers = servers.map(server).into_iter();
    // A file is no server.
    servers
        .filter(|server| server.url.contains("://"))
        .collect()
}

/// Puts a closed door in front of each server.
fn doors(system: &mut System, servers: &[Server]) -> Vec<Forwarder> {
    let mut doors = Vec::new();
    for Server { setting, url, .. } in servers {
        let (scheme, rest) = url.split_once("://").unwrap();
        let address = rest.split('/').next().unwrap();
        let path = &rest[address.len()..];
        let door = Forwarder::new(address);
        system.set(setting, &format!("{scheme}://{}{path}", door.address()));
        doors.push(door);
    }
    doors
}

/// It says that it waits for this, and runs on.
async fn waits(process: &mut Process, step: &str) {
    eventually(SOON, async || {
        let output = process.output();
        let said = |line: &str| line.contains(WAITING) && line.contains(step);
        if output.lines().any(said) {
            Ok(())
        } else {
            Err(output)
        }
    })
    .await;
    assert!(process.is_running(), "{}", process.tail());
}

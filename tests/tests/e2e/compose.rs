//! `docker-compose.yml` and the Dockerfile: not started here, but held against the Compose schema,
//! against the settings that `herald` has, and against each other.

use std::{fs, path::Path, process::Output};

use herald_e2e::{herald, python, python_script, workspace};
use serde_json::{Map, Value};
use tempfile::TempDir;

const FILE: &str = "docker-compose.yml";
/// Those of its services that run `herald`.
const HERALD: [&str; 3] = ["setup", "api", "worker"];

#[test]
fn what_the_compose_file_says_is_what_herald_and_the_tests_know() {
    let Some(services) = services() else {
        return;
    };
    for (name, service) in &services {
        image_is_pinned(name, service);
        ports_are_of_this_machine_alone(name, service);
    }
    for name in HERALD {
        let service = &services[name];
        only_known_variables(name, service);
        herald_takes(name, service);
        urls_name_services(name, service, &services);
        let ran_before = &service["depends_on"]["setup"]["condition"];
        if name == "setup" {
            assert!(service.get("restart").is_none(), "it runs once");
            for server in ["kafka", "scylla", "registry"] {
                assert_eq!(
                    service["depends_on"][server]["condition"],
                    "service_healthy"
                );
                assert!(
                    services[server]["healthcheck"]["test"].is_array(),
                    "{server}"
                );
            }
        } else {
            assert_eq!(ran_before, "service_completed_successfully", "{name}");
            is_asked_where_it_listens(name, service);
        }
    }
}

#[test]
fn producers_find_the_servers_of_the_compose_file_where_the_readme_says() {
    let Some(services) = services() else {
        return;
    };
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    assert!(readme.contains("\"bootstrap.servers\": \"localhost:9094\""));
    assert!(readme.contains("\"http://localhost:8081/apis/ccompat/v7\""));
    assert_eq!(services["kafka"]["ports"][0], "127.0.0.1:9094:9094");
    let advertised = &services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"];
    let advertised = advertised.as_str().unwrap();
    assert!(
        advertised.contains("OUTSIDE://localhost:9094"),
        "{advertised}"
    );
    assert_eq!(services["registry"]["ports"][0], "127.0.0.1:8081:8080");
}

#[test]
fn the_check_refuses_what_is_no_compose_file() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join(FILE);
    let right = fs::read_to_string(workspace().join(FILE)).unwrap();
    for (from, to, place) in [
        ("    healthcheck:", "    health_check:", "services/kafka"),
        (
            "    image: apache/kafka:4.3.1",
            "    image: 4.3",
            "services/kafka/image",
        ),
        (
            "condition: service_healthy",
            "condition: service_well",
            "condition",
        ),
    ] {
        assert!(right.contains(from), "{from}");
        fs::write(&path, right.replacen(from, to, 1)).unwrap();
        let Some(output) = check(&path) else {
            return;
        };
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{to}");
        assert!(told.contains(place), "{place}: {told}");
    }
}

#[test]
fn the_image_is_built_by_the_oldest_rust_that_will_do_and_does_not_run_as_root() {
    let dockerfile = fs::read_to_string(workspace().join("Dockerfile")).unwrap();
    let manifest = fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let rust = manifest["workspace"]["package"]["rust-version"]
        .as_str()
        .unwrap();
    let instructions: Vec<(&str, &str)> = dockerfile
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    let of = |name: &str| -> Vec<&str> {
        let named = instructions.iter().filter(|(word, _)| *word == name);
        named.map(|(_, rest)| *rest).collect()
    };
    // The program is linked to the C library of the release that it is built on.
    let [builder, runtime] = of("ARG")[..] else {
        panic!("{dockerfile}")
    };
    assert_eq!(builder, format!("BUILDER=rust:{rust}-bookworm"));
    assert!(runtime.starts_with("RUNTIME=debian:bookworm-"), "{runtime}");
    assert_eq!(of("FROM"), ["${BUILDER} AS build", "${RUNTIME}"]);
    let (user, _) = of("USER")[0].split_once(':').unwrap();
    assert!(user.parse::<u32>().unwrap() > 0, "{user}");
}

/// The services of the file; none where Python cannot be had.
fn services() -> Option<Map<String, Value>> {
    let output = check(&workspace().join(FILE))?;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let file: Value = serde_json::from_slice(&output.stdout).unwrap();
    Some(file["services"].as_object().unwrap().clone())
}

fn check(file: &Path) -> Option<Output> {
    let mut python = python("the compose file")?;
    python.arg(python_script("check_compose.py")).arg(file);
    Some(python.output().unwrap())
}

/// Our own is built from here; of every other one it is said which, and those that the tests have
/// as well are of the same version there.
fn image_is_pinned(name: &str, service: &Value) {
    if HERALD.contains(&name) {
        assert_eq!(
            (&service["image"], &service["build"]),
            (&"herald".into(), &".".into())
        );
        return;
    }
    let image = service["image"].as_str().unwrap();
    let (_, tag) = image
        .rsplit_once(':')
        .unwrap_or_else(|| panic!("{image} has no tag"));
    let numbers = tag.split('.').filter(|part| part.parse::<u32>().is_ok());
    assert!(numbers.count() >= 3, "{image} is no exact version");
    if name != "scylla" {
        let installed = workspace().join("tests/servers/src/install.rs");
        let installed = fs::read_to_string(installed).unwrap();
        assert!(installed.contains(&format!("\"{tag}\"")), "{image}");
    }
}

fn ports_are_of_this_machine_alone(name: &str, service: &Value) {
    for port in service["ports"].as_array().into_iter().flatten() {
        let port = port.as_str().unwrap();
        assert!(port.starts_with("127.0.0.1:"), "{name}: {port}");
    }
}

/// The admin port, which the API and the worker have.
fn is_asked_where_it_listens(name: &str, service: &Value) {
    let variables = variables(service);
    let listens = variables
        .iter()
        .find(|(name, _)| name == "HERALD_ADMIN_LISTEN");
    let (_, address) = listens.unwrap();
    let port = address.strip_prefix("0.0.0.0:").unwrap();
    let test = service["healthcheck"]["test"].to_string();
    assert!(
        test.contains(&format!("/dev/tcp/127.0.0.1/{port}")),
        "{name}: {test}"
    );
    assert!(test.contains("GET /readyz"), "{name}: {test}");
}

/// The variables of a service, with the defaults of those that are taken from outside.
fn variables(service: &Value) -> Vec<(String, String)> {
    let environment = service["environment"].as_object().unwrap();
    environment
        .iter()
        .map(|(name, value)| {
            let value = value.as_str().unwrap();
            let default = value
                .strip_prefix("${")
                .and_then(|rest| rest.strip_suffix('}')?.split_once(":-"));
            (
                name.clone(),
                default.map_or(value, |(_, default)| default).to_owned(),
            )
        })
        .collect()
}

/// Each is a key of the commented file, or a seed's name that is noted there.
fn only_known_variables(service_name: &str, service: &Value) {
    let commented = herald().arg("config").output().unwrap().stdout;
    let commented = String::from_utf8(commented).unwrap();
    let settings: toml::Table = commented.parse().unwrap();
    let keys: Vec<String> = settings
        .iter()
        .flat_map(|(section, keys)| {
            let keys = keys.as_table().unwrap().keys();
            keys.map(move |key| format!("HERALD_{section}_{key}").to_uppercase())
        })
        .collect();
    for (name, _) in variables(service) {
        let is_seed =
            !name.starts_with("HERALD_") && commented.contains(&format!("Seed name: {name}."));
        assert!(keys.contains(&name) || is_seed, "{service_name}: {name}");
    }
}

/// Herald itself has no objection to the values: what it ends by is the one after them.
fn herald_takes(name: &str, service: &Value) {
    let mut command = herald();
    for argument in service["command"].as_array().unwrap() {
        command.arg(argument.as_str().unwrap());
    }
    command
        .envs(variables(service))
        .env("HERALD_LOG_LEVEL", "no=such=level");
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("level in [log]"), "{name}: {told}");
}

fn urls_name_services(name: &str, service: &Value, services: &Map<String, Value>) {
    let urls = variables(service);
    let urls = urls
        .iter()
        .filter_map(|(name, url)| Some((name, url.split_once("://")?.1)));
    let mut named = Vec::new();
    for (variable, rest) in urls {
        let host = rest.split(':').next().unwrap();
        assert!(
            services.contains_key(host),
            "{name}: {variable} names {host}"
        );
        named.push(host);
    }
    named.sort_unstable();
    assert_eq!(named, ["kafka", "registry", "scylla"], "{name}");
}

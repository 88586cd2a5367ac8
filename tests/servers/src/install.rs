//! Brings things from package registries into a directory, once: above all the servers, from
//! Maven's repository to `servers/` below the target directory.

use std::{
    fs::{self, File},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::Error;

const KAFKA: &str = "4.3.1";
const CASSANDRA: &str = "5.0.9";
/// The last line that runs on Java 17.
const APICURIO: &str = "2.6.13.Final";
/// Kafka's logging façade has no output of its own.
const SLF4J: &str = "1.7.36";
const DEPENDENCY_PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1";
/// Kafka needs the first; Cassandra a security manager, which the last still has.
const JAVA: RangeInclusive<u32> = 17..=23;

/// The servers' files.
#[derive(Debug, Clone)]
pub struct Installed {
    pub(crate) kafka: PathBuf,
    pub(crate) cassandra: PathBuf,
    pub(crate) apicurio: PathBuf,
}

/// Why the servers cannot be run here; none: they can.
pub fn unavailable() -> Option<String> {
    let version = Command::new(java()).arg("-version").output().ok();
    // It goes to the error output, such as: openjdk version "17.0.15" 2025-04-15
    let major = version.and_then(|output| java_major(&String::from_utf8_lossy(&output.stderr)));
    if let Some(reason) = unfit(major) {
        return Some(reason);
    }
    let maven = Command::new("mvn")
        .arg("-version")
        .stdout(Stdio::null())
        .status();
    (!maven.is_ok_and(|status| status.success())).then(|| "no Maven (mvn) found".to_owned())
}

fn unfit(major: Option<u32>) -> Option<String> {
    let found = match major {
        None => "no Java found".to_owned(),
        Some(major) if !JAVA.contains(&major) => format!("Java {major} found"),
        Some(_) => return None,
    };
    let (first, last) = (JAVA.start(), JAVA.end());
    Some(format!(
        "{found}: a version from {first} to {last} is needed"
    ))
}

pub(crate) fn java() -> String {
    match std::env::var("JAVA_HOME") {
        Ok(home) if !home.is_empty() => format!("{home}/bin/java"),
        _ => "java".to_owned(),
    }
}

fn java_major(version: &str) -> Option<u32> {
    let quoted = version.split('"').nth(1)?;
    quoted.split(['.', '-', '+']).next()?.parse().ok()
}

/// Brings what is missing of the servers.
pub fn fetch(target: &Path) -> Result<Installed, Error> {
    let root = target.join("servers");
    let kafka = [
        ("org.apache.kafka", "kafka_2.13", KAFKA),
        ("org.apache.kafka", "kafka-tools", KAFKA),
        ("org.slf4j", "slf4j-simple", SLF4J),
    ];
    let cassandra = [("org.apache.cassandra", "cassandra-all", CASSANDRA)];
    Ok(Installed {
        kafka: once(&root, &format!("kafka-{KAFKA}"), |into| jars(into, &kafka))?,
        cassandra: once(&root, &format!("cassandra-{CASSANDRA}"), |into| {
            jars(into, &cassandra)
        })?,
        apicurio: once(&root, &format!("apicurio-{APICURIO}"), apicurio)?,
    })
}

/// The directory `name` in `root`, filled in one step: it is there whole or not at all. Of several
/// processes that want the same, one fills it and the others wait.
pub fn once(
    root: &Path,
    name: &str,
    fill: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<PathBuf, Error> {
    fs::create_dir_all(root).map_err(Error::io(root.display()))?;
    // Programs are started in directories of their own.
    let root = root.canonicalize().map_err(Error::io(root.display()))?;
    let path = root.join(format!("{name}.lock"));
    let lock = File::create(&path).map_err(Error::io(path.display()))?;
    lock.lock().map_err(Error::io(path.display()))?;
    let directory = root.join(name);
    if directory.exists() {
        return Ok(directory);
    }
    eprintln!("fetching {name}");
    let partial = root.join(format!("{name}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(Error::io(partial.display()))?;
    }
    fs::create_dir_all(&partial).map_err(Error::io(partial.display()))?;
    fill(&partial)?;
    fs::rename(&partial, &directory).map_err(Error::io(directory.display()))?;
    Ok(directory)
}

/// The artifacts and all they depend on, in `libs`.
fn jars(into: &Path, artifacts: &[(&str, &str, &str)]) -> Result<(), Error> {
    let dependencies: String = artifacts
        .iter()
        .map(|(group, artifact, version)| {
            format!(
                "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
                 <version>{version}</version></dependency>"
            )
        })
        .collect();
    let pom = format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>herald</groupId><artifactId>test-servers</artifactId><version>1</version>\
         <packaging>pom</packaging><dependencies>{dependencies}</dependencies></project>"
    );
    let path = into.join("pom.xml");
    fs::write(&path, pom).map_err(Error::io(path.display()))?;
    maven(
        into,
        "copy-dependencies",
        &[
            "-DincludeScope=runtime".to_owned(),
            format!("-DoutputDirectory={}/libs", into.display()),
        ],
    )
}

/// The registry's archive, unpacked.
fn apicurio(into: &Path) -> Result<(), Error> {
    let artifact = format!("io.apicurio:apicurio-registry-app:{APICURIO}:tar.gz:all");
    maven(
        into,
        "copy",
        &[
            format!("-Dartifact={artifact}"),
            format!("-DoutputDirectory={}", into.display()),
        ],
    )?;
    let archive = find(into, ".tar.gz")?;
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(&archive).arg("-C").arg(into);
    run("tar", tar)?;
    fs::remove_file(&archive).map_err(Error::io(archive.display()))
}

/// The one file in the directory whose name ends so.
pub(crate) fn find(directory: &Path, ending: &str) -> Result<PathBuf, Error> {
    let entries = fs::read_dir(directory).map_err(Error::io(directory.display()))?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with(ending))
        .ok_or_else(|| Error(format!("{}: no file *{ending}", directory.display())))
}

fn maven(directory: &Path, goal: &str, options: &[String]) -> Result<(), Error> {
    let mut command = Command::new("mvn");
    command
        .current_dir(directory)
        .args(["--batch-mode", "--quiet"]);
    command
        .arg(format!("{DEPENDENCY_PLUGIN}:{goal}"))
        .args(options);
    run("mvn", command)
}

/// Runs a program to its end; the error holds what it said.
pub fn run(name: &str, mut command: Command) -> Result<(), Error> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(Error::io(name))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(Error(format!(
        "{name}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&said)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_java_version_is_read() {
        assert_eq!(
            java_major("openjdk version \"17.0.15\" 2025-04-15\n"),
            Some(17)
        );
        assert_eq!(
            java_major("openjdk version \"21-ea\" 2023-09-19\n"),
            Some(21)
        );
        assert_eq!(java_major("java version \"1.8.0_292\"\n"), Some(1));
        assert_eq!(java_major("sh: java: not found"), None);
    }

    #[test]
    fn a_java_that_a_server_does_not_run_on_is_said_to_be_unfit() {
        for major in [17, 21, 23] {
            assert_eq!(unfit(Some(major)), None);
        }
        for (major, expected) in [
            (None, "no Java found"),
            (Some(11), "Java 11"),
            (Some(25), "Java 25"),
        ] {
            assert!(unfit(major).is_some_and(|reason| reason.starts_with(expected)));
        }
    }

    #[test]
    fn what_is_there_is_not_fetched_and_what_failed_is_not_there() {
        let root = std::env::temp_dir().join(format!("herald-install-{}", std::process::id()));
        let failed = once(&root, "a-1", |into| {
            fs::write(into.join("half"), "").unwrap();
            Err(Error("no network".to_owned()))
        });
        assert_eq!(failed.unwrap_err().0, "no network");
        let fetched = once(&root, "a-1", |into| {
            assert!(!into.join("half").exists());
            fs::write(into.join("whole"), "").map_err(Error::io("whole"))
        });
        assert!(fetched.unwrap().join("whole").exists());
        once(&root, "a-1", |_| panic!("fetched again")).unwrap();
        fs::remove_dir_all(root).unwrap();
    }
}

//! What tests take from package registries, fetched once into the target directory.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use herald_test_servers::{once, run};

use crate::{skip, workspace};

fn directory() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target
        .unwrap_or_else(|| workspace().join("target"))
        .join("e2e")
}

fn is_there(program: &str, argument: &str) -> bool {
    Command::new(program)
        .arg(argument)
        .output()
        .is_ok_and(|output| output.status.success())
}

/// The unpacked npm package; none, and the test left out, where there is no npm.
///
/// # Panics
///
/// When it cannot be fetched.
pub fn npm_package(test: &str, name: &str, version: &str) -> Option<PathBuf> {
    if !is_there("npm", "--version") {
        skip(test, "no npm found");
        return None;
    }
    let directory_name = format!(
        "{}-{version}",
        name.trim_start_matches('@').replace('/', "-")
    );
    let unpacked = once(&directory(), &directory_name, |into| {
        let mut pack = Command::new("npm");
        pack.args(["pack", "--ignore-scripts", &format!("{name}@{version}")])
            .current_dir(into);
        run("npm pack", pack)?;
        let mut tar = Command::new("sh");
        tar.args(["-c", "tar -xzf *.tgz && rm *.tgz"])
            .current_dir(into);
        run("tar", tar)
    });
    Some(
        unpacked
            .unwrap_or_else(|error| panic!("{error}"))
            .join("package"),
    )
}

/// Python with the packages of `tests/python/requirements.txt`; none, and the test left out, where
/// there is no Python with pip.
///
/// # Panics
///
/// When they cannot be fetched.
pub fn python(test: &str) -> Option<Command> {
    python_of(test, "requirements.txt")
}

/// As [`python`], with the packages of another file of `tests/python`.
///
/// # Panics
///
/// See [`python`].
pub fn python_of(test: &str, requirements: &str) -> Option<Command> {
    if !is_there("python3", "--version") || !run_quietly(&["-m", "pip", "--version"]) {
        skip(test, "no Python 3 with pip found");
        return None;
    }
    let requirements = python_script(requirements);
    let pinned = fs::read_to_string(&requirements).expect("what to install");
    let packages = once(
        &directory(),
        &format!("python-{:08x}", checksum(&pinned)),
        |into| {
            let mut pip = Command::new("python3");
            // All that is needed is listed, each with its version.
            pip.args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--disable-pip-version-check",
            ]);
            pip.arg("--target")
                .arg(into)
                .arg("--requirement")
                .arg(&requirements);
            run("pip install", pip)
        },
    );
    let mut command = Command::new("python3");
    command.env(
        "PYTHONPATH",
        packages.unwrap_or_else(|error| panic!("{error}")),
    );
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    Some(command)
}

/// A file of `tests/python`.
pub fn python_script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("python")
        .join(name)
}

fn run_quietly(arguments: &[&str]) -> bool {
    let mut command = Command::new("python3");
    command.args(arguments);
    run("python3", command).is_ok()
}

/// Other requirements, another directory.
fn checksum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

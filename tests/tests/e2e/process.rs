//! The program itself: what it says and how it ends.

use std::{fs, process::Command};

use herald_e2e::{Engine, Provider, System, herald, workspace};
use tempfile::TempDir;

crate::on_the_embedded_engine!(a_second_process_on_the_same_directory_is_told_so);

async fn a_second_process_on_the_same_directory_is_told_so(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let mut second = herald();
    second
        .arg("dev")
        .arg("--data")
        .arg(system.data())
        .args(["--listen", "127.0.0.1:0"]);
    let ended = second.output().unwrap();
    assert!(!ended.status.success());
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(told.contains("in use by another herald process"), "{told}");
    system.stop_by("TERM");
}

#[test]
fn a_wrong_variable_is_named() {
    for (variable, value, expected) in [
        ("HERALD_BROKER_URI", "x", "HERALD_BROKER_URI"),
        ("HERALD_BROKER_TLS", "maybe", "HERALD_BROKER_TLS"),
        ("HERALD_RETRY_POLICY", "never", "`policy`"),
        ("HERALD_API_LISTEN", "here", "`listen`"),
        ("HERALD_STORE_URL", "mysql://x", "section [store]"),
        ("HERALD_TOPICS_PARTITIONS", "0", "partitions in [topics]"),
        (
            "HERALD_SCHEMA_REGISTRY_URL",
            "registry:8081",
            "url in [schema_registry]",
        ),
        ("HERALD_PROVIDER_URL", "/hook", "url in [provider]"),
        (
            "HERALD_CHANNELS_SMS",
            "twilio",
            "sms in [channels] is \"twilio\": auth_token in [twilio] is not set",
        ),
        (
            "HERALD_CHANNELS_PUSH",
            "pigeon",
            "expected one of fcm, web_push, provider, log",
        ),
        (
            "HERALD_TWILIO_AUTH_TOKEN_FILE",
            "/no/such/file",
            "auth_token_file in [twilio]: /no/such/file",
        ),
        (
            "NOTIFICATION_MAX_ATTEMPTS",
            "many",
            "NOTIFICATION_MAX_ATTEMPTS",
        ),
    ] {
        let mut setup = herald();
        setup.arg("setup").env(variable, value);
        refused(setup, expected);
    }
}

#[test]
fn a_wrong_configuration_file_is_named_with_what_is_wrong_in_it() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("my.toml");
    for (text, expected) in [
        (
            "[broker]\nurll = \"x\"\n",
            "unknown key \"urll\" in [broker]",
        ),
        ("[brocker]\nurl = \"x\"\n", "unknown section [brocker]"),
        ("url = \"x\"\n", "unknown section [url]"),
        ("[topics]\npartitions = \"3\"\n", "partitions in [topics]"),
        ("[topics]\npartitions = \n", "line 2"),
    ] {
        fs::write(&path, text).unwrap();
        let mut setup = herald();
        setup.arg("--config").arg(&path).arg("setup");
        let told = refused(setup, expected);
        assert!(told.contains("my.toml"), "{told}");
    }
    let mut setup = herald();
    setup.args(["--config", "nowhere.toml", "setup"]);
    refused(setup, "nowhere.toml");
}

/// What it says when it ends with an error that has `expected` in it.
fn refused(mut command: Command, expected: &str) -> String {
    let ended = command.output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{expected}: {told}");
    assert!(told.contains(expected), "{expected}: {told}");
    told
}

#[test]
fn help_has_examples() {
    let help = herald().arg("--help").output().unwrap();
    assert!(String::from_utf8_lossy(&help.stdout).contains("Examples:"));
}

#[test]
fn what_config_prints_is_the_commented_file_and_can_be_started_with() {
    let printed = herald().arg("config").output().unwrap().stdout;
    let commented = fs::read(workspace().join("config/herald.toml")).unwrap();
    assert!(printed == commented);
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("all.toml");
    fs::write(&path, printed).unwrap();
    let mut setup = herald();
    setup.arg("--config").arg(&path).arg("setup");
    setup.current_dir(directory.path());
    setup.env("HERALD_BROKER_URL", "embedded:log");
    setup.env("HERALD_STORE_URL", "sqlite:store.db");
    let ended = setup.output().unwrap();
    assert!(
        ended.status.success(),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
}

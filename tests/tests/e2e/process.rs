//! The program itself: what it says and how it ends.

use herald_e2e::{Engine, Provider, System, herald};

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
fn a_wrong_setting_is_named() {
    for (variable, value, expected) in [
        ("HERALD_BROKER_URI", "x", "HERALD_BROKER_URI"),
        ("HERALD_RETRY_POLICY", "never", "retry"),
        ("HERALD_API_LISTEN", "here", "api"),
    ] {
        let ended = herald().arg("setup").env(variable, value).output().unwrap();
        assert!(!ended.status.success(), "{variable}");
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn help_has_examples_and_config_prints_every_setting() {
    let help = herald().arg("--help").output().unwrap();
    assert!(String::from_utf8_lossy(&help.stdout).contains("Examples:"));
    let config = herald().arg("config").output().unwrap();
    assert!(String::from_utf8_lossy(&config.stdout).contains("[broker]"));
}

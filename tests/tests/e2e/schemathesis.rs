//! The document against what is served: requests that it allows and requests that it forbids, made
//! up by schemathesis, with all its checks.

use std::process::Stdio;

use herald_e2e::{Engine, KEY, Provider, System, python_of, python_script};

crate::on_the_embedded_engine!(the_api_is_what_its_document_says);

/// Of each operation, in the phases that make cases up.
const CASES: &str = "20";

async fn the_api_is_what_its_document_says(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let Some(mut python) = python_of("the document", "schemathesis.txt") else {
        system.stop();
        return;
    };
    let base = format!("http://{}", system.address());
    python.arg(python_script("schemathesis_run.py"));
    python
        .arg("--config-file")
        .arg(python_script("schemathesis.toml"));
    python.args([
        "run",
        &format!("{base}/openapi.json"),
        "--url",
        &format!("{base}/api"),
    ]);
    python.args(["--header", &format!("X-Api-Key: {KEY}"), "--checks", "all"]);
    // The same cases every time, but for the ids in them.
    python.args([
        "--max-examples",
        CASES,
        "--seed",
        "1",
        "--generation-database",
        "none",
    ]);
    python.args([
        "--continue-on-failure",
        "--warnings",
        "off",
        "--request-timeout",
        "60",
    ]);
    python.current_dir(system.data()).stdin(Stdio::null());
    let told = tokio::task::spawn_blocking(move || python.output().unwrap())
        .await
        .unwrap();
    let report = String::from_utf8_lossy(&told.stdout);
    assert!(
        told.status.success(),
        "{report}\n{}",
        String::from_utf8_lossy(&told.stderr)
    );
    system.stop();
}

//! Defaults, then the seeds' variables, then the file, then `HERALD_…` variables: one table, in
//! which every key is known and has the type of its default.

use std::fs;

use anyhow::{Context, Result, anyhow, bail};
use toml::{Table, Value};

use super::seeds::{SEEDS, Seed};

/// The commented file that every key, its default and its reason stand in.
pub(crate) const DEFAULTS: &str = include_str!("../../../config/herald.toml");

const PREFIX: &str = "HERALD_";
/// Behind a key's name: its text is in the file that this one names.
const IN_FILE: &str = "_file";
/// What the project's tests are told, which may stand in the same shell.
const OF_TESTS: &str = "HERALD_TEST_";

/// Whether a variable of that name is looked at.
pub(crate) fn may_be_a_setting(name: &str) -> bool {
    name.starts_with(PREFIX) || SEEDS.iter().any(|(seed, ..)| *seed == name)
}

/// The table of all settings. `file` is a path, for errors, and the text in it.
pub(crate) fn merge(
    file: Option<(&str, &str)>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Table> {
    let mut table: Table = DEFAULTS.parse().context("the built-in defaults")?;
    let environment: Vec<(String, String)> = environment.collect();
    apply_seeds(&mut table, &environment)?;
    if let Some((path, text)) = file {
        apply_file(&mut table, text).with_context(|| format!("configuration file {path}"))?;
    }
    let ours: Vec<&(String, String)> = environment
        .iter()
        .filter(|(name, value)| name.starts_with(PREFIX) && !is_service_link(name, value))
        .filter(|(name, _)| !name.starts_with(OF_TESTS))
        .collect();
    for (name, value) in &ours {
        let in_file = format!("{name}{}", IN_FILE.to_ascii_uppercase());
        let is_given = |(other, path): &&(String, String)| *other == in_file && !path.is_empty();
        if ours.iter().copied().any(|other| is_given(&other)) {
            bail!("both {name} and {in_file} are set");
        }
        apply_variable(&mut table, name, value)?;
    }
    Ok(table)
}

fn apply_seeds(table: &mut Table, environment: &[(String, String)]) -> Result<()> {
    for (name, section, key, seed) in SEEDS {
        // Laravel's .env files name many variables without giving them a value, or one that is none.
        let is_given = |value: &str| !matches!(value, "" | "null" | "(null)");
        let given = environment
            .iter()
            .find(|(given, value)| given == name && is_given(value));
        let Some((_, value)) = given else { continue };
        let value = match seed {
            Seed::Same => value.clone(),
            Seed::Unit(unit) => format!("{value}{unit}"),
        };
        set(table, section, key, &value).with_context(|| format!("environment variable {name}"))?;
        if name.starts_with("NOTIFICATION_RETRY_") {
            set(table, "retry", "policy", "exponential")?;
        }
        if *name == "SLACK_DEFAULT_WEBHOOK" {
            set(table, "channels", "slack", "slack_webhook")?;
        }
        if *name == "MAIL_PORT" && value == "465" {
            set(table, "smtp", "tls", "tls")?;
        }
    }
    Ok(())
}

fn apply_file(table: &mut Table, text: &str) -> Result<()> {
    // Not the error's whole text, which shows the line, and with it what may be a secret.
    let file: Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(1, |before| before.matches('\n').count() + 1);
        anyhow!("line {line}: {}", error.message())
    })?;
    for (section, value) in file {
        let Some(Value::Table(known)) = table.get(&section) else {
            bail!("unknown section [{section}]; known are {}", names(table));
        };
        let Value::Table(given) = value else {
            bail!("{section} = …: {section} is a section, written [{section}]");
        };
        let known = known.clone();
        for (key, value) in &given {
            if let Some(of) = kept_in_file(&known, key) {
                let Some(path) = value.as_str() else {
                    bail!("{key} in [{section}] is not the path of a file");
                };
                if given.contains_key(of) {
                    bail!("[{section}] has both {of} and {key}");
                }
                set_from_file(table, &section, of, path)?;
                continue;
            }
            let Some(default) = known.get(key) else {
                bail!(
                    "unknown key {key:?} in [{section}]; known are {}",
                    names(&known)
                );
            };
            if !default.same_type(value) {
                let (is, wants) = (value.type_str(), default.type_str());
                bail!("{key} in [{section}] is of type {is}, expected {wants}");
            }
            put(table, &section, key, value.clone())?;
        }
    }
    Ok(())
}

/// The text, or the list of texts, that a key such as `password_file` stands for.
fn kept_in_file<'a>(known: &Table, key: &'a str) -> Option<&'a str> {
    let of = key.strip_suffix(IN_FILE)?;
    let is_text = matches!(known.get(of)?, Value::String(_) | Value::Array(_));
    (is_text && !known.contains_key(key)).then_some(of)
}

/// Sets a key from the file at `path`; where that is empty, nothing is said.
fn set_from_file(table: &mut Table, section: &str, key: &str, path: &str) -> Result<()> {
    if path.is_empty() {
        return Ok(());
    }
    let text = fs::read_to_string(path)
        .with_context(|| format!("{key}{IN_FILE} in [{section}]: {path}"))?;
    set(table, section, key, &text)
}

fn apply_variable(table: &mut Table, name: &str, value: &str) -> Result<()> {
    let wanted = name[PREFIX.len()..].to_ascii_lowercase();
    let known = table.iter().find_map(|(section, keys)| {
        let key = wanted.strip_prefix(section.as_str())?.strip_prefix('_')?;
        let keys = keys.as_table()?;
        let in_file = kept_in_file(keys, key);
        let is_known = in_file.is_some() || keys.contains_key(key);
        is_known.then(|| {
            (
                section.clone(),
                in_file.unwrap_or(key).to_owned(),
                in_file.is_some(),
            )
        })
    });
    let Some((section, key, in_file)) = known else {
        bail!(
            "unknown environment variable {name}: expected HERALD_SECTION_KEY with a section and \
             a key of config/herald.toml"
        );
    };
    match in_file {
        true => set_from_file(table, &section, &key, value),
        false => set(table, &section, &key, value),
    }
    .with_context(|| format!("environment variable {name}"))
}

/// Whether Kubernetes has set it, as it does for every service of a namespace: one that is called
/// `herald`, or `herald-api`, brings variables that look like ours.
fn is_service_link(name: &str, value: &str) -> bool {
    let of_a_port = name.split_once("_PORT_").map(|(_, rest)| rest);
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || of_a_port.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        // Else it may be somebody's guess at one of ours, who is to be told.
        || name.ends_with("_PORT") && value.contains("://")
}

/// Sets a key from text, read as the type of its default.
fn set(table: &mut Table, section: &str, key: &str, text: &str) -> Result<()> {
    let Some(value) = table.get(section).and_then(|section| section.get(key)) else {
        bail!("no key {key} in [{section}]");
    };
    let text = text.trim();
    let value = match value {
        Value::Integer(_) => Value::Integer(
            text.parse()
                .with_context(|| format!("{text:?} is no whole number"))?,
        ),
        Value::Boolean(_) => Value::Boolean(
            text.parse()
                .with_context(|| format!("{text:?} is not true or false"))?,
        ),
        Value::Array(_) => {
            let parts = text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty());
            Value::Array(parts.map(|part| Value::String(part.to_owned())).collect())
        }
        _ => Value::String(text.to_owned()),
    };
    put(table, section, key, value)
}

fn put(table: &mut Table, section: &str, key: &str, value: Value) -> Result<()> {
    let Some(Value::Table(keys)) = table.get_mut(section) else {
        bail!("no section [{section}]");
    };
    keys.insert(key.to_owned(), value);
    Ok(())
}

fn names(table: &Table) -> String {
    table
        .keys()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(file: &str, environment: &[(&str, &str)]) -> Result<Table> {
        let environment = environment
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()));
        merge(Some(("herald.toml", file)), environment)
    }

    fn error(file: &str, environment: &[(&str, &str)]) -> String {
        format!("{:#}", merged(file, environment).unwrap_err())
    }

    #[test]
    fn the_environment_goes_before_the_file_and_the_file_before_the_seeds_names() {
        let file = "[provider]\nurl = \"http://file/\"\n";
        let seed = ("NOTIFICATION_PROVIDER_WEBHOOK_URL", "http://seed/");
        let ours = ("HERALD_PROVIDER_URL", "http://ours/");
        let url = |file: &str, environment: &[(&str, &str)]| {
            merged(file, environment).unwrap()["provider"]["url"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(url("", &[]), "");
        assert_eq!(url("", &[seed]), "http://seed/");
        assert_eq!(url(file, &[seed]), "http://file/");
        assert_eq!(url(file, &[seed, ours]), "http://ours/");
    }

    #[test]
    fn variables_are_read_as_the_type_of_the_default() {
        let table = merged(
            "",
            &[
                ("HERALD_TOPICS_PARTITIONS", "3"),
                ("HERALD_RETRY_DELAYS", "1s, 2s"),
                ("HERALD_SCHEMA_REGISTRY_URL", "http://r/"),
                ("HERALD_BROKER_TLS", "true"),
            ],
        )
        .unwrap();
        assert_eq!(table["topics"]["partitions"].as_integer(), Some(3));
        assert_eq!(table["retry"]["delays"].as_array().map(Vec::len), Some(2));
        assert_eq!(table["schema_registry"]["url"].as_str(), Some("http://r/"));
        assert_eq!(table["broker"]["tls"].as_bool(), Some(true));
    }

    #[test]
    fn a_text_may_stand_in_a_file_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "hunter2\n").unwrap();
        let path = path.to_str().unwrap();
        let by_file = format!("[broker]\npassword_file = {path:?}\n");
        let password = |table: Table| table["broker"]["password"].as_str().unwrap().to_owned();
        assert_eq!(password(merged(&by_file, &[]).unwrap()), "hunter2");
        let by_variable = [
            ("HERALD_BROKER_PASSWORD_FILE", path),
            ("HERALD_API_KEYS_FILE", path),
        ];
        let table = merged("[broker]\npassword = \"other\"\n", &by_variable).unwrap();
        assert_eq!(table["api"]["keys"][0].as_str(), Some("hunter2"));
        assert_eq!(password(table), "hunter2");
        let unset = merged(&by_file, &[("HERALD_BROKER_PASSWORD_FILE", "")]).unwrap();
        assert_eq!(password(unset), "hunter2");
    }

    #[test]
    fn a_text_that_is_given_twice_or_in_no_file_is_named() {
        let twice = error("[broker]\npassword = \"x\"\npassword_file = \"y\"\n", &[]);
        assert!(
            twice.contains("has both password and password_file"),
            "{twice}"
        );
        let variables = [
            ("HERALD_BROKER_PASSWORD", "x"),
            ("HERALD_BROKER_PASSWORD_FILE", "y"),
        ];
        let twice = error("", &variables);
        assert!(
            twice.contains("both HERALD_BROKER_PASSWORD and "),
            "{twice}"
        );
        let nowhere = error("[broker]\npassword_file = \"/no/such\"\n", &[]);
        assert!(
            nowhere.contains("password_file in [broker]: /no/such"),
            "{nowhere}"
        );
        let number = error("[topics]\npartitions_file = \"x\"\n", &[]);
        assert!(
            number.contains("unknown key \"partitions_file\""),
            "{number}"
        );
    }

    #[test]
    fn the_seeds_retry_variables_choose_the_exponential_policy() {
        let table = merged("", &[("NOTIFICATION_RETRY_BASE_DELAY", "4")]).unwrap();
        assert_eq!(table["retry"]["policy"].as_str(), Some("exponential"));
        assert_eq!(table["retry"]["base"].as_str(), Some("4s"));
    }

    #[test]
    fn the_seeds_slack_webhook_chooses_slack_unless_another_is_said() {
        let seed = ("SLACK_DEFAULT_WEBHOOK", "https://hooks.slack.com/x");
        let chosen = |environment: &[(&str, &str)]| {
            merged("", environment).unwrap()["channels"]["slack"].clone()
        };
        assert_eq!(chosen(&[seed]).as_str(), Some("slack_webhook"));
        let ours = ("HERALD_CHANNELS_SLACK", "provider");
        assert_eq!(chosen(&[seed, ours]).as_str(), Some("provider"));
    }

    #[test]
    fn the_seeds_mail_variables_choose_and_describe_the_mail_server() {
        let seed = [
            ("MAIL_MAILER", "smtp"),
            ("MAIL_FROM_ADDRESS", "notifications@example.com"),
            ("MAIL_HOST", "mail.example.com"),
            ("MAIL_PORT", "465"),
            ("MAIL_USERNAME", "null"),
            ("MAIL_PASSWORD", ""),
        ];
        let table = merged("", &seed).unwrap();
        let text = |section: &str, key: &str| table[section][key].as_str().unwrap().to_owned();
        assert_eq!(text("channels", "email"), "smtp");
        assert_eq!(text("email", "from"), "notifications@example.com");
        assert_eq!(text("smtp", "host"), "mail.example.com");
        assert_eq!(table["smtp"]["port"].as_integer(), Some(465));
        assert_eq!(text("smtp", "tls"), "tls");
        assert_eq!(text("smtp", "user"), "");
        let table = merged("", &[("MAIL_PORT", "2525")]).unwrap();
        assert_eq!(table["smtp"]["tls"].as_str(), Some("starttls"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let typo = error("[brocker]\nurl = \"\"\n", &[]);
        assert!(
            typo.contains("herald.toml: unknown section [brocker]"),
            "{typo}"
        );
        let key = error("[broker]\nurll = \"\"\n", &[]);
        assert!(
            key.contains("unknown key \"urll\" in [broker]; known are "),
            "{key}"
        );
        let kind = error("[topics]\npartitions = \"many\"\n", &[]);
        assert!(
            kind.contains("partitions in [topics] is of type string, expected integer"),
            "{kind}"
        );
        let variable = error("", &[("HERALD_BROKER_URLL", "x")]);
        assert!(
            variable.contains("unknown environment variable HERALD_BROKER_URLL"),
            "{variable}"
        );
        let guess = error("", &[("HERALD_API_PORT", "80")]);
        assert!(guess.contains("HERALD_API_PORT"), "{guess}");
        let number = error("", &[("HERALD_TOPICS_PARTITIONS", "x")]);
        assert!(
            number.contains("HERALD_TOPICS_PARTITIONS: \"x\" is no whole number"),
            "{number}"
        );
    }

    #[test]
    fn what_kubernetes_sets_for_a_service_of_our_name_is_no_setting() {
        let set = [
            ("HERALD_SERVICE_HOST", "10.0.0.1"),
            ("HERALD_API_SERVICE_PORT", "8000"),
            ("HERALD_API_SERVICE_PORT_HTTP", "8000"),
            ("HERALD_PORT", "tcp://10.0.0.1:8000"),
            ("HERALD_API_PORT", "tcp://10.0.0.1:8000"),
            ("HERALD_API_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
            ("HERALD_API_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ];
        assert_eq!(merged("", &set).unwrap(), merged("", &[]).unwrap());
    }

    #[test]
    fn what_the_file_says_is_not_in_an_error_about_it() {
        for file in [
            "[broker]\npassword = \"hunter2\n",
            "[broker]\n\npassword = hunter2\n",
            "[store]\npassword = \"x\"\npassword = \"hunter2\"\n",
        ] {
            let error = error(file, &[]);
            assert!(!error.contains("hunter2"), "{error}");
            assert!(error.contains("herald.toml: line "), "{error}");
        }
    }
}

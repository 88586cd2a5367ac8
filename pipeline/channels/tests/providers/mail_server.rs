//! A mail server in Python, by a library that is not ours; what it received, its e-mail package
//! took apart.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use herald_e2e::{python, python_script};
use openssl::{
    asn1::Asn1Time,
    bn::BigNum,
    hash::MessageDigest,
    nid::Nid,
    pkey::PKey,
    rsa::Rsa,
    x509::{X509, X509NameBuilder, extension::SubjectAlternativeName},
};
use serde_json::{Value, json};

/// A running server. Dropped, it ends.
pub(crate) struct MailServer {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub(crate) port: u16,
}

impl MailServer {
    /// None, and the test left out, where there is no Python.
    pub(crate) fn start(test: &str, arguments: &[&str]) -> Option<Self> {
        let mut command = python(test)?;
        // It warns of passwords in the clear, which are tested.
        command.args(["-W", "ignore"]);
        command
            .arg(python_script("smtp_server.py"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut server = Self {
            process,
            input,
            output,
            port: 0,
        };
        server.port = server.line()["port"].as_u64().unwrap() as u16;
        Some(server)
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    /// Answers so at these stages from now on; what has come since the last time.
    pub(crate) fn answers(&mut self, replies: Value) -> Seen {
        writeln!(self.input, "{replies}").unwrap();
        let line = self.line();
        Seen {
            messages: line["messages"].as_array().unwrap().clone(),
            connections: line["connections"].as_u64().unwrap(),
        }
    }

    /// What has come since the last time.
    pub(crate) fn seen(&mut self) -> Seen {
        self.answers(json!({}))
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a server has seen.
pub(crate) struct Seen {
    pub(crate) messages: Vec<Value>,
    /// Since it started.
    pub(crate) connections: u64,
}

impl Seen {
    /// The only message.
    pub(crate) fn message(self) -> Value {
        let [message] = <[Value; 1]>::try_from(self.messages).unwrap();
        message
    }
}

/// The only header of that name, decoded.
pub(crate) fn header<'a>(message: &'a Value, name: &str) -> Option<&'a str> {
    let headers = message["headers"].as_array().unwrap();
    let named = |header: &&Value| header[0].as_str().unwrap().eq_ignore_ascii_case(name);
    let found: Vec<&Value> = headers.iter().filter(named).collect();
    assert!(found.len() <= 1, "{found:?}");
    found.first().map(|header| header[1].as_str().unwrap())
}

/// A certificate of the test's own for localhost, of a name that no other has, and its key behind it,
/// in a file; in return, the certificate alone.
pub(crate) fn certificate(file: &Path) -> Vec<u8> {
    let key = PKey::from_rsa(Rsa::generate(2_048).unwrap()).unwrap();
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_nid(Nid::COMMONNAME, file.file_name().unwrap().to_str().unwrap())
        .unwrap();
    let name = name.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let serial = BigNum::from_u32(17).unwrap().to_asn1_integer().unwrap();
    builder.set_serial_number(&serial).unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(&name).unwrap();
    builder.set_pubkey(&key).unwrap();
    let [yesterday, tomorrow] = [-1, 1].map(|days: i64| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Asn1Time::from_unix(now.unwrap().as_secs() as i64 + days * 86_400).unwrap()
    });
    builder.set_not_before(&yesterday).unwrap();
    builder.set_not_after(&tomorrow).unwrap();
    let mut names = SubjectAlternativeName::new();
    let names = names.dns("localhost");
    let names = names.build(&builder.x509v3_context(None, None)).unwrap();
    builder.append_extension(names).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    let pem = builder.build().to_pem().unwrap();
    let both = [pem.clone(), key.private_key_to_pem_pkcs8().unwrap()].concat();
    std::fs::write(file, both).unwrap();
    pem
}

//! A child process with its output in a file: started, waited for, signalled, ended.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

const POLL: Duration = Duration::from_millis(20);
/// How much of a log a failure shows.
const TAIL_LINES: usize = 60;

/// A running program. Dropped, it is killed.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// A command whose process dies with the thread that starts it, however that ends, where the
/// system has a way to ask for this without unsafe code.
pub fn dying_with_parent(program: &str) -> Command {
    static HAS_SETPRIV: OnceLock<bool> = OnceLock::new();
    let has_setpriv = *HAS_SETPRIV.get_or_init(|| {
        let mut probe = Command::new("setpriv");
        probe.args(["--pdeathsig", "KILL", "--", "true"]);
        probe.stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    });
    if has_setpriv {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", program]);
        command
    } else {
        Command::new(program)
    }
}

/// Whether there is a process with this id.
pub fn is_alive(pid: u32) -> bool {
    send(pid, "0")
}

fn send(pid: u32, signal: &str) -> bool {
    // The shell's own: not every system has it as a program.
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -s \"$0\" \"$1\"", signal, &pid.to_string()]);
    kill.stdout(Stdio::null()).stderr(Stdio::null());
    kill.status().is_ok_and(|status| status.success())
}

impl Process {
    /// Starts the command with its output appended to `log`.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> io::Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = command.spawn()?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// The name it was started under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it wrote.
    pub fn output(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The end of what it wrote, under a heading.
    pub fn tail(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        let from = lines.len().saturating_sub(TAIL_LINES);
        format!(
            "--- {}: end of {}\n{}\n---",
            self.name,
            self.log.display(),
            lines[from..].join("\n")
        )
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, signal: &str) {
        send(self.id(), signal);
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until `is_ready`. The error says what it did instead, with the end of its output.
    pub fn ready(&mut self, within: Duration, is_ready: impl Fn() -> bool) -> Result<(), String> {
        let deadline = Instant::now() + within;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!(
                    "{} ended before it was ready: {status}\n{}",
                    self.name,
                    self.tail()
                ));
            }
            if is_ready() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "{} was not ready within {within:?}\n{}",
                    self.name,
                    self.tail()
                ));
            }
            thread::sleep(POLL);
        }
    }

    /// Waits for its end, `within` at most.
    pub fn ended(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
                _ => return None,
            }
        }
    }

    /// Ends it without warning, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end, waits `within`, and kills it when it did not.
    pub fn stop(&mut self, within: Duration) -> Option<ExitStatus> {
        if self.is_running() {
            self.signal("TERM");
        }
        let status = self.ended(within);
        if status.is_none() {
            self.kill();
        }
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            self.kill();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(name: &str, script: &str) -> Process {
        let log = std::env::temp_dir().join(format!("herald-{}-{name}.log", std::process::id()));
        let _ = fs::remove_file(&log);
        let mut command = dying_with_parent("sh");
        command.args(["-c", script]);
        Process::spawn(name, command, &log).unwrap()
    }

    #[test]
    fn what_ends_too_early_is_said_with_its_output() {
        let mut process = shell("early", "echo no such luck; exit 3");
        let error = process
            .ready(Duration::from_secs(10), || false)
            .unwrap_err();
        assert!(
            error.contains("early ended before it was ready: exit status: 3"),
            "{error}"
        );
        assert!(error.contains("no such luck"), "{error}");
        fs::remove_file(&process.log).unwrap();
    }

    #[test]
    fn what_is_never_ready_is_said_at_the_deadline() {
        let mut process = shell("slow", "echo waiting; exec sleep 60");
        let error = process
            .ready(Duration::from_millis(200), || false)
            .unwrap_err();
        assert!(error.contains("slow was not ready within 200ms"), "{error}");
        fs::remove_file(&process.log).unwrap();
    }

    #[test]
    fn what_does_not_obey_is_killed() {
        let mut process = shell(
            "deaf",
            "trap '' TERM; echo deaf; while :; do sleep 0.1; done",
        );
        let log = process.log.clone();
        let deaf = || fs::read_to_string(&log).is_ok_and(|output| output.contains("deaf"));
        process.ready(Duration::from_secs(10), deaf).unwrap();
        assert!(process.stop(Duration::from_millis(200)).is_none());
        assert!(!process.is_running());
        fs::remove_file(&log).unwrap();
    }

    #[test]
    fn a_process_is_ended_when_it_is_dropped() {
        let process = shell("dropped", "exec sleep 60");
        let (pid, log) = (process.id(), process.log.clone());
        assert!(is_alive(pid));
        drop(process);
        assert!(!is_alive(pid));
        fs::remove_file(log).unwrap();
    }
}

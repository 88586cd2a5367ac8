//! What Linux knows of this process, under the names that Prometheus' own clients use. Read from
//! /proc when it is asked for: prometheus' feature for it brings another version of rustix.

use std::fs;

use prometheus::{
    Counter, Gauge, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// In what /proc counts time: 1/100 s for every program, whatever the kernel was built with.
const TICKS_A_SECOND: f64 = 100.0;

pub(super) struct OfProcess {
    cpu: Counter,
    memory: Gauge,
    open_fds: Gauge,
    start: Gauge,
}

impl OfProcess {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| Gauge::with_opts(Opts::new(name, help));
        let process = Self {
            cpu: Counter::new(
                "process_cpu_seconds_total",
                "Total user and system CPU time spent in seconds.",
            )?,
            memory: gauge(
                "process_resident_memory_bytes",
                "Resident memory size in bytes.",
            )?,
            open_fds: gauge("process_open_fds", "Number of open file descriptors.")?,
            start: gauge(
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
            )?,
        };
        if let Some(start) = start_time() {
            process.start.set(start);
        }
        Ok(process)
    }

    fn all(&self) -> [&dyn Collector; 4] {
        [&self.cpu, &self.memory, &self.open_fds, &self.start]
    }
}

impl Collector for OfProcess {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if let Some(seconds) = cpu_seconds() {
            // Two that ask at once may both have seen the older one.
            self.cpu.inc_by((seconds - self.cpu.get()).max(0.0));
        }
        if let Some(bytes) = resident_bytes() {
            self.memory.set(bytes);
        }
        if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
            // Without the one by which they are counted.
            self.open_fds
                .set(descriptors.count().saturating_sub(1) as f64);
        }
        self.all()
            .into_iter()
            .flat_map(Collector::collect)
            .collect()
    }
}

/// The fields of /proc/self/stat after the program's name, which may hold anything.
fn stat() -> Option<Vec<f64>> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let numbers = fields.split_whitespace().skip(1);
    Some(numbers.map(|field| field.parse().unwrap_or(0.0)).collect())
}

fn cpu_seconds() -> Option<f64> {
    let stat = stat()?;
    Some((stat.get(10)? + stat.get(11)?) / TICKS_A_SECOND)
}

fn start_time() -> Option<f64> {
    let since_boot = stat()?.get(18)? / TICKS_A_SECOND;
    let system = fs::read_to_string("/proc/stat").ok()?;
    let boot = system
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?;
    Some(boot.trim().parse::<f64>().ok()? + since_boot)
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: f64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes * 1_024.0)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_figures_are_those_of_this_process() {
        let process = OfProcess::new().unwrap();
        process.collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - process.start.get();
        assert!((-2.0..3_600.0).contains(&age), "{age}");
        assert!(process.memory.get() > 1_000_000.0);
        let cpu = process.cpu.get();
        let mut open = vec![fs::File::open("/dev/null").unwrap()];
        process.collect();
        let before = process.open_fds.get();
        open.extend((0..20).map(|_| fs::File::open("/dev/null").unwrap()));
        process.collect();
        assert!(
            process.open_fds.get() >= before + 15.0,
            "others may close some"
        );
        assert!(process.cpu.get() >= cpu && cpu < 3_600.0);
    }
}

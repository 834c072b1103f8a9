//! The process as the kernel sees it: CPU time, memory, file descriptors. Read from `/proc` at each scrape.
//!
//! Where there is no `/proc` the families are left out of the scrape; nothing else depends on them.

use std::fs;

use super::{catalogue, exposition::Exposition};

// What user space is told in: fixed by the kernel's ABI (USER_HZ), whatever its own tick.
const TICKS_PER_SECOND: f64 = 100.0;

/// Adds the process's families to a scrape.
pub(super) fn expose(out: &mut Exposition) {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (stat, status, limits) = (read("/proc/self/stat"), read("/proc/self/status"), read("/proc/self/limits"));
    if let Some(cpu) = cpu_seconds(&stat) {
        out.family(&catalogue::PROCESS_CPU).sample([], cpu);
    }
    if let Some(bytes) = kibibytes(&status, "VmRSS:") {
        out.family(&catalogue::PROCESS_RESIDENT_MEMORY).sample([], bytes);
    }
    if let Some(bytes) = kibibytes(&status, "VmSize:") {
        out.family(&catalogue::PROCESS_VIRTUAL_MEMORY).sample([], bytes);
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory being read.
        let open = descriptors.count().saturating_sub(1);
        out.family(&catalogue::PROCESS_OPEN_FDS).sample([], open as u64);
    }
    if let Some(max) = max_descriptors(&limits) {
        out.family(&catalogue::PROCESS_MAX_FDS).sample([], max);
    }
    if let Some(start) = start_seconds(&stat, &read("/proc/stat")) {
        out.family(&catalogue::PROCESS_START_TIME).sample([], start);
    }
}

// Fields of `stat` are numbered from 1 (proc(5)); the second is the program's name, which may hold spaces and parentheses.
fn field(stat: &str, number: usize) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    let (user, system) = (field(stat, 14)?, field(stat, 15)?);
    Some((user + system) / TICKS_PER_SECOND)
}

fn start_seconds(stat: &str, machine: &str) -> Option<f64> {
    let boot: f64 = machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + field(stat, 22)? / TICKS_PER_SECOND)
}

fn kibibytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

// The soft limit; `unlimited` is left out.
fn max_descriptors(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "7 (a) b) c) S 1 7 7 0 -1 4194560 5000 0 3 0 250 50 0 0 20 0 9 0 12345 1000000 900 0";

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(cpu_seconds(STAT), Some(3.0));
        assert_eq!(start_seconds(STAT, "cpu 1 2\nbtime 1700000000\nprocesses 4\n"), Some(1_700_000_123.45));
        assert_eq!(kibibytes("Name:\tx\nVmRSS:\t    2048 kB\n", "VmRSS:"), Some(2_097_152));
        assert_eq!(
            max_descriptors("Limit  Soft Limit  Hard Limit  Units\nMax open files   1024  524288  files\n"),
            Some(1024)
        );
        assert_eq!(max_descriptors("Max open files   unlimited  unlimited  files\n"), None);
    }

    #[test]
    fn leaves_out_what_it_cannot_read() {
        assert_eq!((cpu_seconds(""), start_seconds("", ""), kibibytes("VmRSS: many", "VmRSS:")), (None, None, None));
        assert_eq!((cpu_seconds("1 (x) S"), max_descriptors("")), (None, None));
    }
}

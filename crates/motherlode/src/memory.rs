//! The memory of this machine and of this process, as Linux tells it; elsewhere nothing is known.

use std::fs;

/// Bytes that this process may still take: what the machine has free, page cache included, within the limit of its
/// control group.
pub fn available() -> Option<u64> {
    let free = kibibytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
    Some(free.min(group_available().unwrap_or(u64::MAX)))
}

/// The most bytes that this process has had in memory since it began, or since [`forget_peak`]; mapped files count.
pub fn peak() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Begins a new measurement of the [`peak`]. Where the system does not allow it, the old one goes on.
pub fn forget_peak() {
    _ = fs::write("/proc/self/clear_refs", "5");
}

/// `bytes` as a person reads them, such as `1.5 GiB`.
pub fn readable(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (bytes.max(1).ilog2() / 10).min(4);
    match power {
        0 => format!("{bytes} B"),
        _ => format!("{:.1} {}", bytes as f64 / f64::from(1_u32 << 10).powi(power as i32), units[power as usize]),
    }
}

/// The bytes that stand behind `name` in kibibytes, as in the files of Linux.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
}

/// What the process's control group (version 2, as in a container) leaves; none if it has no limit.
fn group_available() -> Option<u64> {
    let read = |name: &str| fs::read_to_string(format!("/sys/fs/cgroup/memory.{name}")).ok();
    let limit: u64 = read("max")?.trim().parse().ok()?;
    let taken: u64 = read("current")?.trim().parse().ok()?;
    let cached = read("stat")?.lines().find_map(|line| line.strip_prefix("inactive_file ")?.parse().ok());
    Some(limit.saturating_sub(taken.saturating_sub(cached.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        let sizes = [0, 1023, 1536, 3 << 30].map(readable);
        assert_eq!(sizes, ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]);
    }

    #[test]
    fn the_lines_of_linux_are_read() {
        let text = "MemTotal:       16000 kB\nMemAvailable:    9000 kB\n";
        assert_eq!(kibibytes(text, "MemAvailable:"), Some(9000 << 10));
        assert_eq!(kibibytes(text, "VmHWM:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_is_at_least_what_is_held() {
        let held = vec![1_u8; 64 << 20];
        assert!(peak().unwrap() >= held.iter().map(|byte| u64::from(*byte)).sum());
        assert!(available().unwrap() > 0);
    }
}

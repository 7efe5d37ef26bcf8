//! Where a measurement was made. Figures of two machines do not compare, and those of one do
//! only while it has as much to itself.

use std::fs;

use serde::Serialize;

/// The machine that sent the requests; the server's may be another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Machine {
    pub(super) cpu: String,
    /// That this process may use.
    pub(super) cores: usize,
    pub(super) memory_bytes: u64,
    pub(super) kernel: String,
    pub(super) architecture: String,
    /// Processes that wanted to run in the last minute, on average.
    pub(super) load_average: f64,
}

impl Machine {
    /// This one, now.
    pub(super) fn this() -> Self {
        let system = rustix::system::uname();
        let info = rustix::system::sysinfo();
        let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        Self {
            cpu: cpu(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: (info.totalram as u64).saturating_mul(u64::from(info.mem_unit)),
            kernel: format!("{} {}", text(system.sysname()), text(system.release())),
            architecture: text(system.machine()),
            // The kernel's fixed point, sysinfo(2): 16 bits behind the point.
            load_average: (info.loads[0] as f64 / 65_536.0 * 100.0).round() / 100.0,
        }
    }
}

/// The processor's name, where the kernel says one: on aarch64 it does not.
fn cpu(info: &str) -> String {
    let named = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    named.map_or_else(|| "unknown".into(), |(_, name)| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named_where_the_kernel_names_it() {
        let info = "processor\t: 0\nmodel name\t: A Processor @ 2.50GHz\nflags\t\t: fpu\nmodel name\t: B\n";
        assert_eq!(cpu(info), "A Processor @ 2.50GHz");
        assert_eq!(cpu("processor\t: 0\nBogoMIPS\t: 50.00\n"), "unknown");
    }

    #[test]
    fn this_machine_has_cores_and_memory() {
        let machine = Machine::this();
        assert!(machine.cores > 0 && machine.memory_bytes > 1 << 20, "{machine:?}");
        assert!(machine.kernel.contains(' ') && !machine.architecture.is_empty(), "{machine:?}");
    }
}

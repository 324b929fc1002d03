//! What this host is, as far as a container's plan depends on it. Read once, changes nothing.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::capabilities::Set;
use crate::cgroup::Layout;
use crate::error::Error;
use crate::sys;

/// Number of the last resource limit: RLIMIT_RTTIME (asm-generic/resource.h).
const LAST_LIMIT: u32 = 15;

/// This host and this process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Facts {
    /// Where the cgroup controllers are.
    pub cgroup: Layout,
    /// The highest capability that the kernel knows (`/proc/sys/kernel/cap_last_cap`).
    pub last_cap: u8,
    /// The kernel's major and minor version.
    pub kernel: (u32, u32),
    /// Our hard resource limits by number; `u64::MAX` is unlimited.
    pub hard_limits: Vec<u64>,
    /// What we have ourselves, and so the most that a container can get: `ALL` means these.
    pub capabilities: Set,
    /// We may raise hard limits (CAP_SYS_RESOURCE).
    pub can_raise_limits: bool,
    /// The kernel has the overlay file system, or a module for it may be loaded.
    pub overlay: bool,
    /// AppArmor is on.
    pub apparmor: bool,
    /// The kernel has `/proc/kcore` (CONFIG_PROC_KCORE), to which `/dev/core` leads.
    pub kcore: bool,
}

impl Facts {
    /// Reads them: about ten small files and calls.
    ///
    /// # Errors
    /// No /proc, or a kernel that lacks what every container needs.
    pub fn read() -> Result<Facts, Error> {
        let cgroup = Layout::read()?;
        let kernel = kernel_version(&rustix::system::uname().release().to_string_lossy());
        if kernel < (5, 12) {
            return Err(Error::refused(format!(
                "Linux {}.{} is too old: minidock needs 5.12 (mount_setattr)",
                kernel.0, kernel.1
            )));
        }
        let last_cap = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")
            .map_err(|error| Error::system("read /proc/sys/kernel/cap_last_cap", error))?;
        let capabilities =
            rustix::thread::capabilities(None).map_err(|error| Error::system("read our capabilities", error))?;
        Ok(Facts {
            cgroup,
            last_cap: last_cap.trim().parse().unwrap_or(40),
            kernel,
            hard_limits: (0..=LAST_LIMIT).map(|resource| sys::hard_limit(resource).unwrap_or(u64::MAX)).collect(),
            capabilities: Set(capabilities.permitted.bits()),
            can_raise_limits: capabilities.effective.contains(rustix::thread::CapabilitySet::SYS_RESOURCE),
            overlay: has_overlay(),
            apparmor: Path::new("/sys/kernel/security/apparmor").exists(),
            kcore: Path::new("/proc/kcore").exists(),
        })
    }

    /// A host for tests of the plan.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Facts {
        Facts {
            cgroup: Layout::default(),
            last_cap: 40,
            kernel: (6, 1),
            hard_limits: vec![1 << 20; 16],
            capabilities: Set::all(40),
            can_raise_limits: false,
            overlay: true,
            apparmor: false,
            kcore: true,
        }
    }
}

/// A module that isn't loaded yet is loaded by mount(2) itself; only a kernel with neither is a refusal.
fn has_overlay() -> bool {
    let known = std::fs::read_to_string("/proc/filesystems").is_ok_and(|list| list.contains("\toverlay\n"));
    known || Path::new("/lib/modules").exists()
}

fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(kernel_version("6.1.0-28-cloud-amd64"), (6, 1));
        assert_eq!(kernel_version("6.18.44-fc-v595"), (6, 18));
        assert_eq!(kernel_version("odd"), (0, 0));
    }

    #[test]
    fn this_host_is_read() {
        let facts = Facts::read().unwrap();
        assert!(facts.last_cap >= 40 && facts.hard_limits.len() == 16 && facts.overlay);
    }
}

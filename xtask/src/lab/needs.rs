//! Debian packages that the demo and the tests need.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A package and how to tell that it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The Debian package.
    pub package: &'static str,
    /// A program that it brings.
    pub program: &'static str,
    /// What it is for, in a few words.
    pub purpose: &'static str,
    /// A service that Debian starts as soon as it is installed, which nobody here wants.
    pub service: Option<&'static str>,
}

const fn need(package: &'static str, program: &'static str, purpose: &'static str) -> Need {
    Need {
        package,
        program,
        purpose,
        service: None,
    }
}

/// What every namespace needs.
pub const NAMESPACES: &[Need] = &[
    need("iproute2", "ip", "network namespaces"),
    need("iputils-ping", "ping", "pings"),
    need("ethtool", "ethtool", "checksum offload of veth pairs"),
    need(
        "util-linux",
        "setpriv",
        "children that end with their parent",
    ),
];

/// What loses packets on a bridge.
pub const LOSSES: &[Need] = &[need("nftables", "nft", "lost packets")];

/// What a guest with the stock client needs.
pub const GUESTS: &[Need] = &[
    need(
        "user-mode-linux",
        "linux.uml",
        "a kernel with PPP, run as a program",
    ),
    need("kmod", "modprobe", "the guest's kernel modules"),
    need("ppp", "pppd", "the stock client's PPP"),
    need(
        "pptp-linux",
        "pptp",
        "the stock client's control connection",
    ),
];

/// What a guest with the stock server needs besides.
pub const STOCK_SERVER: &[Need] = &[Need {
    service: Some("pptpd"),
    ..need("pptpd", "pptpd", "a server that is not ours")
}];

/// What checks captures.
pub const CAPTURES: &[Need] = &[
    need("tcpdump", "tcpdump", "captures of the access network"),
    need("tshark", "tshark", "a dissector that nobody here wrote"),
];

/// What counts instructions.
pub const COUNTING: &[Need] = &[need("valgrind", "valgrind", "counted instructions")];

/// What asks for prefixes inside calls.
pub const PREFIXES: &[Need] = &[need(
    "dhcpcd-base",
    "dhcpcd",
    "a DHCPv6 client that nobody here wrote",
)];

/// What judges logins by RADIUS.
pub const RADIUS: &[Need] = &[
    Need {
        service: Some("freeradius"),
        ..need(
            "freeradius",
            "freeradius",
            "a RADIUS server that nobody here wrote",
        )
    },
    need("freeradius-utils", "radclient", "its client"),
];

/// Which of `needs` are not installed.
pub fn missing(needs: &[Need]) -> Vec<Need> {
    needs
        .iter()
        .filter(|need| find(need.program).is_none())
        .copied()
        .collect()
}

/// Finds a program in `PATH` and in the system's directories, which a user's `PATH` may lack.
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"])
        .map(|directory| Path::new(directory).join(program))
        .find(|path| path.is_file())
}

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Installs what is missing, with apt-get and, where needed, sudo. `say` gets one line about what is done.
pub fn install(needs: &[Need], say: &mut dyn FnMut(&str)) -> Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    let list = missing
        .iter()
        .map(|need| format!("{} ({})", need.package, need.purpose))
        .collect::<Vec<_>>()
        .join(", ");
    if find("apt-get").is_none() {
        bail!("these Debian packages are missing, and there is no apt-get to install them: {list}");
    }
    if !is_root() && find("sudo").is_none() {
        bail!(
            "these packages are missing: {list}. Run as root: apt-get install --no-install-recommends {}",
            packages.join(" ")
        );
    }
    say(&format!("installing {list}"));
    let mut install = |action: &[&str]| -> Result<bool> {
        let mut command = if is_root() {
            Command::new("apt-get")
        } else {
            let mut command = Command::new("sudo");
            command.args(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
            command
        };
        let output = command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-q", "-y", "-o", "DPkg::Lock::Timeout=300"])
            .args(action)
            .stdin(if is_root() {
                Stdio::null()
            } else {
                Stdio::inherit()
            })
            .output()
            .context("cannot start apt-get")?;
        if !output.status.success() {
            say(String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(output.status.success())
    };
    let mut words = vec!["install", "--no-install-recommends"];
    words.extend(&packages);
    // Package lists may be old or absent: fetch them only then.
    if !install(&words)? {
        install(&["update"])?;
        if !install(&words)? {
            bail!("apt-get could not install {}", packages.join(" "));
        }
    }
    for service in missing.iter().filter_map(|need| need.service) {
        silence(service, say)?;
    }
    let left = self::missing(needs);
    if let Some(need) = left.first() {
        bail!(
            "package {} is installed but brings no {}",
            need.package,
            need.program
        );
    }
    Ok(())
}

/// Stops a service that came with a package, for good: a guest runs it, and this machine need not listen for anybody.
fn silence(service: &str, say: &mut dyn FnMut(&str)) -> Result<()> {
    // Without systemd nothing was started.
    if !Path::new("/run/systemd/system").is_dir() {
        return Ok(());
    }
    let output = as_root("systemctl")?
        .args(["disable", "--now", service])
        .output()
        .context("cannot start systemctl")?;
    if output.status.success() {
        say(&format!("stopped and disabled the service {service}"));
    } else {
        say(&format!(
            "could not stop the service {service}, which listens now: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    Ok(())
}

/// The command that runs `program` as root: itself, or behind sudo.
pub fn as_root(program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    if find("sudo").is_none() {
        bail!("this needs root: run it as root, or install sudo");
    }
    let mut command = Command::new("sudo");
    command.args(["--preserve-env", "--"]).arg(program);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_nobody_brings_is_missing() {
        let needs = [
            need("dash", "sh", "a shell"),
            need("nothing", "turnpike-no-such-program", "nothing"),
        ];
        assert_eq!(missing(&needs), [needs[1]]);
    }
}

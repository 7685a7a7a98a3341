//! Network namespaces, and what lies between them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use super::process::{Process, run};
use super::undo::{Ticket, Undo, delete_namespace};

/// Namespaces of the laboratory are called `tplab-<process id>-<number>-<name>`; the process id tells whose they are.
const PREFIX: &str = "tplab";

/// A set of namespaces with a directory for logs and configurations. Dropped: everything in it is unmade.
#[derive(Debug)]
pub struct Lab {
    id: String,
    // Before the directory: the list of what to unmake is worked off in this order.
    _ticket: Option<Ticket>,
    directory: PathBuf,
}

impl Lab {
    /// A new, empty set. What killed processes left behind is unmade first.
    pub fn new() -> Result<Self> {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!(
            "{PREFIX}-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let keep = std::env::var_os("TURNPIKE_KEEP_LOGS").is_some();
        let prefix = if keep { "turnpike-logs" } else { &*id };
        let directory = TempDir::with_prefix(format!("{prefix}-"))
            .context("cannot make a directory for logs")?
            .keep();
        let ticket = (!keep).then(|| Ticket::new(Undo::Directory(directory.clone())));
        Ok(Self {
            id,
            _ticket: ticket,
            directory,
        })
    }

    /// Where logs and configurations lie. It is removed at the end unless `TURNPIKE_KEEP_LOGS` is set.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes a namespace with loopback up and IPv6 off (so that nothing speaks that was not asked to).
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        let full = format!("{}-{name}", self.id);
        run(Command::new("ip").args(["netns", "add", &full]))
            .context("cannot make a network namespace (this needs root)")?;
        let namespace = Namespace {
            _ticket: Ticket::new(Undo::Namespace(full.clone())),
            name: full,
            directory: self.directory.clone(),
        };
        namespace.ip("link set lo up")?;
        for which in ["all", "default"] {
            // A kernel without IPv6 has nothing to switch off.
            let _ = namespace.sysctl(&format!("net.ipv6.conf.{which}.disable_ipv6"), "1");
        }
        Ok(namespace)
    }
}

/// Unmakes the namespaces and directories of processes that no longer exist.
fn sweep() {
    for name in orphans(Path::new("/run/netns")) {
        delete_namespace(&name);
    }
    let temporary = std::env::temp_dir();
    for name in orphans(&temporary) {
        // Somebody else's, or somebody else was faster.
        let _ = std::fs::remove_dir_all(temporary.join(name));
    }
}

/// Names in `directory` that say they belong to a process which is gone.
fn orphans(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| {
            let mut parts = name.split('-');
            parts.next() == Some(PREFIX)
                && parts
                    .next()
                    .and_then(|word| word.parse::<u32>().ok())
                    .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        })
        .collect()
}

/// One network namespace; deleted when dropped.
#[derive(Debug)]
pub struct Namespace {
    _ticket: Ticket,
    name: String,
    directory: PathBuf,
}

impl Namespace {
    /// Its name, as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its processes' logs lie.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Switches IPv6 on, which namespaces begin without, so that nothing but what a test sends is on their links.
    pub fn enable_ipv6(&self) -> Result<()> {
        for which in ["all", "default"] {
            self.sysctl(&format!("net.ipv6.conf.{which}.disable_ipv6"), "0")?;
        }
        Ok(())
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a program with arguments separated by spaces; its output.
    pub fn run(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let program = words.next().context("an empty command")?;
        run(self.command(program).args(words))
    }

    /// `ip` with arguments separated by spaces; its output.
    pub fn ip(&self, line: &str) -> Result<String> {
        run(Command::new("ip")
            .args(["-n", &self.name])
            .args(line.split_whitespace()))
    }

    /// Sets a sysctl by its dotted name.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let value = value.to_owned();
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.enter(move || {
            std::fs::write(&path, value).with_context(|| format!("cannot set {path}"))
        })?
        .join()
        .map_err(|_| anyhow!("setting {name} panicked"))?
    }

    /// Starts a process inside; its output goes to files `name.out` and `name.err` of the laboratory's directory.
    pub fn start(&self, name: &str, command: &Command) -> Result<Process> {
        Process::start(name, command, &self.directory)
    }

    /// Runs `work` on a thread of this process that lives in the namespace: sockets that it opens belong there.
    pub fn enter<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        let path = Path::new("/run/netns").join(&self.name);
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let (say, hear) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            use std::os::fd::AsFd;
            let moved = move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network));
            let inside = moved.is_ok();
            // The other end waits for exactly this message.
            let _ = say.send(moved);
            inside.then(work)
        });
        hear.recv()
            .context("the thread ended before it entered the namespace")?
            .with_context(|| format!("cannot enter namespace {}", self.name))?;
        Ok(std::thread::spawn(move || match thread.join() {
            Ok(Some(value)) => value,
            Ok(None) => panic!("not inside the namespace"),
            Err(panic) => std::panic::resume_unwind(panic),
        }))
    }

    /// A veth pair from here to `other`, both ends up and with whole checksums: what sends from a veth may leave TCP
    /// checksums to hardware that does not exist, and neither XDP nor AF_XDP can tell. `queues` is for both ends.
    pub fn veth(&self, here: &str, other: &Namespace, there: &str, queues: u8) -> Result<()> {
        let queues = format!("numrxqueues {queues} numtxqueues {queues}");
        self.ip(&format!(
            "link add name {here} {queues} type veth peer name {there} {queues} netns {}",
            other.name
        ))?;
        for (namespace, interface) in [(self, here), (other, there)] {
            namespace.whole_checksums(interface)?;
            namespace.ip(&format!("link set {interface} up"))?;
        }
        Ok(())
    }

    /// Switches transmit checksum offload off (and with it segmentation offload).
    pub fn whole_checksums(&self, interface: &str) -> Result<()> {
        self.run(&format!("ethtool -K {interface} tx off"))
            .map(drop)
    }

    /// A bridge without spanning tree, up.
    pub fn bridge(&self, name: &str) -> Result<()> {
        self.ip(&format!(
            "link add name {name} type bridge stp_state 0 mcast_snooping 0"
        ))?;
        self.ip(&format!("link set {name} up")).map(drop)
    }

    /// Names of the interfaces inside, without loopback.
    pub fn interfaces(&self) -> Result<Vec<String>> {
        let text = self.ip("-json link show")?;
        let links: Vec<serde_json::Value> = serde_json::from_str(&text)?;
        Ok(links
            .iter()
            .filter_map(|link| link["ifname"].as_str())
            .filter(|name| *name != "lo")
            .map(str::to_owned)
            .collect())
    }

    /// Whether an XDP program is attached to `interface`.
    pub fn has_xdp(&self, interface: &str) -> Result<bool> {
        let text = self.ip(&format!("-json -details link show dev {interface}"))?;
        let links: Vec<serde_json::Value> = serde_json::from_str(&text)?;
        Ok(links.iter().any(|link| !link["xdp"].is_null()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_the_dead_is_found_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let dead = format!("{PREFIX}-4294967295-0-client");
        let names = [
            dead.clone(),
            format!("{PREFIX}-{}-0-client", std::process::id()),
            format!("{PREFIX}-x"),
            "other-4294967295-0".to_owned(),
        ];
        for name in names {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        assert_eq!(orphans(directory.path()), [dead]);
    }
}

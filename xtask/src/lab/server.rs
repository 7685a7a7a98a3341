//! turnpike under test: its configuration, its process, its own words.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde::Deserialize;

use super::netns::Namespace;
use super::process::{Process, run};
use super::road;
use super::{binary, tree};

/// A configuration made of one of `examples/` with names and addresses replaced, and nothing else.
#[derive(Debug, Clone)]
pub struct Configuration {
    table: toml::Table,
}

/// What may be replaced: names of interfaces, addresses, and the directory of the control socket.
const REPLACEABLE: [&str; 6] = [
    "server.listen",
    "server.run_dir",
    "access.interface",
    "uplink.interface",
    "uplink.next_hop",
    "host.interface",
];

/// Somebody who may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// Password.
    pub password: String,
}

impl Configuration {
    /// `examples/NAME.toml`, for a server that stands on the [`road`] and keeps its files in `directory`.
    pub fn example(name: &str, directory: &Path) -> Result<Self> {
        let path = tree().join("examples").join(format!("{name}.toml"));
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let mut configuration = Self {
            table: toml::from_str(&text).with_context(|| path.display().to_string())?,
        };
        let text = |text: &dyn std::fmt::Display| toml::Value::String(text.to_string());
        configuration.set(
            "server.listen",
            toml::Value::Array(vec![text(&road::SERVER)]),
        )?;
        configuration.set("server.run_dir", text(&directory.join("run").display()))?;
        configuration.set("access.interface", text(&road::ACCESS_INTERFACE))?;
        if configuration.get("uplink").is_some() {
            configuration.set("uplink.interface", text(&road::UPLINK_INTERFACE))?;
            configuration.set("uplink.next_hop", text(&road::NEXT_HOP))?;
        }
        Ok(configuration)
    }

    /// The last of the example's users: one without an address of his own, so that he may call many times.
    pub fn user(&self) -> Result<User> {
        let user = self
            .table
            .get("user")
            .and_then(toml::Value::as_array)
            .and_then(|users| users.last())
            .context("the example has no user")?;
        let text = |key: &str| {
            user.get(key)
                .and_then(toml::Value::as_str)
                .map(str::to_owned)
                .with_context(|| format!("the example's user has no {key}"))
        };
        Ok(User {
            name: text("name")?,
            password: text("password")?,
        })
    }

    fn get(&self, path: &str) -> Option<&toml::Value> {
        let mut words = path.split('.');
        let first = self.table.get(words.next()?)?;
        words.try_fold(first, |value, word| value.get(word))
    }

    /// Replaces a name or an address.
    pub fn set(&mut self, path: &str, value: toml::Value) -> Result<()> {
        ensure!(
            REPLACEABLE.contains(&path),
            "{path} is neither a name nor an address"
        );
        self.write(path, value)
    }

    /// Changes something else, for a test about exactly that; demo and acceptance tests leave the rest as the example
    /// has it.
    pub fn change(&mut self, path: &str, value: impl Into<toml::Value>) -> Result<()> {
        self.write(path, value.into())
    }

    /// Takes something out, so that its default counts.
    pub fn remove(&mut self, path: &str) -> Result<()> {
        let (section, key) = path.split_once('.').context("a path is section.key")?;
        self.table
            .get_mut(section)
            .and_then(|section| section.as_table_mut())
            .and_then(|section| section.remove(key))
            .with_context(|| format!("there is no {path}"))
            .map(drop)
    }

    fn write(&mut self, path: &str, value: toml::Value) -> Result<()> {
        let (section, key) = path.split_once('.').context("a path is section.key")?;
        self.table
            .entry(section)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .with_context(|| format!("{section} is not a section"))?
            .insert(key.to_owned(), value);
        Ok(())
    }

    /// The text of the file.
    pub fn text(&self) -> Result<String> {
        toml::to_string(&self.table).context("a configuration that cannot be written")
    }
}

/// A running turnpike. Dropped: killed outright.
#[derive(Debug)]
pub struct Server {
    process: Process,
    configuration: PathBuf,
    socket: PathBuf,
}

/// What `turnpike stats --json` says, as far as anybody here looks at it.
#[derive(Debug, Clone, Deserialize)]
pub struct Stats {
    /// Calls there are now.
    pub calls: u64,
    /// Control connections there are now.
    pub tunnels: u64,
    /// What the control plane counted.
    #[serde(default)]
    pub control: BTreeMap<String, u64>,
    /// The workers.
    pub workers: Vec<Worker>,
    /// Verdicts of the XDP program.
    pub xdp: BTreeMap<String, u64>,
}

/// Counters of one worker.
#[derive(Debug, Clone, Deserialize)]
pub struct Worker {
    /// Its sockets.
    pub ports: Vec<Port>,
    /// Packets dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Other totals, by name.
    #[serde(default)]
    pub totals: BTreeMap<String, u64>,
}

/// Counters of one socket.
#[derive(Debug, Clone, Deserialize)]
pub struct Port {
    /// access, uplink or host.
    pub port: String,
    /// The interface.
    pub interface: String,
    /// native or generic.
    pub mode: String,
    /// Whether the driver writes into our memory itself.
    pub zero_copy: bool,
    /// Frames taken from the socket.
    pub received: u64,
    /// Frames given to the socket.
    pub transmitted: u64,
    /// Frames the kernel dropped before the socket.
    pub rx_dropped: u64,
    /// Frames the kernel dropped because the ring was full.
    pub rx_ring_full: u64,
    /// Everything else.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

impl Stats {
    /// Sum over the sockets of one port.
    pub fn port(&self, port: &str, counter: impl Fn(&Port) -> u64) -> u64 {
        self.workers
            .iter()
            .flat_map(|worker| &worker.ports)
            .filter(|socket| socket.port == port)
            .map(counter)
            .sum()
    }

    /// Packets dropped by reason, over all workers.
    pub fn drops(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for (reason, count) in self.workers.iter().flat_map(|worker| &worker.drops) {
            *all.entry(reason.clone()).or_default() += count;
        }
        all
    }

    /// Ports with their modes, each once: `access wan0: native`.
    pub fn modes(&self) -> Vec<String> {
        let mut modes: Vec<String> = self
            .workers
            .iter()
            .flat_map(|worker| &worker.ports)
            .map(|port| {
                let copy = if port.zero_copy { ", zero-copy" } else { "" };
                format!("{} {}: {}{copy}", port.port, port.interface, port.mode)
            })
            .collect();
        modes.dedup();
        modes
    }
}

impl Server {
    /// Starts `turnpike run` in `namespace` and waits until it says that it listens.
    pub fn start(namespace: &Namespace, configuration: &Configuration) -> Result<Self> {
        let directory = namespace.directory();
        let path = directory.join("turnpike.toml");
        std::fs::write(&path, configuration.text()?)?;
        // It holds passwords.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let program = binary("turnpike")?;
        run(Command::new(&program)
            .arg("check")
            .arg("--config")
            .arg(&path))
        .context("turnpike refuses the configuration")?;
        Self::again(namespace, &path)
    }

    /// Starts it with the configuration that is already there.
    fn again(namespace: &Namespace, path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let table: toml::Table = toml::from_str(&text)?;
        let run_dir = table
            .get("server")
            .and_then(|server| server.get("run_dir"))
            .and_then(toml::Value::as_str)
            .context("no server.run_dir")?;
        let mut command = namespace.command(binary("turnpike")?);
        command.arg("run").arg("--config").arg(path);
        let mut process = namespace.start("turnpike", &command)?;
        process.wait_for_line(Duration::from_secs(20), |line| line.contains("listening"))?;
        Ok(Self {
            process,
            configuration: path.to_path_buf(),
            socket: Path::new(run_dir).join("turnpike.sock"),
        })
    }

    /// Kills it outright (SIGKILL) and starts another with the same configuration.
    pub fn kill_and_restart(mut self, namespace: &Namespace) -> Result<Self> {
        self.process.kill()?;
        let path = self.configuration.clone();
        drop(self);
        Self::again(namespace, &path)
    }

    /// Runs an operator command, such as `["sessions"]`; its output as JSON.
    pub fn ask(&self, words: &[&str]) -> Result<serde_json::Value> {
        let mut command = Command::new(binary("turnpike")?);
        command
            .args(words)
            .arg("--json")
            .arg("--socket")
            .arg(&self.socket);
        let text = run(&mut command)?;
        serde_json::from_str(&text).with_context(|| format!("turnpike {words:?} said: {text}"))
    }

    /// `turnpike stats`.
    pub fn stats(&self) -> Result<Stats> {
        serde_json::from_value(self.ask(&["stats"])?).context("turnpike stats")
    }

    /// `turnpike sessions`.
    pub fn sessions(&self) -> Result<Vec<serde_json::Value>> {
        match self.ask(&["sessions"])? {
            serde_json::Value::Array(sessions) => Ok(sessions),
            other => bail!("turnpike sessions said: {other}"),
        }
    }

    /// Waits until counters of packets stand still (nothing is under way any more).
    pub fn settled(&self) -> Result<Stats> {
        let mut last = self.stats()?;
        let sum = |stats: &Stats| -> u64 {
            stats
                .workers
                .iter()
                .flat_map(|worker| &worker.ports)
                .map(|port| port.received + port.transmitted)
                .sum()
        };
        let first = last.clone();
        for _ in 0..40 {
            std::thread::sleep(Duration::from_millis(300));
            let now = self.stats()?;
            if sum(&now) == sum(&last) {
                return Ok(now);
            }
            last = now;
        }
        bail!("packets go on and on: {first:?}\nand 12 s later: {last:?}")
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        format!("{}{}", self.process.output(), self.process.errors())
    }

    /// Waits for a line of its log.
    pub fn wait_for_line(
        &mut self,
        limit: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String> {
        self.process.wait_for_line(limit, wanted)
    }

    /// Waits for a line of its log that has all of `words`. What a client was told may be written down a moment after it.
    pub fn says(&self, words: &[&str]) -> Result<()> {
        super::until("the words", Duration::from_secs(10), || {
            let log = self.log();
            let mut lines = log.lines();
            let said = lines.any(|line| words.iter().all(|word| line.contains(word)));
            Ok(said.then_some(()))
        })
        .with_context(|| format!("turnpike did not write {words:?}:\n{}", self.log()))
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// SIGTERM; how it ended.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.terminate(Duration::from_secs(15))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_and_addresses_are_replaced() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["office", "edge"] {
            let path = tree().join("examples").join(format!("{name}.toml"));
            let original: toml::Table =
                toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
            let mut made = Configuration::example(name, directory.path()).unwrap();
            assert!(made.set("network.mtu", 1200.into()).is_err());
            for (section, value) in &original {
                for key in value.as_table().into_iter().flat_map(toml::Table::keys) {
                    let path = format!("{section}.{key}");
                    if !REPLACEABLE.contains(&&*path) {
                        assert_eq!(made.get(&path), value.get(key), "{name}: {path}");
                    }
                }
            }
        }
    }
}

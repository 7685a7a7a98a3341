//! Guests: another Linux kernel (User Mode Linux), started as a program inside a namespace. Many kernels, in containers and
//! on hosting machines, come without PPP; the guest's has it, so the stock client runs there.
//!
//! The guest's root is the host's file tree, read-only, under an overlay that lives in the guest's memory: whatever it
//! writes is gone with it, but for one directory, `/host`. Its first process is this very program
//! ([`super::inside`]), which reads from that directory what to mount, load, configure and run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::netns::Namespace;
use super::process::{Follow, Process};
use super::{binary, needs};

/// One network card of a guest.
#[derive(Debug, Clone)]
pub struct Card {
    /// The device in the namespace that stands for it.
    pub interface: String,
    /// How the guest reaches that device.
    pub transport: Transport,
    /// Its address in the guest, with prefix length.
    pub address: String,
    /// The guest's default gateway, if it goes through this card.
    pub gateway: Option<String>,
    /// MTU of the guest's end; longer packets of the guest leave in fragments.
    pub mtu: u16,
}

/// How a guest's card reaches its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A tap device, which is made for the guest and goes with its namespace.
    Tap,
    /// Raw frames on a device that is there, such as one end of a veth pair.
    Raw,
}

/// What a guest shall be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its name among the laboratory's logs.
    pub name: String,
    /// Its cards: `vec0`, `vec1`, ... in the guest.
    pub cards: Vec<Card>,
    /// What it runs, by the absolute path of a program that the host has, and arguments.
    pub command: Vec<String>,
    /// Files that `/host` holds from the start.
    pub files: Vec<(String, String)>,
    /// After this time it is killed, whatever it does.
    pub limit: Duration,
}

/// What the guest's first process reads (`/host/guest.json`).
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Orders {
    pub directory: PathBuf,
    pub modules_directory: PathBuf,
    pub modules: Vec<String>,
    pub network: Vec<String>,
    pub command: Vec<String>,
}

/// What is loaded in the guest for PPP and PPTP. The client sends GRE on a raw socket, so nothing is needed for that.
const MODULES: [&str; 6] = [
    "libarc4",
    "slhc",
    "ppp_generic",
    "ppp_mppe",
    "ppp_async",
    "ppp_synctty",
];

/// The variable that names the orders of a guest's first process.
pub const ORDERS: &str = "turnpike_guest_orders";

/// Memory of a guest, which the host lends page by page.
const MEMORY: &str = "256M";

/// A running guest. Dropped: killed with every process of it.
#[derive(Debug)]
pub struct Guest {
    process: Process,
    directory: PathBuf,
    end: Instant,
    follow: Follow,
}

/// How a guest's command ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The command's exit status; 128 + signal when one killed it.
    pub status: i32,
    /// What it wrote, standard output and errors mixed.
    pub output: String,
}

impl Guest {
    /// Boots a guest in `namespace`; its command begins some seconds later.
    pub fn start(namespace: &Namespace, plan: &Plan) -> Result<Self> {
        let kernel = needs::find("linux.uml").context("no linux.uml (package user-mode-linux)")?;
        let version = super::process::run(Command::new(&kernel).arg("--version"))?;
        let modules_directory = Path::new("/usr/lib/uml/modules").join(version.trim());
        ensure!(
            modules_directory.is_dir(),
            "no modules for the guest's kernel in {}",
            modules_directory.display()
        );
        let directory = namespace.directory().join(&plan.name);
        std::fs::create_dir_all(&directory)?;
        let words = directory.to_string_lossy();
        ensure!(
            !words.contains(|c: char| c.is_whitespace() || ",\"".contains(c)),
            "a guest's directory may hold no spaces, commas or quotes: {words}"
        );
        for (name, contents) in &plan.files {
            std::fs::write(directory.join(name), contents)?;
        }

        let mut network = vec!["link set dev lo up".to_owned()];
        let mut kernel_words = Vec::new();
        for (number, card) in plan.cards.iter().enumerate() {
            let Card {
                interface, address, ..
            } = card;
            let transport = match card.transport {
                Transport::Tap => {
                    namespace.ip(&format!("tuntap add dev {interface} mode tap"))?;
                    "tap"
                }
                Transport::Raw => "raw",
            };
            namespace.ip(&format!("link set dev {interface} up"))?;
            kernel_words.push(format!(
                "vec{number}:transport={transport},ifname={interface},depth=128,gro=1,mac={}",
                mac(namespace.name(), interface)
            ));
            network.push(format!("addr add {address} dev vec{number}"));
            network.push(format!("link set dev vec{number} mtu {} up", card.mtu));
            if let Some(gateway) = &card.gateway {
                network.push(format!("route add default via {gateway}"));
            }
        }
        let orders = Orders {
            directory: directory.clone(),
            modules_directory,
            modules: MODULES.map(str::to_owned).to_vec(),
            network,
            command: plan.command.clone(),
        };
        std::fs::write(
            directory.join("guest.json"),
            serde_json::to_string_pretty(&orders)?,
        )?;

        // A process namespace of its own: when its first process goes, every other goes with it.
        let mut command = namespace.command("unshare");
        command
            .args(["--fork", "--pid", "--kill-child=KILL", "--"])
            .arg(&kernel)
            .arg(format!("mem={MEMORY}"))
            .args(["rootfstype=hostfs", "rootflags=/", "ro"])
            .arg(format!("init={}", binary("xtask")?.display()))
            .arg(format!("uml_dir={}/", directory.display()))
            .args(["umid=uml", "con=null", "con0=null,fd:1", "ssl=null"])
            .args([
                "quiet",
                "loglevel=4",
                "noreboot",
                "panic=-1",
                "random.trust_cpu=on",
            ])
            .args(&kernel_words)
            // A word that the kernel does not know reaches its first process as an environment variable.
            .arg(format!(
                "{ORDERS}={}",
                directory.join("guest.json").display()
            ));
        let process = namespace.start(&format!("{}-console", plan.name), &command)?;
        Ok(Self {
            process,
            follow: Follow::new(&directory.join("out")),
            directory,
            end: Instant::now() + plan.limit,
        })
    }

    /// The directory that the guest sees as `/host`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What the command wrote so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.directory.join("out")).unwrap_or_default()
    }

    /// Lines that the command wrote since the last call.
    pub fn new_lines(&mut self) -> Vec<String> {
        self.follow.lines()
    }

    /// How the command ended, if it has. An error when the guest stopped without running it to its end, or its time is over.
    pub fn ended(&mut self) -> Result<Option<Ended>> {
        if self.process.ended()?.is_some() {
            let Ok(status) = std::fs::read_to_string(self.directory.join("status")) else {
                bail!(
                    "the guest stopped early:\n{}\n{}",
                    self.process.tail(),
                    self.output()
                );
            };
            return Ok(Some(Ended {
                status: status.trim().parse().context("the guest's status")?,
                output: self.output(),
            }));
        }
        let console = self.process.output();
        if console.contains("Kernel panic") {
            self.process.kill()?;
            bail!("the guest's kernel stopped:\n{console}");
        }
        if Instant::now() >= self.end {
            let tail = self.process.tail();
            self.process.kill()?;
            bail!("the guest's time was over:\n{tail}\n{}", self.output());
        }
        Ok(None)
    }

    /// Waits for the end of the command.
    pub fn wait(&mut self) -> Result<Ended> {
        loop {
            if let Some(ended) = self.ended()? {
                return Ok(ended);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A card's address: the same in every run of the same namespace and interface, local and unicast.
fn mac(namespace: &str, interface: &str) -> String {
    use sha2::Digest;
    let hash = sha2::Sha256::digest(format!("{namespace}/{interface}"));
    format!(
        "02:54:{:02x}:{:02x}:{:02x}:{:02x}",
        hash[0], hash[1], hash[2], hash[3]
    )
}

//! What runs inside a guest: its first process, and the driver of a stock PPTP client.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{FileType, Mode, makedev, mknodat};
use rustix::mount::{MountFlags, mount};
use rustix::system::RebootCommand;
use serde::{Deserialize, Serialize};

use super::guest::Orders;
use super::netns::Namespace;
use super::transfer::{self, Direction, Moved};

/// The guest's first process: sets the guest up as its orders say, runs the command, switches off. Does not return.
pub fn init(orders: &Path) -> ! {
    if let Err(error) = first_process(orders) {
        report(&format!("guest: {error:#}"));
    }
    rustix::fs::sync();
    // Nothing is left to do should the kernel refuse: the guest's time limit ends it then.
    let _ = rustix::system::reboot(RebootCommand::PowerOff);
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn report(text: &str) {
    // The console is standard output here.
    let mut console = std::io::stdout();
    let _ = writeln!(console, "{text}");
}

fn first_process(orders: &Path) -> Result<()> {
    let orders: Orders = serde_json::from_slice(&fs::read(orders).context("the orders")?)?;
    let overlay = orders
        .modules_directory
        .join("kernel/fs/overlayfs/overlay.ko");
    let module = File::open(&overlay).with_context(|| overlay.display().to_string())?;
    rustix::system::finit_module(&module, c"", 0).context("no overlay file system")?;

    attach("tmpfs", "/mnt", "tmpfs", "size=80%")?;
    for name in ["upper", "work", "root"] {
        fs::create_dir(Path::new("/mnt").join(name))?;
    }
    attach(
        "overlay",
        "/mnt/root",
        "overlay",
        "lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work",
    )?;
    rustix::process::chdir("/mnt/root")?;
    rustix::process::chroot(".")?;
    for (kind, target, data) in [
        ("proc", "/proc", ""),
        ("sysfs", "/sys", ""),
        ("devtmpfs", "/dev", ""),
        ("devpts", "/dev/pts", "ptmxmode=0666,mode=620,gid=5"),
        ("tmpfs", "/dev/shm", ""),
        ("tmpfs", "/run", "mode=755"),
        // Not /tmp: the project itself may lie there, and the overlay takes what is written.
        ("hostfs", "/host", &orders.directory.to_string_lossy()),
    ] {
        fs::create_dir_all(target)?;
        attach(kind, target, kind, data)?;
    }
    symlink("/proc/self/fd", "/dev/fd")?;
    fs::create_dir_all("/lib/modules")?;
    if let Some(version) = orders.modules_directory.file_name() {
        let link = Path::new("/lib/modules").join(version);
        if !link.exists() {
            symlink(&orders.modules_directory, link)?;
        }
    }

    let environment = [
        (
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ),
        ("HOME", "/root"),
        ("LANG", "C.UTF-8"),
    ];
    let mut modprobe = Command::new("/sbin/modprobe");
    super::process::run(modprobe.arg("-a").args(&orders.modules).envs(environment))?;
    if !Path::new("/dev/ppp").exists() {
        mknodat(
            rustix::fs::CWD,
            "/dev/ppp",
            FileType::CharacterDevice,
            Mode::RUSR | Mode::WUSR,
            makedev(108, 0),
        )?;
    }
    // A guest gets its processor in slices; what arrives in between has to wait somewhere, or the stock client, which
    // waits 300 ms for every packet that it misses, crawls.
    for (name, value) in [
        ("rmem_max", "8388608"),
        ("rmem_default", "8388608"),
        ("netdev_max_backlog", "10000"),
    ] {
        fs::write(Path::new("/proc/sys/net/core").join(name), value)?;
    }
    fs::write("/run/network", orders.network.join("\n") + "\n")?;
    super::process::run(
        Command::new("ip")
            .args(["-batch", "/run/network"])
            .envs(environment),
    )?;

    let out = File::create("/host/out")?;
    let (program, arguments) = orders.command.split_first().context("no command")?;
    let status = Command::new(program)
        .args(arguments)
        .envs(environment)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .status()
        .with_context(|| format!("cannot start {program}"))?;
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    fs::write("/host/status", format!("{code}\n"))?;
    Ok(())
}

fn attach(source: &str, target: &str, kind: &str, data: &str) -> Result<()> {
    let data = std::ffi::CString::new(data)?;
    mount(source, target, kind, MountFlags::empty(), data.as_c_str())
        .with_context(|| format!("cannot mount {kind} at {target}"))
}

/// One call of the stock client, as `/host/call.json` orders it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StockCall {
    /// Outer address of the server.
    pub server: String,
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
    /// The only way to log in that pppd does not refuse.
    #[serde(default)]
    pub login: Login,
    /// Options for pppd, such as `require-mppe-128` or `mtu 1400`.
    pub options: Vec<String>,
    /// A network behind the server, reached through the tunnel (`198.51.100.0/24`).
    pub route: Option<String>,
    /// Whom to ping, if anybody.
    pub ping: Option<String>,
    /// How many pings, 100 ms apart.
    pub pings: u32,
    /// Ping once before dialling too, to show that there is no other way.
    pub ping_before: bool,
    /// What to move through the tunnel, one after the other.
    pub moves: Vec<Move>,
    /// Who ends the call.
    pub end: End,
}

/// How pppd logs in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Login {
    /// PAP (RFC 1334).
    Pap,
    /// CHAP with MD5 (RFC 1994).
    ChapMd5,
    /// MS-CHAPv1 (RFC 2433).
    MsChapV1,
    /// MS-CHAPv2 (RFC 2759).
    #[default]
    MsChapV2,
}

impl Login {
    /// All that pppd has, but for EAP.
    pub const ALL: [Self; 4] = [Self::Pap, Self::ChapMd5, Self::MsChapV1, Self::MsChapV2];

    /// pppd's option against it.
    const fn refusal(self) -> &'static str {
        match self {
            Self::Pap => "refuse-pap",
            Self::ChapMd5 => "refuse-chap",
            Self::MsChapV1 => "refuse-mschap",
            Self::MsChapV2 => "refuse-mschap-v2",
        }
    }
}

/// One stream to move.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Move {
    /// Where a [`transfer::Hall`] listens.
    pub to: std::net::SocketAddr,
    /// Seen from the guest.
    pub direction: Direction,
    /// How much.
    pub bytes: u64,
    /// What stands in the stream again and again.
    pub marker: String,
}

/// Who ends a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// pppd is told to hang up.
    Client,
    /// The guest waits until the server hangs up.
    Server,
}

/// What the driver writes, one JSON object a line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// pppd says that the call is up.
    Up {
        /// From pppd's start, in milliseconds.
        setup_ms: u64,
        /// The guest's inner address.
        address: String,
        /// The server's inner address.
        server_address: String,
        /// MTU of the interface.
        mtu: u32,
    },
    /// A ping was tried before dialling.
    Before {
        /// An answer came: there is a way beside the tunnel.
        reached: bool,
    },
    /// The call did not come up.
    Failed {
        /// pppd's exit status, if it ended by itself.
        status: Option<i32>,
    },
    /// Pings were sent.
    Pinged {
        /// How many.
        sent: u32,
        /// How many answers came.
        received: u32,
        /// Average round trip in milliseconds.
        average_ms: f64,
    },
    /// A stream is on its way.
    Moving {
        /// Which of the moves, from 0.
        number: usize,
        /// How many octets so far.
        bytes: u64,
    },
    /// A stream has been moved.
    Moved {
        /// Which of the moves, from 0.
        number: usize,
        /// What this end saw.
        moved: Moved,
    },
    /// The call is over.
    Down {
        /// pppd's exit status: 5 when it was told to hang up, 16 when the other side did.
        status: Option<i32>,
        /// From the wish to hang up, or from the end of the last move, in milliseconds.
        after_ms: u64,
    },
}

/// Runs one call of the stock client as `orders` says; writes [`News`] to standard output. pppd's own log is
/// `/host/pppd.log`.
pub fn call(orders: &Path) -> Result<()> {
    let call: StockCall = serde_json::from_slice(&fs::read(orders)?)?;
    if call.ping_before
        && let Some(target) = &call.ping
    {
        let (received, _) = ping(target, 1)?;
        say(&News::Before {
            reached: received > 0,
        });
    }
    let mut options = vec![
        "noauth".to_owned(),
        format!("user {}", quoted(&call.user)),
        format!("password {}", quoted(&call.password)),
        format!("pty \"pptp {} --nolaunchpppd\"", call.server),
        "nodetach".to_owned(),
        "debug".to_owned(),
        "logfile /host/pppd.log".to_owned(),
        "lock".to_owned(),
        "noipdefault".to_owned(),
        "nodefaultroute".to_owned(),
        "nobsdcomp".to_owned(),
        "nodeflate".to_owned(),
        "novj".to_owned(),
        "novjccomp".to_owned(),
    ];
    let refused = Login::ALL.iter().filter(|login| **login != call.login);
    options.push("refuse-eap".to_owned());
    options.extend(refused.map(|login| login.refusal().to_owned()));
    let text: String = options
        .iter()
        .chain(&call.options)
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write("/run/call-options", text)?;
    let began = Instant::now();
    let pppd_out = File::create("/host/pppd.out")?;
    let mut pppd = Command::new("pppd")
        .args(["file", "/run/call-options"])
        .stdin(Stdio::null())
        .stdout(pppd_out.try_clone()?)
        .stderr(pppd_out)
        .spawn()
        .context("cannot start pppd")?;
    let (address, server_address) = loop {
        if let Some(status) = pppd.try_wait()? {
            say(&News::Failed {
                status: status.code(),
            });
            bail!("pppd ended: {status}");
        }
        if let Some(pair) = addresses("ppp0")? {
            break pair;
        }
        if began.elapsed() > Duration::from_secs(25) {
            say(&News::Failed { status: None });
            bail!("the call is not up after 25 s");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mtu = fs::read_to_string("/sys/class/net/ppp0/mtu")?
        .trim()
        .parse()?;
    say(&News::Up {
        setup_ms: millis(began),
        address,
        server_address,
        mtu,
    });
    if let Some(route) = &call.route {
        super::process::run(Command::new("ip").args(["route", "replace", route, "dev", "ppp0"]))?;
    }
    if let Some(target) = &call.ping {
        let (received, average_ms) = ping(target, call.pings)?;
        say(&News::Pinged {
            sent: call.pings,
            received,
            average_ms,
        });
    }
    for (number, order) in call.moves.iter().enumerate() {
        let mut last = Instant::now();
        let moved = transfer::run(
            order.to,
            order.direction,
            order.bytes,
            &order.marker,
            &mut |bytes| {
                if last.elapsed() > Duration::from_millis(250) {
                    last = Instant::now();
                    say(&News::Moving { number, bytes });
                }
            },
        )?;
        say(&News::Moved { number, moved });
    }
    let ending = Instant::now();
    if call.end == End::Client {
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&pppd),
            rustix::process::Signal::TERM,
        )?;
    }
    loop {
        if let Some(status) = pppd.try_wait()? {
            say(&News::Down {
                status: status.code(),
                after_ms: millis(ending),
            });
            return Ok(());
        }
        if ending.elapsed() > Duration::from_secs(60) {
            bail!("the call did not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn say(news: &News) {
    if let Ok(line) = serde_json::to_string(news) {
        report(&line);
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// As pppd's option files want it.
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Local and remote address of a point-to-point interface, once it has both and is up.
fn addresses(interface: &str) -> Result<Option<(String, String)>> {
    if !Path::new("/sys/class/net").join(interface).exists() {
        return Ok(None);
    }
    let output = Command::new("ip")
        .args(["-4", "-o", "addr", "show", "up", "dev", interface])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let words: Vec<&str> = text.split_whitespace().collect();
    let after = |word: &str| {
        let at = words.iter().position(|candidate| *candidate == word)?;
        let value = words.get(at + 1)?;
        Some(value.split('/').next().unwrap_or(value).to_owned())
    };
    Ok(after("inet").zip(after("peer")))
}

fn ping(target: &str, count: u32) -> Result<(u32, f64)> {
    pings(&mut Command::new("ping"), target, count)
}

/// Pings `target` from inside `namespace`; how many answers came, and their average round trip in milliseconds.
pub fn ping_from(namespace: &Namespace, target: &str, count: u32) -> Result<(u32, f64)> {
    pings(&mut namespace.command("ping"), target, count)
}

fn pings(command: &mut Command, target: &str, count: u32) -> Result<(u32, f64)> {
    let output = command
        .args([
            "-n",
            "-q",
            "-i",
            "0.1",
            "-W",
            "2",
            "-c",
            &count.to_string(),
            target,
        ])
        .stdin(Stdio::null())
        .output()
        .context("cannot start ping")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("unreachable") {
        // No route: ping gives up before its first packet.
        return Ok((0, 0.0));
    }
    read_ping(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| format!("ping said nothing of use: {errors}"))
}

/// The numbers of ping's last two lines.
pub fn read_ping(text: &str) -> Option<(u32, f64)> {
    let line = text.lines().find(|line| line.contains("transmitted"))?;
    let received = line
        .split(',')
        .find(|part| part.contains("received"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()?;
    let average = text
        .lines()
        .find(|line| line.starts_with("rtt"))
        .and_then(|line| line.split('=').nth(1))
        .and_then(|times| times.split('/').nth(1))
        .and_then(|word| word.trim().parse().ok())
        .unwrap_or(0.0);
    Some((received, average))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ping_is_read_with_and_without_answers() {
        let good = "PING 10.0.0.1 (10.0.0.1) 56(84) bytes of data.\n\n--- 10.0.0.1 ping statistics ---\n\
                    5 packets transmitted, 4 received, 20% packet loss, time 402ms\n\
                    rtt min/avg/max/mdev = 0.031/0.046/0.062/0.011 ms\n";
        assert_eq!(read_ping(good), Some((4, 0.046)));
        let lost = "3 packets transmitted, 0 received, +3 errors, 100% packet loss, time 2050ms\n";
        assert_eq!(read_ping(lost), Some((0, 0.0)));
        assert_eq!(read_ping("ping: unknown host"), None);
    }

    #[test]
    fn option_files_get_their_quotes() {
        assert_eq!(quoted(r#"a "b\"#), r#""a \"b\\""#);
    }
}

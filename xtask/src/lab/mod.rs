//! A laboratory of network namespaces, processes and guests that leaves nothing behind.
//!
//! Everything made here is written down in a list ([`undo`]) as it is made, and is unmade when its guard is dropped,
//! when the process gets SIGINT, SIGTERM or SIGHUP, or, should it have been killed outright, when the next one starts.
//! Everything needs root.

pub mod capture;
pub mod dial;
pub mod freeradius;
pub mod guest;
pub mod inside;
pub mod needs;
pub mod netns;
pub mod process;
pub mod road;
pub mod server;
pub mod stock;
pub mod stock_server;
pub mod transfer;
pub mod undo;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// The root of the source tree.
pub fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("/"))
}

/// The programs that the laboratory runs, and the packages that build them.
const PROGRAMS: [(&str, &str); 2] = [
    ("turnpike", "turnpike-controlplane"),
    ("turnpike-bench", "turnpike-bench"),
];

/// Where `name` ("turnpike", "turnpike-bench" or "xtask") lies: in the directory `TURNPIKE_BIN_DIR` when that is set,
/// else in the target directory. What is asked for first is built first, so that nothing old is ever tested: optimised
/// for `cargo xtask`, as the tests themselves were built for tests.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("path of this program")?;
    if name == "xtask" && own.file_name().is_some_and(|file| file == name) {
        return Ok(own);
    }
    if let Some(directory) = std::env::var_os("TURNPIKE_BIN_DIR") {
        let path = PathBuf::from(directory).join(name);
        if path.is_file() {
            return path.canonicalize().context("TURNPIKE_BIN_DIR");
        }
    }
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let directory = BUILT
        .get_or_init(|| {
            let release =
                is_xtask(&own) || own.parent().is_some_and(|d| d.ends_with("release/deps"));
            build(release)
                .and_then(|()| target(release))
                .map_err(|error| format!("{error:#}"))
        })
        .as_ref()
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let path = directory.join(name);
    ensure!(path.is_file(), "{} is not there", path.display());
    Ok(path)
}

fn is_xtask(own: &Path) -> bool {
    own.file_name().is_some_and(|file| file == "xtask")
}

/// The directory where cargo leaves programs.
pub fn target(release: bool) -> Result<PathBuf> {
    let own = std::env::current_exe().context("path of this program")?;
    // target/debug/xtask or target/debug/deps/linux_client-0123456789abcdef
    let mut directory = own.parent().context("this program lies nowhere")?;
    if directory.ends_with("deps") {
        directory = directory.parent().context("no directory above deps")?;
    }
    let target = directory.parent().context("no target directory")?;
    Ok(target.join(if release { "release" } else { "debug" }))
}

/// Builds turnpike and turnpike-bench, and for tests xtask; what cargo says is shown.
pub fn build(release: bool) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(tree())
        .args(["build", "--locked", "--bins"]);
    // Whoever watches sees cargo's own progress; a log wants none of it.
    if !std::io::stderr().is_terminal() {
        command.arg("--quiet");
    }
    for (_, package) in PROGRAMS {
        command.args(["-p", package]);
    }
    if !is_xtask(&std::env::current_exe()?) {
        command.args(["-p", "xtask"]);
    }
    if release {
        command.arg("--release");
    }
    let status = command
        .stdin(Stdio::null())
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("the programs under test do not build");
    }
    Ok(())
}

/// Asks `probe` every 20 ms until it gives something, at most for `limit`; `what` names it in the error.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("{what}: not within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

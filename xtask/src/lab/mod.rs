//! A laboratory of network namespaces, processes and guests that leaves nothing behind.
//!
//! Everything made here is written down in a list ([`undo`]) as it is made, and is unmade when its guard is dropped,
//! when the process gets SIGINT, SIGTERM or SIGHUP, or, should it have been killed outright, when the next one starts.
//! Everything needs root.

pub mod capture;
pub mod guest;
pub mod inside;
pub mod needs;
pub mod netns;
pub mod process;
pub mod transfer;
pub mod undo;

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
const PROGRAMS: [(&str, &str); 3] = [
    ("turnpike", "turnpike-controlplane"),
    ("turnpike-bench", "turnpike-bench"),
    ("xtask", "xtask"),
];

/// Where `name` ("turnpike", "turnpike-bench" or "xtask") lies: in the directory `TURNPIKE_BIN_DIR` when that is set,
/// else in the target directory that the running program came from, where it is built first when it is not up to date.
pub fn binary(name: &str) -> Result<PathBuf> {
    static DIRECTORY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let directory = DIRECTORY
        .get_or_init(|| directory_of_programs().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let path = directory.join(name);
    ensure!(
        path.is_file(),
        "{} is not there: build it first",
        path.display()
    );
    Ok(path)
}

fn directory_of_programs() -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os("TURNPIKE_BIN_DIR") {
        let directory = PathBuf::from(directory);
        return directory
            .canonicalize()
            .with_context(|| format!("TURNPIKE_BIN_DIR is {}", directory.display()));
    }
    let own = std::env::current_exe().context("path of this program")?;
    // target/debug/xtask or target/debug/deps/linux_client-0123456789abcdef
    let mut directory = own.parent().context("this program lies nowhere")?;
    if directory.ends_with("deps") {
        directory = directory.parent().context("no directory above deps")?;
        let release = directory.ends_with("release");
        build(release)?;
    }
    Ok(directory.to_path_buf())
}

/// Builds turnpike, turnpike-bench and xtask; what cargo says is shown.
pub fn build(release: bool) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(tree()).arg("build").arg("--bins");
    for (_, package) in PROGRAMS {
        command.args(["-p", package]);
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

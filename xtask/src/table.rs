//! `cargo xtask table`: the README's table of clients, written anew by the test that plays them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Tells the test to write the table rather than to compare it.
const WRITE: &str = "TURNPIKE_WRITE_TABLE";

/// Runs the test; its own words go where ours go.
pub fn run(root: &Path) -> Result<()> {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(root)
        .env(WRITE, "1")
        .args([
            "test",
            "--quiet",
            "-p",
            "turnpike-tests",
            "--test",
            "client_profiles",
            "every_client",
        ])
        .status()
        .context("cannot start cargo")?;
    ensure!(
        status.success(),
        "a client did not get in: the table stays as it was"
    );
    Ok(())
}

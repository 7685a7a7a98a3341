//! House rules as a test: which crate may use which, where `unsafe` may stand, how long a file may get.
//!
//! Everything is read from manifests and tracked files; nothing is built.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Who may depend on whom inside the house; `xtask` is a library for `tests` and depends on no part of the product.
const ARROWS: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("ebpf", &[]),
    ("dataplane", &["turnpike-protocol", "turnpike-ebpf"]),
    ("controlplane", &["turnpike-protocol", "turnpike-dataplane"]),
    ("bench/ebpf", &[]),
    (
        "bench",
        &[
            "turnpike-protocol",
            "turnpike-dataplane",
            "turnpike-bench-ebpf",
        ],
    ),
    ("xtask", &[]),
    (
        "tests",
        &[
            "turnpike-protocol",
            "turnpike-ebpf",
            "turnpike-dataplane",
            "turnpike-controlplane",
            "turnpike-bench",
            "turnpike-bench-ebpf",
            "xtask",
        ],
    ),
];

/// Where the lint against `unsafe` may be lifted: AF_XDP rings, cipher kernels, allocators that count in tests, and
/// a C library in a benchmark. (Programs for the kernel have lints of their own.)
const UNSAFE_ROOMS: &[&str] = &[
    "dataplane/src/xsk/",
    "dataplane/src/cipher/",
    "bench/benches/cipher/linux.rs",
    "bench/benches/cipher/openssl.rs",
    "dataplane/tests/no_alloc.rs",
    "controlplane/tests/memory.rs",
];

/// Lines of a source file at most.
const MAX_LINES: usize = 600;

/// Licences that a dependency may come under.
const LICENCES: &[&str] = &[
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "CC0-1.0",
    "Unlicense",
    "BSL-1.0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "NCSA",
];

/// Runs `cargo xtask tidy`: all faults at once, or how much was looked at.
pub fn run(root: &Path) -> Result<String> {
    let files = tracked(root)?;
    let mut faults = Vec::new();
    arrows(root, &mut faults)?;
    for name in &files {
        // A tracked file may be deleted in the working tree.
        if let Ok(text) = fs::read_to_string(root.join(name)) {
            file(name, &text, &mut faults);
        }
    }
    licences(root, &mut faults)?;
    if let Err(error) = crate::ebpf::check_record(root) {
        faults.push(format!("{error:#}"));
    }
    ensure!(
        faults.is_empty(),
        "{} faults:\n  {}",
        faults.len(),
        faults.join("\n  ")
    );
    Ok(format!(
        "{} files and {} crates in order",
        files.len(),
        ARROWS.len()
    ))
}

fn tracked(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("git")
        .current_dir(root)
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .output()
        .context("cannot start git")?;
    ensure!(
        output.status.success(),
        "git ls-files failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let names = String::from_utf8(output.stdout).context("a file name that is not UTF-8")?;
    Ok(names.split_terminator('\0').map(str::to_owned).collect())
}

/// Dependencies inside the house, of every kind, against [`ARROWS`].
fn arrows(root: &Path, faults: &mut Vec<String>) -> Result<()> {
    let house: BTreeSet<&str> = ARROWS
        .iter()
        .flat_map(|(_, allowed)| allowed.iter().copied())
        .collect();
    for (folder, allowed) in ARROWS {
        let path = format!("{folder}/Cargo.toml");
        let text =
            fs::read_to_string(root.join(&path)).with_context(|| format!("cannot read {path}"))?;
        let manifest: toml::Table = text
            .parse()
            .with_context(|| format!("{path} is not TOML"))?;
        for used in dependencies(&manifest) {
            if house.contains(used.as_str()) && !allowed.contains(&used.as_str()) {
                faults.push(format!("{path}: {folder} must not depend on {used}"));
            }
        }
        let inherits = manifest
            .get("lints")
            .and_then(|lints| lints.get("workspace"))
            .is_some();
        if !inherits && !folder.ends_with("ebpf") {
            faults.push(format!(
                "{path}: the workspace's lints are not in force ([lints] workspace = true)"
            ));
        }
    }
    Ok(())
}

fn dependencies(manifest: &toml::Table) -> Vec<String> {
    ["dependencies", "dev-dependencies", "build-dependencies"]
        .iter()
        .filter_map(|kind| manifest.get(*kind)?.as_table())
        .flat_map(|table| table.keys().cloned())
        .collect()
}

/// Rules about one file. The words searched for are put together here so that this file keeps its own rules.
fn file(name: &str, text: &str, faults: &mut Vec<String>) {
    let rust = name.ends_with(".rs");
    if rust {
        let lines = text.lines().count();
        if lines > MAX_LINES {
            faults.push(format!(
                "{name}: {lines} lines; more than {MAX_LINES} want splitting"
            ));
        }
        let stem = Path::new(name)
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        if ["utils", "util", "common", "helpers", "misc"].contains(&stem) {
            faults.push(format!("{name}: name it after what it is about"));
        }
    }
    let lifts = [
        ["allow", "(unsafe_code"].concat(),
        ["expect", "(unsafe_code"].concat(),
    ];
    let unfinished = [
        ["to", "do!("].concat(),
        ["unimplemen", "ted!("].concat(),
        ["FIX", "ME"].concat(),
        ["#[ig", "nore"].concat(),
    ];
    let paths = [["/ro", "ot/"].concat(), ["/wo", "rk/"].concat()];
    for (index, line) in text.lines().enumerate() {
        let mut fault = |what: &str| faults.push(format!("{name}:{}: {what}", index + 1));
        if rust
            && lifts.iter().any(|lift| line.contains(lift))
            && !UNSAFE_ROOMS.iter().any(|room| name.starts_with(room))
        {
            fault("unsafe code has no place here");
        }
        if rust && unfinished.iter().any(|word| line.contains(word)) {
            fault("unfinished work");
        }
        if !name.ends_with(".lock") && paths.iter().any(|path| line.contains(path)) {
            fault("a path of somebody's machine");
        }
    }
}

/// Every package that any build could pull in, against [`LICENCES`].
fn licences(root: &Path, faults: &mut Vec<String>) -> Result<()> {
    let output = Command::new("cargo")
        .current_dir(root)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--all-features",
        ])
        .output()
        .context("cannot start cargo")?;
    ensure!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("cargo metadata is no JSON")?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;
    for package in packages {
        let name = package["name"].as_str().unwrap_or("?");
        let licence = package["license"].as_str().unwrap_or_default();
        if !allowed(licence) {
            faults.push(format!("{name}: licence {licence:?} is not one we take"));
        }
    }
    Ok(())
}

fn allowed(licence: &str) -> bool {
    let mode = spdx::ParseMode::LAX;
    spdx::Expression::parse_mode(licence, mode).is_ok_and(|expression| {
        expression.evaluate(|requirement| {
            requirement
                .license
                .id()
                .is_some_and(|id| LICENCES.contains(&id.name))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(name: &str, text: &str) -> Vec<String> {
        let mut faults = Vec::new();
        file(name, text, &mut faults);
        faults
    }

    #[test]
    fn unsafe_is_lifted_only_in_its_rooms() {
        let lift = ["#![allow", "(unsafe_code)]"].concat();
        assert_eq!(faults("dataplane/src/xsk/mod.rs", &lift), [""; 0]);
        assert_eq!(faults("dataplane/src/worker.rs", &lift).len(), 1);
    }

    #[test]
    fn long_unfinished_and_ill_named_files_are_faults() {
        assert_eq!(faults("a/b.rs", &"\n".repeat(MAX_LINES)), [""; 0]);
        assert_eq!(faults("a/b.rs", &"\n".repeat(MAX_LINES + 1)).len(), 1);
        assert_eq!(faults("a/utils.rs", "").len(), 1);
        assert_eq!(faults("a/b.rs", &["to", "do!()"].concat()).len(), 1);
        assert_eq!(faults("a.md", &["see /ro", "ot/x"].concat()).len(), 1);
    }

    #[test]
    fn copyleft_is_taken_only_where_there_is_a_choice() {
        assert!(allowed("MIT OR Apache-2.0"));
        assert!(allowed("MIT/Apache-2.0"));
        assert!(allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(allowed("MIT OR LGPL-2.1-or-later"));
        assert!(!allowed("GPL-2.0-only"));
        assert!(!allowed("MIT AND GPL-3.0-only"));
        assert!(!allowed("EUPL-1.2"));
        assert!(!allowed(""));
    }

    #[test]
    fn an_arrow_the_other_way_is_seen() {
        let manifest: toml::Table = "[dev-dependencies]\nturnpike-controlplane.workspace = true"
            .parse()
            .unwrap();
        assert_eq!(dependencies(&manifest), ["turnpike-controlplane"]);
    }
}

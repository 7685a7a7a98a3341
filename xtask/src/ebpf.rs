//! Building the programs for the kernel, and proving that the committed objects match their sources.
//!
//! The objects are committed so that nobody who builds the server needs bpf-linker or LLVM. Two checks keep it honest:
//! a cheap one (hashes of the sources and of the object, recorded beside it) that runs with every `tidy`, and a whole
//! one (`cargo xtask ebpf --check`) that builds again under the pinned toolchain and compares what the kernel would
//! load: instructions, relocations, maps and licence, but not debug information, which holds paths.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use object::{Object, ObjectSection, ObjectSymbol};
use sha2::{Digest, Sha256};

/// The linker's version: it opens rustc's own LLVM, so it goes with the pinned toolchain.
const BPF_LINKER: &str = "0.10.3";
const TARGET: &str = "bpfel-unknown-none";

/// One object.
struct Program {
    package: &'static str,
    bin: &'static str,
    object: &'static str,
    record: &'static str,
    /// What the object is made of. The lock file is left out: it changes for reasons that do not concern the program, and
    /// the one dependency is pinned in the manifest.
    sources: &'static [&'static str],
    /// A section that must be there.
    section: &'static str,
}

const PROGRAMS: &[Program] = &[
    Program {
        package: "turnpike-ebpf",
        bin: "pptp",
        object: "ebpf/pptp.bpf.o",
        record: "ebpf/pptp.bpf.sha256",
        sources: &[
            "ebpf/src/main.rs",
            "ebpf/src/lib.rs",
            "ebpf/Cargo.toml",
            "rust-toolchain.toml",
        ],
        section: "xdp",
    },
    Program {
        package: "turnpike-bench-ebpf",
        bin: "road",
        object: "bench/ebpf/road.bpf.o",
        record: "bench/ebpf/road.bpf.sha256",
        sources: &[
            "bench/ebpf/src/main.rs",
            "bench/ebpf/src/lib.rs",
            "bench/ebpf/Cargo.toml",
            "rust-toolchain.toml",
        ],
        section: "classifier",
    },
];

/// The exit status of `cargo xtask ebpf` when a tool is missing, so that nothing was compared: neither success nor the
/// failure of the check.
pub const MISSING_TOOL: u8 = 3;

/// A tool that is not there, and how to get it.
#[derive(Debug)]
pub struct Missing(String);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// Options of `cargo xtask ebpf`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Build, compare with the committed object, and change nothing; fails when they differ.
    #[arg(long)]
    pub check: bool,
}

/// Runs `cargo xtask ebpf`.
pub fn run(args: &Args, root: &Path) -> Result<()> {
    PROGRAMS
        .iter()
        .try_for_each(|program| build_or_check(program, args, root))
}

fn build_or_check(program: &Program, args: &Args, root: &Path) -> Result<()> {
    let Program { object, record, .. } = program;
    let built = build(program, root)?;
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let committed = root.join(object);
    if args.check {
        check_one(program, root)?;
        let old = fs::read(&committed).with_context(|| format!("cannot read {object}"))?;
        let parts = |bytes: &[u8]| loaded_parts(bytes, program.section);
        let (old, new) = (parts(&old)?, parts(&bytes)?);
        if old != new {
            let changed: Vec<&str> = old
                .iter()
                .filter(|(name, part)| new.get(*name) != Some(part))
                .map(|(name, _)| name.as_str())
                .chain(
                    new.keys()
                        .filter(|name| !old.contains_key(*name))
                        .map(String::as_str),
                )
                .collect();
            bail!(
                "{object} does not match its source (differs in: {}); run `cargo xtask ebpf`",
                changed.join(", ")
            );
        }
        say(&format!(
            "{object} matches its source ({} parts compared)",
            new.len()
        ));
        return Ok(());
    }
    fs::write(&committed, &bytes).with_context(|| format!("cannot write {object}"))?;
    fs::write(root.join(record), hashes(program, root)?)
        .with_context(|| format!("cannot write {record}"))?;
    say(&format!("{object} built: {} octets", bytes.len()));
    Ok(())
}

/// The cheap check: neither sources nor objects changed since they were recorded together.
pub fn check_record(root: &Path) -> Result<()> {
    PROGRAMS
        .iter()
        .try_for_each(|program| check_one(program, root))
}

fn check_one(program: &Program, root: &Path) -> Result<()> {
    let Program { object, record, .. } = program;
    let recorded =
        fs::read_to_string(root.join(record)).with_context(|| format!("cannot read {record}"))?;
    ensure!(
        recorded == hashes(program, root)?,
        "{object} or its source changed without the other; run `cargo xtask ebpf` and commit both"
    );
    Ok(())
}

fn hashes(program: &Program, root: &Path) -> Result<String> {
    let mut lines = String::new();
    for name in program.sources.iter().chain([&program.object]) {
        let bytes = fs::read(root.join(name)).with_context(|| format!("cannot read {name}"))?;
        let hash: String = Sha256::digest(&bytes)
            .iter()
            .map(|octet| format!("{octet:02x}"))
            .collect();
        lines.push_str(&format!("{hash}  {name}\n"));
    }
    Ok(lines)
}

fn build(program: &Program, root: &Path) -> Result<PathBuf> {
    let sysroot = require_tools(root)?;
    // A target folder of its own: this build has other flags, and cargo would throw away the host's work.
    let target = root.join("target/ebpf");
    // The kernel wants BTF, which wants debug information, which holds paths: they are made the same everywhere.
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
        .unwrap_or_default();
    let flags = format!(
        "-C debuginfo=2 -C link-arg=--btf --remap-path-prefix={}=turnpike --remap-path-prefix={}=cargo \
         --remap-path-prefix={}=rust",
        root.display(),
        home.display(),
        sysroot.display()
    );
    let status = Command::new("cargo")
        .current_dir(root)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", "bpf-linker")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", flags)
        .args([
            "build",
            "--quiet",
            "--package",
            program.package,
            "--bin",
            program.bin,
            "--features",
            "program",
        ])
        .args([
            "--profile",
            "bpf",
            "--target",
            TARGET,
            "-Z",
            "build-std=core",
        ])
        .arg("--target-dir")
        .arg(&target)
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "{} did not build", program.object);
    Ok(target.join(TARGET).join("bpf").join(program.bin))
}

/// Says what is missing and how to get it, before cargo says something stranger.
fn require_tools(root: &Path) -> Result<PathBuf> {
    let found = Command::new("bpf-linker").arg("--version").output();
    let version = found
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    if !version.contains(BPF_LINKER) {
        bail!(Missing(format!(
            "bpf-linker {BPF_LINKER} is missing (found: {:?}): cargo install bpf-linker --version {BPF_LINKER} --locked",
            version.trim()
        )));
    }
    let sysroot = Command::new("rustc")
        .current_dir(root)
        .args(["--print", "sysroot"])
        .output()
        .context("cannot start rustc")?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
    if !sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
        bail!(Missing(
            "the library source is missing: rustup component add rust-src".to_owned()
        ));
    }
    Ok(sysroot)
}

/// What the kernel would load, by name: section contents, with relocations resolved to symbol names.
fn loaded_parts(bytes: &[u8], wanted: &str) -> Result<BTreeMap<String, Vec<u8>>> {
    let file = object::File::parse(bytes).context("not an ELF object")?;
    let mut parts = BTreeMap::new();
    for section in file.sections() {
        let name = section.name().context("a section without a name")?;
        if name.is_empty()
            || name.starts_with(".debug")
            || name.starts_with(".rel")
            || name.starts_with(".BTF")
        {
            continue;
        }
        if matches!(
            name,
            ".symtab" | ".strtab" | ".shstrtab" | ".llvm_addrsig" | ".comment"
        ) {
            continue;
        }
        let mut part = section
            .data()
            .context("a section without contents")?
            .to_vec();
        for (offset, relocation) in section.relocations() {
            let object::RelocationTarget::Symbol(index) = relocation.target() else {
                continue;
            };
            let symbol = file
                .symbol_by_index(index)
                .context("a relocation to no symbol")?;
            part.extend_from_slice(&offset.to_le_bytes());
            part.extend_from_slice(symbol.name().unwrap_or_default().as_bytes());
        }
        parts.insert(name.to_owned(), part);
    }
    ensure!(
        parts.contains_key(wanted),
        "no section {wanted} in the object"
    );
    Ok(parts)
}

#[allow(clippy::print_stdout, reason = "the result of the command")]
fn say(line: &str) {
    println!("{line}");
}

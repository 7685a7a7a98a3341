//! Installing what was built: binaries, XDP object, configuration and systemd unit, under any root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Options of `cargo xtask deploy`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    cargo xtask deploy --root /            install on this machine, then: systemctl enable --now turnpike\n  \
    cargo xtask deploy --root /tmp/stage   make a tree to pack or to look at\n\n\
    An existing configuration is never touched: the new one is put beside it as turnpike.toml.new.")]
pub struct Args {
    /// Folder that stands for / on the machine to install on; made when it does not exist.
    #[arg(long, value_name = "DIR")]
    pub root: PathBuf,
    /// Install what `cargo build --release` left, without building again.
    #[arg(long)]
    pub no_build: bool,
}

/// What became of one file.
#[derive(Debug, PartialEq, Eq)]
pub struct Installed {
    /// Where it is, below the root.
    pub path: PathBuf,
    /// A configuration was there already; the new one stands beside it.
    pub kept_old: bool,
}

/// Where a file comes from in the project, where it goes, and who may read it.
struct Item {
    from: &'static str,
    to: &'static str,
    mode: u32,
    configuration: bool,
}

const ITEMS: &[Item] = &[
    item("target/release/turnpike", "usr/bin/turnpike", 0o755),
    item(
        "target/release/turnpike-bench",
        "usr/bin/turnpike-bench",
        0o755,
    ),
    item("ebpf/pptp.bpf.o", "usr/lib/turnpike/pptp.bpf.o", 0o644),
    item(
        "packaging/turnpike.service",
        "usr/lib/systemd/system/turnpike.service",
        0o644,
    ),
    item(
        "examples/office.toml",
        "usr/share/doc/turnpike/examples/office.toml",
        0o644,
    ),
    item(
        "examples/edge.toml",
        "usr/share/doc/turnpike/examples/edge.toml",
        0o644,
    ),
    item("README.md", "usr/share/doc/turnpike/README.md", 0o644),
    item("LICENSE-MIT", "usr/share/doc/turnpike/LICENSE-MIT", 0o644),
    item(
        "LICENSE-APACHE",
        "usr/share/doc/turnpike/LICENSE-APACHE",
        0o644,
    ),
    Item {
        from: "examples/office.toml",
        to: "etc/turnpike/turnpike.toml",
        // It holds passwords.
        mode: 0o600,
        configuration: true,
    },
];

const fn item(from: &'static str, to: &'static str, mode: u32) -> Item {
    Item {
        from,
        to,
        mode,
        configuration: false,
    }
}

/// Runs `cargo xtask deploy` for the project at `project`; returns what was installed.
pub fn run(args: &Args, project: &Path) -> Result<Vec<Installed>> {
    if !args.no_build {
        let status = Command::new("cargo")
            .current_dir(project)
            .args([
                "build",
                "--release",
                "--package",
                "turnpike-controlplane",
                "--package",
                "turnpike-bench",
            ])
            .status()
            .context("cannot start cargo")?;
        ensure!(status.success(), "the release build failed");
    }
    // All or nothing: what is missing is said before anything is written.
    for item in ITEMS {
        ensure!(
            project.join(item.from).is_file(),
            "{} is missing; run without --no-build",
            item.from
        );
    }
    ITEMS
        .iter()
        .map(|item| install(item, project, &args.root))
        .collect()
}

fn install(item: &Item, project: &Path, root: &Path) -> Result<Installed> {
    let mut to = root.join(item.to);
    let kept_old = item.configuration && to.exists();
    if kept_old {
        to.set_extension("toml.new");
    }
    let folder = to.parent().context("a file without a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    if item.configuration {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    // Written beside and renamed: a running server keeps its old binary, and nobody sees half a file.
    let partial = to.with_extension("partial");
    fs::copy(project.join(item.from), &partial)
        .with_context(|| format!("cannot write {}", partial.display()))?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(item.mode))?;
    fs::rename(&partial, &to).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(Installed { path: to, kept_old })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A project with every file that is installed, each holding its own name.
    fn project() -> tempfile::TempDir {
        let project = tempfile::tempdir().unwrap();
        for item in ITEMS {
            let path = project.path().join(item.from);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, item.from).unwrap();
        }
        project
    }

    fn deploy(project: &Path, root: &Path) -> Result<Vec<Installed>> {
        let args = Args {
            root: root.to_owned(),
            no_build: true,
        };
        run(&args, project)
    }

    #[test]
    fn installs_everything_with_its_mode_and_keeps_a_configuration() {
        let (project, root) = (project(), tempfile::tempdir().unwrap());
        deploy(project.path(), root.path()).unwrap();
        let mode = |path: &str| {
            fs::metadata(root.path().join(path))
                .unwrap()
                .permissions()
                .mode()
                & 0o777
        };
        assert_eq!(mode("usr/bin/turnpike"), 0o755);
        assert_eq!(mode("etc/turnpike/turnpike.toml"), 0o600);
        let text = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
        assert_eq!(text("usr/lib/turnpike/pptp.bpf.o"), "ebpf/pptp.bpf.o");

        fs::write(root.path().join("etc/turnpike/turnpike.toml"), "mine").unwrap();
        let again = deploy(project.path(), root.path()).unwrap();
        assert_eq!(text("etc/turnpike/turnpike.toml"), "mine");
        assert_eq!(
            text("etc/turnpike/turnpike.toml.new"),
            "examples/office.toml"
        );
        assert_eq!(
            again.iter().filter(|installed| installed.kept_old).count(),
            1
        );
    }

    #[test]
    fn writes_nothing_when_something_is_missing() {
        let (project, root) = (project(), tempfile::tempdir().unwrap());
        fs::remove_file(project.path().join("README.md")).unwrap();
        let error = deploy(project.path(), root.path()).unwrap_err();
        assert!(error.to_string().contains("README.md"), "{error}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}

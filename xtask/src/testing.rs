//! `cargo xtask test`: everything that has to hold, one stage after the other, and a summary.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::console::Console;
use crate::lab::process::Process;
use crate::lab::{build, needs, target};

/// Options of `cargo xtask test`.
#[derive(clap::Args, Debug, Clone, Default)]
#[command(after_help = "\
Installs the Debian packages that are missing, runs the demo, then formatting, lints, house rules, unit tests, and \
the tests of tests/tests: vectors, captures, scripted clients, the world test, the XDP program, veth pairs, the stock client, shutdown, abuse, \
and ten seconds of fuzzing for each parser. What a stage wrote lies in target/xtask/. Tests on network namespaces \
need root: without it they run behind sudo. The last line says how many passed and failed.\n\n\
Examples:\n  \
    cargo xtask test                       all of it\n  \
    cargo xtask test --full                more seeds, longer fuzzing, longer loss, thousands of calls\n  \
    cargo xtask test --only linux_client   one stage (repeat for more)")]
pub struct Args {
    /// More seeds, longer fuzzing and longer loss; 20,000 calls held and 2,000 at the monkey's mercy, ten minutes each
    #[arg(long)]
    pub full: bool,
    /// Run only this stage (may be repeated)
    #[arg(long, value_name = "STAGE")]
    pub only: Vec<String>,
}

/// Tests that touch nothing outside their process and may use both cores.
const PURE: [&str; 8] = [
    "vectors",
    "captures",
    "captured_peers",
    "client_profiles",
    "attempts",
    "other_servers",
    "world",
    "fuzz",
];

/// The order of stages made from `tests/tests`; others come after these, by name.
const ORDER: [&str; 19] = [
    "vectors",
    "captures",
    "captured_peers",
    "client_profiles",
    "attempts",
    "other_servers",
    "world",
    "xdp_program",
    "ports",
    "veth",
    "hundred_calls",
    "reordering",
    "outages",
    "capture",
    "laboratory",
    "linux_client",
    "linux_mppe",
    "shutdown",
    "abuse",
];

/// No stage takes longer, however slow the machine.
const LIMIT: Duration = Duration::from_secs(40 * 60);

/// Something to run.
#[derive(Debug)]
struct Stage {
    name: String,
    command: Command,
    /// It prints cargo's `test result:` lines; otherwise it counts as one test.
    counts: bool,
}

/// How a stage ended.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    name: String,
    passed: u64,
    failed: u64,
    seconds: u64,
}

/// Runs `cargo xtask test`; whether everything passed.
pub fn run(args: &Args, root: &Path) -> Result<bool> {
    let console = Console::new(false);
    let began = Instant::now();
    let wanted: Vec<needs::Need> = [
        needs::NAMESPACES,
        needs::GUESTS,
        needs::STOCK_SERVER,
        needs::CAPTURES,
        needs::LOSSES,
        needs::PREFIXES,
        needs::RADIUS,
    ]
    .concat();
    needs::install(&wanted, &mut |line| console.line(line))?;
    if !needs::is_root() {
        // Asked for now, in the foreground; later nothing can ask.
        let status = needs::as_root("true")?.status()?;
        if !status.success() {
            bail!("tests on network namespaces need root, and sudo refused");
        }
    }
    console.line("building (release for the demo, then the tests)");
    build(true)?;
    let logs = root.join("target/xtask");
    fs::create_dir_all(&logs)?;
    let mut results = Vec::new();
    for stage in stages(args, root)? {
        if !args.only.is_empty() && !args.only.contains(&stage.name) {
            continue;
        }
        results.push(run_stage(stage, &logs, console)?);
    }
    if results.is_empty() {
        bail!("no stage is called {}", args.only.join(" or "));
    }
    let (table, passed, failed) = summary(&results);
    console.line("");
    console.line(table);
    let seconds = began.elapsed().as_secs();
    console.line(format!("{} min {} s in all", seconds / 60, seconds % 60));
    console.line(format!("{passed} passed, {failed} failed"));
    Ok(failed == 0)
}

fn stages(args: &Args, root: &Path) -> Result<Vec<Stage>> {
    let mut stages = Vec::new();
    let mut demo = if needs::is_root() {
        Command::new(std::env::current_exe()?)
    } else {
        let mut command = Command::new("sudo");
        command.args(["-n", "--preserve-env", "--"]);
        command.arg(std::env::current_exe()?);
        command
    };
    demo.arg("demo").env("TURNPIKE_BIN_DIR", target(true)?);
    stages.push(Stage {
        name: "demo".to_owned(),
        command: demo,
        counts: false,
    });
    for (name, words) in [
        ("rustfmt", &["fmt", "--all", "--check"][..]),
        (
            "clippy",
            &[
                "clippy",
                "--workspace",
                "--all-targets",
                "--locked",
                "--",
                "-D",
                "warnings",
            ],
        ),
        (
            "tidy",
            &["run", "--quiet", "--package", "xtask", "--", "tidy"],
        ),
        (
            "build",
            &["build", "--workspace", "--all-targets", "--locked"],
        ),
    ] {
        stages.push(Stage {
            name: name.to_owned(),
            command: cargo(root, words),
            counts: false,
        });
    }
    let mut unit = cargo(
        root,
        &[
            "test",
            "--workspace",
            "--exclude",
            "turnpike-tests",
            "--locked",
            "--no-fail-fast",
        ],
    );
    environment(&mut unit, args)?;
    stages.push(Stage {
        name: "unit".to_owned(),
        command: unit,
        counts: true,
    });
    let mut helpers = cargo(root, &["test", "-p", "turnpike-tests", "--locked", "--lib"]);
    environment(&mut helpers, args)?;
    stages.push(Stage {
        name: "helpers".to_owned(),
        command: helpers,
        counts: true,
    });
    for name in tests(&root.join("tests/tests"))? {
        let mut command = cargo(
            root,
            &[
                "test",
                "-p",
                "turnpike-tests",
                "--locked",
                "--test",
                &name,
                "--",
                "--nocapture",
            ],
        );
        if !PURE.contains(&&*name) {
            // Two tests that load both cores at once measure each other.
            command.arg("--test-threads=1");
        }
        environment(&mut command, args)?;
        stages.push(Stage {
            name,
            command,
            counts: true,
        });
    }
    Ok(stages)
}

fn cargo(root: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(words);
    command
}

/// What tests read from their environment; the test binaries run behind sudo where that is needed.
fn environment(command: &mut Command, args: &Args) -> Result<()> {
    let (fuzz, seeds, loss) = if args.full {
        ("60", "10000", "600")
    } else {
        ("10", "1000", "20")
    };
    // Where nothing is said, tests are content with little.
    if args.full {
        command
            .env("TURNPIKE_HOLD_CALLS", "20000")
            .env("TURNPIKE_HOLD_SECONDS", "600")
            .env("TURNPIKE_MONKEY_CALLS", "2000")
            .env("TURNPIKE_MONKEY_SECONDS", "600")
            .env("TURNPIKE_ACCOUNTED_CALLS", "1000")
            .env("TURNPIKE_ACCOUNTING_OUTAGE", "180");
    }
    command
        .env("TURNPIKE_FUZZ_SECONDS", fuzz)
        .env("TURNPIKE_WORLDS", seeds)
        .env("TURNPIKE_LOSS_SECONDS", loss)
        .env("TURNPIKE_BIN_DIR", target(false)?)
        .env("RUST_BACKTRACE", "0");
    if !needs::is_root() {
        let runner = format!(
            "CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUNNER",
            std::env::consts::ARCH.to_uppercase()
        );
        command.env(runner, "sudo -n --preserve-env");
    }
    Ok(())
}

/// Names of the test programs in `directory`, in the order in which they run.
fn tests(directory: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .with_context(|| format!("cannot read {}", directory.display()))?
        .flatten()
        .map(|entry| PathBuf::from(entry.file_name()))
        .filter(|file| file.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned()))
        .collect();
    let place = |name: &String| {
        ORDER
            .iter()
            .position(|known| known == name)
            .unwrap_or(ORDER.len())
    };
    names.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.cmp(b)));
    Ok(names)
}

fn run_stage(stage: Stage, logs: &Path, console: Console) -> Result<Ended> {
    let began = Instant::now();
    let spinner = console.spinner(&stage.name);
    let mut process = Process::start(&stage.name, &stage.command, logs)?;
    let status = process.wait(LIMIT);
    spinner.finish_and_clear();
    let text = format!("{}\n{}", process.output(), process.errors());
    let good = matches!(&status, Ok(status) if status.success());
    let (mut passed, mut failed) = if stage.counts {
        count(&text)
    } else {
        (u64::from(good), u64::from(!good))
    };
    if !good && failed == 0 {
        // It did not even build, or a test ended the whole program.
        failed = 1;
    }
    if good && passed == 0 {
        passed = 1;
    }
    let seconds = began.elapsed().as_secs();
    let word = if failed == 0 { "ok" } else { "FAILED" };
    console.line(format!(
        "{:<16} {word:<7} {passed:>4} passed {failed:>3} failed {seconds:>5} s",
        stage.name
    ));
    if failed > 0 {
        console.line(excerpt(&text));
        console.line(format!(
            "all of it: {}/{}.out and .err",
            logs.display(),
            stage.name
        ));
    }
    Ok(Ended {
        name: stage.name,
        passed,
        failed,
        seconds,
    })
}

/// Sums cargo's `test result:` lines.
fn count(text: &str) -> (u64, u64) {
    let number = |line: &str, word: &str| -> u64 {
        line.split(['.', ';'])
            .filter_map(|part| part.trim().strip_suffix(word))
            .find_map(|part| part.trim().parse().ok())
            .unwrap_or(0)
    };
    text.lines()
        .filter_map(|line| line.strip_prefix("test result: "))
        .fold((0, 0), |(passed, failed), line| {
            (
                passed + number(line, "passed"),
                failed + number(line, "failed"),
            )
        })
}

/// The lines of a failed stage that say most.
fn excerpt(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.ends_with("... ok"))
        .collect();
    lines[lines.len().saturating_sub(40)..]
        .iter()
        .map(|line| format!("    {line}\n"))
        .collect()
}

fn summary(results: &[Ended]) -> (String, u64, u64) {
    let mut table = format!(
        "{:<16} {:>7} {:>7} {:>7}\n",
        "stage", "passed", "failed", "time"
    );
    let (mut passed, mut failed) = (0, 0);
    for result in results {
        passed += result.passed;
        failed += result.failed;
        table += &format!(
            "{:<16} {:>7} {:>7} {:>5} s\n",
            result.name, result.passed, result.failed, result.seconds
        );
    }
    (table, passed, failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_programs_are_summed() {
        let text = "running 3 tests\n\
                    test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                    test result: FAILED. 12 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\n";
        assert_eq!(count(text), (15, 1));
        assert_eq!(count("error: could not compile"), (0, 0));
    }

    #[test]
    fn every_test_program_is_a_stage_in_a_sensible_order() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["abuse.rs", "another.rs", "vectors.rs", "notes.md"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        assert_eq!(
            super::tests(directory.path()).unwrap(),
            ["vectors", "abuse", "another"]
        );
    }

    #[test]
    fn the_summary_adds_up() {
        let result = |name: &str, passed, failed| Ended {
            name: name.to_owned(),
            passed,
            failed,
            seconds: 1,
        };
        let (table, passed, failed) = summary(&[result("demo", 1, 0), result("unit", 40, 2)]);
        assert_eq!((passed, failed), (41, 2));
        assert_eq!(table.lines().count(), 3);
    }

    #[test]
    fn a_stage_that_cannot_run_fails_and_one_that_runs_passes() {
        let directory = tempfile::tempdir().unwrap();
        let stage = |script: &str, counts| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            let stage = Stage {
                name: "stage".to_owned(),
                command,
                counts,
            };
            let result = run_stage(stage, directory.path(), Console::new(true)).unwrap();
            (result.passed, result.failed)
        };
        assert_eq!(stage("true", false), (1, 0));
        assert_eq!(stage("false", false), (0, 1));
        assert_eq!(stage("exit 101", true), (0, 1));
        assert_eq!(
            stage(
                "echo 'test result: ok. 4 passed; 0 failed; 0 ignored'",
                true
            ),
            (4, 0)
        );
        assert_eq!(
            stage(
                "echo 'test result: ok. 4 passed; 0 failed; 0 ignored'; exit 1",
                true
            ),
            (4, 1)
        );
    }
}

//! `cargo xtask fuzz`: the fuzz targets of `tests` for as long as one likes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::console::Console;
use crate::lab::process::Process;

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args, Debug, Clone)]
#[command(after_help = "\
Each target is given octets that are made from its seeds, and new ones from those that made something new happen. What breaks \
it is made shorter and saved in tests/regressions/TARGET/, which the ordinary tests replay from then on: commit the file \
with the repair. As many targets run at once as there are processors. What a target wrote lies in target/xtask/.\n\n\
Examples:\n  \
    cargo xtask fuzz --minutes 2                       all targets, two minutes each\n  \
    cargo xtask fuzz --minutes 600 --target whole_call one target for a night\n  \
    cargo xtask fuzz --minutes 1 --seed 7              the same inputs again, on a machine as fast")]
pub struct Args {
    /// How long each target runs
    #[arg(long, value_name = "N", value_parser = minutes)]
    pub minutes: Duration,
    /// Run only this target (may be repeated); a wrong name lists them all
    #[arg(long, value_name = "TARGET")]
    pub target: Vec<String>,
    /// Where chance begins [default: the time]
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Targets that run at once [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
}

/// More than what was asked for: building inputs of the last kind, and shortening a find.
const GRACE: Duration = Duration::from_secs(600);

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text
        .parse()
        .map_err(|_| format!("{text:?} is not a number"))?;
    if !(minutes > 0.0 && minutes <= 100_000.0) {
        return Err("from 0.01 to 100000 minutes".to_owned());
    }
    Ok(Duration::from_secs_f64(minutes * 60.0))
}

struct Running {
    name: String,
    process: Process,
    began: Instant,
}

/// Runs `cargo xtask fuzz`; whether nothing was found.
pub fn run(args: &Args, root: &Path) -> Result<bool> {
    let console = Console::new(false);
    console.line("building");
    let program = build(root)?;
    let all = targets(&program, root)?;
    let wanted = choose(&all, &args.target)?;
    let logs = root.join("target/xtask");
    std::fs::create_dir_all(&logs)?;
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let jobs = args.jobs.map_or(processors, usize::from);
    let total = args.minutes.as_secs().max(1) * wanted.len() as u64;
    let bar = console.seconds("fuzzing", total);
    let mut waiting = wanted.into_iter();
    let mut running: Vec<Running> = Vec::new();
    let mut done = 0;
    let mut finds = 0;
    loop {
        while running.len() < jobs
            && let Some(name) = waiting.next()
        {
            running.push(start(&program, name, args, root, &logs)?);
        }
        if running.is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(200));
        let mut still = Vec::new();
        for mut job in running {
            let Some(status) = job.process.ended()? else {
                if job.began.elapsed() > args.minutes + GRACE {
                    bail!("{} does not end", job.name);
                }
                still.push(job);
                continue;
            };
            done += args.minutes.as_secs();
            let text = format!("{}\n{}", job.process.output(), job.process.errors());
            let said = report(&text, &job.name);
            bar.suspend(|| console.line(&said));
            finds += u32::from(!status.success());
        }
        running = still;
        let names: Vec<&str> = running.iter().map(|job| job.name.as_str()).collect();
        let spent = running
            .iter()
            .map(|job| job.began.elapsed().min(args.minutes).as_secs());
        bar.set_message(names.join(", "));
        bar.set_position((done + spent.sum::<u64>()).min(total));
    }
    bar.finish_and_clear();
    console.line(match finds {
        0 => "nothing was found".to_owned(),
        finds => format!(
            "{finds} targets broke: the inputs are in tests/regressions, all that was said in {}",
            logs.display()
        ),
    });
    Ok(finds == 0)
}

/// Builds the test program that holds the targets; where it is.
fn build(root: &Path) -> Result<PathBuf> {
    let output = cargo(root)
        .args(["test", "-p", "turnpike-tests", "--test", "fuzz"])
        .args(["--no-run", "--message-format=json-render-diagnostics"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "the targets do not build");
    executable(&String::from_utf8_lossy(&output.stdout)).context("cargo names no test program")
}

/// The test program in cargo's messages.
fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "fuzz")
        .find_map(|message| Some(message["executable"].as_str()?.into()))
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

fn targets(program: &Path, root: &Path) -> Result<Vec<String>> {
    let output = Command::new(program)
        .current_dir(root)
        .args(["--list", "--format=terse"])
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(names(&text))
}

/// The targets among the tests: the others say in whole sentences what they hold.
fn names(list: &str) -> Vec<String> {
    const OTHERS: [&str; 2] = ["every_target_is_here", "regressions_stay_fixed"];
    list.lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .filter(|name| !OTHERS.contains(name))
        .map(str::to_owned)
        .collect()
}

fn choose(all: &[String], wanted: &[String]) -> Result<Vec<String>> {
    if wanted.is_empty() {
        return Ok(all.to_vec());
    }
    for name in wanted {
        ensure!(
            all.contains(name),
            "there is no target {name:?}; there are {}",
            all.join(", ")
        );
    }
    Ok(wanted.to_vec())
}

fn start(program: &Path, name: String, args: &Args, root: &Path, logs: &Path) -> Result<Running> {
    let mut command = Command::new(program);
    command
        .current_dir(root.join("tests"))
        .args(["--exact", &name, "--nocapture"])
        .env(
            "TURNPIKE_FUZZ_SECONDS",
            args.minutes.as_secs_f64().to_string(),
        );
    if let Some(seed) = args.seed {
        command.env("TURNPIKE_FUZZ_SEED", seed.to_string());
    }
    let process = Process::start(&format!("fuzz-{name}"), &command, logs)?;
    Ok(Running {
        name,
        process,
        began: Instant::now(),
    })
}

/// What a target has to say: its figures, or what broke it.
fn report(text: &str, name: &str) -> String {
    let figures = text.lines().find(|line| line.contains(" runs "));
    if let Some(figures) = figures {
        return figures.trim_start_matches("test ").to_owned();
    }
    // A target that breaks says many times how, while its input is made shorter; the last time counts.
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let from = lines
        .iter()
        .rposition(|line| line.starts_with(&format!("{name}: ")))
        .unwrap_or(lines.len().saturating_sub(12));
    let excerpt = lines.iter().skip(from).take(12);
    excerpt.fold(format!("{name} BROKE"), |said, line| {
        format!("{said}\n    {line}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_minutes() {
        assert_eq!(minutes("2"), Ok(Duration::from_secs(120)));
        assert_eq!(minutes("0.5"), Ok(Duration::from_secs(30)));
        for wrong in ["0", "-1", "soon", "inf", "1e9"] {
            assert!(minutes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn targets_are_chosen_by_name() {
        let all = names("every_target_is_here: test\ngre_header: test\nmppe: test\n\nx: benchmark");
        assert_eq!(all, ["gre_header", "mppe"]);
        assert_eq!(choose(&all, &[]).unwrap(), all);
        assert_eq!(choose(&all, &["mppe".to_owned()]).unwrap(), ["mppe"]);
        let error = choose(&all, &["mpe".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("gre_header, mppe"), "{error}");
    }

    #[test]
    fn the_program_is_found_among_the_messages() {
        let messages = "{\"target\":{\"name\":\"xtask\"},\"executable\":\"/a\"}\nnoise\n\
                        {\"target\":{\"name\":\"fuzz\"},\"executable\":null}\n\
                        {\"target\":{\"name\":\"fuzz\"},\"executable\":\"/b\"}";
        assert_eq!(executable(messages), Some("/b".into()));
        assert_eq!(executable(""), None);
    }

    #[test]
    fn finds_are_told_with_their_file() {
        let good = report(
            "running 1 test\nmppe   12 runs  3/s, seeds 1 -> 2\ntest mppe ... ok",
            "mppe",
        );
        assert_eq!(good, "mppe   12 runs  3/s, seeds 1 -> 2");
        let bad = report(
            "a panic\nmppe: it broke\nseed 7, input of 3 octets saved in x.bin",
            "mppe",
        );
        assert!(
            bad.starts_with("mppe BROKE") && bad.contains("x.bin"),
            "{bad}"
        );
    }
}

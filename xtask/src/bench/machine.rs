//! On what was measured.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

/// The machine and the source tree, as they are when measuring begins. Its fields are those of turnpike-bench's reports.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Machine {
    /// The processor's model.
    pub cpu: String,
    /// Processors that this process may use.
    pub cpus: usize,
    /// Linux' release.
    pub kernel: String,
    /// When, by RFC 3339, in UTC.
    pub started: String,
    /// Which memory Linux puts in huge pages: `always`, `madvise` (what asks for it, as tables of calls do) or `never`.
    #[serde(skip)]
    pub huge_pages: String,
    /// The commit, and whether something was changed since.
    #[serde(skip)]
    pub commit: String,
    /// Processes that wanted to run on average over the last minute.
    #[serde(skip)]
    pub load: f64,
    /// This process gets only time that nobody else wants.
    #[serde(skip)]
    pub idle_class: bool,
}

impl Machine {
    /// Looks; what cannot be seen stays empty.
    pub fn look(root: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let load = read("/proc/loadavg");
        Self {
            cpu: processor(&read("/proc/cpuinfo")),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            started: output(root, &["date", "--utc", "+%Y-%m-%dT%H:%M:%SZ"]),
            huge_pages: chosen(&read("/sys/kernel/mm/transparent_hugepage/enabled")),
            commit: commit(root),
            load: load
                .split(' ')
                .next()
                .and_then(|word| word.parse().ok())
                .unwrap_or_default(),
            idle_class: policy(&read("/proc/self/stat")) == Some(SCHED_IDLE),
        }
    }

    /// What makes figures worse than they could be.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.load > 0.3 {
            warnings.push(format!(
                "{} other processes or so ran when this began",
                self.load
            ));
        }
        if self.idle_class {
            warnings.push(
                "measured in the scheduler's idle class: these figures mean nothing".to_owned(),
            );
        }
        warnings
    }
}

/// The word in brackets.
fn chosen(text: &str) -> String {
    let rest = text.split_once('[').map_or("", |(_, rest)| rest);
    rest.split(']').next().unwrap_or_default().to_owned()
}

/// Linux' number of the idle class.
const SCHED_IDLE: u32 = 5;

/// The scheduling class in `/proc/self/stat`: field 41 (proc(5)), counted behind the name, which may have blanks.
fn policy(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(41 - 3)?.parse().ok()
}

/// The model in the text of `/proc/cpuinfo`: by name on x86, by numbers on arm64, which has no names there.
fn processor(text: &str) -> String {
    let field = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == name)
            .map_or("unknown", |(_, value)| value.trim())
    };
    match field("model name") {
        "unknown" => format!(
            "{}, implementer {} part {}",
            std::env::consts::ARCH,
            field("CPU implementer"),
            field("CPU part")
        ),
        name => format!(
            "{name}, family {} model {}",
            field("cpu family"),
            field("model")
        ),
    }
}

fn commit(root: &Path) -> String {
    let id = output(root, &["git", "rev-parse", "--short=12", "HEAD"]);
    if id.is_empty() {
        return "unknown".to_owned();
    }
    let changes = output(
        root,
        &["git", "status", "--porcelain", "--untracked-files=no"],
    );
    // The results of the run before do not change what is measured.
    let changed = changes
        .lines()
        .any(|line| !line.contains("bench/RESULTS.md") && !line.contains("bench/results/"));
    if changed {
        format!("{id} with changes")
    } else {
        id
    }
}

/// What a program prints; nothing where it cannot run.
fn output(root: &Path, words: &[&str]) -> String {
    Command::new(words[0])
        .args(&words[1..])
        .current_dir(root)
        .output()
        .ok()
        .filter(|output| output.status.success())
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_have_names_or_numbers() {
        let x86 = "cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n";
        assert_eq!(processor(x86), "AMD EPYC, family 25 model 17");
        let arm = "CPU implementer\t: 0x41\nCPU part\t: 0xd0c\n";
        assert!(processor(arm).ends_with("implementer 0x41 part 0xd0c"));
    }

    #[test]
    fn what_linux_has_chosen_stands_in_brackets() {
        assert_eq!(chosen("always [madvise] never\n"), "madvise");
        assert_eq!(chosen(""), "");
    }

    #[test]
    fn the_scheduling_class_is_found_behind_any_name() {
        let mut fields = vec!["7", "(a) b (c)", "S"];
        fields.extend(["0"; 37]);
        fields.extend(["5", "0"]);
        assert_eq!(policy(&fields.join(" ")), Some(SCHED_IDLE));
        assert_eq!(policy(""), None);
        let own = fs::read_to_string("/proc/self/stat").unwrap();
        assert!(policy(&own).is_some());
    }

    #[test]
    fn what_spoils_figures_is_said() {
        let machine = Machine {
            load: 1.5,
            idle_class: true,
            ..Machine::default()
        };
        assert_eq!(machine.warnings().len(), 2);
        assert!(Machine::default().warnings().is_empty());
    }
}

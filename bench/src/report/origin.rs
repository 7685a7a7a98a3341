//! Where a report comes from: with what it was measured, when, and on what machine.

use std::collections::BTreeMap;
use std::time::SystemTime;

use clap::{ArgMatches, Command};
use serde::{Deserialize, Serialize};

/// The first fields of every report in JSON.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// The subcommand, such as `storm`.
    pub tool: String,
    /// Of turnpike-bench.
    pub version: String,
    /// When it began, by RFC 3339, in UTC.
    pub started: String,
    /// The processor's model. Figures of two models cannot be compared.
    pub cpu: String,
    /// Processors that this process may use.
    pub cpus: usize,
    /// Linux' release.
    pub kernel: String,
    /// Every option with its value, defaults among them, but no password.
    pub options: BTreeMap<String, String>,
}

impl Origin {
    /// Of a subcommand that begins now.
    pub fn now(command: &Command, matches: &ArgMatches) -> Self {
        Self {
            tool: command.get_name().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            cpu: processor(),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            options: options(command, matches),
        }
    }
}

fn read(path: &str) -> String {
    // Where it cannot be read, the report says less.
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Options by their ids. What is secret never gets into a report: neither a password nor the name of a file with one.
fn options(command: &Command, matches: &ArgMatches) -> BTreeMap<String, String> {
    let ids = command.get_arguments().map(|argument| argument.get_id());
    ids.filter(|id| !id.as_str().contains("password"))
        .filter_map(|id| {
            let values = matches.try_get_raw(id.as_str()).ok().flatten()?;
            let words: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
            Some((id.to_string(), words.join(",")))
        })
        .collect()
}

/// The model of the processor: by name on x86, by numbers on arm64, where Linux has no names.
pub fn processor() -> String {
    model(&read("/proc/cpuinfo"))
}

/// The same, in the text of `/proc/cpuinfo`.
fn model(text: &str) -> String {
    let field = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim().to_owned())
    };
    let arch = std::env::consts::ARCH;
    match (field("model name"), field("CPU implementer")) {
        (Some(name), _) => match (field("cpu family"), field("model")) {
            (Some(family), Some(model)) => format!("{name}, family {family} model {model}"),
            _ => name,
        },
        (None, Some(implementer)) => format!(
            "{arch}, implementer {implementer} part {}",
            field("CPU part").unwrap_or_default()
        ),
        (None, None) => arch.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    #[command(name = "storm")]
    struct Options {
        server: String,
        #[arg(long)]
        password: Option<String>,
        #[arg(long)]
        password_file: Option<String>,
        #[arg(long, default_value_t = 3)]
        calls: u32,
        #[arg(long, value_delimiter = ',')]
        from: Vec<String>,
        #[arg(long)]
        keep: bool,
        #[arg(long)]
        rate: Option<f64>,
    }

    #[test]
    fn options_are_kept_and_secrets_are_not() {
        let command = Options::command();
        let words = [
            "storm",
            "10.7.0.1",
            "--password=sesame",
            "--password-file=keys",
        ];
        let matches = command
            .clone()
            .get_matches_from(words.iter().chain(&["--from", "a,b", "--keep"]));
        let origin = Origin::now(&command, &matches);
        assert_eq!(origin.tool, "storm");
        let expected = [
            ("server", "10.7.0.1"),
            ("calls", "3"),
            ("from", "a,b"),
            ("keep", "true"),
        ];
        let expected: BTreeMap<String, String> = expected
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        assert_eq!(origin.options, expected);
        let text = serde_json::to_string(&origin).unwrap();
        assert!(!text.contains("sesame") && !text.contains("keys"), "{text}");
        assert_eq!(serde_json::from_str::<Origin>(&text).unwrap(), origin);
    }

    #[test]
    fn processors_have_names_or_numbers() {
        let x86 =
            "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n";
        assert_eq!(model(x86), "AMD EPYC, family 25 model 17");
        let arm = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n";
        assert!(model(arm).ends_with("implementer 0x41 part 0xd0c"));
        assert_eq!(model(""), std::env::consts::ARCH);
    }
}

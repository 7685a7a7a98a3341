//! What people see of long work.

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Where steps and results go: to standard output as text, or, when that belongs to JSON, to standard error.
#[derive(Debug, Clone, Copy)]
pub struct Console {
    json: bool,
}

impl Console {
    /// With `json`, standard output is kept for one JSON document.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// One line.
    pub fn line(&self, text: impl Display) {
        // A reader that went away (`| head`) is no reason to stop the work.
        let _ = if self.json {
            writeln!(std::io::stderr(), "{text}")
        } else {
            writeln!(std::io::stdout(), "{text}")
        };
    }

    /// The document, when JSON is wanted.
    pub fn document(&self, value: &impl serde::Serialize) {
        if self.json
            && let Ok(text) = serde_json::to_string_pretty(value)
        {
            let _ = writeln!(std::io::stdout(), "{text}");
        }
    }

    /// A bar for octets that move; hidden where standard error is no terminal.
    pub fn octets(&self, what: &str, total: u64) -> ProgressBar {
        let bar = ProgressBar::new(total);
        if let Ok(style) = ProgressStyle::with_template(
            "  {msg:<34} {bar:30} {bytes:>10} of {total_bytes}  {bytes_per_sec:>12}  {eta} left",
        ) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar
    }

    /// A bar for work that is measured in seconds; hidden where standard error is no terminal.
    pub fn seconds(&self, what: &str, total: u64) -> ProgressBar {
        let bar = ProgressBar::new(total);
        if let Ok(style) =
            ProgressStyle::with_template("  {bar:30} {percent:>3} %  {eta} left  {msg}")
        {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar
    }

    /// A spinner with the time that has passed.
    pub fn spinner(&self, what: &str) -> ProgressBar {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg}  {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }
}

//! How a tool prints its report: as text or JSON, and as a page beside it.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::Page;
use super::sheet::Sheet;

/// How a report is printed.
#[derive(Args, Clone, Debug)]
pub struct Printing {
    /// One JSON object at the end instead of text
    #[arg(long)]
    pub json: bool,
    /// Write a page with plots, too, as `turnpike-bench report` makes it of the JSON
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

impl Printing {
    /// Before anything is measured: that a page cannot be written is found out now.
    pub(crate) fn open(&self) -> anyhow::Result<Printer> {
        Ok(Printer {
            json: self.json,
            page: self.html.as_deref().map(Page::create).transpose()?,
        })
    }
}

/// What prints a report.
pub(crate) struct Printer {
    json: bool,
    page: Option<Page>,
}

impl Printer {
    pub(crate) fn print<R: Serialize>(
        self,
        report: &R,
        text: impl FnOnce(&R) -> String,
    ) -> anyhow::Result<()> {
        let text = if self.json {
            serde_json::to_string(report)? + "\n"
        } else {
            text(report)
        };
        io::stdout().lock().write_all(text.as_bytes())?;
        match self.page {
            Some(page) => page.write(&Sheet::of(report)?),
            None => Ok(()),
        }
    }
}

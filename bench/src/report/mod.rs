//! `turnpike-bench report`: a page with plots from what a tool printed; and where every report comes from.

mod origin;
mod page;
mod plot;
mod printing;
pub(crate) mod sheet;
mod tools;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

pub use origin::{Origin, processor};
pub use printing::Printing;
use sheet::Sheet;

/// Make one HTML page with plots from a report in JSON
///
/// The page needs no network and no script, follows light and dark, and can be read on a phone and printed.
#[derive(Args, Clone)]
#[command(after_help = "\
Examples:
  turnpike-bench storm 10.7.0.1 --user test --password secret --json > storm.json
  turnpike-bench report storm.json -o storm.html
      the same page as storm's own --html
  turnpike-bench report storm.json --svg plots
      the page as storm.html, and each plot as a file in plots/")]
pub struct ReportFile {
    /// What a tool printed with --json
    #[arg(value_name = "FILE.json")]
    pub file: PathBuf,
    /// Where the page goes [default: beside the file, with .html]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write each plot as an SVG file into this folder, too
    #[arg(long, value_name = "FOLDER")]
    pub svg: Option<PathBuf>,
}

/// Writes the page, and the plots if they are wanted.
///
/// # Errors
/// When the report cannot be read, or something cannot be written.
pub fn run(options: &ReportFile) -> anyhow::Result<()> {
    let sheet = Sheet::read(&options.file)?;
    let output = match &options.output {
        Some(output) => output.clone(),
        None => options.file.with_extension("html"),
    };
    anyhow::ensure!(
        output != options.file,
        "the page would overwrite {}: name another with -o",
        options.file.display()
    );
    Page::create(&output)?.write(&sheet)?;
    if let Some(folder) = &options.svg {
        plots(&sheet, folder)?;
    }
    Ok(())
}

/// Each plot as a file, named after the tool and what it shows.
fn plots(sheet: &Sheet, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, plot) in page::files(sheet) {
        let path = folder.join(name);
        std::fs::write(&path, plot).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// A page that is to be written; that it cannot be is found out before anything is measured for it.
pub(crate) struct Page {
    path: PathBuf,
    file: File,
}

impl Page {
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    pub(crate) fn write(mut self, sheet: &Sheet) -> anyhow::Result<()> {
        self.file
            .write_all(page::page(sheet).as_bytes())
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_plots_are_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.json");
        std::fs::write(&file, sheet::tests::STORM).unwrap();
        let mut options = ReportFile {
            file: file.clone(),
            output: None,
            svg: Some(folder.path().join("plots")),
        };
        run(&options).unwrap();
        let page = std::fs::read_to_string(folder.path().join("run.html")).unwrap();
        assert!(page.starts_with("<!DOCTYPE html>"));
        let mut names: Vec<String> = std::fs::read_dir(folder.path().join("plots"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "storm-all.svg",
                "storm-authentication.svg",
                "storm-calls-set-up.svg",
                "storm-lcp.svg",
                "storm-percentiles.svg",
            ]
        );
        options.output = Some(file);
        assert!(run(&options).is_err());
    }
}

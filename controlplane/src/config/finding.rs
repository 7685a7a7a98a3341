//! What was wrong in a file, where, and what to write instead.

use core::fmt;

/// One fault, or one warning, in a file that an operator wrote.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The file as the operator named it.
    pub file: String,
    /// Line, from 1; 0 when the finding is about the file as a whole.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to write (or do) instead.
    pub instead: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: ", self.file)?,
            line => write!(f, "{}:{line}: ", self.file)?,
        }
        write!(f, "{}; {}", self.what, self.instead)
    }
}

/// All faults of a configuration, in the order of the file; never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Faults(pub Vec<Finding>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{finding}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// A text with a name, which knows its lines.
pub(crate) struct Source<'a> {
    name: &'a str,
    /// Offsets at which lines start; the first is 0.
    starts: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(name: &'a str, text: &[u8]) -> Self {
        let mut starts = vec![0];
        starts.extend(
            text.iter()
                .enumerate()
                .filter(|(_, byte)| **byte == b'\n')
                .map(|(offset, _)| offset + 1),
        );
        Self { name, starts }
    }

    /// The line, from 1, that holds this offset.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    pub(crate) fn finding(
        &self,
        line: usize,
        what: impl Into<String>,
        instead: impl Into<String>,
    ) -> Finding {
        Finding {
            file: self.name.to_owned(),
            line,
            what: what.into(),
            instead: instead.into(),
        }
    }
}

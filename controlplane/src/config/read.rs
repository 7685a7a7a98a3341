//! Walks a TOML document and notes every fault it meets, instead of stopping at the first as serde would.

use core::ops::Range as Span;
use core::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::finding::{Finding, Source};

/// Collects faults while a document is read.
pub(super) struct Reader<'a> {
    source: Source<'a>,
    pub(super) faults: Vec<Finding>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(name: &'a str, text: &str) -> Self {
        Self {
            source: Source::new(name, text.as_bytes()),
            faults: Vec::new(),
        }
    }

    /// Notes a fault where `span` starts.
    pub(super) fn fault(
        &mut self,
        span: &Span<usize>,
        what: impl Into<String>,
        instead: impl Into<String>,
    ) {
        let finding = self
            .source
            .finding(self.source.line(span.start), what, instead);
        self.faults.push(finding);
    }

    /// The line, from 1, on which `span` starts.
    pub(super) fn line(&self, span: &Span<usize>) -> usize {
        self.source.line(span.start)
    }

    /// Notes a fault of the file as a whole.
    pub(super) fn whole(&mut self, what: impl Into<String>, instead: impl Into<String>) {
        let finding = self.source.finding(0, what, instead);
        self.faults.push(finding);
    }
}

/// Something read, and where it stood.
#[derive(Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Span<usize>,
}

/// A table whose keys are taken one by one; what is left in the end is unknown.
pub(super) struct Section<'t> {
    /// As an operator writes it: `[server]`, `[[user]]`, or empty for the document.
    title: &'static str,
    span: Span<usize>,
    entries: Vec<(String, Span<usize>, Spanned<DeValue<'t>>)>,
    known: Vec<&'static str>,
}

impl<'t> Section<'t> {
    pub(super) fn new(title: &'static str, span: Span<usize>, table: DeTable<'t>) -> Self {
        let mut entries: Vec<_> = table
            .into_iter()
            .map(|(key, value)| (key.get_ref().to_string(), key.span(), value))
            .collect();
        // The order of the file is the order in which its faults are listed.
        entries.sort_by_key(|(_, span, _)| span.start);
        Self {
            title,
            span,
            entries,
            known: Vec::new(),
        }
    }

    /// Where the section starts.
    pub(super) fn span(&self) -> &Span<usize> {
        &self.span
    }

    /// `[title] key`, as faults name it.
    fn path(&self, key: &str) -> String {
        match self.title {
            "" => format!("`{key}`"),
            title => format!("`{key}` in {title}"),
        }
    }

    /// Whether a key is there and not taken yet.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, ..)| name == key)
    }

    /// Takes a value as it stands.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'t>>> {
        self.known.push(key);
        let index = self.entries.iter().position(|(name, ..)| name == key)?;
        Some(self.entries.remove(index).2)
    }

    /// Takes a sub-table.
    pub(super) fn table(
        &mut self,
        reader: &mut Reader<'_>,
        key: &'static str,
        title: &'static str,
    ) -> Option<Section<'t>> {
        let value = self.take(key)?;
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Some(Section::new(title, span, table)),
            other => {
                reader.fault(
                    &span,
                    format!("`{key}` is {}", kind(&other)),
                    format!("write a section that starts with {title}"),
                );
                None
            }
        }
    }

    /// Takes an array of tables.
    pub(super) fn tables(
        &mut self,
        reader: &mut Reader<'_>,
        key: &'static str,
        title: &'static str,
    ) -> Vec<Section<'t>> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let span = value.span();
        let instead = format!("start each one with {title}");
        let DeValue::Array(array) = value.into_inner() else {
            reader.fault(&span, format!("`{key}` is not a list of sections"), instead);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for entry in array {
            let span = entry.span();
            match entry.into_inner() {
                DeValue::Table(table) => sections.push(Section::new(title, span, table)),
                other => reader.fault(
                    &span,
                    format!("`{key}` holds {}", kind(&other)),
                    instead.clone(),
                ),
            }
        }
        sections
    }

    /// Takes a string and reads it with `read`; `instead` says what belongs here.
    pub(super) fn text<T>(
        &mut self,
        reader: &mut Reader<'_>,
        key: &'static str,
        instead: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<At<T>> {
        let path = self.path(key);
        let value = self.take(key)?;
        read_text(reader, &path, &value, instead, read)
    }

    /// Takes `true` or `false`.
    pub(super) fn flag(
        &mut self,
        reader: &mut Reader<'_>,
        key: &'static str,
        instead: &str,
    ) -> Option<bool> {
        let path = self.path(key);
        let value = self.take(key)?;
        let DeValue::Boolean(flag) = value.get_ref() else {
            reader.fault(
                &value.span(),
                format!("{path} is {}", kind(value.get_ref())),
                instead,
            );
            return None;
        };
        Some(*flag)
    }

    /// Takes a list of strings, each read with `read`. Bad entries are noted and left out.
    pub(super) fn texts<T>(
        &mut self,
        reader: &mut Reader<'_>,
        key: &'static str,
        instead: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<At<Vec<At<T>>>> {
        let path = self.path(key);
        let value = self.take(key)?;
        let span = value.span();
        let DeValue::Array(array) = value.get_ref() else {
            reader.fault(
                &span,
                format!("{path} is {}, not a list", kind(value.get_ref())),
                format!("write it in brackets: {key} = [{instead}]"),
            );
            return None;
        };
        let value = array
            .iter()
            .filter_map(|entry| read_text(reader, &path, entry, instead, &read))
            .collect();
        Some(At { value, span })
    }

    /// Takes a whole number in `range`; `unit` stands behind the numbers in the fault.
    pub(super) fn number(
        &mut self,
        reader: &mut Reader<'_>,
        key: &'static str,
        range: core::ops::RangeInclusive<u64>,
        instead: &str,
    ) -> Option<At<u64>> {
        let path = self.path(key);
        let value = self.take(key)?;
        let span = value.span();
        let number = read_number(reader, &path, &value, instead)?;
        if range.contains(&number) {
            return Some(At {
                value: number,
                span,
            });
        }
        reader.fault(
            &span,
            format!(
                "{path} is {number}, outside {} to {}",
                range.start(),
                range.end()
            ),
            instead,
        );
        None
    }

    /// Takes a list of whole numbers.
    pub(super) fn numbers(
        &mut self,
        reader: &mut Reader<'_>,
        key: &'static str,
        instead: &str,
    ) -> Option<At<Vec<At<u64>>>> {
        let path = self.path(key);
        let value = self.take(key)?;
        let span = value.span();
        let DeValue::Array(array) = value.get_ref() else {
            reader.fault(
                &span,
                format!("{path} is {}, not a list", kind(value.get_ref())),
                instead,
            );
            return None;
        };
        let value = array
            .iter()
            .filter_map(|entry| {
                Some(At {
                    value: read_number(reader, &path, entry, instead)?,
                    span: entry.span(),
                })
            })
            .collect();
        Some(At { value, span })
    }

    /// Takes a duration such as `"30s"` in `range`.
    pub(super) fn duration(
        &mut self,
        reader: &mut Reader<'_>,
        key: &'static str,
        range: core::ops::RangeInclusive<Duration>,
        example: &str,
    ) -> Option<At<Duration>> {
        let path = self.path(key);
        let duration = self.text(
            reader,
            key,
            &format!("write a number with a unit: {key} = \"{example}\""),
            |text| humantime::parse_duration(text).ok(),
        )?;
        if range.contains(&duration.value) {
            return Some(duration);
        }
        reader.fault(
            &duration.span,
            format!("{path} is {}", humantime::format_duration(duration.value)),
            format!(
                "write something from {} to {}, such as \"{example}\"",
                humantime::format_duration(*range.start()),
                humantime::format_duration(*range.end())
            ),
        );
        None
    }

    /// Takes one word of a list of words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        reader: &mut Reader<'_>,
        key: &'static str,
        choices: &[(&str, T)],
    ) -> Option<At<T>> {
        let words: Vec<_> = choices
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect();
        self.text(
            reader,
            key,
            &format!("write one of {}", words.join(", ")),
            |text| {
                choices
                    .iter()
                    .find(|(word, _)| *word == text)
                    .map(|(_, choice)| *choice)
            },
        )
    }

    /// Notes every key that nobody took.
    pub(super) fn finish(self, reader: &mut Reader<'_>) {
        for (key, span, _) in &self.entries {
            let instead = match nearest(key, &self.known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            let what = match self.title {
                "" => format!("unknown section `{key}`"),
                title => format!("unknown key `{key}` in {title}"),
            };
            reader.fault(span, what, instead);
        }
    }
}

fn read_text<T>(
    reader: &mut Reader<'_>,
    path: &str,
    value: &Spanned<DeValue<'_>>,
    instead: &str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Option<At<T>> {
    let span = value.span();
    let DeValue::String(text) = value.get_ref() else {
        reader.fault(
            &span,
            format!("{path} is {}, not a string", kind(value.get_ref())),
            instead,
        );
        return None;
    };
    let Some(value) = read(text) else {
        reader.fault(
            &span,
            format!("{path} cannot be {:?}", shortened(text)),
            instead,
        );
        return None;
    };
    Some(At { value, span })
}

fn read_number(
    reader: &mut Reader<'_>,
    path: &str,
    value: &Spanned<DeValue<'_>>,
    instead: &str,
) -> Option<u64> {
    let number = match value.get_ref() {
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    };
    if number.is_none() {
        reader.fault(
            &value.span(),
            format!("{path} is not a whole number from 0 upwards"),
            instead,
        );
    }
    number
}

/// What a value is, in words.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

/// At most 40 characters of a text that somebody wrote.
fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// The known word that `word` was probably meant to be: one letter is wrong, and one more for every four.
fn nearest<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    known
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, delete or change (Levenshtein). Long words are far from everything.
fn distance(one: &str, other: &str) -> usize {
    const LONGEST: usize = 40;
    if one.len() > LONGEST || other.len() > LONGEST {
        return usize::MAX / 3;
    }
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.chars().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[row.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_letters() {
        assert_eq!(distance("pool", "pool"), 0);
        assert_eq!(distance("pols", "pool"), 2);
        assert_eq!(distance("", "pool"), 4);
        assert_eq!(
            nearest("interfce", &["mode", "interface"]),
            Some("interface")
        );
        assert_eq!(nearest("colour", &["mode", "interface"]), None);
    }
}

//! The table of clients in the README: what the calls came to.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{Method, Mppe, Obstacle, Outcome};

/// What stands before and after it.
const BEGIN: &str = "<!-- clients -->";
const END: &str = "<!-- /clients -->";

/// One call by the book, or why there is none.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The client.
    pub client: String,
    /// How its user proves who he is.
    pub method: Method,
    /// How data is encrypted.
    pub mppe: Mppe,
    /// Why it cannot be had; `None`: it was played, and held.
    pub obstacle: Option<Obstacle>,
}

impl Obstacle {
    const ALL: [Self; 4] = [Self::NoKeys, Self::Method, Self::Strength, Self::Stateful];

    const fn letter(self) -> char {
        match self {
            Self::NoKeys => 'k',
            Self::Method => 'm',
            Self::Strength => 's',
            Self::Stateful => 'f',
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::NoKeys => {
                "this method yields no keys for MPPE; where encryption is required, the client is not let in"
            }
            Self::Method => "the client does not have this method, or is not known to",
            Self::Strength => "the client does not have keys of this strength",
            Self::Stateful => {
                "the client changes keys for every packet, and is not known to take anything else"
            }
        }
    }
}

/// The block with its marks.
pub fn render(cells: &[Cell]) -> String {
    let mut text = format!(
        "{BEGIN}\n**Scripted from what is known of these clients, not tested with the products.** Each \"yes\" is a whole call \
         in the tests, with data in both directions that the script decrypts with its own ciphers; the scripts are in \
         `tests/peers/`, and say what they assume. Encryption by key length in bits; keys change for every packet, \
         or (\"stateful\") for every 256th. `cargo xtask table` plays them all and writes this.\n\n\
         | client | login | none | 40 | 40 stateful | 56 | 56 stateful | 128 | 128 stateful |\n\
         |---|---|---|---|---|---|---|---|---|\n"
    );
    let mut seen = Vec::new();
    for row in cells.chunks(Mppe::ALL.len()) {
        let Some(first) = row.first() else { continue };
        let _ = write!(text, "| {} | {} |", first.client, first.method.name());
        for cell in row {
            match cell.obstacle {
                None => text.push_str(" yes |"),
                Some(obstacle) => {
                    seen.push(obstacle);
                    let _ = write!(text, " no ({}) |", obstacle.letter());
                }
            }
        }
        text.push('\n');
    }
    text.push('\n');
    for obstacle in Obstacle::ALL.iter().filter(|it| seen.contains(it)) {
        let _ = writeln!(text, "- ({}) {}.", obstacle.letter(), obstacle.text());
    }
    text.push_str(END);
    text
}

fn readme() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")
}

fn place(text: &str) -> Outcome<core::ops::Range<usize>> {
    let missing = || format!("README.md has no {BEGIN} with {END} after it");
    let begin = text.find(BEGIN).ok_or_else(missing)?;
    let end = begin + text[begin..].find(END).ok_or_else(missing)? + END.len();
    Ok(begin..end)
}

/// Whether the README has this block.
///
/// # Errors
/// Says how to refresh it.
pub fn check(block: &str) -> Outcome {
    let text = std::fs::read_to_string(readme()).map_err(|error| error.to_string())?;
    if text[place(&text)?] == *block {
        return Ok(());
    }
    Err(format!(
        "the table of clients in README.md is not what the tests found: run `cargo xtask table`. They found:\n{block}"
    ))
}

/// Puts the block into the README.
///
/// # Errors
/// The README cannot be read or written, or has no place for it.
pub fn write(block: &str) -> Outcome {
    let mut text = std::fs::read_to_string(readme()).map_err(|error| error.to_string())?;
    let place = place(&text)?;
    text.replace_range(place, block);
    std::fs::write(readme(), text).map_err(|error| error.to_string())
}

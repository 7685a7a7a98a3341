//! The `chap-secrets` file, as pppd reads it: client, server, secret and addresses, one user per line.
//!
//! Words stand between white space; `"` and `'` quote, a backslash takes the meaning from the next character (or
//! names one: `\n`, `\t`, `\s` for a space, `\033`, `\x1b`), a `#` begins a comment, and a
//! backslash at the end of a line joins the next one to it. `*` stands for any client, any server, any address.

use core::net::Ipv4Addr;

use ipnet::Ipv4Net;
use zeroize::Zeroizing;

use super::{Addresses, Secret};
use crate::config::{Finding, Source};
use crate::pool::Range;

/// The most addresses that one line may allow: the first free one among them is searched for at login.
const MAX_ADDRESSES: u64 = 1 << 16;

/// One line.
#[derive(Clone)]
pub struct Entry {
    /// Its line in the file, from 1.
    pub line: usize,
    /// The user; `None` for `*`, everybody.
    pub client: Option<Vec<u8>>,
    /// The server that the user may dial; `None` for `*`, any.
    pub server: Option<Vec<u8>>,
    /// What is left of the password.
    pub secret: Secret,
    /// The fourth column: left out or `*`, the pool; `-`, none; else addresses and prefixes.
    pub addresses: Addresses,
}

/// Reads the lines that are meant for a server of this name: those with it, or `*`, in the second column. Lines for
/// others (a machine that also dials out has them) are passed over. `name` is what findings call the file.
///
/// # Errors
/// All faults at once. No finding shows a secret.
pub fn parse(text: &[u8], name: &str, server: &str) -> Result<Vec<Entry>, Vec<Finding>> {
    let source = Source::new(name, text);
    let mut words = Words { text, at: 0 };
    let mut entries = Vec::new();
    let mut faults = Vec::new();
    while words.at < text.len() {
        let line = source.line(words.at);
        let entry = words
            .line()
            .and_then(|words| entry(&words, line, server.as_bytes()));
        match entry {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) => {}
            Err((what, instead)) => faults.push(source.finding(line, what, instead)),
        }
    }
    if faults.is_empty() {
        Ok(entries)
    } else {
        Err(faults)
    }
}

/// What is wrong and what to write instead.
type Fault = (String, String);

fn fault(what: impl Into<String>, instead: impl Into<String>) -> Fault {
    (what.into(), instead.into())
}

/// A word and whether any of it was quoted or escaped: `"*"` is a name, `*` is not.
struct Word {
    text: Zeroizing<Vec<u8>>,
    quoted: bool,
}

impl Word {
    /// Whether this is exactly the special word `special`, unquoted.
    fn is(&self, special: &[u8]) -> bool {
        !self.quoted && *self.text == special
    }
}

/// Walks the text.
struct Words<'a> {
    text: &'a [u8],
    at: usize,
}

impl Words<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// The words up to the end of the line, which is passed. After an error the rest of the line is passed too.
    fn line(&mut self) -> Result<Vec<Word>, Fault> {
        let mut words = Vec::new();
        loop {
            match self.peek() {
                None => return Ok(words),
                Some(b'\n') => {
                    self.at += 1;
                    return Ok(words);
                }
                Some(b' ' | b'\t' | b'\r' | b'\x0b' | b'\x0c') => self.at += 1,
                Some(b'\\') if self.continued() => {}
                Some(b'#') => {
                    self.pass_line();
                    return Ok(words);
                }
                Some(_) => match self.word() {
                    Ok(word) => words.push(word),
                    Err(fault) => {
                        self.pass_line();
                        return Err(fault);
                    }
                },
            }
        }
    }

    fn pass_line(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(rest.len(), |end| end + 1);
    }

    /// Passes a backslash that joins two lines, if this is one.
    fn continued(&mut self) -> bool {
        let rest = &self.text[self.at..];
        let ends = [b"\\\n".as_slice(), b"\\\r\n".as_slice()];
        let joined = ends.into_iter().find(|end| rest.starts_with(end));
        self.at += joined.map_or(0, <[u8]>::len);
        joined.is_some()
    }

    fn word(&mut self) -> Result<Word, Fault> {
        // Room for any sensible word, so that no copy of a secret is left behind by growing.
        let mut word = Word {
            text: Zeroizing::new(Vec::with_capacity(1024)),
            quoted: false,
        };
        let mut quote = None;
        while let Some(byte) = self.peek() {
            if word.text.len() >= 1020 {
                return Err(fault(
                    "a word is longer than 1020 octets",
                    "check where its quotes end",
                ));
            }
            match (byte, quote) {
                (b'\\', _) => {
                    word.quoted = true;
                    if !self.continued() {
                        self.at += 1;
                        self.escape(&mut word.text);
                    }
                    continue;
                }
                (b'\n', Some(_)) => break,
                (_, Some(mark)) if byte == mark => quote = None,
                (_, Some(_)) => word.text.push(byte),
                (b'"' | b'\'', None) => {
                    quote = Some(byte);
                    word.quoted = true;
                }
                // pppd cuts the word here without a word of warning, which makes half a password of it.
                (b'#', None) => {
                    return Err(fault(
                        "a # touches a word",
                        "put the word in quotes if the # belongs to it, or a space before the # of a comment",
                    ));
                }
                (byte, None) if byte.is_ascii_whitespace() || byte == b'\x0b' => break,
                (_, None) => word.text.push(byte),
            }
            self.at += 1;
        }
        match quote {
            None => Ok(word),
            Some(mark) => Err(fault(
                format!("a word that starts with {} does not end", char::from(mark)),
                "close it on the same line",
            )),
        }
    }

    /// What a backslash, already passed, makes of what follows.
    fn escape(&mut self, word: &mut Vec<u8>) {
        let Some(byte) = self.peek() else {
            // At the end of the file there is nothing to escape.
            return;
        };
        self.at += 1;
        word.push(match byte {
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b's' => b' ',
            b't' => b'\t',
            b'0'..=b'7' => {
                let more = self.digits(2, 8);
                u8::try_from(more.0 + u32::from(byte - b'0') * 8u32.pow(more.1)).unwrap_or(u8::MAX)
            }
            b'x' => match self.digits(2, 16) {
                (_, 0) => b'x',
                (value, _) => u8::try_from(value).unwrap_or(u8::MAX),
            },
            other => other,
        });
    }

    /// Reads up to `most` digits; their value and how many there were.
    fn digits(&mut self, most: u32, radix: u32) -> (u32, u32) {
        let (mut value, mut count) = (0, 0);
        while count < most
            && let Some(digit) = self
                .peek()
                .and_then(|byte| char::from(byte).to_digit(radix))
        {
            value = value * radix + digit;
            count += 1;
            self.at += 1;
        }
        (value, count)
    }
}

/// What one line says; `None` when it is empty or for another server.
fn entry(words: &[Word], line: usize, own_name: &[u8]) -> Result<Option<Entry>, Fault> {
    const COLUMNS: &str =
        "write four columns: client, server, secret, addresses; for example: alice * \"secret\" *";
    let (client, server, secret, addresses) = match words {
        [] => return Ok(None),
        [client, server, secret, addresses @ ..] => (client, server, secret, addresses),
        _ => {
            return Err(fault(
                format!("the line has {} of four columns", words.len()),
                COLUMNS,
            ));
        }
    };
    let server = (!server.is(b"*")).then(|| server.text.to_vec());
    if server.as_deref().is_some_and(|server| server != own_name) {
        return Ok(None);
    }
    let client = (!client.is(b"*")).then(|| client.text.to_vec());
    if client.as_deref().is_some_and(<[u8]>::is_empty) {
        return Err(fault("the client is empty", COLUMNS));
    }
    if !secret.quoted && secret.text.first() == Some(&b'@') {
        return Err(fault(
            "the secret is in another file (@)",
            "write it here, or in quotes if it does begin with @",
        ));
    }
    let Ok(text) = core::str::from_utf8(&secret.text) else {
        return Err(fault("the secret is not UTF-8", "save the file as UTF-8"));
    };
    let Some(secret) = Secret::new(text) else {
        return Err(fault(
            "the secret is empty or longer than 256 characters",
            COLUMNS,
        ));
    };
    Ok(Some(Entry {
        line,
        client,
        server,
        secret,
        addresses: addresses_of(addresses)?,
    }))
}

fn addresses_of(words: &[Word]) -> Result<Addresses, Fault> {
    let mut ranges = Vec::new();
    for word in words {
        if word.is(b"*") {
            return Ok(Addresses::Pool);
        }
        if word.is(b"-") {
            break;
        }
        ranges.push(range(&String::from_utf8_lossy(&word.text))?);
    }
    if ranges.iter().map(|range| range.size()).sum::<u64>() > MAX_ADDRESSES {
        return Err(fault(
            "the line allows more than 65,536 addresses",
            "write * and let the pool decide",
        ));
    }
    Ok(match (words, ranges.is_empty()) {
        ([], _) => Addresses::Pool,
        (_, true) => Addresses::None,
        (_, false) => Addresses::Fixed(ranges),
    })
}

fn range(text: &str) -> Result<Range, Fault> {
    const INSTEAD: &str =
        "write IPv4 addresses or prefixes that the user may have, * for the pool, or - for none";
    if text == "--" {
        return Err(fault(
            "pppd options after -- have no meaning here",
            "take them out",
        ));
    }
    if text.starts_with('!') {
        return Err(fault(
            "an address with ! (all but this one) is not supported",
            "write those that the user may have",
        ));
    }
    let shown: String = text.chars().take(40).collect();
    let range = match text.parse::<Ipv4Net>() {
        Ok(prefix) if prefix.trunc() != prefix => {
            return Err(fault(
                format!("{prefix} has bits behind its prefix"),
                format!("write {}", prefix.trunc()),
            ));
        }
        Ok(prefix) => Range::hosts(prefix),
        Err(_) => Range::single(text.parse::<Ipv4Addr>().map_err(|_| {
            fault(
                format!("{shown:?} in the fourth column is no address"),
                INSTEAD,
            )
        })?),
    };
    if !range.is_unicast() {
        return Err(fault(
            format!("no host can have the address {range}"),
            INSTEAD,
        ));
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<Entry> {
        match parse(text.as_bytes(), "chap-secrets", "turnpike") {
            Ok(entries) => entries,
            Err(faults) => panic!("{faults:?}"),
        }
    }

    fn faults(text: &[u8]) -> Vec<String> {
        parse(text, "chap-secrets", "turnpike")
            .err()
            .unwrap_or_default()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    /// Whether the entry has this secret.
    fn has_secret(entry: &Entry, password: &str) -> bool {
        let secret = Secret::new(password).unwrap();
        secret.0.nt_hash().bytes() == entry.secret.0.nt_hash().bytes()
    }

    fn client(text: &str) -> Vec<u8> {
        entries(text).remove(0).client.unwrap()
    }

    #[test]
    fn reads_the_four_columns() {
        let entries = entries(
            "# client\tserver\tsecret\tIP addresses\n\
             \n\
             alice * \"correct horse\" *  # everywhere\n\
             bob turnpike s3cret 10.0.0.9 10.0.1.0/30\r\n\
             carol elsewhere hers *\n\
             'dave the 1st' * x'#'y -\n\
             * * shared",
        );
        let lines: Vec<_> = entries.iter().map(|entry| entry.line).collect();
        assert_eq!(lines, [3, 4, 6, 7]);
        assert_eq!(entries[0].client.as_deref(), Some(b"alice".as_slice()));
        assert!(entries[0].server.is_none());
        assert!(has_secret(&entries[0], "correct horse"));
        assert_eq!(entries[0].addresses, Addresses::Pool);
        assert_eq!(entries[1].server.as_deref(), Some(b"turnpike".as_slice()));
        assert_eq!(
            entries[1].addresses,
            Addresses::Fixed(vec![
                Range::single(Ipv4Addr::new(10, 0, 0, 9)),
                Range::new(Ipv4Addr::new(10, 0, 1, 1), Ipv4Addr::new(10, 0, 1, 2)).unwrap(),
            ])
        );
        assert_eq!(
            entries[2].client.as_deref(),
            Some(b"dave the 1st".as_slice())
        );
        assert!(has_secret(&entries[2], "x#y"));
        assert_eq!(entries[2].addresses, Addresses::None);
        assert!(entries[3].client.is_none());
        assert_eq!(entries[3].addresses, Addresses::Pool);
    }

    #[test]
    fn escapes_as_pppd_does() {
        assert_eq!(client(r#"HQ\\alice * x *"#), br"HQ\alice");
        assert_eq!(client(r#""HQ\\alice" * x *"#), br"HQ\alice");
        assert_eq!(client(r#"a\sb\ c * x *"#), b"a b c");
        assert_eq!(client(r#"a\"b'"'c * x *"#), br#"a"b"c"#);
        assert_eq!(client(r#"\101\x42\x4g * x *"#), b"AB\x04g");
        assert_eq!(client(r#"\"*\" * x *"#), br#""*""#);
        // Quoted, a star is a name.
        assert_eq!(client(r#""*" * x *"#), b"*");
        assert_eq!(client("ali\\\nce * \\\n x *"), b"alice");
        assert!(has_secret(
            &entries(r#"a * "pa\"ss w\\ord" *"#)[0],
            r#"pa"ss w\ord"#
        ));
        assert!(has_secret(&entries("a * \"\\@file\" *")[0], "@file"));
    }

    #[test]
    fn names_every_fault_with_its_line() {
        let faults = faults(
            b"alice *\n\
              bob * \"open\n\
              carol * \"\" *\n\
              dave * pw 10.0.0.300\n\
              erin * pw 10.0.0.1/24\n\
              frank * @/etc/secret *\n\
              grace * pw !10.0.0.1\n\
              heidi * pw 127.0.0.1\n\
              ivan * pw 10.0.0.0/8\n\
              judy * \xff *\n\
              good * pw *\n\
              \"\" * pw *\n\
              kate * half#password *",
        );
        let lines: Vec<_> = faults
            .iter()
            .map(|fault| fault.split(':').nth(1).unwrap())
            .collect();
        assert_eq!(
            lines,
            [
                "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "12", "13"
            ],
            "{faults:#?}"
        );
        assert!(faults[4].contains("write 10.0.0.0/24"), "{}", faults[4]);
    }

    #[test]
    fn lines_for_other_servers_may_hold_anything() {
        assert!(entries("alice elsewhere \"\" !x --\n").is_empty());
    }

    #[test]
    fn shows_no_secret() {
        for text in ["a * s3cret 1.2.3", "a * \"s3cret", "a * s3cret s3cret --"] {
            let all = faults(text.as_bytes()).join("\n");
            // The third text has a word of the fourth column, which may be shown.
            assert!(!all.is_empty());
            assert!(
                text.contains("s3cret s3cret") || !all.contains("s3cret"),
                "{all}"
            );
        }
    }

    #[test]
    fn never_panics() {
        // Every text of up to four of the characters that mean something.
        let alphabet = b"a*-\\\"'# \n\r0x!@/.\xff";
        let mut texts: Vec<Vec<u8>> = vec![Vec::new()];
        for _ in 0..4 {
            let longer: Vec<_> = texts
                .iter()
                .flat_map(|text| alphabet.iter().map(|byte| [text, &[*byte][..]].concat()))
                .collect();
            for text in &longer {
                let _ = parse(text, "f", "turnpike");
                let _ = parse(&[b"a * ".as_slice(), text].concat(), "f", "turnpike");
            }
            texts = longer;
        }
    }
}

//! Names: octets from a client on one side, accounts on the other.
//!
//! What MS-CHAP hashes is never touched by any of this: that is what the client sent, after the last backslash
//! (RFC 2759 §8.2). Here it is only decided which account is meant.

use core::fmt::Write as _;
use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// The longest name that is shown, in characters as sent.
const MAX_SHOWN: usize = 64;

/// What is done with a part of a name before accounts are searched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// It belongs to the name.
    Keep,
    /// It is left out, unless there is an account that has it.
    Strip,
}

/// Whether capitals matter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Case {
    /// They do.
    #[default]
    Keep,
    /// They do not: names are compared in lower case.
    Lower,
}

impl Case {
    /// The name as accounts are filed under it.
    pub fn fold(self, name: &[u8]) -> Vec<u8> {
        match (self, core::str::from_utf8(name)) {
            (Self::Keep, _) => name.to_vec(),
            (Self::Lower, Ok(text)) => text.to_lowercase().into_bytes(),
            // Which octets are letters depends on a code page that nobody knows.
            (Self::Lower, Err(_)) => name.to_ascii_lowercase(),
        }
    }
}

/// How names are looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Names {
    /// `DOMAIN\` in front of the last backslash, which Windows adds by itself.
    pub domain: Part,
    /// `@realm` from the last at sign on.
    pub realm: Part,
    /// Capitals.
    pub case: Case,
    /// What clients send.
    pub encoding: &'static Encoding,
    /// What those send that do not send `encoding`: tried when the octets are none of it, or name nobody.
    pub second_encoding: Option<&'static Encoding>,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            domain: Part::Strip,
            realm: Part::Keep,
            case: Case::Keep,
            encoding: UTF_8,
            second_encoding: None,
        }
    }
}

impl Names {
    /// The names under which an account may stand, the most exact first; at most twelve, none of them empty. Several
    /// may be the same.
    pub fn candidates(&self, wire: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        let texts = self.texts(wire).map(|text| Cow::Owned(text.into_bytes()));
        // A chap-secrets file may hold the very octets, in no encoding that is known here.
        let octets = core::iter::once(Cow::Borrowed(wire));
        texts.chain(octets).flat_map(|name| self.forms(&name))
    }

    /// The name as text, in each encoding in which it is one.
    pub fn texts(&self, wire: &[u8]) -> impl Iterator<Item = String> {
        let encodings = [Some(self.encoding), self.second_encoding];
        encodings.into_iter().flatten().filter_map(move |encoding| {
            encoding
                .decode_without_bom_handling_and_without_replacement(wire)
                .map(Cow::into_owned)
        })
    }

    /// The name as people read it.
    pub fn shown(&self, wire: &[u8]) -> String {
        let text = self.texts(wire).next();
        text.map_or_else(|| printable(wire), |text| printable(text.as_bytes()))
    }

    fn forms(&self, name: &[u8]) -> Vec<Vec<u8>> {
        let without_domain = |name: &[u8]| match name.iter().rposition(|octet| *octet == b'\\') {
            Some(at) => name[at + 1..].to_vec(),
            None => name.to_vec(),
        };
        let without_realm = |name: &[u8]| match name.iter().rposition(|octet| *octet == b'@') {
            Some(at) => name[..at].to_vec(),
            None => name.to_vec(),
        };
        let mut forms = vec![name.to_vec()];
        if self.domain == Part::Strip {
            forms.push(without_domain(name));
        }
        if self.realm == Part::Strip {
            for at in 0..forms.len() {
                forms.push(without_realm(&forms[at]));
            }
        }
        forms.retain(|form| !form.is_empty());
        for form in &mut forms {
            *form = self.case.fold(form);
        }
        forms
    }
}

/// An encoding by its name or one of the names that browsers know for it; `None` when there is none or clients cannot
/// send it. `iso-8859-1` is `windows-1252`, which has the same letters and more.
pub fn encoding(label: &str) -> Option<&'static Encoding> {
    Encoding::for_label_no_replacement(label.as_bytes())
        .filter(|encoding| ![UTF_16LE, UTF_16BE].contains(encoding))
}

/// A name from the network, fit for logs and terminals: what is no text, moves the cursor, is invisible or turns the
/// direction of writing stands there as `\x1b` or `\u{202e}`; cut after 64 characters.
pub fn printable(name: &[u8]) -> String {
    let mut shown = String::new();
    let mut room = MAX_SHOWN;
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars().take(room) {
            let _ = match character {
                '\0'..' ' | '\x7f' => write!(shown, "\\x{:02x}", u32::from(character)),
                _ if is_deceptive(character) => write!(shown, "{}", character.escape_unicode()),
                _ => shown.write_char(character),
            };
        }
        room = room.saturating_sub(chunk.valid().chars().count());
        for octet in chunk.invalid().iter().take(room) {
            let _ = write!(shown, "\\x{octet:02x}");
        }
        room = room.saturating_sub(chunk.invalid().len());
    }
    shown
}

/// Whether a character would make a line look other than it is.
fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidates(names: &Names, wire: &[u8]) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for name in names.candidates(wire) {
            let name = printable(&name);
            if !all.contains(&name) {
                all.push(name);
            }
        }
        all
    }

    #[test]
    fn a_domain_is_left_out_and_a_realm_is_not() {
        let names = Names::default();
        assert_eq!(candidates(&names, b"alice"), ["alice"]);
        assert_eq!(candidates(&names, br"HQ\alice"), [r"HQ\alice", "alice"]);
        assert_eq!(candidates(&names, br"A\B\alice"), [r"A\B\alice", "alice"]);
        assert_eq!(candidates(&names, b"Alice@hq"), ["Alice@hq"]);
    }

    #[test]
    fn every_part_has_its_rule() {
        let names = Names {
            realm: Part::Strip,
            ..Names::default()
        };
        assert_eq!(candidates(&names, b"alice@hq"), ["alice@hq", "alice"]);
        assert_eq!(candidates(&names, b"a@b@hq"), ["a@b@hq", "a@b"]);
        assert_eq!(
            candidates(&names, br"HQ\alice@hq"),
            [r"HQ\alice@hq", "alice@hq", r"HQ\alice", "alice"]
        );
        let names = Names {
            domain: Part::Keep,
            case: Case::Lower,
            ..Names::default()
        };
        assert_eq!(candidates(&names, br"HQ\Alice"), [r"hq\alice"]);
        assert_eq!(candidates(&names, "ÉMILE".as_bytes()), ["émile"]);
    }

    #[test]
    fn nobody_has_no_name() {
        let names = Names {
            realm: Part::Strip,
            ..Names::default()
        };
        assert!(candidates(&names, b"").is_empty());
        assert_eq!(candidates(&names, br"HQ\"), [r"HQ\"]);
        assert_eq!(candidates(&names, b"@hq"), ["@hq"]);
    }

    #[test]
    fn octets_are_read_in_the_encoding_that_clients_have() {
        let cp1251 = b"\xe8\xe2\xe0\xed";
        assert_eq!(candidates(&Names::default(), cp1251), [r"\xe8\xe2\xe0\xed"]);
        let russian = Names {
            encoding: encoding("windows-1251").unwrap(),
            ..Names::default()
        };
        assert_eq!(candidates(&russian, cp1251)[0], "иван");
        let second = Names {
            second_encoding: encoding("windows-1251"),
            case: Case::Lower,
            ..Names::default()
        };
        assert_eq!(
            candidates(&second, b"HQ\\\xc8\xe2\xe0\xed")[..2],
            [r"hq\иван", "иван"]
        );
        assert_eq!(candidates(&second, "Иван".as_bytes())[0], "иван");
        let latin = Names {
            encoding: encoding("iso-8859-1").unwrap(),
            ..Names::default()
        };
        assert_eq!(candidates(&latin, b"andr\xe9")[0], "andré");
        // In Shift_JIS a backslash may be half of a character.
        let japanese = Names {
            encoding: encoding("shift_jis").unwrap(),
            ..Names::default()
        };
        assert_eq!(
            candidates(&japanese, b"HQ\\\x83\x5c")[..2],
            [r"HQ\ソ", "ソ"]
        );
    }

    #[test]
    fn encodings_are_those_that_clients_can_have() {
        for label in [
            "utf-8",
            "UTF-8",
            "windows-1251",
            "cp1251",
            "latin1",
            "koi8-r",
            "gbk",
        ] {
            assert!(encoding(label).is_some(), "{label}");
        }
        for label in ["utf-16", "utf-16le", "utf-16be", "replacement", "ansi", ""] {
            assert!(encoding(label).is_none(), "{label}");
        }
    }

    #[test]
    fn logs_are_not_deceived() {
        assert_eq!(printable(b"HQ\\alice"), "HQ\\alice");
        assert_eq!(printable("Zoë Ω 𝄞".as_bytes()), "Zoë Ω 𝄞");
        assert_eq!(printable(b"a\x1b[2Jb\r\n\x7f"), r"a\x1b[2Jb\x0d\x0a\x7f");
        assert_eq!(printable(b"caf\xe9"), r"caf\xe9");
        assert_eq!(
            printable("a\u{85}\u{202e}b\u{2028}".as_bytes()),
            r"a\u{85}\u{202e}b\u{2028}"
        );
        assert_eq!(printable(&[b'x'; 300]).len(), 64);
        assert_eq!(printable(&[0xff; 300]).len(), 64 * 4);
        assert_eq!(Names::default().shown(b"caf\xe9"), r"caf\xe9");
        let russian = Names {
            second_encoding: encoding("windows-1251"),
            ..Names::default()
        };
        assert_eq!(russian.shown(b"\xc8\xe2\xe0\xed\x07"), r"Иван\x07");
    }

    proptest! {
        #[test]
        fn any_octets_are_names(
            wire in prop::collection::vec(any::<u8>(), 0..260),
            label in prop::sample::select(vec!["utf-8", "windows-1251", "shift_jis", "gb18030", "iso-2022-jp"]),
            (strip_domain, strip_realm, lower) in any::<(bool, bool, bool)>(),
        ) {
            let part = |strip| if strip { Part::Strip } else { Part::Keep };
            let names = Names {
                domain: part(strip_domain),
                realm: part(strip_realm),
                case: if lower { Case::Lower } else { Case::Keep },
                encoding: UTF_8,
                second_encoding: encoding(label),
            };
            let all: Vec<_> = names.candidates(&wire).collect();
            prop_assert!(all.len() <= 12);
            prop_assert!(all.iter().all(|name| !name.is_empty()));
            // Whoever writes the very octets into a file is found by them.
            prop_assert!(wire.is_empty() || all.contains(&names.case.fold(&wire)));
            for shown in [printable(&wire), names.shown(&wire)] {
                prop_assert!(!shown.contains(|c: char| c.is_control() || is_deceptive(c)));
                prop_assert!(shown.chars().count() <= 64 * 10);
            }
        }
    }
}

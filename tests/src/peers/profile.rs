//! A client as data: what it sends, what it takes, in the octets and the order that are known of it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use turnpike_protocol::ppp::AuthProtocol;

/// How a user proves who he is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// RFC 1334.
    Pap,
    /// RFC 1994.
    ChapMd5,
    /// RFC 2433.
    MsChapV1,
    /// RFC 2759.
    MsChapV2,
}

impl From<Method> for AuthProtocol {
    fn from(method: Method) -> Self {
        match method {
            Method::Pap => Self::Pap,
            Method::ChapMd5 => Self::ChapMd5,
            Method::MsChapV1 => Self::MsChapV1,
            Method::MsChapV2 => Self::MsChapV2,
        }
    }
}

impl Method {
    /// All of them, weakest first.
    pub const ALL: [Self; 4] = [Self::Pap, Self::ChapMd5, Self::MsChapV1, Self::MsChapV2];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pap => "PAP",
            Self::ChapMd5 => "CHAP-MD5",
            Self::MsChapV1 => "MS-CHAPv1",
            Self::MsChapV2 => "MS-CHAPv2",
        }
    }

    /// Whether MPPE keys come of it.
    pub const fn has_keys(self) -> bool {
        matches!(self, Self::MsChapV1 | Self::MsChapV2)
    }

    /// LCP's Authentication-Protocol option, after type and length.
    pub const fn option(self) -> &'static [u8] {
        match self {
            Self::Pap => &[0xc0, 0x23],
            Self::ChapMd5 => &[0xc2, 0x23, 0x05],
            Self::MsChapV1 => &[0xc2, 0x23, 0x80],
            Self::MsChapV2 => &[0xc2, 0x23, 0x81],
        }
    }
}

/// How data is encrypted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mppe {
    /// Not at all.
    Clear,
    /// With keys of so many bits.
    Keys {
        /// 40, 56 or 128.
        bits: u8,
        /// A key for each packet.
        stateless: bool,
    },
}

impl Mppe {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Clear,
        Self::keys(40, true),
        Self::keys(40, false),
        Self::keys(56, true),
        Self::keys(56, false),
        Self::keys(128, true),
        Self::keys(128, false),
    ];

    /// MPPE with keys.
    pub const fn keys(bits: u8, stateless: bool) -> Self {
        Self::Keys { bits, stateless }
    }

    /// The bits of CCP option 18 that ask for exactly this.
    pub const fn option(self) -> u32 {
        match self {
            Self::Clear => 0,
            Self::Keys { bits, stateless } => {
                let strength = match bits {
                    40 => 0x20,
                    56 => 0x80,
                    _ => 0x40,
                };
                strength | if stateless { 0x0100_0000 } else { 0 }
            }
        }
    }
}

/// A client. Octets are written in hexadecimal; `MAGIC` stands for its magic number.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Profile {
    /// What people call it.
    pub name: String,
    /// Keys of this file whose values are not known, and why they are as they are.
    pub assumed: BTreeMap<String, String>,
    pub(super) control: Control,
    pub(super) gre: Gre,
    pub(super) lcp: Lcp,
    pub(super) login: Login,
    pub(super) ccp: Ccp,
    pub(super) ipcp: Network,
    pub(super) ipv6cp: Option<Network>,
    /// Protocols that it begins beside these, with their first Configure-Request's options.
    #[serde(default)]
    pub(super) other: Vec<Other>,
    /// How it hangs up, step by step.
    pub(super) goodbye: Vec<Step>,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Control {
    pub framing: u32,
    pub bearer: u32,
    pub channels: u16,
    pub firmware: u16,
    pub host: String,
    pub vendor: String,
    /// What follows the NUL of both names, up to the end of their fields.
    pub padding: u8,
    pub call_id: u16,
    pub serial: u16,
    pub min_bps: u32,
    pub max_bps: u32,
    pub call_bearer: u32,
    pub call_framing: u32,
    pub window: u16,
    pub delay: u16,
    /// Sends Set-Link-Info with these two character maps as soon as the call stands.
    pub link_info: Option<[u32; 2]>,
    /// Seconds without a message after which it sends an Echo-Request.
    pub echo: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Gre {
    /// Number of the first packet.
    pub first: u32,
    /// Milliseconds after which what has come is acknowledged without data.
    pub ack_delay: u64,
}

/// When FF 03 is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Omission {
    /// When the server asked for it and the client agreed (RFC 1661 §6.6).
    Agreed,
    /// Whatever was agreed, outside LCP.
    Always,
    /// Whatever was agreed, LCP included.
    Everywhere,
}

/// How identifiers of packets are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Counting {
    /// One row for all protocols.
    Shared,
    /// A row for each protocol.
    Each,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Lcp {
    pub first_identifier: u8,
    pub identifiers: Counting,
    pub request: Vec<String>,
    /// Types of our options that it rejects.
    pub rejects: Vec<u8>,
    pub omits_address: Omission,
    /// Seconds until a request is repeated.
    pub restart: u64,
    /// Identification packets (RFC 1570 §2.1) once LCP is open, after the magic number.
    pub identification: Vec<String>,
    /// An Echo-Request as soon as LCP is open, before authentication.
    pub echo_at_once: bool,
    /// Seconds between Echo-Requests; 0: never.
    pub echo: u64,
    /// Data of its Terminate-Request.
    pub terminate: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Login {
    /// Methods that its user can choose from.
    pub methods: Vec<Method>,
    /// Put before the name, with a backslash.
    pub domain: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Ccp {
    /// The first Configure-Request when its user wants encryption.
    pub request: Vec<String>,
    /// The same when he wants none; empty: CCP is not begun.
    pub clear: Vec<String>,
    /// Strengths that it can be brought to.
    pub strengths: Vec<u8>,
    /// Whether it can be brought to keys that are not changed for every packet.
    pub stateful: bool,
    /// Answers our request with a Nak of these bits, however right it was,
    #[serde(default)]
    pub nak: String,
    /// until it has done so this often.
    #[serde(default)]
    pub naks: u8,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Network {
    pub request: Vec<String>,
    /// Begins only when encryption stands; before, requests are answered with Terminate-Ack.
    #[serde(default)]
    pub waits_for_ccp: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Other {
    /// PPP protocol number.
    pub protocol: String,
    pub request: Vec<String>,
}

/// A step of hanging up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Step {
    /// LCP Terminate-Request, and the wait for its Ack.
    Terminate,
    /// Call-Clear-Request.
    Clear,
    /// Stop-Control-Connection-Request.
    Stop,
    /// TCP is closed.
    Close,
}

impl Profile {
    /// All of them, in the order of the table.
    ///
    /// # Panics
    /// A file cannot be read, or says what is not understood.
    pub fn all() -> Vec<Self> {
        const NAMES: [&str; 7] = [
            "windows-xp",
            "windows-7",
            "windows-10",
            "android",
            "macos",
            "routeros",
            "yamaha-rtx",
        ];
        NAMES.iter().map(|name| Self::changed(name, &[])).collect()
    }

    /// The client of this file, with other values for some of its keys (`lcp.echo`, for example).
    ///
    /// # Panics
    /// As [`Self::all`]; a key is not there.
    pub fn changed(name: &str, changes: &[(&str, toml::Value)]) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("peers")
            .join(name)
            .with_extension("toml");
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut table: toml::Table =
            toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for (key, value) in changes {
            let (section, key) = key.split_once('.').expect("a key in a section");
            let place = table.get_mut(section).and_then(|it| it.get_mut(key));
            *place.unwrap_or_else(|| panic!("{name}: {key} is not there")) = value.clone();
        }
        let profile: Self = table
            .clone()
            .try_into()
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for (key, reason) in &profile.assumed {
            let mut place = Some(toml::Value::Table(table.clone()));
            for part in key.split('.') {
                place = place.and_then(|value| value.get(part).cloned());
            }
            assert!(
                place.is_some(),
                "{name}: {key} is assumed, and is not there"
            );
            assert!(!reason.is_empty(), "{name}: {key} is assumed for no reason");
        }
        profile
    }
}

/// The octets of a line.
pub(super) fn octets(text: &str, magic: u32) -> Vec<u8> {
    let text = text.replace("MAGIC", &format!("{magic:08x}"));
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    assert!(digits.len().is_multiple_of(2), "{text}: half an octet");
    digits
        .chunks(2)
        .map(|pair| {
            let pair: String = pair.iter().collect();
            u8::from_str_radix(&pair, 16).unwrap_or_else(|_| panic!("{text}: {pair} is no octet"))
        })
        .collect()
}

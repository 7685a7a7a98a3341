//! The attributes that have names here: one line each.

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

/// A kind of attribute: its number, and whose numbers those are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attribute {
    /// SMI Network Management Private Enterprise Code; 0: those of the RFCs.
    pub vendor: u32,
    /// The type, 1 to 255.
    pub number: u8,
}

/// What a value looks like.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Text for people or programs, mostly UTF-8.
    Text,
    /// Any octets.
    Octets,
    /// Four octets, big-endian.
    Integer,
    /// An IPv4 address.
    Address,
    /// An IPv6 address.
    Address6,
    /// A reserved octet, a length in bits, and as much of an IPv6 prefix as is needed (RFC 3162 §2.3).
    Prefix6,
    /// An octet of tag up to 1f, then three octets of number (RFC 2868 §3.1).
    TaggedInteger,
    /// Text, behind a tag if its first octet is up to 1f (RFC 2868 §3.3).
    TaggedText,
    /// Hidden by the shared secret; never printed.
    Hidden,
}

/// Microsoft (RFC 2548).
pub const MICROSOFT: u32 = 311;
/// Cisco.
pub const CISCO: u32 = 9;
/// Mikrotik.
pub const MIKROTIK: u32 = 14_988;
/// The Wi-Fi Alliance's WISPr.
pub const WISPR: u32 = 14_122;

macro_rules! attributes {
    ($($constant:ident = $vendor:expr, $number:literal, $name:literal, $kind:ident;)*) => {
        impl Attribute {
            $(
                #[doc = concat!("`", $name, "`")]
                pub const $constant: Self = Self { vendor: $vendor, number: $number };
            )*

            /// Every attribute that has a name.
            pub const ALL: &'static [Self] = &[$(Self::$constant,)*];

            /// Its name, as in dictionaries of RADIUS servers.
            pub const fn name(self) -> Option<&'static str> {
                Some(match self {
                    $(Self::$constant => $name,)*
                    _ => return None,
                })
            }

            /// What its values look like; octets where it has no name.
            pub const fn kind(self) -> Kind {
                match self {
                    $(Self::$constant => Kind::$kind,)*
                    _ => Kind::Octets,
                }
            }
        }
    };
}

attributes! {
    USER_NAME = 0, 1, "User-Name", Text;
    USER_PASSWORD = 0, 2, "User-Password", Hidden;
    CHAP_PASSWORD = 0, 3, "CHAP-Password", Hidden;
    NAS_IP_ADDRESS = 0, 4, "NAS-IP-Address", Address;
    NAS_PORT = 0, 5, "NAS-Port", Integer;
    SERVICE_TYPE = 0, 6, "Service-Type", Integer;
    FRAMED_PROTOCOL = 0, 7, "Framed-Protocol", Integer;
    FRAMED_IP_ADDRESS = 0, 8, "Framed-IP-Address", Address;
    FRAMED_IP_NETMASK = 0, 9, "Framed-IP-Netmask", Address;
    FRAMED_ROUTING = 0, 10, "Framed-Routing", Integer;
    FILTER_ID = 0, 11, "Filter-Id", Text;
    FRAMED_MTU = 0, 12, "Framed-MTU", Integer;
    FRAMED_COMPRESSION = 0, 13, "Framed-Compression", Integer;
    REPLY_MESSAGE = 0, 18, "Reply-Message", Text;
    FRAMED_ROUTE = 0, 22, "Framed-Route", Text;
    STATE = 0, 24, "State", Octets;
    CLASS = 0, 25, "Class", Octets;
    VENDOR_SPECIFIC = 0, 26, "Vendor-Specific", Octets;
    SESSION_TIMEOUT = 0, 27, "Session-Timeout", Integer;
    IDLE_TIMEOUT = 0, 28, "Idle-Timeout", Integer;
    TERMINATION_ACTION = 0, 29, "Termination-Action", Integer;
    CALLED_STATION_ID = 0, 30, "Called-Station-Id", Text;
    CALLING_STATION_ID = 0, 31, "Calling-Station-Id", Text;
    NAS_IDENTIFIER = 0, 32, "NAS-Identifier", Text;
    PROXY_STATE = 0, 33, "Proxy-State", Octets;
    ACCT_STATUS_TYPE = 0, 40, "Acct-Status-Type", Integer;
    ACCT_DELAY_TIME = 0, 41, "Acct-Delay-Time", Integer;
    ACCT_INPUT_OCTETS = 0, 42, "Acct-Input-Octets", Integer;
    ACCT_OUTPUT_OCTETS = 0, 43, "Acct-Output-Octets", Integer;
    ACCT_SESSION_ID = 0, 44, "Acct-Session-Id", Text;
    ACCT_AUTHENTIC = 0, 45, "Acct-Authentic", Integer;
    ACCT_SESSION_TIME = 0, 46, "Acct-Session-Time", Integer;
    ACCT_INPUT_PACKETS = 0, 47, "Acct-Input-Packets", Integer;
    ACCT_OUTPUT_PACKETS = 0, 48, "Acct-Output-Packets", Integer;
    ACCT_TERMINATE_CAUSE = 0, 49, "Acct-Terminate-Cause", Integer;
    ACCT_MULTI_SESSION_ID = 0, 50, "Acct-Multi-Session-Id", Text;
    ACCT_LINK_COUNT = 0, 51, "Acct-Link-Count", Integer;
    ACCT_INPUT_GIGAWORDS = 0, 52, "Acct-Input-Gigawords", Integer;
    ACCT_OUTPUT_GIGAWORDS = 0, 53, "Acct-Output-Gigawords", Integer;
    EVENT_TIMESTAMP = 0, 55, "Event-Timestamp", Integer;
    CHAP_CHALLENGE = 0, 60, "CHAP-Challenge", Octets;
    NAS_PORT_TYPE = 0, 61, "NAS-Port-Type", Integer;
    TUNNEL_TYPE = 0, 64, "Tunnel-Type", TaggedInteger;
    TUNNEL_MEDIUM_TYPE = 0, 65, "Tunnel-Medium-Type", TaggedInteger;
    TUNNEL_CLIENT_ENDPOINT = 0, 66, "Tunnel-Client-Endpoint", TaggedText;
    TUNNEL_SERVER_ENDPOINT = 0, 67, "Tunnel-Server-Endpoint", TaggedText;
    ACCT_TUNNEL_CONNECTION = 0, 68, "Acct-Tunnel-Connection", Text;
    TUNNEL_PASSWORD = 0, 69, "Tunnel-Password", Hidden;
    CONNECT_INFO = 0, 77, "Connect-Info", Text;
    EAP_MESSAGE = 0, 79, "EAP-Message", Octets;
    MESSAGE_AUTHENTICATOR = 0, 80, "Message-Authenticator", Octets;
    ACCT_INTERIM_INTERVAL = 0, 85, "Acct-Interim-Interval", Integer;
    NAS_PORT_ID = 0, 87, "NAS-Port-Id", Text;
    FRAMED_POOL = 0, 88, "Framed-Pool", Text;
    NAS_IPV6_ADDRESS = 0, 95, "NAS-IPv6-Address", Address6;
    FRAMED_INTERFACE_ID = 0, 96, "Framed-Interface-Id", Octets;
    FRAMED_IPV6_PREFIX = 0, 97, "Framed-IPv6-Prefix", Prefix6;
    FRAMED_IPV6_ROUTE = 0, 99, "Framed-IPv6-Route", Text;
    FRAMED_IPV6_POOL = 0, 100, "Framed-IPv6-Pool", Text;
    ERROR_CAUSE = 0, 101, "Error-Cause", Integer;
    DELEGATED_IPV6_PREFIX = 0, 123, "Delegated-IPv6-Prefix", Prefix6;
    FRAMED_IPV6_ADDRESS = 0, 168, "Framed-IPv6-Address", Address6;
    DNS_SERVER_IPV6_ADDRESS = 0, 169, "DNS-Server-IPv6-Address", Address6;

    CISCO_AVPAIR = CISCO, 1, "Cisco-AVPair", Text;

    MS_CHAP_RESPONSE = MICROSOFT, 1, "MS-CHAP-Response", Hidden;
    MS_CHAP_ERROR = MICROSOFT, 2, "MS-CHAP-Error", Octets;
    MS_CHAP_CPW_2 = MICROSOFT, 4, "MS-CHAP-CPW-2", Hidden;
    MS_CHAP_NT_ENC_PW = MICROSOFT, 6, "MS-CHAP-NT-Enc-PW", Hidden;
    MS_MPPE_ENCRYPTION_POLICY = MICROSOFT, 7, "MS-MPPE-Encryption-Policy", Integer;
    MS_MPPE_ENCRYPTION_TYPES = MICROSOFT, 8, "MS-MPPE-Encryption-Types", Integer;
    MS_CHAP_DOMAIN = MICROSOFT, 10, "MS-CHAP-Domain", Octets;
    MS_CHAP_CHALLENGE = MICROSOFT, 11, "MS-CHAP-Challenge", Octets;
    MS_CHAP_MPPE_KEYS = MICROSOFT, 12, "MS-CHAP-MPPE-Keys", Hidden;
    MS_MPPE_SEND_KEY = MICROSOFT, 16, "MS-MPPE-Send-Key", Hidden;
    MS_MPPE_RECV_KEY = MICROSOFT, 17, "MS-MPPE-Recv-Key", Hidden;
    MS_RAS_VERSION = MICROSOFT, 18, "MS-RAS-Version", Text;
    MS_ACCT_AUTH_TYPE = MICROSOFT, 23, "MS-Acct-Auth-Type", Integer;
    MS_ACCT_EAP_TYPE = MICROSOFT, 24, "MS-Acct-EAP-Type", Integer;
    MS_CHAP2_RESPONSE = MICROSOFT, 25, "MS-CHAP2-Response", Hidden;
    MS_CHAP2_SUCCESS = MICROSOFT, 26, "MS-CHAP2-Success", Octets;
    MS_CHAP2_CPW = MICROSOFT, 27, "MS-CHAP2-CPW", Hidden;
    MS_PRIMARY_DNS_SERVER = MICROSOFT, 28, "MS-Primary-DNS-Server", Address;
    MS_SECONDARY_DNS_SERVER = MICROSOFT, 29, "MS-Secondary-DNS-Server", Address;
    MS_PRIMARY_NBNS_SERVER = MICROSOFT, 30, "MS-Primary-NBNS-Server", Address;
    MS_SECONDARY_NBNS_SERVER = MICROSOFT, 31, "MS-Secondary-NBNS-Server", Address;

    WISPR_BANDWIDTH_MAX_UP = WISPR, 7, "WISPr-Bandwidth-Max-Up", Integer;
    WISPR_BANDWIDTH_MAX_DOWN = WISPR, 8, "WISPr-Bandwidth-Max-Down", Integer;

    MIKROTIK_RECV_LIMIT = MIKROTIK, 1, "Mikrotik-Recv-Limit", Integer;
    MIKROTIK_XMIT_LIMIT = MIKROTIK, 2, "Mikrotik-Xmit-Limit", Integer;
    MIKROTIK_GROUP = MIKROTIK, 3, "Mikrotik-Group", Text;
    MIKROTIK_RATE_LIMIT = MIKROTIK, 8, "Mikrotik-Rate-Limit", Text;
    MIKROTIK_RECV_LIMIT_GIGAWORDS = MIKROTIK, 14, "Mikrotik-Recv-Limit-Gigawords", Integer;
    MIKROTIK_XMIT_LIMIT_GIGAWORDS = MIKROTIK, 15, "Mikrotik-Xmit-Limit-Gigawords", Integer;
    MIKROTIK_TOTAL_LIMIT = MIKROTIK, 17, "Mikrotik-Total-Limit", Integer;
    MIKROTIK_TOTAL_LIMIT_GIGAWORDS = MIKROTIK, 18, "Mikrotik-Total-Limit-Gigawords", Integer;
    MIKROTIK_ADDRESS_LIST = MIKROTIK, 19, "Mikrotik-Address-List", Text;
}

impl Attribute {
    /// The most octets that one value may have: 253, or 247 in a Vendor-Specific of its own.
    pub const fn max_value(self) -> usize {
        if self.vendor == 0 { 253 } else { 247 }
    }
}

/// `User-Name`, or numbers where there is no name: `26.9.7` for 7 of vendor 9.
impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self.vendor) {
            (Some(name), _) => f.write_str(name),
            (None, 0) => write!(f, "attribute {}", self.number),
            (None, vendor) => write!(f, "attribute 26.{vendor}.{}", self.number),
        }
    }
}

impl fmt::Debug for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Reads four octets, big-endian.
pub fn integer(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// Reads an IPv4 address.
pub fn address(value: &[u8]) -> Option<Ipv4Addr> {
    integer(value).map(Ipv4Addr::from_bits)
}

/// Reads an IPv6 address.
pub fn address6(value: &[u8]) -> Option<Ipv6Addr> {
    <[u8; 16]>::try_from(value).ok().map(Ipv6Addr::from)
}

/// Reads an IPv6 prefix (RFC 3162 §2.3). Bits behind its length must be zero.
pub fn prefix6(value: &[u8]) -> Option<Ipv6Net> {
    let (&[_, length], octets) = value.split_first_chunk::<2>()?;
    let mut address = [0; 16];
    address
        .get_mut(..octets.len())
        .filter(|_| octets.len() * 8 >= usize::from(length))?
        .copy_from_slice(octets);
    let prefix = Ipv6Net::new(address.into(), length).ok()?;
    (prefix.trunc() == prefix).then_some(prefix)
}

/// Writes an IPv6 prefix.
pub fn prefix6_octets(prefix: Ipv6Net) -> Vec<u8> {
    let length = prefix.prefix_len();
    let octets = &prefix.trunc().addr().octets()[..usize::from(length.div_ceil(8))];
    [&[0, length], octets].concat()
}

/// Takes the tag off a tagged text (RFC 2868 §3.3): an octet up to 1f.
pub fn untagged(value: &[u8]) -> &[u8] {
    match value {
        [0..=0x1f, text @ ..] => text,
        _ => value,
    }
}

/// Shows a value for people, without what would disturb a terminal or a log. What is hidden stays so.
pub fn show(attribute: Attribute, value: &[u8]) -> String {
    let octets = || {
        let shown = value.iter().take(64).map(|octet| format!("{octet:02x}"));
        let cut = if value.len() > 64 { ".." } else { "" };
        format!("0x{}{cut}", shown.collect::<String>())
    };
    let or_octets = |shown: Option<String>| shown.unwrap_or_else(octets);
    match attribute.kind() {
        Kind::Text => format!("{:?}", crate::ppp::printable(value)),
        Kind::TaggedText => format!("{:?}", crate::ppp::printable(untagged(value))),
        Kind::Integer => or_octets(integer(value).map(|number| number.to_string())),
        Kind::TaggedInteger => {
            or_octets(integer(value).map(|number| (number & 0x00ff_ffff).to_string()))
        }
        Kind::Address => or_octets(address(value).map(|address| address.to_string())),
        Kind::Address6 => or_octets(address6(value).map(|address| address.to_string())),
        Kind::Prefix6 => or_octets(prefix6(value).map(|prefix| prefix.to_string())),
        Kind::Hidden => format!("({} octets, hidden)", value.len()),
        Kind::Octets if matches!(attribute, Attribute::MS_CHAP_ERROR) => {
            format!(
                "{:?}",
                crate::ppp::printable(value.get(1..).unwrap_or_default())
            )
        }
        Kind::Octets => octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attribute_stands_once() {
        let mut seen = std::collections::HashSet::new();
        for attribute in Attribute::ALL {
            assert!(seen.insert(*attribute), "{attribute}");
            assert!(seen.len() <= Attribute::ALL.len());
            assert!(attribute.number > 0);
        }
        assert_eq!(Attribute::MS_CHAP2_SUCCESS.to_string(), "MS-CHAP2-Success");
        let unknown = Attribute {
            vendor: 9,
            number: 7,
        };
        assert_eq!(
            (unknown.name(), unknown.to_string().as_str()),
            (None, "attribute 26.9.7")
        );
        assert_eq!(unknown.max_value(), 247);
    }

    #[test]
    fn prefixes_are_as_long_as_they_say() {
        let prefix: Ipv6Net = "2001:db8:7::/48".parse().unwrap();
        let octets = prefix6_octets(prefix);
        assert_eq!(octets, [0, 48, 0x20, 0x01, 0x0d, 0xb8, 0, 7]);
        assert_eq!(prefix6(&octets), Some(prefix));
        // Some servers send all sixteen octets.
        assert_eq!(prefix6(&[&octets[..], &[0; 10]].concat()), Some(prefix));
        for wrong in [
            &b""[..],
            &[0],
            &[0, 8],
            &[0, 129],
            &[0, 8, 1, 2],
            &[0; 19],
            &[0, 200, 1],
        ] {
            assert_eq!(prefix6(wrong), None, "{wrong:?}");
        }
        assert_eq!(prefix6(&[0, 0]).unwrap().to_string(), "::/0");
    }

    #[test]
    fn shows_values_and_hides_secrets() {
        for (attribute, value, shown) in [
            (Attribute::USER_NAME, &b"al\x1bice"[..], "\"al.ice\""),
            (Attribute::NAS_PORT, &[0, 0, 1, 0], "256"),
            (Attribute::NAS_PORT, &[1, 0], "0x0100"),
            (Attribute::FRAMED_IP_ADDRESS, &[10, 0, 0, 9], "10.0.0.9"),
            (Attribute::TUNNEL_TYPE, &[1, 0, 0, 1], "1"),
            (
                Attribute::TUNNEL_CLIENT_ENDPOINT,
                b"\x0110.0.0.1",
                "\"10.0.0.1\"",
            ),
            (Attribute::MS_CHAP_ERROR, b"\x01E=691 R=0", "\"E=691 R=0\""),
            (Attribute::MS_MPPE_SEND_KEY, b"secret", "(6 octets, hidden)"),
            (Attribute::CLASS, &[0xab, 1], "0xab01"),
        ] {
            assert_eq!(show(attribute, value), shown);
        }
    }
}

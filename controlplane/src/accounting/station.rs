//! How a call is named to accounting and to RADIUS servers: NAS-Port, NAS-Port-Id and the two station ids.

use core::fmt::Write as _;

use turnpike_dataplane::api::CallRef;

/// The most octets that an attribute's value holds (RFC 2865 §5).
const MAX_VALUE: usize = 253;

/// What NAS-Port (RFC 2865 §5.5) says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NasPort {
    /// The call's id. Unique among the calls there are, up to 65,535 of them.
    #[default]
    Call,
    /// It is left out.
    None,
}

/// A text with places for what is known of a call: `{client}` and `{server}` are outer addresses, `{call}` is the call's
/// id, `{name}` the server's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template(Vec<Piece>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Text(String),
    Client,
    Server,
    Call,
    Name,
}

impl Template {
    /// The longest text that a template may be, in octets.
    pub const MAX: usize = 64;

    /// Reads a template; `None` when it is empty or too long, holds what is no visible ASCII or blank, or has a place that
    /// nothing goes to.
    pub fn new(text: &str) -> Option<Self> {
        let fits = !text.is_empty()
            && text.len() <= Self::MAX
            && text.bytes().all(|octet| (b' '..=b'~').contains(&octet));
        if !fits {
            return None;
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (place, after) = after.split_once('}')?;
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(match place {
                "client" => Piece::Client,
                "server" => Piece::Server,
                "call" => Piece::Call,
                "name" => Piece::Name,
                _ => return None,
            });
            rest = after;
        }
        if rest.contains('}') {
            return None;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Some(Self(pieces))
    }

    /// The text for a call.
    pub fn of(&self, call: CallRef, name: &str) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            // Writing to a string cannot fail.
            let _ = match piece {
                Piece::Text(piece) => write!(text, "{piece}"),
                Piece::Client => write!(text, "{}", call.peer),
                Piece::Server => write!(text, "{}", call.local),
                Piece::Call => write!(text, "{}", call.id.0),
                Piece::Name => write!(text, "{name}"),
            };
        }
        // All of it is ASCII.
        text.truncate(MAX_VALUE);
        text
    }
}

/// How calls are named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stations {
    /// NAS-Port.
    pub nas_port: NasPort,
    /// NAS-Port-Id.
    pub nas_port_id: Template,
    /// Calling-Station-Id.
    pub calling: Template,
    /// Called-Station-Id.
    pub called: Template,
}

impl Default for Stations {
    /// Addresses as station ids, as accel-ppp and RRAS have them.
    fn default() -> Self {
        Self {
            nas_port: NasPort::Call,
            nas_port_id: Template(vec![Piece::Text("pptp".to_owned()), Piece::Call]),
            calling: Template(vec![Piece::Client]),
            called: Template(vec![Piece::Server]),
        }
    }
}

impl Stations {
    /// The call's NAS-Port.
    pub fn port(&self, call: CallRef) -> Option<u32> {
        match self.nas_port {
            NasPort::Call => Some(call.id.0.into()),
            NasPort::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use turnpike_protocol::CallId;

    use super::*;

    #[test]
    fn templates_take_what_is_known_of_a_call() {
        let call = CallRef {
            local: Ipv4Addr::new(192, 0, 2, 1),
            peer: Ipv4Addr::new(203, 0, 113, 5),
            id: CallId(17),
        };
        let of = |text: &str| Template::new(text).map(|template| template.of(call, "edge1"));
        assert_eq!(of("{client}").as_deref(), Some("203.0.113.5"));
        assert_eq!(
            of("{name}/ppp{call} at {server}").as_deref(),
            Some("edge1/ppp17 at 192.0.2.1")
        );
        assert_eq!(of("plain").as_deref(), Some("plain"));
        let long = "x".repeat(63);
        let text = Template::new(&"{name}".repeat(8)).unwrap().of(call, &long);
        assert_eq!(text.len(), 253);
        for wrong in [
            "",
            "{",
            "}",
            "{client",
            "{user}",
            "a}b",
            "{client}}",
            "ü",
            "a\nb",
        ] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
        assert_eq!(of(&"x".repeat(65)), None);
        let stations = Stations::default();
        assert_eq!(stations.port(call), Some(17));
        assert_eq!(stations.nas_port_id, Template::new("pptp{call}").unwrap());
        assert_eq!(stations.calling, Template::new("{client}").unwrap());
        assert_eq!(stations.called, Template::new("{server}").unwrap());
    }
}

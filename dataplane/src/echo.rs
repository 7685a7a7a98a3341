//! LCP Echo-Requests (RFC 1661 §5.8), answered where they arrive: every client sends one every few seconds, and they tell the
//! control plane nothing that the call's counters do not.

const ECHO_REQUEST: u8 = 9;
const ECHO_REPLY: u8 = 10;

/// What stands in front of every LCP packet, whatever was agreed (RFC 1661 §6.5 and §6.6).
const LCP: [u8; 4] = [0xff, 0x03, 0xc0, 0x21];

/// Octets of code, identifier, length and magic number.
const HEADER_LEN: usize = 8;

/// Turns an Echo-Request, from FF 03 on, into the answer with our magic number; returns the length of that. None, and
/// nothing is changed: it is something else, or malformed, or has our own magic number and came out of a loop. That is for
/// whoever negotiates.
pub(crate) fn answer(frame: &mut [u8], ours: u32) -> Option<usize> {
    let lcp = frame.strip_prefix(&LCP)?;
    let [ECHO_REQUEST, _, high, low, theirs @ ..] = lcp else {
        return None;
    };
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    let ours = ours.to_be_bytes();
    // Octets beyond the length are padding (RFC 1661 §5).
    if len < HEADER_LEN || len > lcp.len() || theirs.starts_with(&ours) {
        return None;
    }
    let lcp = &mut frame[LCP.len()..];
    lcp[0] = ECHO_REPLY;
    // RFC 1661 §5.8: our magic number, and the data as it came.
    lcp[4..HEADER_LEN].copy_from_slice(&ours);
    Some(LCP.len() + len)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: u32 = 0x0102_0304;

    fn answered(frame: &[u8]) -> Option<Vec<u8>> {
        let mut octets = frame.to_vec();
        let len = answer(&mut octets, OURS);
        match len {
            Some(len) => octets.truncate(len),
            None => assert_eq!(octets, frame, "nothing is changed"),
        }
        len.map(|_| octets)
    }

    #[test]
    fn only_whole_requests_of_somebody_else_are_answered() {
        let request = [0xff, 0x03, 0xc0, 0x21, 9, 7, 0, 10, 9, 9, 9, 9, b'h', b'i'];
        let reply = [0xff, 0x03, 0xc0, 0x21, 10, 7, 0, 10, 1, 2, 3, 4, b'h', b'i'];
        assert_eq!(answered(&request).as_deref(), Some(&reply[..]));
        let padded = [&request[..], &[0; 5]].concat();
        assert_eq!(answered(&padded).as_deref(), Some(&reply[..]));
        assert_eq!(answered(&reply), None);
        for cut in 0..request.len() {
            assert_eq!(answered(&request[..cut]), None);
        }
        for (at, octet) in [(0, 0), (3, 0x23), (4, 1), (7, 7)] {
            let mut other = request;
            other[at] = octet;
            assert_eq!(answered(&other), None, "{at}");
        }
        let mut looped = request;
        looped[8..12].copy_from_slice(&[1, 2, 3, 4]);
        assert_eq!(answered(&looped), None);
    }
}

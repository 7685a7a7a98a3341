//! MPPE and MS-CHAPv2.

use turnpike_protocol::mppe::{Decryptor, Encryptor, Mode, Refusal, StartKey, Strength, plausible};
use turnpike_protocol::mschap::{self, NtHash, Response};

use super::{Input, Trace};

/// A script: genuine packets, losses and forgeries, for a receiver that sees GRE numbers as a worker does.
pub fn mppe(octets: &[u8]) -> Trace {
    let mut trace = Trace::default();
    let mut input = Input(octets);
    let kind = input.octet();
    let strength = [Strength::Bits40, Strength::Bits56, Strength::Bits128][usize::from(kind % 3)];
    let mode = if kind & 0x40 == 0 {
        Mode::Stateless
    } else {
        Mode::Stateful
    };
    let start = StartKey::new([kind; 16], strength);
    let mut sender = Encryptor::new(&start, mode);
    let mut receiver = Decryptor::new(&start, mode);
    let (mut missing, mut forged, mut sent) = (0_u32, false, 0_u32);
    // GRE numbers since the last packet that could be read, and those of them that belonged to no packet of MPPE.
    let (mut unread, mut control) = (0_u32, 0_u32);
    while !input.is_empty() && sent < 20_000 {
        let order = input.octet();
        match order {
            0..=127 => {
                sent += 1;
                let mut clear = vec![0x00, 0x21, 0x45, 0, 0, 28];
                clear.extend_from_slice(&sent.to_be_bytes());
                clear.resize(30, 7);
                let sealing = sender.seal();
                let header = sealing.header;
                let mut packet = clear.clone();
                sealing.cipher.apply(&mut packet);
                let gap = std::mem::take(&mut missing);
                unread += gap + 1;
                match receiver.open(header, gap) {
                    Ok(cipher) => {
                        cipher.apply(&mut packet);
                        receiver.judge(plausible(&packet));
                        trace.note(packet == clear);
                        if mode == Mode::Stateless && !forged {
                            assert_eq!(packet, clear, "among genuine packets each one can be read");
                        }
                        (unread, control) = (0, 0);
                    }
                    Err(refusal) => {
                        trace.note(refusal);
                        if mode == Mode::Stateless && !forged {
                            assert_eq!(refusal, Refusal::TooFarAhead);
                            assert!(unread > 4096, "{unread} is not too far");
                        }
                    }
                }
            }
            128..=159 => {
                // Long gaps are slow to make: few of them.
                let lost = match order {
                    158.. => u32::from(input.u16()) % 9000,
                    _ => u32::from(input.octet()),
                };
                for _ in 0..lost {
                    sender.seal();
                }
                sent += lost;
                missing += lost;
            }
            160..=167 => sender.reset(order),
            168..=171 => {
                // Not so many that the count could have gone round.
                if control < 2000 {
                    let lost = u32::from(input.octet());
                    control += lost;
                    missing += lost;
                }
            }
            _ => {
                forged = true;
                let bits = input.octet();
                // Most have a count about right, as somebody would who wants to do harm.
                let count = match order {
                    248.. => input.u16(),
                    _ => (sent as u16)
                        .wrapping_add(u16::from(input.octet() % 32))
                        .wrapping_sub(8),
                };
                let [high, low] = count.to_be_bytes();
                let header = [bits & 0xf0 | high & 0x0f, low];
                let gap = std::mem::take(&mut missing).saturating_add(u32::from(input.octet()));
                let mut packet = input.chunk().to_vec();
                match receiver.open(header, gap) {
                    Ok(cipher) => {
                        cipher.apply(&mut packet);
                        receiver.judge(plausible(&packet));
                        trace.note(0);
                    }
                    Err(refusal) => trace.note(refusal),
                }
            }
        }
    }
    trace
}

/// Names, challenges and responses of any kind; only the right response is accepted.
pub fn mschap(octets: &[u8]) -> Trace {
    let mut trace = Trace::default();
    let mut input = Input(octets);
    let mut challenge = [0; 16];
    challenge.fill_with(|| input.octet());
    let mut peer_challenge = [0; 16];
    peer_challenge.fill_with(|| input.octet());
    let mut received = [0; 24];
    received.fill_with(|| input.octet());
    let name = input.chunk();
    let password = String::from_utf8_lossy(input.chunk());
    let hash = NtHash::from_password(&password);
    let response = Response::new(&hash, &challenge, &peer_challenge, name);
    let right = mschap::verify(
        &hash,
        &challenge,
        &peer_challenge,
        &response.nt_response,
        name,
    );
    assert!(response.verify_success(&right.expect("the right response").authenticator_response));
    let accepted = mschap::verify(&hash, &challenge, &peer_challenge, &received, name).is_some();
    assert_eq!(accepted, received == response.nt_response);
    trace.note((
        accepted,
        response.verify_success(input.0),
        mschap::user_part(name).len() == name.len(),
    ));
    trace
}

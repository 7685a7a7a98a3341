//! MPPE's keys of `[auth]`.

use turnpike_protocol::mppe::{Allowed, Policy, Stateful, Strengths};

use super::read::{Reader, Section};

const STRENGTHS: &str = "write those that clients may use: mppe_strengths = [128], or [128, 56, 40] for clients that know no better; to have no encryption, write mppe = \"deny\"";

/// Takes `mppe`.
pub(super) fn policy_of(reader: &mut Reader<'_>, section: &mut Section<'_>) -> Policy {
    let choices = [
        ("deny", Policy::Deny),
        ("allow", Policy::Allow),
        ("prefer", Policy::Prefer),
        ("require", Policy::Require),
    ];
    let policy = section.choice(reader, "mppe", &choices);
    policy.map_or(Policy::Require, |policy| policy.value)
}

/// Takes `mppe_strengths` and `mppe_stateful`.
pub(super) fn allowed_of(reader: &mut Reader<'_>, section: &mut Section<'_>) -> Allowed {
    let mut allowed = Allowed::default();
    let faults = reader.faults.len();
    if let Some(list) = section.numbers(reader, "mppe_strengths", STRENGTHS) {
        // Entries that are no numbers were told of, and left out.
        if list.value.is_empty() && reader.faults.len() == faults {
            let what = "`mppe_strengths` in [auth] is empty".to_owned();
            reader.fault(&list.span, what, STRENGTHS);
        }
        allowed.strengths = Strengths::NONE;
        for bits in &list.value {
            let known = Strengths::ALL
                .iter()
                .find(|strength| u64::from(strength.bits()) == bits.value);
            let Some(strength) = known else {
                let what = format!(
                    "`mppe_strengths` in [auth] cannot hold {}: MPPE has keys of {} bits",
                    bits.value,
                    Strengths::ALL
                );
                reader.fault(&bits.span, what, STRENGTHS);
                continue;
            };
            allowed.strengths = allowed.strengths.with(strength);
        }
    }
    let choices = [
        ("refuse", Stateful::Refuse),
        ("accept", Stateful::Accept),
        ("ask", Stateful::Ask),
    ];
    if let Some(stateful) = section.choice(reader, "mppe_stateful", &choices) {
        allowed.stateful = stateful.value;
    }
    allowed
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, fault, with};
    use super::*;
    use turnpike_protocol::mppe::Strength;

    #[test]
    fn strengths_and_modes_are_read() {
        let auth = config(&with("auth", "")).auth;
        assert_eq!(auth.mppe, Policy::Require);
        assert_eq!(auth.mppe_allowed.strengths, Strengths::STRONG);
        assert_eq!(auth.mppe_allowed.stateful, Stateful::Refuse);
        for (line, expected) in [
            ("mppe_strengths = [128, 56, 40]", Strengths::ALL),
            (
                "mppe_strengths = [40]",
                Strengths::NONE.with(Strength::Bits40),
            ),
            (
                "mppe_strengths = [56, 128, 56]",
                Strengths::STRONG.with(Strength::Bits56),
            ),
        ] {
            let auth = config(&with("auth", line)).auth;
            assert_eq!(auth.mppe_allowed.strengths, expected, "{line}");
        }
        for (word, expected) in [
            ("refuse", Stateful::Refuse),
            ("accept", Stateful::Accept),
            ("ask", Stateful::Ask),
        ] {
            let auth = config(&with("auth", &format!("mppe_stateful = \"{word}\""))).auth;
            assert_eq!(auth.mppe_allowed.stateful, expected);
        }
    }

    #[test]
    fn what_mppe_does_not_have_is_refused() {
        for (line, expected) in [
            (
                "mppe_strengths = [128, 64]",
                "`mppe_strengths` in [auth] cannot hold 64: MPPE has keys of 40, 56 or 128 bits; write those that",
            ),
            (
                "mppe_strengths = []",
                "`mppe_strengths` in [auth] is empty; write those that clients may use: mppe_strengths = [128], or",
            ),
            (
                "mppe_strengths = 128",
                "`mppe_strengths` in [auth] is a number, not a list; write those that",
            ),
            (
                "mppe_strengths = [\"128\"]",
                "`mppe_strengths` in [auth] is not a whole number from 0 upwards; write those that",
            ),
            (
                "mppe_stateful = \"yes\"",
                "`mppe_stateful` in [auth] cannot be \"yes\"; write one of \"refuse\", \"accept\", \"ask\"",
            ),
            ("mppe_stateful = true", "`mppe_stateful` in [auth] is"),
        ] {
            let fault = fault("auth", line);
            assert!(
                fault.starts_with(&format!("t.toml:8: {expected}")),
                "{fault}"
            );
        }
    }
}
